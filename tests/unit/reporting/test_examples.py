"""Rows that failed, read again from a ledger."""

from hypothesis import given

from batch_snapshot.ledger import history, reader
from batch_snapshot.ledger.history import failure_group
from batch_snapshot.models import Status
from batch_snapshot.reporting import status
from batch_snapshot.reporting.entries import CRASH_MESSAGE
from batch_snapshot.reporting.status import find_examples
from tests.support.ledgers import LedgerBuilder
from tests.support.reports import DENIED, A, B, C, D, ledgers
from tests.support.strategies import patient


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
