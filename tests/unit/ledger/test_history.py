"""The state of every row after the lines of a ledger, with crashes at any place."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger import history, reader
from batch_snapshot.ledger.history import CRASHED, History, RowState
from batch_snapshot.ledger.records import End, IntendedRow, Intent, Line, Record, Result, Skipped
from batch_snapshot.models import ErrorKind, Row, RowError, Skip, Status, client_token
from tests.support import strategies
from tests.support.strategies import POOL, RUN_ID, START, Invocation, header, numbered, patient

A, B, C, *_ = POOL
RUN = header()
END = End("completed", {}, START)


def intent(*rows: Row) -> Intent:
    return Intent(START, tuple(IntendedRow(client_token(RUN_ID, row, 0), *row, 0) for row in rows))


def result(row: Row, status: Status) -> Result:
    done = status is Status.SUCCEEDED
    return Result(
        **row._asdict(),
        client_token=client_token(RUN_ID, row, 0),
        generation=0,
        status=status,
        ambiguous=status is Status.IN_DOUBT,
        first_sent_at=START,
        error=None if done else RowError(ErrorKind.INVALID, "Code", "message"),
        arn="arn" if done else None,
        revision=1 if done else None,
    )


def fold(*records: Record, live: bool = False) -> History:
    return history.fold(numbered(records), live=live)


# ---- the meaning of each line


def test_a_history_holds_the_key_objects_that_the_caller_shares():
    key = A.key
    past = history.fold(numbered([RUN, intent(A), result(A, Status.SUCCEEDED)]), shared_keys={key: key})
    assert [found is key for found in past.succeeded] == [True]


def test_the_first_and_the_last_run_line_are_kept():
    last = header(command="retry", rows=7)
    past = fold(RUN, END, last, END)
    assert (past.first, past.last, past.end) == (RUN, last, END)


@pytest.mark.parametrize("status", Status)
def test_a_skipped_row_with_a_result_is_skipped_no_longer(status):
    past = fold(RUN, Skipped(START, Skip.UNCHANGED, (A, B)), END, RUN, intent(A), result(A, status), END)
    assert (past.is_skipped(A.key), past.is_skipped(B.key)) == (False, True)
    assert past.counts() == Counter({status: 1, Skip.UNCHANGED: 1})


# ---- what is finished


@pytest.mark.parametrize(
    ("counts", "finished"),
    [
        ({"succeeded": 2}, True),
        ({"succeeded": 1, "failed": 1, "in_doubt": 0, "unattempted": 0}, True),
        ({"succeeded": 1, "in_doubt": 1}, False),
        ({"succeeded": 1, "unattempted": 1}, False),
    ],
)
def test_a_run_is_finished_when_nothing_is_left_but_failures(counts, finished):
    assert fold(RUN, End("completed", counts, START)).finished is finished


def test_a_run_that_crashed_after_a_finished_one_is_not_finished():
    assert not fold(RUN, End("completed", {"succeeded": 1}, START), RUN).finished


# ---- what is not a ledger


@pytest.mark.parametrize("record", [intent(A), result(A, Status.SUCCEEDED), END])
def test_a_record_before_any_run_line_is_refused_with_its_line(record):
    with pytest.raises(LedgerError, match=r"^line 1: no run line before it"):
        fold(record, RUN)


def test_two_ledgers_in_one_file_are_refused_with_the_line():
    with pytest.raises(LedgerError, match=r"^line 12: run_id 'b' follows 'night-1': two ledgers were mixed"):
        history.fold([Line(0, 7, RUN), Line(900, 12, header(run_id="b"))])


def test_a_ledger_that_is_not_there_has_no_history_yet(tmp_path):
    path = tmp_path / "nightly.ndjson"
    assert reader.history_of(path) == History()
    with pytest.raises(LedgerError) as caught:
        reader.history_of(path, live=True)
    assert str(caught.value).startswith(f"{path}: there is no such file; ")


# ---- against a reference that keeps everything


def reference(
    invocations: list[Invocation], places: dict[int, int], *, live: bool
) -> tuple[dict[Row, RowState], int]:
    """The state of every row by the words of the contract, and how many rows are in flight."""
    known: dict[Row, RowState] = {}
    in_flight = 0
    for index, invocation in enumerate(invocations):
        left: dict[Row, RowState] = {}
        for record in invocation.records:
            at = places[id(record)]
            if isinstance(record, Intent):
                for one in record.rows:
                    why = (True, record.at, ErrorKind.TRANSIENT, CRASHED, at)
                    left[one.row] = RowState(Status.IN_DOUBT, one.client_token, one.generation, *why)
            else:
                left.pop(record.row, None)
                error, token = record.error, (record.client_token, record.generation)
                known[record.row] = RowState(
                    record.status,
                    *token,
                    record.ambiguous,
                    record.first_sent_at,
                    error.kind if error else None,
                    error.code if error else None,
                    at,
                )
        running = live and invocation.end is None and index == len(invocations) - 1
        in_flight = len(left) if running else 0
        for row, doubt in {} if running else left.items():
            before = known.get(row)
            settled = before is not None and before.status is Status.SUCCEEDED
            doubted = before is not None and before[:2] == (Status.IN_DOUBT, doubt.client_token)
            if invocation.end is None:
                if not settled and not doubted:
                    known[row] = doubt
            elif before is None:
                known[row] = RowState(None, *doubt[1:3], False, None, offset=doubt.offset)  # noqa: FBT003
    return known, in_flight


@given(st.lists(strategies.invocations, max_size=5), st.booleans())
@settings(patient, max_examples=200)
def test_a_history_is_what_a_naive_reference_makes_of_the_same_lines(invocations, live):
    lines = strategies.lines_of(invocations)
    past = history.fold(lines, live=live)
    known, in_flight = reference(invocations, {id(line.record): line.offset for line in lines}, live=live)
    for row in POOL:
        assert past.status(row.key) is (known[row].status if row in known else None)
    assert past.succeeded == {row.key for row, state in known.items() if state.status is Status.SUCCEEDED}
    left = {row.key: state for row, state in known.items() if state.status is not Status.SUCCEEDED}
    assert past.unfinished == left
    groups = [(one.status, one.kind, one.code) for one in left.values() if one.status]
    assert past.failures() == Counter(groups)
    assert past.end == (invocations[-1].end if invocations else None)
    assert (past.first, past.last) == ((header(), header()) if invocations else (None, None))
    assert len(past.pending) == in_flight


@given(strategies.histories, st.booleans())
@patient
def test_the_states_sum_to_the_rows_that_have_one(invocations, live):
    past = history.fold(strategies.lines_of(invocations), live=live)
    stated = {row.key: past.status(row.key) for row in POOL if past.status(row.key)}
    assert +past.counts() == Counter(stated.values())
    assert sorted(past.keys()) == sorted(stated)


@given(strategies.histories)
@patient
def test_each_unfinished_row_is_found_once_in_the_order_of_the_lines(invocations):
    lines = strategies.lines_of(invocations)
    past = history.fold(lines)
    found = list(history.unfinished_rows(lines, past))
    assert {row.key: entry for row, entry in found} == past.unfinished
    assert len(found) == len(past.unfinished)
    offsets = [entry.offset for _, entry in found]
    assert offsets == sorted(offsets)


# ---- names


def test_rows_are_named_once_each_in_the_order_of_the_lines():
    lines = numbered([RUN, intent(B, A), result(A, Status.FAILED), result(C, Status.SUCCEEDED), END])
    wanted = {A.key, B.key, C.key}
    assert history.row_names(lines, wanted, 20) == ["eng-1/O1", "eng-0/O0", "eng-2/O2"]
    assert history.row_names(lines, wanted, 2) == ["eng-1/O1", "eng-0/O0"]
    assert history.row_names(lines, {A.key}, 20) == ["eng-0/O0"]
    assert history.row_names(lines, set(), 20) == []


def test_names_are_read_no_further_than_there_are_enough():
    lines = iter(numbered([RUN, intent(A), intent(B)]))
    assert history.row_names(lines, {A.key}, 2) == ["eng-0/O0"]
    assert next(lines).record == intent(B)
