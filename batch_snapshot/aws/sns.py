"""Publishes messages to SNS topics."""

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from batch_snapshot.aws import http, providers
from batch_snapshot.aws.sdk import UnverifiedError
from batch_snapshot.aws.tls import CertificateRefusedError, TrustFileError

#: Seconds to connect and to wait for an answer, and tries.
TIMEOUT = 5
TRIES = 3


class NotPublishedError(Exception):
    """SNS did not take the message; the text says why and holds no secret."""


async def publish(
    message: Mapping[str, Any], *, region: str, endpoint: str | None, profile: str | None
) -> None:
    config = http.http_config(
        retries={"total_max_attempts": TRIES, "mode": "standard"},
        connect_timeout=TIMEOUT,
        read_timeout=TIMEOUT,
    )
    try:
        core = http.new_session()
        session, chain = providers.session(core, profile, 2 * TIMEOUT)
        core.register_component("credential_provider", chain)
        async with session.client("sns", region_name=region, endpoint_url=endpoint, config=config) as sns:
            http.transport_of(sns)
            await sns.publish(**message)
    except (CertificateRefusedError, TrustFileError, UnverifiedError) as error:
        raise NotPublishedError(str(error)) from None
    except ClientError as error:
        raise NotPublishedError(error.response["Error"]["Code"]) from None
    except Exception as error:  # noqa: BLE001 - its text may quote credentials; its class does not
        raise NotPublishedError(type(error).__name__) from None
