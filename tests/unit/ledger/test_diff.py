"""What the difference of two ledgers says."""

import pytest

from batch_snapshot import paths
from batch_snapshot.ledger import diff, locks
from batch_snapshot.models import Status
from tests.support.ledgers import LedgerBuilder, row

#: A status and a revision.
SUCCEEDED, AGAIN, FAILED = (Status.SUCCEEDED, 1), (Status.SUCCEEDED, 2), (Status.FAILED, None)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (None, SUCCEEDED, "new"),
        (SUCCEEDED, None, "gone"),
        (SUCCEEDED, FAILED, "newly_failing"),
        (FAILED, AGAIN, "recovered"),
        (FAILED, FAILED, "still_failing"),
        (AGAIN, AGAIN, "revision_jumps"),
        (SUCCEEDED, AGAIN, None),
    ],
)
def test_each_change_of_a_row_is_of_one_kind(tmp_path, before, after, kind):
    """Beside a row that did not change. Only rows that newly fail are worth an exit code."""
    ledgers = []
    for name, state, other in (("a", before, SUCCEEDED), ("b", after, AGAIN)):
        ledger = LedgerBuilder(2).begin().result(row(2), other[0], revision=other[1])
        if state:
            ledger.result(row(1), state[0], revision=state[1])
        ledgers.append(ledger.end().write(tmp_path / f"{name}.ndjson"))
    found = diff.diff(*ledgers)
    assert {each: number for each, number in found.counts.items() if number} == ({kind: 1} if kind else {})
    assert [change.row for change in found.changes.get(kind, [])] == ([row(1)] if kind else [])
    assert found.exit_code == (kind == "newly_failing")


@pytest.mark.parametrize(
    ("opened", "said"),
    [
        ({}, "not the revision after that of the first: others made snapshots in between, or"),
        ({"endpoint": "simulator"}, "expected, because a simulated run without --state starts again"),
        ({"endpoint": "simulator", "settings": {"simulator_state": "w"}}, "others made snapshots in between"),
    ],
)
def test_revisions_of_simulated_runs_jump_unless_their_world_is_kept(tmp_path, opened, said):
    paths = [
        LedgerBuilder(1).begin(at=at, **opened).result(row(1)).end().write(tmp_path / f"{at}.ndjson")
        for at in (0, 60)
    ]
    found = diff.diff(*paths)
    assert (found.exit_code, found.counts["revision_jumps"]) == (0, 1)
    assert said in diff.as_text(found)


def test_rows_that_a_crash_left_in_doubt_are_newly_failing(tmp_path):
    before = LedgerBuilder(5).begin()
    for number in range(1, 6):
        before.result(row(number), Status.FAILED if number == 3 else Status.SUCCEEDED)
    first = before.end().write(tmp_path / "a.ndjson")
    after = LedgerBuilder(5).begin().intend(*map(row, range(1, 6))).result(row(1))
    path = after.write(tmp_path / "b.ndjson")

    def counts():
        found = diff.diff(first, path)
        return {kind: number for kind, number in found.counts.items() if number}, found.rows_after

    assert counts() == ({"newly_failing": 3, "still_failing": 1, "revision_jumps": 1}, 5)
    assert "succeeded revision 1 → in doubt (RunCrashed)" in diff.as_text(diff.diff(first, path))
    with locks.hold(paths.ledger_lock(path), what="a run", since="now"):
        assert counts()[1] == 1, "they wait for an answer"
    # What the next run sent before it ended is no longer in doubt; what it did not send still is.
    after.begin(at=60).intend(row(2), row(4)).result(row(2)).end().write(path)
    assert counts() == ({"newly_failing": 2, "still_failing": 1, "revision_jumps": 2}, 5)
    after.begin(at=90).result(row(4)).end().write(path)
    assert counts()[0]["newly_failing"] == 1
