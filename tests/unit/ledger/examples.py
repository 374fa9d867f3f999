"""One line of each type, and the values that they encode."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from batch_snapshot.ledger import reader, records
from batch_snapshot.ledger.records import End, Header, Record
from batch_snapshot.models import ErrorKind, Outcome, Request, Row, RowError, Status
from tests.support import rewriting

ROW = Row("main", "Sandbox", "eng-0123456789abcd", "Opportunity", "O1234567", "OpportunitySummaryView")
AT = datetime(2026, 3, 1, 12, 0, 0, 123_999, tzinfo=UTC)
LATER = AT.astimezone(UTC) + timedelta(seconds=2)

HEADER = Header(
    run_id="night-1",
    command="run",
    name="nightly",
    manifest="/srv/nightly.yaml",
    manifest_sha256="ab",
    rows=2,
    accounts={"main": {"role_arn": None, "profile": "partner", "region": "us-east-1"}},
    endpoint="aws",
    started_at=AT,
    settings={"concurrency": 32},
)
REQUEST = Request(ROW, "token-0", 0)
SUCCEEDED = Outcome(
    request=REQUEST,
    status=Status.SUCCEEDED,
    attempts=1,
    throttles=2,
    ambiguous=False,
    first_sent_at=AT,
    started_at=AT,
    finished_at=LATER,
    arn="arn:aws:partnercentral:snapshot/1",
    revision=1,
    request_id="req-1",
)
FAILED = Outcome(
    request=replace(REQUEST, generation=1),
    status=Status.FAILED,
    attempts=3,
    throttles=0,
    ambiguous=False,
    first_sent_at=None,
    started_at=AT,
    finished_at=LATER,
    error=RowError(ErrorKind.INVALID, "ValidationException", "no\n“such”", "REQUEST_VALIDATION_FAILED", 400),
)
END = End("completed", {"succeeded": 1, "failed": 1, "in_doubt": 0, "unattempted": 0}, LATER)

RUN_LINE = records.encode_run(HEADER, "0.1.0")
INTENT_LINE = records.encode_intent(AT, [REQUEST])
RESULT_LINE = records.encode_result("night-1", SUCCEEDED)
FAILED_LINE = records.encode_result("night-1", FAILED)
END_LINE = records.encode_end("night-1", END)
LINES = [RUN_LINE, INTENT_LINE, RESULT_LINE, FAILED_LINE, END_LINE]
WHOLE = b"".join(LINES)


def written(path: Path, content: bytes = WHOLE) -> Path:
    rewriting.write(path, content)
    return path


def records_of(path: Path) -> list[Record]:
    return [line.record for line in reader.lines(path)]
