"""Runs on a Dask cluster of real processes, and what breaks there; judged by the service's record."""

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from batch_snapshot.cluster.coordinator import FIRST_BATCH
from tests.support.dask_cluster import cluster, own_workers
from tests.support.processes import (
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


@pytest.mark.long
async def test_two_hundred_accounts_keep_their_rows_when_a_worker_is_killed(place):
    listed = many(place, 200, 50)
    async with service(place, "--latency", "0.01") as url:
        run = [
            "run",
            "trial.yaml",
            "--endpoint-url",
            url,
            "--engine",
            "dask",
            "--workers",
            "2",
            "--drain-timeout",
            "2s",
            *QUIET,
        ]
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
    async with service(place) as url, cluster(place.folder, place.env) as dask:
        where = ["--endpoint-url", url, "--engine", "dask", "--scheduler", dask.address, *BUDGET, *QUIET]
        await dask.work(2)
        trial = await call(place, "run", "trial.yaml", *where, "--limit", "33")
        assert (trial.code, trial.json["outcome"], trial.json["calls"]) == (4, "deferred", 33)
        assert recorded(place) == len((await record(url))["snapshots"]) == 33
        rest = await call(place, "run", "trial.yaml", *where)
        assert (rest.code, rest.json["calls"]) == (0, 67)
        await made_once(url, place, listed)


@pytest.mark.long
async def test_a_worker_that_hangs_loses_its_accounts_and_makes_nothing_when_it_wakes(place):
    listed = many(place, 8, 60, **PACED)
    async with service(place, "--latency", "0.05") as url, cluster(place.folder, place.env) as dask:
        where = ["--endpoint-url", url, "--engine", "dask", "--scheduler", dask.address, *BUDGET, *QUIET]
        where += ["--max-duration", "1h"]  # which has nothing to do with how long a batch lasts
        async with place.started("run", "trial.yaml", *where) as child:
            await until(lambda: recorded(place) > 60, "some results", PATIENT)
            dask.workers[0].send_signal(signal.SIGSTOP)
            ended = await child.finished(PATIENT)
            assert ended.code == 0, ended.stderr
            await made_once(url, place, listed)
            before = (await record(url))["calls"]["CreateResourceSnapshot"]
            dask.workers[0].send_signal(signal.SIGCONT)
            # It finds its scheduler gone quiet, and says so by ending or by working again.
            await dask.work(1)
            await asyncio.wait({asyncio.ensure_future(dask.workers[0].wait())}, timeout=3)
        # What had just been signed may still leave, under its token; nothing else does.
        assert (await record(url))["calls"]["CreateResourceSnapshot"] - before <= 8
        await made_once(url, place, listed)


@pytest.mark.long
async def test_a_scheduler_that_goes_away_stops_the_run_and_another_one_carries_on(place):
    listed = many(place, 8, 60, **PACED)
    async with service(place, "--latency", "0.05") as url, cluster(place.folder, place.env) as dask:
        run = ["run", "trial.yaml", "--endpoint-url", url, "--engine", "dask", *BUDGET, *QUIET]
        async with place.started(*run, "--scheduler", dask.address) as child:
            await until(lambda: recorded(place) > 60, "some results", PATIENT)
            dask.lose_scheduler()
            ended = await child.finished(PATIENT)
        assert ended.code == 3, ended.stderr
        assert any("scheduler is gone" in reason for reason in ended.json["reasons"]), ended.json
        assert sum(ended.json["counts"].values()) == len(listed)
        await dask.start()
        await dask.work(2)
        again = await call(place, *run, "--scheduler", dask.address)
        assert again.code == 0, again.stdout + again.stderr
        await made_once(url, place, listed)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["dask", "local"])
async def test_a_coordinator_that_is_killed_is_followed_by_one_that_waits_for_its_workers(place, engine):
    listed = many(place, 8, 60, **PACED)
    async with service(place, "--latency", "0.05") as url, cluster(place.folder, place.env) as dask:
        on_dask = ["--engine", "dask", "--scheduler", dask.address]
        run = ["run", "trial.yaml", "--endpoint-url", url, *BUDGET, *QUIET]
        async with place.started(*run, *on_dask) as child:
            await until(lambda: recorded(place) > 60, "some results", PATIENT)
            child.signal(signal.SIGKILL)
            await child.finished(PATIENT)
        again = await call(place, *run, *(on_dask if engine == "dask" else []))
        assert again.code == 0, again.stdout + again.stderr
        assert "may still make calls" in again.stderr
        await made_once(url, place, listed)


@pytest.mark.long
async def test_no_window_holds_more_calls_than_declared_though_a_worker_is_killed(place):
    many(place, 4, 40, quota={"per_minute": 60})
    faults = "internal=0.1,internal-after=0.1"
    async with (
        service(place, "--latency", "0.1", "--window", "60/1m", "--faults", faults, "--seed", "3") as url,
        cluster(place.folder, place.env) as dask,
    ):
        where = ["--endpoint-url", url, "--engine", "dask", "--scheduler", dask.address, *BUDGET, *QUIET]
        async with place.started("run", "trial.yaml", *where) as child:
            await until(lambda: recorded(place) > 8, "some results", PATIENT)
            dask.workers[0].kill()
            ended = await child.finished(PATIENT)
        assert ended.code == 4, ended.stderr
        told = await record(url)
        # One key signs for all of them: they share a window. What a lost worker held of it is taken for
        # used: a portion and a half of each account that it had, perhaps of all.
        assert 30 < told["calls"]["CreateResourceSnapshot"] <= 60
        assert told["throttled"] == 0
        assert all("per_minute is spent" in reason for reason in ended.json["reasons"]), ended.json


@pytest.mark.long
async def test_an_interrupt_drains_the_workers_and_the_same_command_goes_on(place):
    listed = many(place, 8, 60, **PACED)
    async with service(place, "--latency", "0.05") as url, cluster(place.folder, place.env) as dask:
        run = ["run", "trial.yaml", "--endpoint-url", url, "--engine", "dask", *BUDGET, *QUIET]
        async with place.started(*run, "--scheduler", dask.address) as child:
            await until(lambda: recorded(place) > 60, "some results", PATIENT)
            child.signal(signal.SIGINT)
            ended = await child.finished(PATIENT)
        assert ended.code == 130, ended.stderr
        counts = ended.json["counts"]
        assert counts["in_doubt"] == 0
        assert all("clock_skew_s" in line for line in of_type(place.ledger, "intent"))
        assert counts["succeeded"] == len((await record(url))["snapshots"]) < len(listed)
        again = await call(place, *run, "--scheduler", dask.address)
        assert again.code == 0, again.stdout + again.stderr
        await made_once(url, place, listed)


@pytest.mark.long
async def test_a_ledger_that_cannot_be_written_ends_the_calls_and_is_gone_on_with(place):
    listed = many(place, 4, 60, quota={"per_second": 10})
    async with service(place, "--latency", "0.02") as url, cluster(place.folder, place.env) as dask:
        run = ["run", "trial.yaml", "--endpoint-url", url, "--engine", "dask", *BUDGET, *QUIET]

        async with place.started(*run, "--scheduler", dask.address, largest=60_000) as child:
            ended = await child.finished(PATIENT)
        assert ended.code == 5, ended.stderr
        calls = (await record(url))["calls"]
        assert 0 < len((await record(url))["snapshots"]) < len(listed)
        assert (await record(url))["calls"] == calls
        # The workers had a batch an account at most; they were told to drop it.
        assert calls["CreateResourceSnapshot"] - recorded(place) < 4 * FIRST_BATCH
        again = await call(place, *run, "--scheduler", dask.address)
        assert again.code == 0, again.stdout + again.stderr
        await made_once(url, place, listed)


@pytest.mark.long
async def test_credentials_are_the_workers_own_and_nobody_sends_them(place):
    listed = many(place, 2, 5)
    theirs = {name: place.env.pop(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    async with service(place) as url, cluster(place.folder, {**place.env, **theirs}, 1) as dask:
        where = ["--endpoint-url", url, "--engine", "dask", "--scheduler", dask.address, *QUIET]
        ended = await call(place, "run", "trial.yaml", *where)
        assert ended.code == 0, ended.stderr
        await made_once(url, place, listed)


@pytest.mark.long
async def test_a_worker_without_credentials_stops_the_account_with_the_way_out(place):
    many(place, 2, 5)
    nothing = {name: text for name, text in place.env.items() if not name.startswith("AWS_ACCESS")}
    nothing.pop("AWS_SECRET_ACCESS_KEY")
    async with service(place) as url, cluster(place.folder, nothing, 1) as dask:
        where = ["--endpoint-url", url, "--engine", "dask", "--scheduler", dask.address, *QUIET]
        ended = await call(place, "run", "trial.yaml", *where)
        assert ended.code == 3
        assert all("name a profile or a role_arn" in reason for reason in ended.json["reasons"])
        assert (await record(url))["snapshots"] == []


@pytest.mark.long
async def test_a_worker_of_another_version_is_refused_before_any_call(place):
    many(place, 2, 5)
    other = place.folder / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("import batch_snapshot; batch_snapshot.__version__ = '0.0.0'\n")
    path = f"{other}:{place.env['PYTHONPATH']}"
    async with service(place) as url, cluster(place.folder, place.env, 0) as dask:
        await dask.work(1, PYTHONPATH=path)
        where = ["--endpoint-url", url, "--engine", "dask", "--scheduler", dask.address, *QUIET]
        ended = await call(place, "run", "trial.yaml", *where)
        assert ended.code == 2
        assert "has batch-snapshot 0.0.0" in ended.stderr
        assert (await record(url))["calls"] == {}


async def test_a_scheduler_that_is_not_there_is_told_before_any_call(tmp_path):
    place = Place(tmp_path)
    many(place, 2, 5)
    ended = await call(
        place,
        "run",
        "trial.yaml",
        "--simulate",
        "--engine",
        "dask",
        "--scheduler",
        "tcp://127.0.0.1:9",
        *QUIET,
    )
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


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--scheduler", "tcp://127.0.0.1:8786"], "use it with --engine dask"),
        (["--workers", "2"], "use it with --engine dask"),
        (["--engine", "dask", "--scheduler", "somewhere"], "such as tcp://"),
        (["--engine", "dask", "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "leave it out"),
        (["--engine", "dask", "--lease", "1ms"], "is not a time"),
        (["--engine", "dask", "--lease", "0.5s"], "--budget: give 1 to 60 seconds"),
    ],
)
async def test_flags_that_do_not_fit_are_told(tmp_path, flags, told):
    place = Place(tmp_path)
    many(place, 1, 1)
    ended = await call(place, "run", "trial.yaml", "--simulate", *flags)
    assert ended.code == 2
    assert told in ended.stderr
