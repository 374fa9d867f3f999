"""What the service answers, as values: results, refusals, and the ids that ask for a refusal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: The one operation that writes.
CREATE: Final = "CreateResourceSnapshot"


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


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 - an answer of the service, not a failure of ours
    #: In the service's model, or one of AWS's common errors.
    code: str
    message: str
    #: Those of the error beside its message.
    members: Mapping[str, Any] = field(default_factory=dict)
    #: In seconds; 0: the client is not asked to wait.
    retry_after: float = 0.0
    status: int = 400


#: One entry of a ValidationException's ErrorList.
Problem = dict[str, str]


def problem(name: str, message: str, code: str) -> Problem:
    return {"FieldName": name, "Message": message, "Code": code}


def invalid(message: str, problems: list[Problem], reason: str = "REQUEST_VALIDATION_FAILED") -> Refusal:
    return Refusal("ValidationException", message, {"Reason": reason, "ErrorList": problems})


def forbidden(code: str, message: str) -> Refusal:
    return Refusal(code, message, status=403)


def throttled(wait: float) -> Refusal:
    return Refusal("ThrottlingException", "Rate exceeded", retry_after=wait)


def not_found(what: str) -> Refusal:
    return Refusal("ResourceNotFoundException", f"{what} not found")


def denied(operation: str) -> Refusal:
    action = f"partnercentral:{operation}"
    return Refusal("AccessDeniedException", f"User is not authorized to perform: {action} on this resource")


def check_engagement(operation: str, params: Mapping[str, Any]) -> None:
    """Refuse what the engagement's id asks to have refused (see docs/reference/simulator.md)."""
    engagement = params.get("EngagementIdentifier")
    if not isinstance(engagement, str):
        return
    name = f"Engagement {engagement}"
    if "denied" in engagement:
        raise denied(operation)
    if "missing" in engagement:
        raise not_found(name)
    if operation != CREATE:
        return
    if "quota" in engagement:
        raise Refusal("ServiceQuotaExceededException", f"{name} has too many snapshots")
    if "conflict" in engagement:
        raise Refusal("ConflictException", f"{name} is being changed by another request")
    if "invalid" in engagement:
        message = f"{name} is not in a state that allows snapshots"
        wrong = problem("EngagementIdentifier", message, "INVALID_RESOURCE_STATE")
        raise invalid(message, [wrong], "BUSINESS_VALIDATION_FAILED")
