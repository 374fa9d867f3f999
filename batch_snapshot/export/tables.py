"""Exports as tables. Payloads are flattened by the service model's shape, so columns and types are stable."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any

from batch_snapshot.errors import InputError, StorageError, file_errors, install_command
from batch_snapshot.export.records import positions
from batch_snapshot.files import atomic_write
from batch_snapshot.manifest import service_model
from batch_snapshot.models import Row
from batch_snapshot.operations import CREATES
from batch_snapshot.reporting.entries import escape_formula

FORMATS = {".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv", ".parquet": "parquet"}

#: Columns before those of the payload, and their types.
LEADING = {
    **dict.fromkeys(Row._fields, "string"),
    "revision": "integer",
    "arn": "string",
    "created_at": "timestamp",
    "created_by": "string",
}

#: Rows that are in memory at once.
BATCH = 5_000


@cache
def _model() -> dict[tuple[str, ...], str]:
    """Every path in a payload and its type; the first part names the view, such as OpportunitySummary."""
    reads = {create.look_up for create in CREATES}
    return {
        path: kind for name in reads for path, kind in service_model.answer_fields(name, "Payload").items()
    }


def payload_fields() -> dict[str, str]:
    """Every field that a payload can have, such as `Lifecycle.Stage`, and its type."""
    return {".".join(path[1:]): kind for path, kind in _model().items()}


def is_known(payload: Mapping[str, Any]) -> bool:
    """Whether its view is one of the model; botocore gives only the name of another one."""
    return payload.keys() <= {path[0] for path in _model()}


def columns(fields: Sequence[str] = ()) -> dict[str, str]:
    """The types of a table's columns; of the payload only `fields`, which may name a whole part."""
    known = payload_fields()
    for name in fields:
        if not any(_is_within(one, name) for one in known):
            near = get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            raise InputError(f"--fields {name}: a payload has no such field; {hint}")
    wanted = {
        name: kind
        for name, kind in known.items()
        if not fields or any(_is_within(name, one) for one in fields)
    }
    return LEADING | wanted


def _is_within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def hold(parts: Sequence[str], fields: Sequence[str]) -> bool:
    """Whether a file with these parts of payloads has all that `fields` name; no parts: everything."""
    return not parts or all(any(_is_within(name, part) for part in parts) for name in fields)


def select(payload: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """The payload with these fields alone; with none given, all of it."""
    if not fields:
        return dict(payload)
    return {view: _selected(value, fields, "") for view, value in payload.items()}


def _selected(value: Any, fields: Sequence[str], prefix: str) -> Any:
    found = {}
    for name, inner in value.items():
        path = prefix + name
        if any(_is_within(path, one) for one in fields):
            found[name] = inner
        elif isinstance(inner, dict) and any(_is_within(one, path) for one in fields):
            found[name] = _selected(inner, fields, f"{path}.")
    return found


def path_of(source: Path, form: str) -> Path:
    return source if form == "ndjson" else source.with_suffix(f".{form}")


def write(source: Path, form: str, kinds: Mapping[str, str]) -> None:
    """Write the export at `source` as a table beside it (mode 0600), which is replaced."""
    if form == "ndjson":
        return
    rows, path = (_row(record, kinds) for record, _ in positions(source)), path_of(source, form)
    with file_errors(path, "name another --output", StorageError), atomic_write(path, 0o600) as file:
        {"csv": _write_csv, "parquet": _write_parquet}[form](rows, kinds, file)


def _row(record: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    view: Any = next(iter(record["payload"].values()), {})
    return {
        name: _value(record.get(name) if name in LEADING else _at(view, name), kind)
        for name, kind in kinds.items()
    }


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _value(value: Any, kind: str) -> Any:
    """A value of its column's type, or None."""
    if value is None or type(value) in _TYPES.get(kind, ()):
        return value
    if kind == "timestamp":
        try:
            return datetime.fromisoformat(str(value))
        except ValueError:
            return None
    if kind == "strings":
        return [_utf8(str(one)) for one in (value if isinstance(value, list) else [value])]
    if kind in {"string", "json"}:
        return _utf8(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return None


#: Python's types of those that need no conversion.
_TYPES: Mapping[str, tuple[type, ...]] = {"integer": (int,), "float": (int, float), "boolean": (bool,)}


def _utf8(text: str) -> str:
    """The text with a mark for half of a surrogate pair, which JSON can hold."""
    return text.encode("utf-8", "replace").decode()


def _write_csv(rows: Iterator[dict[str, Any]], kinds: Mapping[str, str], file: IO[bytes]) -> None:
    # Spreadsheets take a file for UTF-8 by its mark.
    text = TextIOWrapper(file, "utf-8-sig", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(kinds)
    for row in rows:
        writer.writerow([_cell(value) for value in row.values()])
    text.detach()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, list):
        value = json.dumps(value, ensure_ascii=False)
    return escape_formula(value) if isinstance(value, str) else value


def import_pyarrow() -> Any:
    try:
        import pyarrow.parquet  # an extra
    except ImportError:
        raise InputError(
            f"the format parquet needs pyarrow: {install_command('parquet')}, or export to .csv"
        ) from None
    return pyarrow


def _write_parquet(rows: Iterator[dict[str, Any]], kinds: Mapping[str, str], file: IO[bytes]) -> None:
    arrow = import_pyarrow()
    types = {
        "integer": arrow.int64(),
        "float": arrow.float64(),
        "boolean": arrow.bool_(),
        "timestamp": arrow.timestamp("ms", "UTC"),
        "strings": arrow.list_(arrow.string()),
    }
    schema = arrow.schema([(name, types.get(kind, arrow.string())) for name, kind in kinds.items()])
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        while batch := [*islice(rows, BATCH)]:
            writer.write_table(arrow.Table.from_pylist(batch, schema))
