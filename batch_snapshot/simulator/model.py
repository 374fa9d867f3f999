"""The service model that botocore ships, and requests checked against it; times as they are written."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from botocore.loaders import create_loader
from botocore.model import ServiceModel

from batch_snapshot.simulator.answers import Problem, invalid, problem

#: The service as botocore names it, and as signatures are scoped to it.
SERVICE: Final = "partnercentral-selling"
#: The model has only a pattern for catalogs; the API reference names the two that exist.
CATALOGS: Final = ("AWS", "Sandbox")


@cache
def load_model(data_path: str | None) -> Any:
    """The `ServiceModel` that clients load; `data_path` is what AWS_DATA_PATH says."""
    return ServiceModel(create_loader(data_path).load_service_model(SERVICE, "service-2"))


def parts(structure: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a structure, taken from a row that may hold more."""
    return {name: row[name] for name in structure.members if row.get(name) is not None}


def validate(structure: Any, params: object) -> None:
    """Refuse a request that breaks the operation's input shape, naming every wrong field.

    botocore's own validator knows neither patterns nor enums, nor codes for what it finds.
    """
    problems = list(problems_of(structure, params, ""))
    if not problems and isinstance(params, dict) and params["Catalog"] not in CATALOGS:
        problems = [_not_among("Catalog", CATALOGS)]
    if problems:
        plural = "" if len(problems) == 1 else "s"
        text = "; ".join(one["Message"] for one in problems)
        raise invalid(f"{len(problems)} validation error{plural} detected: {text}", problems)


#: By type of a shape, how its values are read from JSON, and what a message calls them.
_TYPES: Final = {
    "timestamp": (str, "an ISO 8601 date and time"),
    "structure": (dict, "an object"),
    "list": (list, "a list"),
    "string": (str, "a string"),
    "integer": (int, "an integer"),
}


def problems_of(shape: Any, value: object, path: str) -> Iterator[Problem]:
    python_type, words = _TYPES[shape.type_name]
    low, high = shape.metadata.get("min", -math.inf), shape.metadata.get("max", math.inf)
    no_time = shape.type_name == "timestamp" and parse_time(str(value)) is None
    # True is no integer, so the type is compared.
    if no_time or type(value) is not python_type:
        yield _broken(path or "request", f"Member must be {words}", "INVALID_VALUE")
    elif isinstance(value, dict):
        yield from _of_structure(shape, value, f"{path}." if path else "")
    elif isinstance(value, list):
        if low <= len(value) <= high:
            for index, item in enumerate(value):
                yield from problems_of(shape.member, item, f"{path}[{index}]")
        else:
            code = "TOO_MANY_VALUES" if len(value) > high else "VALUE_OUT_OF_RANGE"
            yield _broken(path, f"Member must have between {low} and {high} items", code)
    elif isinstance(value, int) and not low <= value <= high:
        yield _broken(path, f"Member must have value between {low} and {high}", "VALUE_OUT_OF_RANGE")
    elif isinstance(value, str):
        yield from _of_string(shape.metadata, value, path, low, high)


def _of_string(rules: Mapping[str, Any], value: str, path: str, low: float, high: float) -> Iterator[Problem]:
    choices, pattern = rules.get("enum"), rules.get("pattern")
    if choices and value not in choices:
        yield _not_among(path, sorted(choices))
    elif not low <= len(value) <= high:
        yield _broken(path, f"Member must have length between {low} and {high}", "INVALID_STRING_FORMAT")
    elif pattern is not None and re.fullmatch(pattern, value) is None:
        message = f"Member must satisfy regular expression pattern: {pattern}"
        yield _broken(path, message, "INVALID_STRING_FORMAT")


def _of_structure(shape: Any, value: Mapping[str, object], prefix: str) -> Iterator[Problem]:
    for name in shape.required_members:
        if value.get(name) is None:
            yield _broken(prefix + name, "Member must not be null", "REQUIRED_FIELD_MISSING")
    for name, item in value.items():
        if name not in shape.members:
            message = f"'{prefix}{name}' is not a member of this request"
            yield problem(f"{prefix}{name}", message, "INVALID_VALUE")
        elif item is not None:
            yield from problems_of(shape.members[name], item, prefix + name)


def _not_among(name: str, choices: Sequence[str]) -> Problem:
    return _broken(name, f"Member must satisfy enum value set: [{', '.join(choices)}]", "INVALID_ENUM_VALUE")


def _broken(name: str, constraint: str, code: str) -> Problem:
    return problem(name, f"Value at '{name}' failed to satisfy constraint: {constraint}", code)


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
