"""What the service answers, as values: results, refusals, and the ids that ask for a refusal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Errors outside the service's model, with the HTTP status of AWS's common errors.
COMMON_STATUSES: Final[Mapping[str, int]] = {
    "ExpiredTokenException": 403,
    "IncompleteSignatureException": 403,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "UnrecognizedClientException": 403,
    "SerializationException": 400,
    "UnknownOperationException": 400,
}


class Delivery(Enum):
    """How an answer is sent."""

    #: As HTTP wants it.
    WHOLE = auto()
    #: Part of the declared body, then the connection is closed.
    CUT = auto()
    #: Nothing; the connection is reset.
    RESET = auto()
    #: Nothing; the connection is closed.
    HANG_UP = auto()


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int
    body: bytes
    #: Its name in the log.
    label: str
    content_type: str = "application/x-amz-json-1.0"
    headers: Mapping[str, str] = field(default_factory=dict)
    delivery: Delivery = Delivery.WHOLE
    #: Seconds beyond the latency.
    delay: float = 0.0


class Refusal(Exception):  # noqa: N818 - an answer of the service, not a failure of ours
    """An error answer.

    Attributes:
        code: the error's name in the service model.
        members: of the answer, without its message.
        retry_after: seconds that the client is asked to wait.
    """

    def __init__(
        self, code: str, message: str, members: Mapping[str, Any] | None = None, *, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.members = members or {}
        self.retry_after = retry_after


def success(result: Mapping[str, Any], label: str = "ok") -> Response:
    """Answer an operation's result."""
    return Response(200, orjson.dumps(result), label)


def refused(refusal: Refusal, statuses: Mapping[str, int], *, hint: bool) -> Response:
    """Answer an error; `hint` says whether throttles name the time to wait."""
    body = {"__type": refusal.code, "Message": refusal.message, **refusal.members}
    headers: dict[str, str] = {}
    if hint and refusal.retry_after > 0:
        headers["x-amz-retry-after"] = str(math.ceil(refusal.retry_after * 1000))
    return Response(statuses[refusal.code], orjson.dumps(body), refusal.code, headers=headers)


def invalid(message: str, errors: Sequence[Mapping[str, str]], *, business: bool = False) -> Refusal:
    """A ValidationException; each error has Code, Message and perhaps FieldName."""
    reason = "BUSINESS_VALIDATION_FAILED" if business else "REQUEST_VALIDATION_FAILED"
    return Refusal("ValidationException", message, {"Reason": reason, "ErrorList": list(errors)})


def throttled(wait: float) -> Refusal:
    """A ThrottlingException that asks for `wait` seconds."""
    return Refusal("ThrottlingException", "Rate exceeded", retry_after=wait)


def not_found(what: str) -> Refusal:
    """A ResourceNotFoundException."""
    return Refusal("ResourceNotFoundException", f"{what} not found")


def denied(operation: str) -> Refusal:
    """The AccessDeniedException of an operation."""
    action = f"partnercentral:{operation}"
    return Refusal("AccessDeniedException", f"User is not authorized to perform: {action} on this resource")


#: What a create call is refused for by a word in the engagement's id.
_REFUSING_WORDS: Final[Mapping[str, Callable[[str], Refusal]]] = {
    "quota": lambda name: Refusal("ServiceQuotaExceededException", f"{name} has too many snapshots"),
    "conflict": lambda name: Refusal("ConflictException", f"{name} is being changed by another request"),
    "invalid": lambda name: _invalid_state(f"{name} is not in a state that allows snapshots"),
}


def _invalid_state(message: str) -> Refusal:
    error = {"FieldName": "EngagementIdentifier", "Message": message, "Code": "INVALID_RESOURCE_STATE"}
    return invalid(message, [error], business=True)


def check_engagement(operation: str, engagement: object, *, create: bool) -> None:
    """Refuse what the engagement's id asks to have refused (see the package's docstring)."""
    if not isinstance(engagement, str):
        return
    if "denied" in engagement:
        raise denied(operation)
    if "missing" in engagement:
        raise not_found(f"Engagement {engagement}")
    for word, refusal in _REFUSING_WORDS.items():
        if create and word in engagement:
            raise refusal(f"Engagement {engagement}")
