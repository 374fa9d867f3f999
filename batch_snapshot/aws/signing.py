"""Signs the calls of shared clients: each call brings the credentials that sign it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NamedTuple

from aiobotocore.credentials import AioCredentials
from botocore.auth import AUTH_TYPE_MAPS, SIGV4_TIMESTAMP, SigV4Auth

from batch_snapshot.aws import sdk


class Signer(NamedTuple):
    #: Frozen credentials.
    credentials: Any
    #: The time to sign by where the service's clock differs from ours; None: the machine's.
    at: datetime | None = None


_signer: ContextVar[Signer] = ContextVar("signer")


@contextmanager
def signed_by(signer: Signer) -> Iterator[None]:
    """Sign the calls that this task makes in the block."""
    token = _signer.set(signer)
    try:
        yield
    finally:
        _signer.reset(token)


class CallerCredentials(AioCredentials):
    """Credentials, and their chain, for sessions whose clients are signed for by `signed_by`."""

    def __init__(self) -> None:
        super().__init__("unused", "unused", method="explicit")

    async def load_credentials(self) -> Any:
        return self

    async def get_frozen_credentials(self) -> Any:
        return _signer.get().credentials


def choose_signer(context: dict[str, Any], **_: Any) -> str | None:
    """Sign by the caller's time, if it gives one. May be registered for botocore's event `choose-signer`."""
    at = _signer.get().at
    if at is None:
        return None
    if not hasattr(SigV4Auth, "_modify_request_before_signing"):
        sdk.degraded("SigV4Auth._modify_request_before_signing", "calls are signed by this machine's clock")
        return None
    context["signed_at"] = at
    return _SkewedSigV4.NAME


class _SkewedSigV4(SigV4Auth):
    """Signature version 4 by another clock than the machine's.

    botocore signs by the machine's clock and, unlike other SDKs, never corrects it.
    """

    NAME = "batch-snapshot-v4"

    def _modify_request_before_signing(self, request: Any) -> None:
        request.context["timestamp"] = request.context["signed_at"].strftime(SIGV4_TIMESTAMP)
        super()._modify_request_before_signing(request)


AUTH_TYPE_MAPS[_SkewedSigV4.NAME] = _SkewedSigV4
