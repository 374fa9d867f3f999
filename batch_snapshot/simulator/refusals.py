"""What the service refuses, and the ids that make it refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Errors that stand outside the service's model, with the HTTP status AWS's common errors bear.
COMMON_STATUSES: Final[Mapping[str, int]] = {
    "ExpiredTokenException": 403,
    "IncompleteSignatureException": 403,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "UnrecognizedClientException": 403,
    "SerializationException": 400,
    "UnknownOperationException": 400,
}


class Refusal(Exception):  # noqa: N818 - an answer of the service, not a failure of ours
    """An error answer.

    Attributes:
        code: the error's name in the service model.
        members: what the answer bears beside its message.
        retry_after: seconds that the client is asked to wait.
    """

    def __init__(
        self, code: str, message: str, members: Mapping[str, Any] | None = None, *, retry_after: float = 0.0
    ) -> None:
        """Take what the answer says."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.members = members or {}
        self.retry_after = retry_after


def invalid(message: str, errors: Sequence[Mapping[str, str]], *, business: bool = False) -> Refusal:
    """Build a ValidationException; each error has Code, Message and perhaps FieldName."""
    reason = "BUSINESS_VALIDATION_FAILED" if business else "REQUEST_VALIDATION_FAILED"
    return Refusal("ValidationException", message, {"Reason": reason, "ErrorList": list(errors)})


def invalid_field(field: str, message: str, code: str = "INVALID_VALUE") -> Refusal:
    """Build the ValidationException of one field."""
    return invalid(message, [{"FieldName": field, "Message": message, "Code": code}])


def throttled(wait: float) -> Refusal:
    """Build a ThrottlingException that asks for `wait` seconds."""
    return Refusal("ThrottlingException", "Rate exceeded", retry_after=wait)


def deny(operation: str) -> Refusal:
    """Build the AccessDeniedException of an operation."""
    action = f"partnercentral:{operation}"
    return Refusal("AccessDeniedException", f"User is not authorized to perform: {action} on this resource")


def check_engagement(operation: str, engagement: object, *, write: bool) -> None:
    """Refuse what the engagement's id asks to have refused (see the package's docstring)."""
    if not isinstance(engagement, str):
        return
    if "denied" in engagement:
        raise deny(operation)
    if "missing" in engagement:
        raise Refusal("ResourceNotFoundException", f"Engagement {engagement} not found")
    if not write:
        return
    if "quota" in engagement:
        raise Refusal("ServiceQuotaExceededException", f"Engagement {engagement} has too many snapshots")
    if "conflict" in engagement:
        raise Refusal("ConflictException", f"Engagement {engagement} is being changed by another request")
    if "invalid" in engagement:
        message = f"Engagement {engagement} is not in a state that allows snapshots"
        error = {
            "FieldName": "EngagementIdentifier",
            "Message": message,
            "Code": "INVALID_RESOURCE_STATE",
        }
        raise invalid(message, [error], business=True)
