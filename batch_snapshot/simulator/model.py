"""The service model that botocore ships, and requests checked against it; times as they are written."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, NamedTuple

from botocore.loaders import create_loader

from batch_snapshot.simulator.answers import COMMON_STATUSES, Problem, invalid

#: The service as botocore names it, and as signatures are scoped to it.
SERVICE: Final = "partnercentral-selling"
#: The model has only a pattern for catalogs; the API reference names the two that exist.
CATALOGS: Final = ("AWS", "Sandbox")


class Model(NamedTuple):
    """What the simulator needs of the service model."""

    #: `AWSPartnerCentralSelling`.
    target_prefix: str
    #: HTTP status by error code.
    statuses: Mapping[str, int]
    #: Input and output shape by operation, served or not.
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    shapes: Mapping[str, Mapping[str, Any]]

    def parts(self, shape: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a structure has of a row that may hold more."""
        return {name: row[name] for name in self.shapes[shape]["members"] if row.get(name) is not None}

    def list_of(self, operation: str) -> tuple[str, str]:
        """The member that holds the items of a list's answer, and the shape of an item."""
        members = self.shapes[self.outputs[operation]]["members"]
        found = {name: self.shapes[member["shape"]] for name, member in members.items()}
        return next((name, one["member"]["shape"]) for name, one in found.items() if one["type"] == "list")

    def validate(self, operation: str, params: object) -> None:
        """Refuse a request that breaks the operation's input shape, naming every wrong field.

        botocore's own validator knows neither patterns nor enums, nor codes for what it finds.
        """
        problems = list(self._problems(self.inputs[operation], params, ""))
        if not problems and isinstance(params, dict) and params["Catalog"] not in CATALOGS:
            problems = [_not_among("Catalog", CATALOGS)]
        if problems:
            plural = "" if len(problems) == 1 else "s"
            text = "; ".join(problem.message for problem in problems)
            raise invalid(f"{len(problems)} validation error{plural} detected: {text}", problems)

    def _problems(self, name: str, value: object, path: str) -> Iterator[Problem]:
        shape = self.shapes[name]
        low, high = _bounds(shape)
        # True is no integer, so the type is compared.
        python_type, words = _TYPES[shape["type"]]
        no_time = shape["type"] == "timestamp" and parse_time(str(value)) is None
        if no_time or type(value) is not python_type:
            yield _problem(path or "request", f"Member must be {words}", "INVALID_VALUE")
        elif isinstance(value, dict):
            yield from self._of_structure(shape, value, f"{path}." if path else "")
        elif isinstance(value, list):
            if low <= len(value) <= high:
                for index, item in enumerate(value):
                    yield from self._problems(shape["member"]["shape"], item, f"{path}[{index}]")
            else:
                code = "TOO_MANY_VALUES" if len(value) > high else "VALUE_OUT_OF_RANGE"
                yield _problem(path, f"Member must have between {low} and {high} items", code)
        elif isinstance(value, int) and not low <= value <= high:
            message = f"Member must have value between {low} and {high}"
            yield _problem(path, message, "VALUE_OUT_OF_RANGE")
        elif isinstance(value, str):
            yield from _of_string(shape, value, path)

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
def load_model(data_path: str | None) -> Model:
    """The model that clients load; `data_path` is what AWS_DATA_PATH says."""
    document = create_loader(data_path).load_service_model(SERVICE, "service-2")
    shapes = document["shapes"]
    statuses = {
        name: shape.get("error", {}).get("httpStatusCode", 500 if shape.get("fault") else 400)
        for name, shape in shapes.items()
        if shape.get("exception")
    }
    operations = document["operations"].items()
    inputs, outputs = (
        {name: one[way]["shape"] for name, one in operations if way in one} for way in ("input", "output")
    )
    prefix = document["metadata"]["targetPrefix"]
    return Model(prefix, {**COMMON_STATUSES, **statuses}, inputs, outputs, shapes)


#: By type of a shape, how its values are read from JSON, and what a message calls them.
_TYPES: Final = {
    "timestamp": (str, "an ISO 8601 date and time"),
    "structure": (dict, "an object"),
    "list": (list, "a list"),
    "string": (str, "a string"),
    "integer": (int, "an integer"),
}


def _of_string(shape: Mapping[str, Any], value: str, path: str) -> Iterator[Problem]:
    low, high = _bounds(shape)
    choices, pattern = shape.get("enum"), shape.get("pattern")
    if choices and value not in choices:
        yield _not_among(path, sorted(choices))
    elif not low <= len(value) <= high:
        yield _problem(path, f"Member must have length between {low} and {high}", "INVALID_STRING_FORMAT")
    elif pattern is not None and re.fullmatch(pattern, value) is None:
        message = f"Member must satisfy regular expression pattern: {pattern}"
        yield _problem(path, message, "INVALID_STRING_FORMAT")


def _bounds(shape: Mapping[str, Any]) -> tuple[float, float]:
    return shape.get("min", -math.inf), shape.get("max", math.inf)


def _not_among(field: str, choices: Sequence[str]) -> Problem:
    message = f"Member must satisfy enum value set: [{', '.join(choices)}]"
    return _problem(field, message, "INVALID_ENUM_VALUE")


def _problem(field: str, constraint: str, code: str) -> Problem:
    return Problem(field, f"Value at '{field}' failed to satisfy constraint: {constraint}", code)


def show_time(at: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> float | None:
    """Seconds since the epoch of a date and time, which is in UTC without a zone; None: it is not a time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def whole_milliseconds(at: float) -> float:
    """The time as answers can show it, so that records and answers agree."""
    return math.floor(at * 1000 + 1e-6) / 1000
