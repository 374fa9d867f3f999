"""Publishes a notice to an SNS topic."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from batch_snapshot import providers, sessions, transport
from batch_snapshot.tls import CertificateRefusedError, TrustFileError

if TYPE_CHECKING:
    from batch_snapshot.notice import Notice

#: Seconds to connect and to wait for an answer, and tries.
TIMEOUT = 5
TRIES = 3
#: Characters of a subject: SNS takes no more, and ASCII alone.
LONGEST_SUBJECT = 100

#: Names the endpoint, as for every tool that speaks to AWS.
ENDPOINT = "AWS_ENDPOINT_URL_SNS"

_WAYS_OUT = {
    "AuthorizationError": "allow sns:Publish on it",
    "NotFound": "there is no such topic",
    "NoCredentialsError": "there are no AWS credentials",
}


async def publish(arn: str, notice: Notice, profile: str | None = None) -> str | None:
    """Publish `notice`; returns why that failed, if it did.

    Args:
        arn: of the topic; its region is the one that is called.
        notice: the text is the message; `name`, `outcome` and `exit_code` are attributes, to filter by.
        profile: signs; None: the ambient credentials.
    """
    config = transport.config(
        retries={"total_max_attempts": TRIES, "mode": "standard"},
        connect_timeout=TIMEOUT,
        read_timeout=TIMEOUT,
    )
    try:
        core = sessions.get_session()
        session, chain = providers.session(core, profile, 2 * TIMEOUT)
        core.register_component("credential_provider", chain)
        endpoint = os.environ.get(ENDPOINT)
        region = arn.split(":")[3]
        async with session.client("sns", region_name=region, endpoint_url=endpoint, config=config) as sns:
            await sns.publish(**_message(arn, notice))
    except (CertificateRefusedError, TrustFileError) as error:
        return f"--notify-sns {arn}: not published ({error}); the run is not affected"
    except Exception as error:  # noqa: BLE001 - whatever it is, the run is over and keeps its outcome
        # What an error says may quote credentials; its code does not.
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        why = f"{code}: {_WAYS_OUT[code]}" if code in _WAYS_OUT else code
        return f"--notify-sns {arn}: not published ({why}); the run is not affected"
    return None


def _message(arn: str, notice: Notice) -> dict[str, Any]:
    subject = f"batch-snapshot {notice.command} {notice.name}: {notice.outcome}"
    attributes = {
        "name": ("String", notice.name),
        "outcome": ("String", notice.outcome),
        "exit_code": ("Number", str(notice.exit_code)),
    }
    message = {
        "TopicArn": arn,
        "Subject": re.sub(r"[^ -~]", "?", subject)[:LONGEST_SUBJECT],
        "Message": notice.text,
        "MessageAttributes": {
            name: {"DataType": kind, "StringValue": value} for name, (kind, value) in attributes.items()
        },
    }
    if arn.endswith(".fifo"):
        group = re.sub(r"[^A-Za-z0-9._-]", "-", notice.name)[:128]
        run = notice.summary.run_id if notice.summary else "refused"
        message |= {"MessageGroupId": group, "MessageDeduplicationId": _once(run, notice)}
    return message


def _once(run: str, notice: Notice) -> str:
    """Names this end of the run: a retry of the call is no second message."""
    from hashlib import sha256  # noqa: PLC0415

    return sha256(repr((run, notice.text)).encode()).hexdigest()
