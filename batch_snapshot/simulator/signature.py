"""The form of a SigV4 signature. Secrets are not known here, so its value is not checked."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from batch_snapshot.simulator.answers import Refusal
from batch_snapshot.simulator.model import SERVICE

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds by which AWS lets a signature's date differ from its own clock.
_TOLERANCE: Final = 300.0
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<key>[\w-]{1,128})/(?P<date>\d{8})/(?P<region>[a-z0-9-]+)/"
    r"(?P<service>[a-z0-9-]+)/aws4_request, *SignedHeaders=(?P<headers>[a-z0-9;-]+), *"
    r"Signature=[0-9a-f]{64}",
    re.ASCII,
)


def check(headers: Mapping[str, str], clock: float) -> str:
    """The access key id of a request whose signature has the form that AWS wants.

    Args:
        headers: the request's, looked up without regard to case.
        clock: the server's time, seconds since the epoch.

    Raises:
        Refusal: not signed, malformed, too old or too new, or a key that asks to be refused.
    """
    authorization, stamp = headers.get("Authorization"), headers.get("X-Amz-Date")
    if authorization is None:
        raise Refusal("MissingAuthenticationTokenException", "Missing Authentication Token")
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None or stamp is None:
        what = "Authorization header is malformed" if match is None else "X-Amz-Date is missing"
        raise _incomplete(f"{what}. Authorization={authorization.partition(' ')[0]!a}")
    signed_at = _parse(stamp)
    if signed_at is None:
        raise _incomplete(f"Date must be in ISO-8601 'basic format'. Got: {stamp!a}")
    problem = _scope_problem(match, stamp) or _age_problem(stamp, signed_at, clock)
    if problem:
        raise Refusal("InvalidSignatureException", problem)
    key = match["key"]
    if key.startswith("AKIAEXPIRED"):
        raise Refusal("ExpiredTokenException", "The security token included in the request is expired")
    if key.startswith("AKIAUNKNOWN"):
        raise Refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
    return key


def _incomplete(message: str) -> Refusal:
    return Refusal("IncompleteSignatureException", message)


def _scope_problem(match: re.Match[str], stamp: str) -> str | None:
    if match["service"] != SERVICE:
        return f"Credential should be scoped to correct service: '{SERVICE}'."
    if match["date"] != stamp[:8]:
        return f"Date in Credential scope does not match YYYYMMDD of X-Amz-Date: {match['date']}, {stamp}"
    missing = {"host", "x-amz-date"} - set(match["headers"].split(";"))
    return f"'{min(missing)}' must be a 'SignedHeader' in the AWS Authorization." if missing else None


def _age_problem(stamp: str, signed_at: float, clock: float) -> str | None:
    server = _show(clock)
    if signed_at < clock - _TOLERANCE:
        bound = _show(clock - _TOLERANCE)
        return f"Signature expired: {stamp} is now earlier than {bound} ({server} - 5 min.)"
    if signed_at > clock + _TOLERANCE:
        bound = _show(clock + _TOLERANCE)
        return f"Signature not yet current: {stamp} is still later than {bound} ({server} + 5 min.)"
    return None


@lru_cache(maxsize=64)
def _parse(stamp: str) -> float | None:
    try:
        return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _show(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime(_STAMP)
