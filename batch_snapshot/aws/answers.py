"""What botocore returned or raised, in this house's words. Pure.

Every text is scrubbed of secrets before anything else: an answer may echo what signed the request.
"""

from __future__ import annotations

import errno
import math
import ssl
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from batch_snapshot.failures import error_codes
from batch_snapshot.models import ApiError, Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_snapshot.models import Receipt, Row
    from batch_snapshot.operations import CreateOperation

    Scrub = Callable[[str], str]


#: Marks an exception that was raised while a connection was being made.
UNCONNECTED = "_batch_snapshot_unconnected"


def receipt(operation: CreateOperation, answer: Mapping[str, Any], scrub: Scrub, row: Row) -> Receipt:
    """Read what a success says of `row`.

    Raises:
        ApiError: it makes no sense.
    """
    found = operation.receipt(answer, row)
    if isinstance(found, str):
        raise ApiError(invalid_response(answer, found, scrub))
    return replace(found, arn=scrub(found.arn), request_id=_request_id(answer, scrub))


def invalid_response(answer: Mapping[str, Any], message: str, scrub: Scrub) -> Failure:
    """Classify a success that makes no sense."""
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return error_codes.invalid_response(message, http_status=status, request_id=_request_id(answer, scrub))


def failure(error: Exception, scrub: Scrub) -> Failure:
    """Turn whatever a call raised into a failure: the one place that does."""
    try:
        return _classified(error, scrub)
    except Exception as stumble:  # noqa: BLE001 - an answer can hold anything; one must not end the run
        told = f"an answer of type {type(error).__name__} that cannot be read ({type(stumble).__name__})"
        return error_codes.client_failure(["UnreadableAnswer"], told)


def _classified(error: Exception, scrub: Scrub) -> Failure:
    if isinstance(error, ClientError):
        return error_codes.service_failure(_answer(error.response, scrub))
    inner = getattr(error, "kwargs", {}).get("error")
    chain = [inner, error] if isinstance(inner, Exception) else [error]
    names = [cls.__name__ for cause in chain for cls in type(cause).__mro__]
    general = {"Exception", "BaseException", "object"}
    names = [name for name in names if name not in general] + ["Exception"]
    if names[0] == "ClientHttpProxyError":
        return _refused_by_proxy(inner, error, names)
    unconnected = _unconnected(chain[0])
    told = _unreached(chain[0]) or _in_words(chain)
    if unconnected and not told.startswith("cannot reach") and not isinstance(inner, ssl.SSLError):
        where = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url", ""))).netloc or "the endpoint"
        told = f"cannot reach {where}: {getattr(chain[0], 'message', '') or told}"
    return error_codes.client_failure(names, scrub(told) or names[0], unconnected=unconnected)


def _in_words(chain: list[Exception]) -> str:
    """What the errors say; botocore's most general one only repeats what is beneath it."""
    if type(chain[-1]).__name__ == "HTTPClientError":
        chain = chain[:1]
    return " ".join(str(cause) for cause in chain if str(cause))


def _refused_by_proxy(inner: Any, error: Exception, names: list[str]) -> Failure:
    """A proxy that opens no tunnel; its URL may hold a password, so only its host is named."""
    where = urlsplit(str(getattr(error, "kwargs", {}).get("proxy_url", "")))
    host = where.netloc.rpartition("@")[2] or "of the environment"
    told = f"the proxy {host} opens no tunnel: it answered {inner.status}"
    return error_codes.client_failure([error_codes.PROXY_LOGIN] if inner.status == 407 else names, told)


def _unreached(error: Any) -> str | None:
    """What a connection that never stood says, in few words; None: it is something else."""
    if type(error).__name__ == "ConnectionTimeoutError":
        # Its last word is the URL.
        return f"cannot reach {urlsplit(str(error).split()[-1]).netloc}: no connection within the time-out"
    if isinstance(error, ssl.SSLError) or not hasattr(error, "os_error"):
        return None
    cause: OSError = error.os_error
    what = _REASONS.get(cause.errno or 0) or cause.strerror or str(cause) or type(cause).__name__
    unresolved = any(cls.__name__ == "ClientConnectorDNSError" for cls in type(error).__mro__)
    proxied = "the proxy " if type(error).__name__ == "ClientProxyConnectionError" else ""
    return f"cannot reach {proxied}{error.host}:{error.port}: {'name not resolved: ' * unresolved}{what}"


#: What people call it.
_REASONS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ENETUNREACH: "network unreachable",
    errno.EHOSTUNREACH: "no route to the host",
}


def _unconnected(error: BaseException | None) -> bool:
    """Whether it was raised while the connection was being made (see `transport`)."""
    while error is not None:
        if getattr(error, UNCONNECTED, False):
            return True
        error = error.__cause__
    return False


def _answer(response: Mapping[str, Any], scrub: Scrub) -> error_codes.ErrorResponse:
    error = response.get("Error", {})
    metadata = response.get("ResponseMetadata", {})
    message = str(error.get("Message") or response.get("Message") or "")
    listed = response.get("ErrorList")
    details = [
        f"{item.get('FieldName', '?')}: {item.get('Message', '')} ({item.get('Code', '?')})"
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, Mapping)
    ]
    return error_codes.ErrorResponse(
        code=scrub(str(error.get("Code") or "Unknown")),
        message=scrub("; ".join([message, *details]) if details else message),
        reason=scrub(str(response["Reason"])) if response.get("Reason") else None,
        http_status=metadata.get("HTTPStatusCode"),
        request_id=_request_id(response, scrub),
        retry_after=_retry_after(metadata.get("HTTPHeaders", {})),
    )


def _request_id(answer: Mapping[str, Any], scrub: Scrub) -> str | None:
    request_id = answer.get("ResponseMetadata", {}).get("RequestId")
    return error_codes.clean_text(scrub(str(request_id)), 200) if request_id else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read the service's hint in seconds, if it gave one that can be read."""
    for name, unit in (("x-amz-retry-after", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None
