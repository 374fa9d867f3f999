"""What a ledger says by itself."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given

from batch_snapshot import paths
from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger import history, locks, reader, records
from batch_snapshot.ledger.history import FailureGroup, failure_group
from batch_snapshot.ledger.records import End
from batch_snapshot.ledger.writer import Ledger
from batch_snapshot.models import ErrorKind, Outcome, Request, Status, client_token
from batch_snapshot.reporting import status
from batch_snapshot.reporting.entries import CRASH_MESSAGE
from batch_snapshot.reporting.status import find_examples, read_status
from batch_snapshot.reporting.summary import AccountSummary, Counts, Summary, as_text
from tests.support.ledgers import LedgerBuilder
from tests.support.reports import DENIED, A, B, C, D, ledgers, outcome
from tests.support.strategies import POOL, RUN_ID, START, header, patient


@pytest.fixture
def path(tmp_path):
    return tmp_path / "nightly.ndjson"


def write(path: Path, *outcomes: Outcome, end: str | None = "completed", manifest: str | None = "m.yaml"):
    """A ledger whose one invocation intended all rows of the pool."""
    with Ledger(path) as ledger:
        ledger.append(records.encode_run(header(manifest=manifest), "0"))
        ledger.append(
            records.encode_intent(START, [Request(row, client_token(RUN_ID, row, 0)) for row in POOL])
        )
        for each in outcomes:
            ledger.append(records.encode_result(RUN_ID, each))
        if end:
            ledger.append(records.encode_end(RUN_ID, End(end, {}, START + timedelta(seconds=90))))


def commands(path: Path, *names: str) -> list[str]:
    known = {"run": f"batch-snapshot run m.yaml --ledger {path}", "retry": f"batch-snapshot retry {path}"}
    return [known[name] for name in names]


def test_status_of_a_completed_ledger(path):
    write(path, *(outcome(row, Status.SUCCEEDED) for row in POOL))
    summary = read_status(path)
    assert replace(summary, run_again=None) == Summary(
        outcome="completed",
        exit_code=0,
        counts=Counts(5),
        failures={},
        ledger=str(path),
        run_id=RUN_ID,
        elapsed_s=90.0,
        accounts={"main": AccountSummary(5, 0, None, None, {"succeeded": 5})},
    )
    assert not summary.next_steps


@pytest.mark.parametrize(
    ("end", "held", "called", "counts", "steps"),
    [
        ("stopped", False, "stopped", Counts(1, 2, 1, 1), ["run", "retry"]),
        ("deferred", False, "deferred", Counts(1, 2, 1, 1), ["run", "retry"]),
        ("interrupted", False, "interrupted", Counts(1, 2, 1, 1), ["run", "retry"]),
        (None, False, "crashed", Counts(1, 2, 2, 0), ["retry"]),
        (None, True, "running", Counts(1, 2, 1, 1), []),
    ],
)
def test_status_of_a_ledger_that_is_not_completed(path, end, held, called, counts, steps):
    """One row is named and has no result: it is in doubt after a crash alone."""
    write(
        path,
        outcome(POOL[0], Status.SUCCEEDED),
        outcome(POOL[1], Status.FAILED, ErrorKind.TRANSIENT, "X"),
        outcome(POOL[2], Status.FAILED),
        outcome(POOL[3], Status.IN_DOUBT),
        end=end,
    )
    with locks.hold(paths.ledger_lock(path), what="it", since="now") if held else nullcontext():
        summary = read_status(path)
    assert (summary.outcome, summary.counts) == (called, counts)
    crashed = {FailureGroup(Status.IN_DOUBT, ErrorKind.TRANSIENT, "RunCrashed"): 1}
    assert summary.failures == {
        FailureGroup(Status.FAILED, ErrorKind.TRANSIENT, "X"): 1,
        FailureGroup(Status.FAILED, ErrorKind.DENIED, "C"): 1,
        FailureGroup(Status.IN_DOUBT, ErrorKind.DENIED, "C"): 1,
        **(crashed if called == "crashed" else {}),
    }
    assert held or summary.elapsed_s == (90 if end else 0)
    assert summary.next_steps == commands(path, *steps)
    # What has the ledger is in the way of a retry.
    assert held == ("batch-snapshot retry" not in as_text(summary))


def test_status_changes_nothing_and_skips_a_torn_line(path):
    write(path, outcome(POOL[0], Status.SUCCEEDED))
    content = path.read_bytes() + b'{"type":"ru'
    path.write_bytes(content)
    assert read_status(path).counts.succeeded == 1
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_status_without_a_manifest_path_has_no_next_steps(path):
    write(path, end="deferred", manifest=None)
    assert read_status(path).next_steps == []


@pytest.mark.parametrize("action", ["pause", "rate"])
def test_command_whose_run_line_is_lost_is_left_out(path, action):
    write(path, *(outcome(row, Status.SUCCEEDED) for row in POOL))
    before, lines = read_status(path), path.read_bytes()
    told = records.encode_control(RUN_ID, START, action, value=2.0)
    path.write_bytes(told + lines)
    assert read_status(path) == before
    path.write_bytes(told + lines.partition(b"\n")[2])
    with pytest.raises(LedgerError, match=r"no run line before it.* status .* --repair"):
        read_status(path)


@pytest.mark.parametrize("content", [None, b"", b'{"type":"novel"}\n', b'{"type":"ru'])
def test_status_of_a_file_without_run_line_is_refused(path, content):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LedgerError) as caught:
        read_status(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert ("no such file" if content is None else "no run") in str(caught.value)


# -- rows that failed, read again from a ledger


@given(ledgers())
@patient
def test_each_group_has_as_many_examples_as_are_shown_or_exist(tmp_path_factory, ledger):
    path = ledger.write(tmp_path_factory.getbasetemp() / "examples.ndjson")
    past = history.fold(reader.lines(path))
    groups = past.failures()
    found = find_examples(path, past, groups)
    assert {group: len(rows) for group, rows in found.items()} == {
        group: min(2, number) for group, number in groups.items()
    }
    for group, rows in found.items():
        assert {failure_group(past.unfinished[one.row.key]) for one in rows} == {group}
        assert len({one.row for one in rows}) == len(rows)


def test_rows_that_were_sent_again_are_no_examples(tmp_path):
    ledger = LedgerBuilder(3).begin()
    for row in (A, B, C):
        ledger.result(row, Status.FAILED, message=f"not {row.resource}")
    path = ledger.end().write(tmp_path / "l.ndjson")
    past = history.fold(reader.lines(path))
    found = find_examples(path, past, [DENIED], {A.key, C.key})
    assert found == {DENIED: [(B, f"not {B.resource}")]}
    path.unlink()
    assert find_examples(path, past, [DENIED]) == {}


def test_status_names_rows_that_a_crash_left_in_doubt(tmp_path):
    ledger = LedgerBuilder(2).begin().intend(C, D).result(C)
    summary = status.read_status(ledger.write(tmp_path / "l.ndjson"))
    assert list(summary.examples.values()) == [[(D, CRASH_MESSAGE)]]
