"""One entry per row: its result, and how it came about. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from batch_snapshot.ledger.history import CRASHED, History, RowState
from batch_snapshot.ledger.records import Intent, Line, Result, Skipped
from batch_snapshot.models import LARGEST_COUNT, YEARS, ErrorKind, Row, Status
from batch_snapshot.redaction import redacted

#: The status of rows that have none.
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
            for token, row, _ in record.rows:
                past = history.unfinished.get(row.key)
                if past and past.offset == line.offset:
                    yield _intended(row, token, past)
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
    """What a result line says; fields that make no sense are left out."""
    fields: Mapping[str, Any] = result.fields or {}
    error = fields.get("error")
    error = error if isinstance(error, dict) else {}
    http_status = error.get("http_status")
    return ReportEntry(
        row=result.row,
        status=result.status.value,
        attempts=parse_count(fields.get("attempts")),
        throttles=parse_count(fields.get("throttles")),
        first_sent_at=result.first_sent_at,
        started_at=parse_time(fields.get("started_at")),
        finished_at=parse_time(fields.get("finished_at")),
        arn=_text(fields.get("arn")) or None,
        revision=parse_count(fields.get("revision")) or None,
        client_token=result.client_token,
        request_id=_text(fields.get("request_id")) or None,
        reconciled=fields.get("reconciled") is True,
        kind=result.kind,
        # Another version may have written what this one takes for a secret.
        code=redacted(result.code or ""),
        message=redacted(result.message or ""),
        reason=redacted(_text(error.get("reason"))),
        http_status=http_status if isinstance(http_status, int) else None,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def parse_count(value: Any) -> int:
    sensible = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_COUNT
    return value if sensible else 0


def parse_time(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo and moment.year in YEARS else None
