"""What the service itself accepts, read from botocore's models, without importing botocore.

botocore does not enforce patterns: a bad id would cost a call to be refused. Its import takes longer than
the validation of a small manifest, so its data files are read as the data that they are.
"""

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from batch_snapshot.errors import BatchSnapshotError
from batch_snapshot.operations import CREATES, SERVICE, CreateOperation

#: The catalogs that the service's documentation names; its model has only a pattern.
CATALOGS = ("AWS", "Sandbox")
#: The templates known today; no enum exists, so another name is a warning at most.
TEMPLATES = tuple(dict.fromkeys(name for create in CREATES for name in create.templates))
DEFAULT_TEMPLATE = TEMPLATES[0]
DEFAULT_RESOURCE_TYPE = CREATES[0].resource_types[0]


@dataclass(frozen=True, slots=True)
class Shape:
    #: As the model writes it: without anchors, although it is meant for the whole text.
    pattern: str
    regex: re.Pattern[str]
    shortest: int | None
    longest: int | None
    choices: tuple[str, ...]

    @property
    def form(self) -> str:
        if self.shortest is None and self.longest is None:
            return self.pattern
        return f"{self.pattern} of {self.shortest or 0} to {self.longest or 'any number of'} characters"


@cache
def row_input(creates: Sequence[CreateOperation] = CREATES) -> dict[str, Shape]:
    """What the service accepts for the fields of a row, whichever operation sends it."""
    inputs = [(create, _input(SERVICE, create.name)) for create in creates]
    return {
        field: _either([shapes[create.parameters[field]] for create, shapes in inputs])
        for field in creates[0].parameters
    }


def _either(shapes: Sequence[Shape]) -> Shape:
    first, *others = dict.fromkeys(shapes)
    if not others:
        return first
    choices = tuple(dict.fromkeys(choice for shape in shapes for choice in shape.choices))
    pattern = "|".join(f"(?:{shape.pattern})" for shape in (first, *others))
    regex = "|".join(f"(?:{shape.regex.pattern})" for shape in (first, *others))
    return Shape(pattern, re.compile(regex, re.ASCII), None, None, choices)


@cache
def answer_fields(operation: str, member: str) -> dict[tuple[str, ...], str]:
    """The fields within a member of an answer, by their path, and their types.

    Types are those of `_KINDS`, `strings` for a list of strings, and `json` for other lists and maps.
    """
    with _readable(SERVICE):
        model = _model(SERVICE)
        output = model["shapes"][model["operations"][operation]["output"]["shape"]]
        return dict(_fields(model["shapes"], output["members"][member]["shape"], ()))


#: The types of fields by those of the model.
_KINDS = {
    **{kind: kind for kind in ("string", "integer", "float", "boolean", "timestamp")},
    "long": "integer",
    "double": "float",
}


def _fields(
    shapes: dict[str, Any], name: str, path: tuple[str, ...], within: frozenset[str] = frozenset()
) -> Iterator[tuple[tuple[str, ...], str]]:
    shape = shapes[name]
    if shape["type"] == "structure" and name not in within:
        for inner, member in shape["members"].items():
            yield from _fields(shapes, member["shape"], (*path, inner), within | {name})
    elif shape["type"] == "list" and shapes[shape["member"]["shape"]]["type"] == "string":
        yield path, "strings"
    else:
        yield path, _KINDS.get(shape["type"], "json")


def _input(service: str, operation: str) -> dict[str, Shape]:
    with _readable(service):
        model = _model(service)
        shapes = model["shapes"]
        members = shapes[model["operations"][operation]["input"]["shape"]]["members"]
        found = {name: shapes[member["shape"]] for name, member in members.items()}
        return {name: _shape(one) for name, one in found.items() if one["type"] == "string"}


role_input = cache(partial(_input, "sts", "AssumeRole"))


@contextmanager
def _readable(service: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BatchSnapshotError(
            f"botocore's model of {service} cannot be read ({error}): reinstall botocore"
        ) from error


def _model(service: str) -> dict[str, Any]:
    """The newest version of the service's model, packed or plain."""
    spec = find_spec("botocore")
    if spec is None or spec.origin is None:
        raise OSError("botocore is not installed")
    versions = (Path(spec.origin).parent / "data" / service).iterdir()
    newest = max(path for path in versions if path.is_dir())
    packed = newest / "service-2.json.gz"
    raw = (
        gzip.decompress(packed.read_bytes()) if packed.exists() else (newest / "service-2.json").read_bytes()
    )
    model: dict[str, Any] = json.loads(raw)
    return model


def _shape(described: dict[str, Any]) -> Shape:
    choices = tuple(described.get("enum", ()))
    pattern = described.get("pattern") or "|".join(map(re.escape, choices)) or r"[\s\S]*"
    shortest, longest = described.get("min"), described.get("max")
    bounds = f"(?=[\\s\\S]{{{shortest or 0},{'' if longest is None else longest}}}\\Z)"
    bounded = shortest is not None or longest is not None
    regex = re.compile(f"{bounds if bounded else ''}(?:{pattern})", re.ASCII)
    return Shape(pattern, regex, shortest, longest, choices)
