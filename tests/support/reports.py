"""Made-up results, summaries, ledgers and frames for the tests of reports."""

import csv
from datetime import UTC, datetime

from hypothesis import strategies as st

from batch_snapshot.ledger import reader
from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.models import ErrorKind, Outcome, Request, Row, RowError, Status, client_token
from batch_snapshot.reporting import report
from batch_snapshot.reporting.display import DisplayPart, Frame, WindowUse
from batch_snapshot.reporting.entries import COLUMNS, settled
from batch_snapshot.reporting.stats import LedgerStats
from batch_snapshot.reporting.summary import AccountSummary, Counts, Summary
from tests.support.ledgers import LedgerBuilder, row
from tests.support.strategies import RUN_ID, START, some_of

DENIED = FailureGroup(Status.FAILED, ErrorKind.DENIED, "AccessDeniedException")
BROKEN = FailureGroup(Status.FAILED, ErrorKind.TRANSIENT, "InternalServerException")
DOUBT = FailureGroup(Status.IN_DOUBT, ErrorKind.DENIED, "AccessDeniedException")
DONE = Counts(succeeded=3)
SOME_FAILED = Counts(succeeded=2, failed=1)
SOME_IN_DOUBT = Counts(succeeded=2, in_doubt=1)
SOME_LEFT = Counts(succeeded=2, unattempted=1)
RUN, RETRY = "batch-snapshot run m.yaml", "batch-snapshot retry ledgers/nightly.ndjson"
AGAIN = "batch-snapshot retry ledgers/nightly.ndjson --only"
SUMMARY = Summary(
    outcome="stopped",
    exit_code=3,
    counts=Counts(1000, 30, 2, 5),
    failures={BROKEN: 8, DENIED: 22, DOUBT: 2},
    ledger="ledgers/nightly.ndjson",
    run_id="night-1",
    elapsed_s=12.34567,
    accounts={
        "main": AccountSummary(1000, 50, 12.5, None),
        "acme": AccountSummary(250, 0, 7.5, "20 denials in a row"),
        "idle": AccountSummary(0, 0, None, None),
    },
    reasons=["account acme: 20 denials in a row"],
    vanished=3,
    vanished_rows=["eng-1/O1", "eng-2/O2"],
    warnings=["a warning"],
    run_again=RUN,
)


def outcome(row: Row, status: Status, kind: ErrorKind = ErrorKind.DENIED, code: str = "C") -> Outcome:
    done = status is Status.SUCCEEDED
    return Outcome(
        request=Request(row, client_token(RUN_ID, row, 0)),
        status=status,
        attempts=1,
        throttles=0,
        ambiguous=status is Status.IN_DOUBT,
        first_sent_at=START,
        started_at=START,
        finished_at=START,
        arn="arn" if done else None,
        revision=1 if done else None,
        error=None if done else RowError(kind, code, "denied"),
    )


MAIN = DisplayPart(
    name="main",
    done=1000,
    rows=9000,
    rate=0.98,
    allowed=1.0,
    throttled=3,
    windows=[WindowUse("per_day", 4774, 9500)],
)
FRAME = Frame(
    name="nightly",
    counts=Counts(14_201, 61, 12, 9_126),
    elapsed=14_531.2,
    left=97_920.0,
    ends="Thu 03:24",
    calls=14_290,
    throttled=3,
    parts=[MAIN],
)
NOW = datetime(2026, 3, 2, tzinfo=UTC)
A, B, C, D = (row(number) for number in range(1, 5))


def rows_of(folder, name):
    with (folder / f"{name}.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def written(tmp_path, ledger, **manifest_path):
    data = report.load(ledger.write(tmp_path / "l.ndjson"), **manifest_path)
    folder = tmp_path / "csv"
    numbers = report.write_csv(data, folder)
    there = [name for name in COLUMNS if (folder / f"{name}.csv").exists()]
    found = {name: rows_of(folder, name) for name in there}
    assert numbers == {name: len(rows) for name, rows in found.items()}
    return data, found


def read(tmp_path, ledger):
    path = ledger.write(tmp_path / "l.ndjson")
    stats = LedgerStats()
    for line in reader.lines(path):
        stats.add(line)
    stats.mark_crashed()
    return stats, list(settled(reader.lines(path), stats.history, stats.repeated))


statuses = st.sampled_from(Status)
ROWS = [row(number, ("main", "acme")[number % 2]) for number in range(6)]

some_rows = some_of(ROWS)


@st.composite
def ledgers(draw):
    """A ledger of a few rows, over invocations that end or crash."""
    ledger = LedgerBuilder(len(ROWS))
    for number in range(draw(st.integers(1, 4))):
        ledger.begin(at=number * 100)
        named = draw(some_rows)
        ledger.intend(*named)
        settled_rows = draw(st.integers(0, len(named)))
        for each in named[:settled_rows]:
            ledger.result(each, draw(statuses), at=number * 100 + draw(st.integers(1, 50)))
        if draw(st.booleans()):
            ledger.end(at=number * 100 + 60)
    return ledger
