"""The state of every row after the lines of a ledger, with crashes at any place."""

from collections import Counter
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger import codec, history, reader
from batch_snapshot.ledger.history import CRASHED, FailureGroup, History, RowState
from batch_snapshot.ledger.records import (
    End,
    Header,
    IntendedRow,
    Intent,
    Line,
    Record,
    Result,
    Skipped,
    named_rows,
)
from batch_snapshot.models import ErrorKind, Row, RowError, Skip, Status, client_token
from tests.support import strategies
from tests.support.strategies import POOL, RUN_ID, START, Invocation, header, numbered, patient

A, B, C, *_ = POOL
RUN = header()
END = End("completed", {}, START)


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def intent(*rows: Row, generation: int = 0, at: float = 0) -> Intent:
    return Intent(
        later(at), tuple(IntendedRow(client_token(RUN_ID, row, generation), *row, generation) for row in rows)
    )


def result(
    row: Row,
    status: Status,
    *,
    generation: int = 0,
    kind: ErrorKind = ErrorKind.INVALID,
    code: str = "Code",
    at: float = 0,
) -> Result:
    done = status is Status.SUCCEEDED
    return Result(
        **row._asdict(),
        client_token=client_token(RUN_ID, row, generation),
        generation=generation,
        status=status,
        ambiguous=status is Status.IN_DOUBT,
        first_sent_at=later(at),
        error=None if done else RowError(kind, code, "message"),
        arn="arn" if done else None,
        revision=1 if done else None,
    )


def fold(*records: Record, live: bool = False) -> History:
    return history.fold(numbered(records), live=live)


def crashed(row: Row, *, generation: int = 0, at: float = 0, offset: int = 0) -> RowState:
    """The past of a row that an intent named before its invocation crashed."""
    return RowState(
        status=Status.IN_DOUBT,
        client_token=client_token(RUN_ID, row, generation),
        generation=generation,
        ambiguous=True,
        first_sent_at=later(at),
        kind=ErrorKind.TRANSIENT,
        code=CRASHED,
        offset=offset,
    )


# ---- the meaning of each line


def test_a_success_is_kept_as_a_key_alone():
    past = fold(RUN, intent(A), result(A, Status.SUCCEEDED), END)
    assert past.succeeded == {A.key}
    assert past.unfinished == {}


def test_a_history_holds_the_key_objects_that_the_caller_shares():
    key = A.key
    past = history.fold(numbered([RUN, intent(A), result(A, Status.SUCCEEDED)]), shared_keys={key: key})
    assert [found is key for found in past.succeeded] == [True]


def test_a_failure_is_kept_with_all_that_a_retry_needs():
    past = fold(RUN, intent(A), result(A, Status.FAILED, generation=2, code="X", at=7), END)
    assert past.unfinished == {
        A.key: RowState(
            status=Status.FAILED,
            client_token=client_token(RUN_ID, A, 2),
            generation=2,
            ambiguous=False,
            first_sent_at=later(7),
            kind=ErrorKind.INVALID,
            code="X",
            offset=200,
        )
    }


def test_an_intended_row_before_a_crash_is_in_doubt():
    past = fold(RUN, intent(A, B, at=5), result(A, Status.SUCCEEDED))
    assert past.end is None
    assert past.unfinished == {B.key: crashed(B, at=5, offset=100)}
    assert past.failures() == Counter({FailureGroup(Status.IN_DOUBT, ErrorKind.TRANSIENT, CRASHED): 1})


def test_the_first_and_the_last_run_line_are_kept():
    last = header(command="retry", rows=7)
    past = fold(RUN, END, last, END)
    assert (past.first, past.last, past.end) == (RUN, last, END)


@pytest.mark.parametrize("live", [False, True])
def test_an_empty_ledger_has_no_history(live):
    past = fold(live=live)
    assert (past.first, past.last, past.end) == (None, None, None)
    assert not past.counts().total()
    assert not past.finished


@pytest.mark.parametrize("status", Status)
def test_a_skipped_row_with_a_result_is_skipped_no_longer(status):
    past = fold(RUN, Skipped(START, Skip.UNCHANGED, (A, B)), END, RUN, intent(A), result(A, status), END)
    assert (past.is_skipped(A.key), past.is_skipped(B.key)) == (False, True)
    assert past.counts() == Counter({status: 1, Skip.UNCHANGED: 1})


# ---- while an invocation is running


def test_a_row_that_a_running_invocation_has_named_is_not_in_doubt():
    past = fold(RUN, intent(A, B, C), result(A, Status.FAILED), live=True)
    assert len(past.pending) == 2
    assert past.status(B.key) is None
    assert past.counts() == Counter({Status.FAILED: 1})


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
    with pytest.raises(LedgerError, match=r"^line 3: run_id 'b' follows 'night-1': two ledgers were mixed"):
        fold(RUN, END, header(run_id="b"))


def test_lines_without_a_record_count_for_the_numbers():
    """Lines of a later version are no records; the number named is the file's."""
    with pytest.raises(LedgerError, match=r"^line 12: "):
        history.fold([Line(0, 7, RUN), Line(900, 12, header(run_id="b"))])


@pytest.mark.parametrize(
    ("second", "place"),
    [(b"engagement,resource\n", "2: not JSON"), (b'{"type":"end"}\n', "2: a"), (b"{}\n", "2: not an object")],
)
def test_a_ledger_that_cannot_be_read_is_named_as_file_and_line(tmp_path, second, place):
    path = tmp_path / "nightly.ndjson"
    path.write_bytes(codec.encode_run(RUN, "0") + second)
    with pytest.raises(LedgerError) as caught:
        reader.history_of(path)
    assert str(caught.value).startswith(f"{path}:{place}")


def test_a_ledger_that_was_mixed_names_the_file_and_the_line(tmp_path):
    path = tmp_path / "nightly.ndjson"
    path.write_bytes(codec.encode_run(RUN, "0") + codec.encode_run(header(run_id="b"), "0"))
    with pytest.raises(LedgerError) as caught:
        reader.history_of(path)
    assert str(caught.value).startswith(str(path))
    assert "2: run_id 'b' follows 'night-1'" in str(caught.value)


def test_a_ledger_that_is_not_there_has_no_history_yet(tmp_path):
    path = tmp_path / "nightly.ndjson"
    assert reader.history_of(path) == History()
    with pytest.raises(LedgerError) as caught:
        reader.history_of(path, live=True)
    assert str(caught.value).startswith(f"{path}: there is no such file; ")


# ---- against a reference that keeps everything


class Known(NamedTuple):
    """A row's state by the reference."""

    status: Status | None
    token: str
    generation: int
    ambiguous: bool
    first_sent_at: datetime | None
    #: Which record says so.
    source: Intent | Result


def reference(invocations: list[Invocation], *, live: bool) -> dict[Row, Known]:
    """The state of every row, by the words of the contract, one invocation after the other."""
    known: dict[Row, Known] = {}
    for index, invocation in enumerate(invocations):
        left: dict[Row, Known] = {}
        for record in invocation.records:
            if isinstance(record, Intent):
                for one in record.rows:
                    named = (Status.IN_DOUBT, one.client_token, one.generation)
                    left[one.row] = Known(*named, ambiguous=True, first_sent_at=record.at, source=record)
            else:
                left.pop(record.row, None)
                known[record.row] = Known(
                    record.status,
                    record.client_token,
                    record.generation,
                    record.ambiguous,
                    record.first_sent_at,
                    record,
                )
        running = live and invocation.end is None and index == len(invocations) - 1
        for row, doubt in {} if running else left.items():
            before = known.get(row)
            settled = before is not None and before.status is Status.SUCCEEDED
            doubted = before is not None and before.status is Status.IN_DOUBT and before.token == doubt.token
            if invocation.end is None:
                if not settled and not doubted:
                    known[row] = doubt
            elif before is None:
                known[row] = doubt._replace(status=None, ambiguous=False, first_sent_at=None)
    return known


def is_left(known: Known) -> bool:
    return known.status is not Status.SUCCEEDED


@given(strategies.histories, st.booleans())
@settings(patient, max_examples=200)
def test_a_history_is_what_a_naive_reference_makes_of_the_same_lines(invocations, live):
    lines = strategies.lines_of(invocations)
    past = history.fold(lines, live=live)
    known = reference(invocations, live=live)
    for row in POOL:
        assert past.status(row.key) is (known[row].status if row in known else None)
    assert past.succeeded == {row.key for row, state in known.items() if not is_left(state)}
    places = {id(line.record): line.offset for line in lines}
    assert {
        key: (
            entry.status,
            entry.client_token,
            entry.generation,
            entry.ambiguous,
            entry.first_sent_at,
            entry.offset,
        )
        for key, entry in past.unfinished.items()
    } == {row.key: (*state[:-1], places[id(state.source)]) for row, state in known.items() if is_left(state)}
    assert past.end == invocations[-1].end


@given(strategies.histories, st.booleans())
@patient
def test_the_states_sum_to_the_rows_that_have_one(invocations, live):
    past = history.fold(strategies.lines_of(invocations), live=live)
    stated = [row for row in POOL if past.status(row.key)]
    assert past.counts().total() == len(stated)
    assert sorted(past.keys()) == sorted(row.key for row in stated)
    assert past.failures().total() == len(stated) - len(past.succeeded)
    assert past.counts()[Status.SUCCEEDED] == len(past.succeeded)


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


@given(strategies.histories, st.integers(0, 20))
@patient
def test_a_ledger_cut_after_any_line_never_forgets_a_row_that_may_have_been_sent(invocations, kept):
    """What was intended is succeeded, failed or in doubt unless an end says that it was not sent."""
    lines = strategies.lines_of(invocations)[: kept + 1]
    past = history.fold(lines)
    last = max(index for index, line in enumerate(lines) if isinstance(line.record, Header))
    ended = any(isinstance(line.record, End) for line in lines[last:])
    for line in lines[last:]:
        if isinstance(line.record, Intent) and not ended:
            assert all(past.status(row.key) is not None for row in named_rows(line.record))


# ---- names


def test_rows_are_named_once_each_in_the_order_of_the_lines():
    lines = numbered([RUN, intent(B, A), result(A, Status.FAILED), intent(C), END])
    wanted = {A.key, B.key, C.key}
    assert history.row_names(lines, wanted, 20) == ["eng-1/O1", "eng-0/O0", "eng-2/O2"]
    assert history.row_names(lines, wanted, 2) == ["eng-1/O1", "eng-0/O0"]
    assert history.row_names(lines, {A.key}, 20) == ["eng-0/O0"]
    assert history.row_names(lines, set(), 20) == []


def test_a_row_that_only_a_result_names_is_named():
    assert history.row_names(numbered([RUN, result(B, Status.SUCCEEDED)]), {B.key}, 20) == ["eng-1/O1"]


def test_names_are_read_no_further_than_there_are_enough():
    lines = iter(numbered([RUN, intent(A), intent(B)]))
    assert history.row_names(lines, {A.key}, 2) == ["eng-0/O0"]
    assert next(lines).record == intent(B)
