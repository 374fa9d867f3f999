"""Tables for a spreadsheet: entries → CSV. Pure."""

import csv
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import IO, Any

from batch_snapshot.models import Skip, Status
from batch_snapshot.reporting.entries import UNATTEMPTED, ReportEntry
from batch_snapshot.text import timestamp

#: A spreadsheet takes this for the beginning of a formula; the wide characters are East Asian forms.
_FORMULA = re.compile(r"[ \u00a0\u3000]*[=+\-@\t\r\n＝＋－＠]")

_ROW = ("engagement", "resource", "account", "catalog", "template", "resource_type")
_WORK = ("attempts", "throttles", "request_id", "client_token", "first_sent_at", "started_at", "finished_at")

#: The columns of each table. Those of `unprocessed` are the keys of a pair: a manifest can include it.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "succeeded": (*_ROW, "revision", "arn", "reconciled", *_WORK),
    "failed": (*_ROW, "status", "kind", "code", "message", "reason", "http_status", *_WORK),
    "unprocessed": _ROW,
    "left_out": (*_ROW, "status"),
}
#: The columns of the one table of all rows.
ALL_COLUMNS = (
    *(*_ROW, "status", "revision", "arn", "kind", "code", "message", "reason", "http_status"),
    *("reconciled", *_WORK),
)
_TABLE = {
    Status.SUCCEEDED.value: "succeeded",
    Status.FAILED.value: "failed",
    Status.IN_DOUBT.value: "failed",
    UNATTEMPTED: "unprocessed",
    **{reason.value: "left_out" for reason in Skip},
}


def escape_formula(text: str) -> str:
    """The text, so that no spreadsheet takes it for a formula.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{text}" if _FORMULA.match(text) else text


def write(entries: Iterable[ReportEntry], files: Mapping[str, IO[str]]) -> dict[str, int]:
    """Write each entry into the file of its table; returns the number of rows of each."""
    writers = {name: csv.writer(file) for name, file in files.items()}
    numbers = dict.fromkeys(files, 0)
    for name, writer in writers.items():
        writer.writerow(COLUMNS[name])
    for entry in entries:
        name = _TABLE[entry.status]
        writers[name].writerow([_cell(entry, column) for column in COLUMNS[name]])
        numbers[name] += 1
    return numbers


def write_all(entries: Iterable[ReportEntry], file: IO[str]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(ALL_COLUMNS)
    for entry in entries:
        writer.writerow([_cell(entry, column) for column in ALL_COLUMNS])


def as_json(entry: ReportEntry) -> dict[str, Any]:
    """An entry by the names of its columns."""
    values = {name: _value(entry, name) for name in ALL_COLUMNS}
    return {name: timestamp(one) if isinstance(one, datetime) else one for name, one in values.items()}


def _value(entry: ReportEntry, column: str) -> Any:
    return getattr(entry.row if column in _ROW else entry, column)


def _cell(entry: ReportEntry, column: str) -> str | int:
    value = _value(entry, column)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return value
    text: str = value if isinstance(value, str) else timestamp(value)
    return escape_formula(text)
