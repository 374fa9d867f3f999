"""Certificates: which files are trusted, and what a refused one means."""

import os
import ssl
import stat
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import ClientConnectorCertificateError

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


def check_files(verify: bool | str, certificate: str | None, key: str | None) -> None:  # noqa: FBT001 - aiobotocore's
    """Load the CA bundle and a client's own certificate as a TLS context does, or raise `TrustFileError`."""
    if isinstance(verify, str | Path):
        variable = next((name for name in VARIABLES if os.environ.get(name) == str(verify)), None)
        _check(str(verify), variable or "ca_bundle of the AWS config file", "load_verify_locations")
    if certificate:
        _check(certificate, "client certificate", "load_cert_chain", key)


def _check(path: str, setting: str, load: str, *more: str | None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Without this OpenSSL would ask for the password of an encrypted key on the terminal.
    options = {"password": str} if load == "load_cert_chain" else {}
    try:
        for file in filter(None, (path, *more)):
            # A pipe or a device may never end.
            if not stat.S_ISREG(Path(file).stat().st_mode):
                raise TrustFileError(f"{setting}={path}: {file} is not a regular file")
        getattr(context, load)(path, *more, **options)
    except ssl.SSLError as error:
        why = f"it is not a PEM file with certificates ({error.reason})"
        raise TrustFileError(f"{setting}={path}: {why}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise TrustFileError(f"{setting}={path}: {why}") from None
