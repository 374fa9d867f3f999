"""Turns what botocore returned or raised into receipts and failures. Pure.

Secrets are taken out of every text first: an answer may repeat what signed the request.
"""

import math
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from batch_snapshot.aws.http import UNCONNECTED, connection_message
from batch_snapshot.failures import error_codes
from batch_snapshot.models import ApiError, Failure, Receipt, Row
from batch_snapshot.operations import CreateOperation

Scrub = Callable[[str], str]


def receipt(operation: CreateOperation, answer: Mapping[str, Any], scrub: Scrub, row: Row) -> Receipt:
    found = operation.receipt(answer, row)
    if isinstance(found, str):
        raise ApiError(invalid_response(answer, found, scrub))
    return Receipt(scrub(found.arn), found.revision, _request_id(answer, scrub))


def invalid_response(answer: Mapping[str, Any], message: str, scrub: Scrub) -> Failure:
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return error_codes.invalid_response(message, http_status=status, request_id=_request_id(answer, scrub))


def failure(error: Exception, scrub: Scrub) -> Failure:
    try:
        return _classified(error, scrub)
    except Exception as unreadable:  # noqa: BLE001 - an answer can hold anything, and must not end the run
        message = (
            f"an answer of type {type(error).__name__} that cannot be read ({type(unreadable).__name__})"
        )
        return error_codes.client_failure(["UnreadableAnswer"], message)


def _classified(error: Exception, scrub: Scrub) -> Failure:
    if isinstance(error, ClientError):
        return _service_failure(error.response, scrub)
    inner = getattr(error, "kwargs", {}).get("error")
    chain = [inner, error] if isinstance(inner, Exception) else [error]
    names = [cls.__name__ for cause in chain for cls in type(cause).__mro__]
    general = {"Exception", "BaseException", "object"}
    names = [name for name in names if name not in general] + ["Exception"]
    if names[0] == "ClientHttpProxyError":
        return _proxy_failure(inner, error, names)
    unconnected = _unconnected(chain[0])
    message = connection_message(chain[0]) or _message(chain)
    if unconnected and not message.startswith("cannot reach") and not isinstance(inner, ssl.SSLError):
        where = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url", ""))).netloc or "the endpoint"
        message = f"cannot reach {where}: {getattr(chain[0], 'message', '') or message}"
    return error_codes.client_failure(names, scrub(message) or names[0], unconnected=unconnected)


def _message(chain: list[Exception]) -> str:
    # botocore's most general error only repeats its cause.
    if type(chain[-1]).__name__ == "HTTPClientError":
        chain = chain[:1]
    return " ".join(str(cause) for cause in chain if str(cause))


def _proxy_failure(inner: Any, error: Exception, names: list[str]) -> Failure:
    # The URL may hold a password, so only its host is named.
    where = urlsplit(str(getattr(error, "kwargs", {}).get("proxy_url", "")))
    host = where.netloc.rpartition("@")[2] or "of the environment"
    message = f"the proxy {host} refused the tunnel: it answered {inner.status}"
    return error_codes.client_failure([error_codes.PROXY_LOGIN] if inner.status == 407 else names, message)


def _unconnected(error: BaseException | None) -> bool:
    """Whether it was raised while the connection was being made (see `http`)."""
    while error is not None:
        if getattr(error, UNCONNECTED, False):
            return True
        error = error.__cause__
    return False


def _service_failure(response: Mapping[str, Any], scrub: Scrub) -> Failure:
    error = response.get("Error", {})
    metadata = response.get("ResponseMetadata", {})
    message = str(error.get("Message") or response.get("Message") or "")
    errors = response.get("ErrorList")
    details = [
        f"{item.get('FieldName', '?')}: {item.get('Message', '')} ({item.get('Code', '?')})"
        for item in (errors if isinstance(errors, list) else [])
        if isinstance(item, Mapping)
    ]
    return error_codes.service_failure(
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
    """The service's hint in seconds; None: it gave none that can be read."""
    for name, unit in (("x-amz-retry-after", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None
