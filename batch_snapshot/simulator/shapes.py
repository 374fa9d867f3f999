"""Requests against botocore's service model, whose input shapes are compiled to checks once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from botocore.loaders import Loader

from batch_snapshot.simulator.refusals import COMMON_STATUSES, invalid
from batch_snapshot.simulator.times import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[object, str, list["Problem"]], None]

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


@dataclass(frozen=True, slots=True)
class Model:
    """What the simulator needs of the service model."""

    #: `AWSPartnerCentralSelling`.
    target_prefix: str
    #: Every operation's name, served or not.
    operations: frozenset[str]
    #: HTTP status by error code.
    statuses: Mapping[str, int]
    _checks: Mapping[str, Check]

    def validate(self, operation: str, params: object) -> None:
        """Check a request against the operation's input shape.

        Raises:
            Refusal: a ValidationException that names every field at fault.
        """
        problems: list[Problem] = []
        self._checks[operation](params, "", problems)
        if not problems and isinstance(params, dict) and params["Catalog"] not in CATALOGS:
            message = f"Member must satisfy enum value set: [{', '.join(CATALOGS)}]"
            problems.append(Problem("Catalog", _at("Catalog", message), "INVALID_ENUM_VALUE"))
        if problems:
            plural = "" if len(problems) == 1 else "s"
            text = "; ".join(problem.message for problem in problems)
            raise invalid(
                f"{len(problems)} validation error{plural} detected: {text}",
                [{"FieldName": name, "Message": text, "Code": code} for name, text, code in problems],
            )


@cache
def load_model() -> Model:
    """Read the service model that botocore ships."""
    document = Loader().load_service_model("partnercentral-selling", "service-2")
    shapes = document["shapes"]
    statuses = {name: _status(shape) for name, shape in shapes.items() if shape.get("exception")}
    inputs = {name: document["operations"][name]["input"]["shape"] for name in OPERATIONS}
    return Model(
        document["metadata"]["targetPrefix"],
        frozenset(document["operations"]),
        {**COMMON_STATUSES, **statuses},
        {name: _compile(shapes, shape) for name, shape in inputs.items()},
    )


def _status(shape: Mapping[str, Any]) -> int:
    """Read an error's HTTP status: its own, or by whose fault it is."""
    return int(shape.get("error", {}).get("httpStatusCode", 500 if shape.get("fault") else 400))


def _at(field: str, constraint: str) -> str:
    return f"Value at '{field}' failed to satisfy constraint: {constraint}"


def _compile(shapes: Mapping[str, Any], name: str) -> Check:
    shape = shapes[name]
    match shape["type"]:
        case "structure":
            return _structure(shapes, shape)
        case "list":
            return _list(shapes, shape)
        case "string":
            return _string(shape)
        case "integer":
            return _integer(shape)
        case "timestamp":
            return _timestamp
        case other:
            raise NotImplementedError(f"no check for shapes of type {other}: {name}")


def _structure(shapes: Mapping[str, Any], shape: Mapping[str, Any]) -> Check:
    members = {name: _compile(shapes, member["shape"]) for name, member in shape["members"].items()}
    required = tuple(shape.get("required", ()))

    def check(value: object, path: str, problems: list[Problem]) -> None:
        if not isinstance(value, dict):
            problems.append(_wrong_type(path or "request", "an object"))
            return
        prefix = f"{path}." if path else ""
        for name in required:
            if value.get(name) is None:
                message = _at(prefix + name, "Member must not be null")
                problems.append(Problem(prefix + name, message, "REQUIRED_FIELD_MISSING"))
        for name, item in value.items():
            if name not in members:
                message = f"'{prefix}{name}' is not a member of this request"
                problems.append(Problem(prefix + str(name), message, "INVALID_VALUE"))
            elif item is not None:
                members[name](item, prefix + name, problems)

    return check


def _list(shapes: Mapping[str, Any], shape: Mapping[str, Any]) -> Check:
    member = _compile(shapes, shape["member"]["shape"])
    low, high = _bounds(shape)

    def check(value: object, path: str, problems: list[Problem]) -> None:
        if not isinstance(value, list):
            problems.append(_wrong_type(path, "a list"))
        elif not low <= len(value) <= high:
            code = "TOO_MANY_VALUES" if len(value) > high else "VALUE_OUT_OF_RANGE"
            message = _at(path, f"Member must have between {low} and {high} items")
            problems.append(Problem(path, message, code))
        else:
            for index, item in enumerate(value):
                member(item, f"{path}[{index}]", problems)

    return check


def _string(shape: Mapping[str, Any]) -> Check:
    pattern = re.compile(shape["pattern"]) if "pattern" in shape else None
    choices = frozenset(shape.get("enum", ()))
    low, high = _bounds(shape)

    def check(value: object, path: str, problems: list[Problem]) -> None:
        if not isinstance(value, str):
            problems.append(_wrong_type(path, "a string"))
        elif choices and value not in choices:
            message = _at(path, f"Member must satisfy enum value set: [{', '.join(sorted(choices))}]")
            problems.append(Problem(path, message, "INVALID_ENUM_VALUE"))
        elif not low <= len(value) <= high:
            message = _at(path, f"Member must have length between {low} and {high}")
            problems.append(Problem(path, message, "INVALID_STRING_FORMAT"))
        elif pattern is not None and pattern.fullmatch(value) is None:
            message = _at(path, f"Member must satisfy regular expression pattern: {pattern.pattern}")
            problems.append(Problem(path, message, "INVALID_STRING_FORMAT"))

    return check


def _integer(shape: Mapping[str, Any]) -> Check:
    low, high = _bounds(shape)

    def check(value: object, path: str, problems: list[Problem]) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            problems.append(_wrong_type(path, "an integer"))
        elif not low <= value <= high:
            message = _at(path, f"Member must have value between {low} and {high}")
            problems.append(Problem(path, message, "VALUE_OUT_OF_RANGE"))

    return check


def _timestamp(value: object, path: str, problems: list[Problem]) -> None:
    if not isinstance(value, str) or parse(value) is None:
        problems.append(_wrong_type(path, "an ISO 8601 date and time"))


def _bounds(shape: Mapping[str, Any]) -> tuple[float, float]:
    return shape.get("min", float("-inf")), shape.get("max", float("inf"))


def _wrong_type(path: str, wanted: str) -> Problem:
    return Problem(path, _at(path, f"Member must be {wanted}"), "INVALID_VALUE")
