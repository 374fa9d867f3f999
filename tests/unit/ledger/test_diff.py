"""What the difference of two ledgers says. `integration/test_nights` compares those of whole runs."""

import pytest

from batch_snapshot.ledger import diff
from tests.support.ledgers import LedgerBuilder, row


@pytest.mark.parametrize(
    ("opened", "said"),
    [
        ({}, "not the revision after that of the first: others made snapshots in between, or"),
        ({"endpoint": "simulator"}, "expected, because a simulated run without --state starts anew"),
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
