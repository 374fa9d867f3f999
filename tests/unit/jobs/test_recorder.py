"""What a run writes to its ledger."""

from typing import Any

from batch_snapshot import manifest
from batch_snapshot.config.options import Options
from batch_snapshot.jobs.recorder import Recorder
from tests.support.ledgers import BEGAN, LedgerBuilder
from tests.support.planned_jobs import retry_job, run_job
from tests.support.processes import pairs, write_manifest

NO_LEDGER: Any = None


def written_by(job):
    return Recorder(NO_LEDGER, job, lambda _: None, lambda: BEGAN).header


def test_run_line_keeps_the_accounts_of_earlier_runs(tmp_path):
    accounts = {name: {"profile": name} for name in ("a", "b")}
    listed = write_manifest(
        tmp_path / "m.yaml",
        [{**one, "account": name} for name in accounts for one in pairs(1)],
        accounts=accounts,
    )
    loaded = manifest.load(listed)
    path = tmp_path / "l.ndjson"
    options = Options(ledger=str(path), state_dir=tmp_path)
    with run_job(loaded, options, BEGAN) as job:
        first = written_by(job)
    earlier = {key: getattr(first, key) for key in ("name", "accounts", "settings", "manifest_sha256")}
    LedgerBuilder(2).begin(**earlier, discovered_sha256="d").end().write(path)
    some = Options(ledger=str(path), state_dir=tmp_path, accounts=("a",))
    with run_job(loaded, some, BEGAN) as job:
        assert [*job.accounts] == ["a"]
        assert written_by(job).accounts == first.accounts
    with retry_job(path, some, BEGAN) as job:
        retried = written_by(job)
    assert (retried.command, retried.accounts) == ("retry", first.accounts)
    assert retried.settings["accounts"] == ["a"]
    assert retried.discovered_sha256 is None, "only the run that searched has it"
