"""Posts a notice to a webhook. Its URL is a secret: no message and no log contains it."""

import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import anyio

#: Tries, and in seconds: the time-out of each, and the pause after the first.
TRIES = 3
TIMEOUT = 5.0
PAUSE = 1.0
#: The longest pause, in seconds, that a receiver can ask for.
LONGEST_PAUSE = 5.0

#: The status, and the pause that is asked for.
Response = tuple[int, str | None]


class _RefusedError(ConnectionError):
    """The certificate of the receiver, or of a proxy, is not trusted."""


async def send(
    url: str,
    payload: dict[str, Any],
    post: Callable[[str, dict[str, Any]], Awaitable[Response]] | None = None,
) -> str | None:
    """Post `payload` as JSON, in up to three tries; returns an error, if any.

    Network errors, 429 and 5xx are tried again; the message may then arrive twice.
    """
    post = post or _post
    why, pause = "", PAUSE
    for attempt in range(TRIES):
        if attempt:
            await anyio.sleep(pause)
        try:
            with anyio.fail_after(TIMEOUT):
                status, asked = await post(url, payload)
        except _RefusedError as error:
            why = str(error)
            break
        except (OSError, TimeoutError) as error:
            why, pause = str(error) or type(error).__name__, PAUSE * (attempt + 1)
            continue
        if 200 <= status < 300:
            return None
        # The receiver may ask for a pause, within bounds.
        pause = min(LONGEST_PAUSE, float(asked)) if asked and asked.isdigit() else PAUSE * (attempt + 1)
        why = f"HTTP {status}"
        if status != 429 and status < 500:
            break
    host = urlsplit(url).hostname
    return f"--notify-webhook: {host} did not accept the message ({why}); the run is not affected"


async def _post(url: str, payload: dict[str, Any]) -> Response:
    import aiohttp  # few runs need it

    from batch_snapshot.aws.http import Resolver, connection_message
    from batch_snapshot.aws.tls import refusal

    # The system's CA certificates, or those of SSL_CERT_FILE: those of AWS_CA_BUNDLE are for AWS.
    connector = aiohttp.TCPConnector(resolver=Resolver(), ssl=ssl.create_default_context())
    try:
        async with (
            aiohttp.ClientSession(connector=connector, trust_env=True) as session,
            # A redirect could send the message to anyone.
            session.post(url, json=payload, allow_redirects=False) as response,
        ):
            return response.status, response.headers.get("Retry-After")
    except aiohttp.ClientError as error:
        if refused := refusal(error, url):
            way_out = "name the file with its CA certificate in SSL_CERT_FILE"
            raise _RefusedError(f"{refused}; {way_out}") from None
        # Its message may quote the URL.
        raise ConnectionError(connection_message(error) or type(error).__name__) from None
