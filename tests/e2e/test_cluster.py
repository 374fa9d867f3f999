"""Runs on a Dask cluster of real processes, and what breaks there; judged by the service's record."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from batch_snapshot.cluster.coordinator import FIRST_BATCH
from tests.support.dask_cluster import Cluster, cluster, own_workers
from tests.support.processes import (
    Child,
    Clustered,
    Finished,
    Json,
    Place,
    ledger_lines,
    of_type,
    record,
    results,
    service,
    until,
)

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(240)]

#: Seconds for what a machine does at once that has nothing else to do, and a starved one does all the same.
PATIENT = 60.0
#: So that a run is not over before a test that is late has done something to it.
PACED: Json = {"quota": {"per_second": 20}}
QUIET = ["--progress", "none", "--format", "json"]
BUDGET = ["--budget", "1s", "--drain-timeout", "2s"]


@pytest.fixture
def place(tmp_path) -> Place:
    """A folder to run in."""
    return Clustered(tmp_path)


def many(place: Place, accounts: int, rows: int, **account: object) -> list[Json]:
    """A manifest of so many accounts with so many rows each, one after the other; its pairs."""
    listed = [
        {
            "engagement": f"eng-{row * accounts + number:014d}",
            "resource": f"O{row + 1}",
            "account": f"a{number:03d}",
        }
        for row in range(rows)
        for number in range(accounts)
    ]
    place.manifest(listed, accounts={f"a{number:03d}": account for number in range(accounts)})
    return listed


async def made_once(url: str, place: Place, listed: list[Json]) -> None:
    """Each row has one snapshot at the service, which the ledger names."""
    told = await record(url)
    wanted = Counter((row["engagement"], row["resource"]) for row in listed)
    assert Counter((made["engagement"], made["resource"]) for made in told["snapshots"]) == wanted
    named = results(place.ledger).values()
    assert {line["status"] for line in named} == {"succeeded"}
    assert sorted(line["arn"] for line in named) == sorted(made["arn"] for made in told["snapshots"])
    assert told["pair_overlaps"] == 0
    checked = await call(place, "status", place.ledger, "--check")
    assert checked.code == 0, checked.stdout


def recorded(place: Place) -> int:
    """Rows that have a result by now."""
    return sum(1 for line in ledger_lines(place.ledger) if line["type"] == "result")


async def call(place: Place, *arguments: str | Path, **more: Any) -> Finished:
    """Run a command to its end."""
    return await place.call(*arguments, patience=PATIENT, **more)


def size(place: Place) -> int:
    return place.ledger.stat().st_size if place.ledger.exists() else 0


class OnCluster(NamedTuple):
    """A service, a cluster, and the command line of a run on it."""

    url: str
    dask: Cluster
    run: list[str]

    async def calls(self) -> int:
        """The rows that were sent so far, again and again ones too."""
        return int((await record(self.url))["calls"].get("CreateResourceSnapshot", 0))


@asynccontextmanager
async def on_cluster(
    place: Place, *served: str, workers: int = 2, env: dict[str, str] | None = None
) -> AsyncIterator[OnCluster]:
    async with service(place, *served) as url, cluster(place.folder, env or place.env, workers) as dask:
        where = ["--endpoint-url", url, "--engine", "dask", "--scheduler", dask.address]
        yield OnCluster(url, dask, ["run", "trial.yaml", *where, *BUDGET, *QUIET])


@asynccontextmanager
async def begun(place: Place, run: list[str], rows: int = 60, **more: Any) -> AsyncIterator[Child]:
    """A run of which so many rows have a result."""
    async with place.started(*run, **more) as child:
        await until(lambda: recorded(place) > rows or not child.running, "some results", PATIENT)
        yield child


async def goes_on(place: Place, at: OnCluster, listed: list[Json], run: list[str] | None = None) -> Finished:
    """The same command finishes the run."""
    again = await call(place, *(run or at.run))
    assert again.code == 0, again.stdout + again.stderr
    await made_once(at.url, place, listed)
    return again


@pytest.mark.long
async def test_two_hundred_accounts_keep_their_rows_when_a_worker_is_killed(place):
    listed = many(place, 200, 50)
    async with service(place, "--latency", "0.01") as url:
        where = ["--endpoint-url", url, "--engine", "dask", "--workers", "2", "--drain-timeout", "2s"]
        run = ["run", "trial.yaml", *where, *QUIET]
        # The workers are started by the interpreter that starts the run, as its users have it.
        async with place.started(*run, "--concurrency", "64", python=()) as child:
            await until(lambda: size(place) > 2_000_000 or not child.running, "some results", 100)
            workers = own_workers(child)
            assert len(workers) == 2
            workers[0].kill()
            ended = await child.finished(200)
        assert ended.code == 0, ended.stderr
        assert ended.json["counts"]["succeeded"] == len(listed) == 10_000
        calls = (await record(url))["calls"]["CreateResourceSnapshot"]
        assert calls > len(listed), "rows of the lost worker were sent again, under their tokens"
        await made_once(url, place, listed)


@pytest.mark.long
async def test_limit_sends_exactly_so_many_rows_of_all_accounts_on_a_cluster(place):
    listed = many(place, 5, 20)
    async with on_cluster(place) as at:
        trial = await call(place, *at.run, "--limit", "33")
        assert (trial.code, trial.json["outcome"], trial.json["calls"]) == (4, "deferred", 33)
        assert recorded(place) == len((await record(at.url))["snapshots"]) == 33
        assert (await goes_on(place, at, listed)).json["calls"] == 67


@pytest.mark.long
async def test_a_worker_that_hangs_loses_its_accounts_and_makes_nothing_when_it_wakes(place):
    listed = many(place, 8, 60, **PACED)
    async with on_cluster(place, "--latency", "0.05") as at:
        # The duration has nothing to do with how long a batch lasts.
        async with begun(place, [*at.run, "--max-duration", "1h"]) as child:
            at.dask.workers[0].send_signal(signal.SIGSTOP)
            ended = await child.finished(PATIENT)
            assert ended.code == 0, ended.stderr
            await made_once(at.url, place, listed)
            before = await at.calls()
            at.dask.workers[0].send_signal(signal.SIGCONT)
            # It finds its scheduler gone quiet, and says so by ending or by working again.
            await at.dask.work(1)
            await asyncio.wait({asyncio.ensure_future(at.dask.workers[0].wait())}, timeout=3)
        # What had just been signed may still leave, under its token; nothing else does.
        assert await at.calls() - before <= 8
        await made_once(at.url, place, listed)


@pytest.mark.long
async def test_a_scheduler_that_goes_away_stops_the_run_and_another_one_carries_on(place):
    listed = many(place, 8, 60, **PACED)
    async with on_cluster(place, "--latency", "0.05") as at:
        async with begun(place, at.run) as child:
            at.dask.lose_scheduler()
            ended = await child.finished(PATIENT)
        assert ended.code == 3, ended.stderr
        assert any("scheduler is gone" in reason for reason in ended.json["reasons"]), ended.json
        assert sum(ended.json["counts"].values()) == len(listed)
        await at.dask.start()
        await at.dask.work(2)
        await goes_on(place, at, listed, [*at.run, "--scheduler", at.dask.address])


@pytest.mark.long
@pytest.mark.parametrize("engine", ["dask", "local"])
async def test_a_coordinator_that_is_killed_is_followed_by_one_that_waits_for_its_workers(place, engine):
    listed = many(place, 8, 60, **PACED)
    async with on_cluster(place, "--latency", "0.05") as at:
        async with begun(place, at.run) as child:
            child.signal(signal.SIGKILL)
            await child.finished(PATIENT)
        local = ["run", "trial.yaml", "--endpoint-url", at.url, *BUDGET, *QUIET]
        again = await goes_on(place, at, listed, at.run if engine == "dask" else local)
        assert "may still make calls" in again.stderr


@pytest.mark.long
async def test_no_window_holds_more_calls_than_declared_though_a_worker_is_killed(place):
    many(place, 4, 40, quota={"per_minute": 60})
    faults = ["--faults", "internal=0.1,internal-after=0.1", "--seed", "3"]
    async with on_cluster(place, "--latency", "0.1", "--window", "60/1m", *faults) as at:
        async with begun(place, at.run, 8) as child:
            at.dask.workers[0].kill()
            ended = await child.finished(PATIENT)
        assert ended.code == 4, ended.stderr
        # One key signs for all of them: they share a window. What a lost worker held of it is taken for
        # used: a portion and a half of each account that it had, perhaps of all.
        assert 30 < await at.calls() <= 60
        assert (await record(at.url))["throttled"] == 0
        assert all("per_minute is spent" in reason for reason in ended.json["reasons"]), ended.json


@pytest.mark.long
async def test_an_interrupt_drains_the_workers_and_the_same_command_goes_on(place):
    listed = many(place, 8, 60, **PACED)
    async with on_cluster(place, "--latency", "0.05") as at:
        async with begun(place, at.run) as child:
            child.signal(signal.SIGINT)
            ended = await child.finished(PATIENT)
        assert ended.code == 130, ended.stderr
        counts = ended.json["counts"]
        assert counts["in_doubt"] == 0
        assert all("clock_skew_s" in line for line in of_type(place.ledger, "intent"))
        assert counts["succeeded"] == len((await record(at.url))["snapshots"]) < len(listed)
        await goes_on(place, at, listed)


@pytest.mark.long
async def test_a_ledger_that_cannot_be_written_ends_the_calls_and_is_gone_on_with(place):
    listed = many(place, 4, 60, quota={"per_second": 10})
    async with on_cluster(place, "--latency", "0.02") as at:
        ended = await call(place, *at.run, largest=60_000)
        assert ended.code == 5, ended.stderr
        calls = await at.calls()
        assert 0 < len((await record(at.url))["snapshots"]) < len(listed)
        assert await at.calls() == calls
        # The workers had a batch an account at most; they were told to drop it.
        assert calls - recorded(place) < 4 * FIRST_BATCH
        await goes_on(place, at, listed)


@pytest.mark.long
async def test_credentials_are_the_workers_own_and_nobody_sends_them(place):
    listed = many(place, 2, 5)
    theirs = {name: place.env.pop(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    async with on_cluster(place, workers=1, env={**place.env, **theirs}) as at:
        await goes_on(place, at, listed)


@pytest.mark.long
async def test_a_worker_without_credentials_stops_the_account_with_the_way_out(place):
    many(place, 2, 5)
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    nothing = {name: text for name, text in place.env.items() if name not in keys}
    async with on_cluster(place, workers=1, env=nothing) as at:
        ended = await call(place, *at.run)
        assert ended.code == 3
        assert all("name a profile or a role_arn" in reason for reason in ended.json["reasons"])
        assert (await record(at.url))["snapshots"] == []


@pytest.mark.long
async def test_a_worker_of_another_version_is_refused_before_any_call(place):
    many(place, 2, 5)
    other = place.folder / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("import batch_snapshot; batch_snapshot.__version__ = '0.0.0'\n")
    async with on_cluster(place, workers=0) as at:
        await at.dask.work(1, PYTHONPATH=f"{other}:{place.env['PYTHONPATH']}")
        ended = await call(place, *at.run)
        assert ended.code == 2
        assert "has batch-snapshot 0.0.0" in ended.stderr
        assert (await record(at.url))["calls"] == {}


async def test_a_scheduler_that_is_not_there_is_told_before_any_call(tmp_path):
    place = Place(tmp_path)
    many(place, 2, 5)
    line = "run trial.yaml --simulate --engine dask --scheduler tcp://127.0.0.1:9"
    ended = await call(place, *line.split(), *QUIET)
    assert ended.code == 2
    assert "no Dask scheduler answers there" in ended.stderr
    assert "dask scheduler" in ended.stderr


async def test_without_dask_the_way_to_it_is_told(tmp_path):
    place = Place(tmp_path)
    many(place, 2, 5)
    # It is looked for here first, and no process that is forked has imported it before.
    (tmp_path / "distributed.py").write_text("raise ModuleNotFoundError(name='distributed')\n", "utf-8")
    ended = await call(place, "run", "trial.yaml", "--simulate", "--engine", "dask", *QUIET)
    assert ended.code == 2
    assert "pip install 'batch-snapshot[dask] @ git+https://" in ended.stderr
