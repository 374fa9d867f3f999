"""Publishes a notice to an SNS topic."""

import os
import re
from hashlib import sha256
from typing import Any

from batch_snapshot.aws import sns
from batch_snapshot.notify.notice import Notice

#: Characters of a subject: SNS accepts no more, and only ASCII.
LONGEST_SUBJECT = 100

#: The endpoint's variable, as in every AWS SDK.
ENDPOINT = "AWS_ENDPOINT_URL_SNS"

_ADVICE = {
    "AuthorizationError": "allow sns:Publish on it",
    "NotFound": "there is no such topic",
    "NoCredentialsError": "there are no AWS credentials",
}


async def publish(arn: str, notice: Notice, profile: str | None = None) -> str | None:
    """Publish `notice` to the topic, with the attributes `name`, `outcome` and `exit_code` to filter by.

    Returns an error, if any. Without `profile` the credentials are the ambient ones.
    """
    region, endpoint = arn.split(":")[3], os.environ.get(ENDPOINT)
    try:
        await sns.publish(_message(arn, notice), region=region, endpoint=endpoint, profile=profile)
    except sns.NotPublishedError as error:
        code = str(error)
        why = f"{code}: {_ADVICE[code]}" if code in _ADVICE else code
        return f"--notify-sns {arn}: not published ({why}); the run is not affected"
    return None


def _message(arn: str, notice: Notice) -> dict[str, Any]:
    subject = f"batch-snapshot {notice.command} {notice.name}: {notice.outcome}"
    attributes = {
        "name": ("String", notice.name),
        "outcome": ("String", notice.outcome),
        **({} if notice.exit_code is None else {"exit_code": ("Number", str(notice.exit_code))}),
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
        # The same for each try to publish this notice, so that it arrives once.
        digest = sha256(repr((run, notice.text)).encode()).hexdigest()
        message |= {"MessageGroupId": group, "MessageDeduplicationId": digest}
    return message
