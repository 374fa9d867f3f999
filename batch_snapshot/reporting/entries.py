"""One entry per row: its result, and how it came about; and tables of them for a spreadsheet. Pure."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import IO, Any, NamedTuple

from batch_snapshot.ledger.history import CRASHED, History, RowState
from batch_snapshot.ledger.records import Intent, Line, Result, Skipped
from batch_snapshot.models import ErrorKind, Row, Status
from batch_snapshot.redaction import redacted
from batch_snapshot.text import timestamp

UNATTEMPTED = "unattempted"

#: Why a row without a result is in doubt.
CRASH_MESSAGE = "the run crashed, and this row may have been sent"


class ReportEntry(NamedTuple):
    row: Row
    #: succeeded, failed, in_doubt, unattempted, or the reason why it was left out
    status: str
    attempts: int = 0
    throttles: int = 0
    first_sent_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    arn: str | None = None
    revision: int | None = None
    client_token: str | None = None
    request_id: str | None = None
    reconciled: bool = False
    kind: ErrorKind | None = None
    code: str = ""
    message: str = ""
    reason: str = ""
    http_status: int | None = None


def settled(
    lines: Iterable[Line], history: History, repeated: Mapping[bytes, int] | None = None
) -> Iterator[ReportEntry]:
    """The rows that a ledger names, each once, as its last line says."""
    repeated = repeated or {}
    for line in lines:
        record = line.record
        if isinstance(record, Result):
            key = record.row.key
            if record.status is Status.SUCCEEDED:
                if key in history.succeeded and repeated.get(key, line.offset) == line.offset:
                    yield _result_entry(record)
            elif (past := history.unfinished.get(key)) and past.offset == line.offset:
                yield _result_entry(record)
        elif isinstance(record, Intent):
            for one in record.rows:
                past = history.unfinished.get(one.row.key)
                if past and past.offset == line.offset:
                    yield _intended(one.row, one.client_token, past)
        elif isinstance(record, Skipped):
            left_out = history.skipped.get(record.reason, ())
            yield from (ReportEntry(row, record.reason.value) for row in record.rows if row.key in left_out)


def _intended(row: Row, token: str, past: RowState) -> ReportEntry:
    """A row without a result of its own since it was named: not sent, or in doubt after a crash."""
    if past.status is None:
        return ReportEntry(row, UNATTEMPTED)
    sent, kind = past.first_sent_at, past.kind
    crashed = ReportEntry(row, past.status.value, first_sent_at=sent, client_token=token, kind=kind)
    return crashed._replace(code=CRASHED, message=CRASH_MESSAGE)


def _result_entry(result: Result) -> ReportEntry:
    # An empty value in the line is ignored.
    given = {name: value for name in ReportEntry._fields[2:12] if (value := getattr(result, name))}
    if error := result.error:
        # Another version may have written what this one takes for a secret.
        texts = {name: redacted(getattr(error, name) or "") for name in ("code", "message", "reason")}
        given |= {"kind": error.kind, "http_status": error.http_status, **texts}
    return ReportEntry(result.row, result.status.value, **given)


# -- tables -------------------------------------------------------------------------------------------

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
_TABLE = {"succeeded": "succeeded", "failed": "failed", "in_doubt": "failed", UNATTEMPTED: "unprocessed"}


def escape_formula(text: str) -> str:
    """The text, so that no spreadsheet takes it for a formula.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{text}" if _FORMULA.match(text) else text


def write_tables(entries: Iterable[ReportEntry], files: Mapping[str, IO[str]]) -> dict[str, int]:
    """Write each entry into the file of its table; returns the number of rows of each."""
    writers = {name: csv.writer(file) for name, file in files.items()}
    numbers = dict.fromkeys(files, 0)
    for name, writer in writers.items():
        writer.writerow(COLUMNS[name])
    for entry in entries:
        name = _TABLE.get(entry.status, "left_out")
        writers[name].writerow([_cell(entry, column) for column in COLUMNS[name]])
        numbers[name] += 1
    return numbers


def write_table(entries: Iterable[ReportEntry], file: IO[str]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(ALL_COLUMNS)
    for entry in entries:
        writer.writerow([_cell(entry, column) for column in ALL_COLUMNS])


def as_json(entry: ReportEntry) -> dict[str, Any]:
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
