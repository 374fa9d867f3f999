"""One entry per row of a ledger."""

from batch_snapshot.ledger import history
from batch_snapshot.models import Status
from tests.support.ledgers import LedgerBuilder
from tests.support.reports import A, B, C, read


def test_last_result_of_a_row_counts(tmp_path):
    ledger = LedgerBuilder(3).begin().intend(A, B, C)
    ledger.result(A, Status.FAILED).result(B, Status.FAILED, code="first").result(C, Status.IN_DOUBT)
    ledger.end().begin("retry").intend(A, B, C)
    ledger.result(A).result(B, Status.FAILED, code="second").result(C, Status.FAILED, code="third").end()
    _, found = read(tmp_path, ledger)
    assert [(entry.row, entry.status, entry.code) for entry in found] == [
        (A, "succeeded", ""),
        (B, "failed", "second"),
        (C, "failed", "third"),
    ]


def test_last_success_is_reported_once_also_if_the_row_failed_in_between(tmp_path):
    ledger = LedgerBuilder(2).begin().result(A, revision=1).result(B, revision=1).result(A, revision=2)
    ledger.result(B, Status.FAILED).result(B, revision=3).end()
    _, found = read(tmp_path, ledger)
    assert [(entry.status, entry.revision) for entry in found] == [("succeeded", 2), ("succeeded", 3)]


def test_rows_in_doubt_after_a_crash_and_unsent_rows_are_reported(tmp_path):
    ledger = LedgerBuilder(3).begin().intend(A, B).result(A).end("interrupted").begin().intend(C)
    _, found = read(tmp_path, ledger)
    assert [(entry.row, entry.status, entry.code) for entry in found] == [
        (B, "unattempted", ""),
        (A, "succeeded", ""),
        (C, "in_doubt", history.CRASHED),
    ]
