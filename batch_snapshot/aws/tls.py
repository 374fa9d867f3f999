"""Every connection to AWS is verified, and an answer belongs to the request that asked for it.

aiobotocore before 3.9 checks no host name (botocore leaves that to urllib3, which aiohttp does not use), and
behind a proxy it verifies nothing. `Verified` corrects both in the two places where aiobotocore makes TLS
contexts; newer versions do the same by themselves. It is a session class of ours, not a patch: a program that
uses this package as a library keeps its own aiobotocore.
"""

import asyncio
import os
import select
import ssl
import stat
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.httpsession import AIOHTTPSession
from aiohttp import ClientConnectorCertificateError
from aiohttp.client_proto import ResponseHandler
from botocore.exceptions import ConnectionError as ClientConnectionError
from botocore.exceptions import HTTPClientError

#: Variables that name the CA bundle, the first that is set. Between the two comes `ca_bundle` of the profile.
VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")


class CertificateRefusedError(Exception):
    """A server, or a proxy, showed a certificate that is not trusted; nothing was sent to it."""

    def __init__(self, where: str, cause: Exception) -> None:
        reason = getattr(cause, "verify_message", "") or str(cause)
        super().__init__(f"the TLS certificate of {where} is refused: {reason.rstrip('.')}")


def refusal(error: BaseException | None, url: str) -> CertificateRefusedError | None:
    """The refused certificate that an error of a call to `url` is about; None: it is another error."""
    if isinstance(error, ClientConnectorCertificateError):
        return CertificateRefusedError(f"{error.host}:{error.port}", error.certificate_error)
    while error is not None:
        # Behind a TLS proxy, Python 3.11's asyncio raises another error after the refusal.
        if isinstance(error, ssl.SSLCertVerificationError):
            return CertificateRefusedError(urlsplit(url).netloc.rpartition("@")[2], error)
        error = error.__cause__ or error.__context__
    return None


class TrustFileError(Exception):
    """A file of CA certificates, or a client's own certificate, cannot be used; nothing was sent."""


class Verified(AIOHTTPSession):  # type: ignore[misc] # aiobotocore is untyped
    """aiobotocore's session; chain and host name of every server are checked, directly and behind proxies."""

    def __init__(self, verify: bool | str | None = True, *args: Any, **settings: Any) -> None:  # noqa: FBT001, FBT002 - aiobotocore's
        """Take what aiobotocore gives; an empty AWS_CA_BUNDLE would switch verification off."""
        super().__init__(verify or True, *args, **settings)

    async def __aenter__(self) -> Any:
        """Open it after its files were checked: without them no call can be made."""
        self._check_files()
        return await super().__aenter__()

    def _check_files(self) -> None:
        if isinstance(self._verify, str | Path):
            _check(str(self._verify), _source(str(self._verify)), "load_verify_locations")
        if self._cert_file:
            _check(self._cert_file, "client certificate", "load_cert_chain", self._key_file)

    def _get_ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = super()._get_ssl_context()
        context.check_hostname = True
        return context

    def _setup_proxy_ssl_context(self, proxy_url: str) -> ssl.SSLContext:
        # Before 3.9 there is none unless the proxy has certificates of its own, and aiohttp then verifies
        # neither the proxy nor the server behind it.
        return super()._setup_proxy_ssl_context(proxy_url) or self._get_ssl_context()

    async def _get_session(self, proxy_url: str | None) -> Any:
        try:
            session = await super()._get_session(proxy_url)
        except OSError as error:  # the file vanished since it was checked
            raise TrustFileError(f"the CA bundle cannot be read: {error}") from error
        session.connector._factory = partial(_Connection, loop=asyncio.get_running_loop())  # noqa: SLF001
        return session

    async def send(self, request: Any) -> Any:
        try:
            return await super().send(request)
        except (ClientConnectionError, HTTPClientError) as error:
            cause = error.kwargs.get("error")
            if refused := refusal(cause, request.url):
                raise refused from error
            if isinstance(cause, TrustFileError):
                raise cause from error
            raise


class _Connection(ResponseHandler):
    """A connection that no request uses once there is data that none has asked for.

    aiohttp would keep an answer that came late or twice, and take it for the answer to the next request.
    """

    def is_connected(self) -> bool:
        """Whether the next request can use it (called by aiohttp's pool)."""
        return super().is_connected() and not self.should_close and not _readable(self.transport)


def _readable(transport: Any) -> bool:
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))


def _source(path: str) -> str:
    found = next((name for name in VARIABLES if os.environ.get(name) == path), None)
    return found or "ca_bundle of the AWS config file"


def _check(path: str, setting: str, load: str, *more: str | None) -> None:
    """Load a file as a TLS context does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Without this OpenSSL would ask for the password of an encrypted key on the terminal.
    options = {"password": str} if load == "load_cert_chain" else {}
    try:
        for file in filter(None, (path, *more)):
            # A pipe or a device may never end.
            if not stat.S_ISREG(Path(file).stat().st_mode):
                raise TrustFileError(f"{setting}={path}: {file} is no regular file")
        getattr(context, load)(path, *more, **options)
    except ssl.SSLError as error:
        why = f"it is no PEM file of certificates ({error.reason})"
        raise TrustFileError(f"{setting}={path}: {why}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise TrustFileError(f"{setting}={path}: {why}") from None
