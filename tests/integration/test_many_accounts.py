"""Runs of many accounts."""

from pathlib import Path

import pytest

from batch_snapshot.config.options import Options
from batch_snapshot.jobs import run
from batch_snapshot.simulator import serve
from tests.support.processes import (
    Place,
    assert_exactly_once,
    environment,
    first,
    pairs,
    results,
    write_manifest,
)


@pytest.mark.asyncio
async def test_a_run_of_many_accounts_makes_each_row_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    names = [f"a{n}" for n in range(60)]
    rows = [one for n, name in enumerate(names) for one in pairs(2, first=2 * n, account=name)]
    path = write_manifest(Path("m.yaml"), rows, accounts={name: {} for name in names})
    async with serve() as (url, simulator):
        done = await run.run(path, Options(endpoint_url=url, state_dir=tmp_path, ledger="l.ndjson"))
        assert_exactly_once(simulator, Path("l.ndjson"), rows)
    assert done.exit_code == 0
    assert len(results(Path("l.ndjson"))) == 120
    assert {one.counts["succeeded"] for one in done.accounts.values() if one.counts} == {2}


@pytest.mark.asyncio
@pytest.mark.parametrize(("hard", "code"), [(4_096, 0), (100, 5)])
async def test_a_lock_for_each_account_needs_no_limit_raised_by_hand(tmp_path, hard, code):
    place = Place(tmp_path)
    names = [f"a{n}" for n in range(120)]
    place.manifest(
        [pairs(1, first=n, account=name)[0] for n, name in enumerate(names)],
        accounts={name: {} for name in names},
    )
    async with serve() as (url, _):
        result = await place.call(
            *("run", "trial.yaml", "--endpoint-url", url),
            script=first(f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, {hard}))"),
        )
    assert result.code == code, result.stderr
    assert ("ulimit -n" in result.stderr) is (code == 5)
