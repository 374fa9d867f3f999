"""Posts a notice to a webhook. Its URL is a secret: it is told to nobody, not even when it fails."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Tries, and seconds for each and between two of them.
TRIES = 3
TIMEOUT = 5.0
PAUSE = 1.0
#: Seconds that a receiver may ask us to wait.
LONGEST_PAUSE = 5.0


class WebhookResponse(NamedTuple):
    """What a receiver said."""

    status: int
    retry_after: str | None = None


class _RefusedError(ConnectionError):
    """The certificate of the receiver, or of a proxy, is not trusted."""


async def send(
    url: str,
    payload: dict[str, Any],
    post: Callable[[str, dict[str, Any]], Awaitable[WebhookResponse]] | None = None,
) -> str | None:
    """Post `payload` as JSON, a few times if need be; returns why nobody took it, if so.

    Another try follows a failure of the network, a 429 and a 5xx; the message may then arrive twice.
    """
    post = post or _post
    why, pause = "", PAUSE
    for attempt in range(TRIES):
        if attempt:
            await anyio.sleep(pause)
        try:
            with anyio.fail_after(TIMEOUT):
                answer = await post(url, payload)
        except _RefusedError as error:
            why = str(error)
            break
        except (OSError, TimeoutError) as error:
            why, pause = type(error).__name__, PAUSE * (attempt + 1)
            continue
        if 200 <= answer.status < 300:
            return None
        why, pause = f"HTTP {answer.status}", _pause(answer, attempt)
        if answer.status != 429 and answer.status < 500:
            break
    host = urlsplit(url).hostname
    return f"--notify-webhook: {host} did not take the message ({why}); the run is not affected"


def _pause(answer: WebhookResponse, attempt: int) -> float:
    """Seconds until the next try: as asked for, within bounds."""
    asked = answer.retry_after or ""
    return min(LONGEST_PAUSE, float(asked)) if asked.isdigit() else PAUSE * (attempt + 1)


async def _post(url: str, payload: dict[str, Any]) -> WebhookResponse:
    import aiohttp  # noqa: PLC0415 - few runs need it

    from batch_snapshot.aws.http import Resolver  # noqa: PLC0415 - as above
    from batch_snapshot.aws.tls import refusal  # noqa: PLC0415 - as above

    # The system's CA certificates, or those of SSL_CERT_FILE: those of AWS_CA_BUNDLE are for AWS.
    connector = aiohttp.TCPConnector(resolver=Resolver(), ssl=ssl.create_default_context())
    try:
        async with (
            aiohttp.ClientSession(connector=connector, trust_env=True) as session,
            # A redirect would take the message to whomever it names.
            session.post(url, json=payload, allow_redirects=False) as response,
        ):
            return WebhookResponse(response.status, response.headers.get("Retry-After"))
    except aiohttp.ClientError as error:
        if refused := refusal(error, url):
            way_out = "name the file with its CA certificate in SSL_CERT_FILE"
            raise _RefusedError(f"{refused}; {way_out}") from None
        # What it says may quote the URL.
        raise ConnectionError(type(error).__name__) from None
