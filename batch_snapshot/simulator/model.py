"""The service model that botocore ships, and requests checked against it; times as they are written."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from botocore.loaders import Loader

from batch_snapshot.simulator.answers import COMMON_STATUSES, invalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The service as botocore names it, and as signatures are scoped to it.
SERVICE: Final = "partnercentral-selling"
#: The operations that are served; all others answer UnknownOperationException.
OPERATIONS: Final = (
    "CreateResourceSnapshot",
    "GetEngagement",
    "GetOpportunity",
    "GetResourceSnapshot",
    "GetResourceSnapshotJob",
    "ListEngagementFromOpportunityTasks",
    "ListEngagementResourceAssociations",
    "ListEngagements",
    "ListOpportunities",
    "ListResourceSnapshotJobs",
    "ListResourceSnapshots",
)
#: The model has only a pattern for catalogs; the API reference names the two that exist.
CATALOGS: Final = ("AWS", "Sandbox")


class Problem(NamedTuple):
    """One constraint that a request breaks."""

    field: str
    message: str
    code: str


class Model(NamedTuple):
    """What the simulator needs of the service model."""

    #: `AWSPartnerCentralSelling`.
    target_prefix: str
    #: Every operation's name, served or not.
    operations: frozenset[str]
    #: HTTP status by error code.
    statuses: Mapping[str, int]
    inputs: Mapping[str, str]
    shapes: Mapping[str, Mapping[str, Any]]

    def validate(self, operation: str, params: object) -> None:
        """Check a request against the operation's input shape.

        botocore's own validator knows neither patterns nor enums, nor codes for what it finds.

        Raises:
            Refusal: a ValidationException that names every wrong field.
        """
        problems = list(self._problems(self.inputs[operation], params, ""))
        if not problems and isinstance(params, dict) and params["Catalog"] not in CATALOGS:
            problems = [_not_among("Catalog", CATALOGS)]
        if problems:
            plural = "" if len(problems) == 1 else "s"
            text = "; ".join(problem.message for problem in problems)
            raise invalid(
                f"{len(problems)} validation error{plural} detected: {text}",
                [{"FieldName": name, "Message": text, "Code": code} for name, text, code in problems],
            )

    def _problems(self, name: str, value: object, path: str) -> Iterator[Problem]:
        shape = self.shapes[name]
        wanted = _type_problem(shape["type"], value)
        if wanted:
            yield _problem(path or "request", f"Member must be {wanted}", "INVALID_VALUE")
        elif isinstance(value, dict):
            yield from self._of_structure(shape, value, f"{path}." if path else "")
        elif isinstance(value, list):
            low, high = _bounds(shape)
            if low <= len(value) <= high:
                for index, item in enumerate(value):
                    yield from self._problems(shape["member"]["shape"], item, f"{path}[{index}]")
            else:
                code = "TOO_MANY_VALUES" if len(value) > high else "VALUE_OUT_OF_RANGE"
                yield _problem(path, f"Member must have between {low} and {high} items", code)
        elif isinstance(value, int):
            low, high = _bounds(shape)
            if not low <= value <= high:
                message = f"Member must have value between {low} and {high}"
                yield _problem(path, message, "VALUE_OUT_OF_RANGE")
        elif isinstance(value, str) and (problem := _string_problem(shape, value, path)):
            yield problem

    def _of_structure(
        self, shape: Mapping[str, Any], value: Mapping[str, object], prefix: str
    ) -> Iterator[Problem]:
        for name in shape.get("required", ()):
            if value.get(name) is None:
                yield _problem(prefix + name, "Member must not be null", "REQUIRED_FIELD_MISSING")
        for name, item in value.items():
            if name not in shape["members"]:
                message = f"'{prefix}{name}' is not a member of this request"
                yield Problem(f"{prefix}{name}", message, "INVALID_VALUE")
            elif item is not None:
                yield from self._problems(shape["members"][name]["shape"], item, prefix + name)


@cache
def load_model() -> Model:
    """Read the service model."""
    document = Loader().load_service_model(SERVICE, "service-2")
    shapes = document["shapes"]
    statuses = {name: _status(shape) for name, shape in shapes.items() if shape.get("exception")}
    return Model(
        document["metadata"]["targetPrefix"],
        frozenset(document["operations"]),
        {**COMMON_STATUSES, **statuses},
        {name: document["operations"][name]["input"]["shape"] for name in OPERATIONS},
        shapes,
    )


def _status(shape: Mapping[str, Any]) -> int:
    """An error's HTTP status: its own, or by whose fault it is."""
    return int(shape.get("error", {}).get("httpStatusCode", 500 if shape.get("fault") else 400))


def _type_problem(kind: str, value: object) -> str | None:
    """What a value must be to be of a shape's type; None: it is."""
    match kind:
        case "structure":
            return None if isinstance(value, dict) else "an object"
        case "list":
            return None if isinstance(value, list) else "a list"
        case "string":
            return None if isinstance(value, str) else "a string"
        case "integer":
            return None if type(value) is int else "an integer"
        case "timestamp":
            valid = isinstance(value, str) and parse_time(value) is not None
            return None if valid else "an ISO 8601 date and time"
        case other:
            raise NotImplementedError(f"no check for shapes of type {other}")


def _string_problem(shape: Mapping[str, Any], value: str, path: str) -> Problem | None:
    low, high = _bounds(shape)
    choices, pattern = shape.get("enum"), shape.get("pattern")
    if choices and value not in choices:
        return _not_among(path, sorted(choices))
    if not low <= len(value) <= high:
        message = f"Member must have length between {low} and {high}"
        return _problem(path, message, "INVALID_STRING_FORMAT")
    if pattern is not None and re.fullmatch(pattern, value) is None:
        message = f"Member must satisfy regular expression pattern: {pattern}"
        return _problem(path, message, "INVALID_STRING_FORMAT")
    return None


def _not_among(field: str, choices: list[str] | tuple[str, ...]) -> Problem:
    message = f"Member must satisfy enum value set: [{', '.join(choices)}]"
    return _problem(field, message, "INVALID_ENUM_VALUE")


def _problem(field: str, constraint: str, code: str) -> Problem:
    return Problem(field, f"Value at '{field}' failed to satisfy constraint: {constraint}", code)


def _bounds(shape: Mapping[str, Any]) -> tuple[float, float]:
    return shape.get("min", -math.inf), shape.get("max", math.inf)


# -- times ------------------------------------------------------------------------------------------------


def show_time(at: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> float | None:
    """Seconds since the epoch of a date and time, which is in UTC without a zone; None: it is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def whole_milliseconds(at: float) -> float:
    """The time as answers can show it, so that records and answers agree."""
    return math.floor(at * 1000 + 1e-6) / 1000
