"""Runs of many accounts."""

import pytest

from batch_snapshot.config.options import Options
from batch_snapshot.jobs import run
from batch_snapshot.simulator import serve
from tests.support.processes import Place, first, move_in, pairs


@pytest.mark.asyncio
@pytest.mark.parametrize(("hard", "code"), [(4_096, 0), (60, 5)])
async def test_a_lock_for_each_account_needs_no_limit_raised_by_hand(tmp_path, hard, code):
    place = Place(tmp_path)
    names = [f"a{n}" for n in range(80)]
    place.manifest(
        [pairs(1, first=n, account=name)[0] for n, name in enumerate(names)],
        accounts={name: {} for name in names},
    )
    async with serve() as (url, _):
        result = await place.call(
            *("run", "trial.yaml", "--endpoint-url", url),
            script=first(f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (60, {hard}))"),
        )
    assert result.code == code, result.stderr
    assert ("ulimit -n" in result.stderr) is (code == 5)


@pytest.mark.asyncio
@pytest.mark.parametrize("other", [200, None], ids=["higher", "unknown"])
async def test_names_of_one_aws_account_share_the_lowest_declared_rate(tmp_path, monkeypatch, other):
    """Both sign with the key of the environment; without a rate declared, b would measure the limit."""
    place = Place(tmp_path)
    move_in(monkeypatch, tmp_path)
    quotas = {"a": {"per_second": 40}, "b": {"per_second": other} if other else {}}
    accounts = {name: {"quota": quota} for name, quota in quotas.items()}
    place.manifest([*pairs(20, account="a"), *pairs(20, first=20, account="b")], accounts=accounts)
    async with serve() as (url, _):
        options = Options(endpoint_url=url, ledger=str(place.ledger), state_dir=tmp_path / "state")
        ended = await run.run(place.folder / "trial.yaml", options)
    assert ended.counts.succeeded == 40
    assert ended.elapsed_s > 0.9, "both together: 40 calls at 40 a second"
    [warning] = ended.warnings
    assert warning.endswith("with different rates declared: together they keep to the lowest, 40/s")
    assert [one.learned_rate for one in ended.accounts.values()] == [pytest.approx(20, rel=0.02)] * 2
    assert ended.learned_rate == pytest.approx(40, rel=0.02), "one pace, counted once"


@pytest.mark.long
@pytest.mark.asyncio
async def test_names_of_one_aws_account_keep_their_own_rates_on_a_cluster(tmp_path):
    place = Place(tmp_path)
    accounts = {"a": {"quota": {"per_second": 40}}, "b": {"quota": {"per_second": 20}}}
    place.manifest([*pairs(5, account="a"), *pairs(5, first=5, account="b")], accounts=accounts)
    async with serve() as (url, _):
        line = ["run", "trial.yaml", "--endpoint-url", url, "--engine", "dask", "--workers", "2"]
        ended = await place.call(*line, "--format", "json", "--progress", "none")
    assert (ended.code, ended.json["warnings"]) == (0, []), ended.stderr
