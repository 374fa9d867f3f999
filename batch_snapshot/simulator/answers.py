"""What the service answers, as values: results, refusals, and the ids that ask for a refusal."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

#: Errors outside the service's model, with the HTTP status of AWS's common errors.
COMMON_STATUSES: Final = {
    "ExpiredTokenException": 403,
    "IncompleteSignatureException": 403,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "UnrecognizedClientException": 403,
    "SerializationException": 400,
    "UnknownOperationException": 400,
}


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    #: Its name in the log. Of a `cut` only half is sent, of a `reset` and a `hang-up` nothing.
    label: str
    content_type: str = "application/x-amz-json-1.0"
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Seconds beyond the latency.
    delay: float = 0.0


class Refusal(Exception):  # noqa: N818 - an answer of the service, not a failure of ours
    """An error answer: its code in the service model, and its members without the message.

    `retry_after` is in seconds; 0: the client is not asked to wait.
    """

    def __init__(
        self, code: str, message: str, members: Mapping[str, Any] | None = None, *, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.members = members or {}
        self.retry_after = retry_after


class Problem(NamedTuple):
    """One entry of a ValidationException's ErrorList."""

    field: str
    message: str
    code: str


def invalid(message: str, problems: Iterable[Problem], reason: str = "REQUEST_VALIDATION_FAILED") -> Refusal:
    errors = [{"FieldName": name, "Message": text, "Code": code} for name, text, code in problems]
    return Refusal("ValidationException", message, {"Reason": reason, "ErrorList": errors})


def throttled(wait: float) -> Refusal:
    return Refusal("ThrottlingException", "Rate exceeded", retry_after=wait)


def not_found(what: str) -> Refusal:
    return Refusal("ResourceNotFoundException", f"{what} not found")


def denied(operation: str) -> Refusal:
    action = f"partnercentral:{operation}"
    return Refusal("AccessDeniedException", f"User is not authorized to perform: {action} on this resource")


def check_engagement(operation: str, engagement: object, *, create: bool) -> None:
    """Refuse what the engagement's id asks to have refused (see the package's docstring)."""
    if not isinstance(engagement, str):
        return
    name = f"Engagement {engagement}"
    if "denied" in engagement:
        raise denied(operation)
    if "missing" in engagement:
        raise not_found(name)
    if not create:
        return
    if "quota" in engagement:
        raise Refusal("ServiceQuotaExceededException", f"{name} has too many snapshots")
    if "conflict" in engagement:
        raise Refusal("ConflictException", f"{name} is being changed by another request")
    if "invalid" in engagement:
        message = f"{name} is not in a state that allows snapshots"
        problem = Problem("EngagementIdentifier", message, "INVALID_RESOURCE_STATE")
        raise invalid(message, [problem], "BUSINESS_VALIDATION_FAILED")
