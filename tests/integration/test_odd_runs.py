"""Odd surroundings: streams that take nothing, selections of accounts, endpoints by environment."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_snapshot import manifest
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.errors import LedgerError, LockedError, ManifestError
from batch_snapshot.failures import retry
from batch_snapshot.jobs import run
from batch_snapshot.ledger import reader
from batch_snapshot.simulator import serve
from tests.support.marks import on_linux
from tests.support.planned_jobs import retry_job, run_job
from tests.support.processes import Place, closing, first, pairs


@pytest.fixture
def place(cwd):
    """A folder to run in, which is this process's own, too."""
    return Place(cwd)


@pytest.fixture
def full():
    """A stream that takes nothing."""
    with Path("/dev/full").open("wb") as stream:
        yield stream


SIMULATED = "ledgers/trial.simulated.ndjson"


@pytest.mark.parametrize(
    ("flags", "stream", "how"),
    [
        *(("-v", "stderr", how) for how in ("full", "closed")),
        ("--progress bar", "stderr", "full"),
        *(("", "stdout", how) for how in ("full", "closed")),
    ],
)
@pytest.mark.asyncio
async def test_a_stream_that_takes_nothing_ends_no_run(place, full, flags, stream, how):
    place.manifest(pairs(5))
    more: dict[str, Any] = {stream: full} if how == "full" else {"script": first(closing(stream))}
    metrics = ("--metrics-file", "run.prom")
    done = await place.call("run", "trial.yaml", "--simulate", *metrics, *flags.split(), **more)
    assert (place.folder / "run.prom").exists()
    assert done.code == (5 if (stream, how) == ("stdout", "full") else 0), done.stderr
    counts = json.loads((place.folder / SIMULATED).read_text("utf-8").splitlines()[-1])["counts"]
    assert counts == {"succeeded": 5, "failed": 0, "in_doubt": 0, "unattempted": 0}


@on_linux
@pytest.mark.asyncio
async def test_a_result_that_cannot_be_written_is_an_error_unless_its_reader_has_gone(place, full):
    place.manifest(pairs(5))
    assert (await place.call("run", "trial.yaml", "--simulate")).code == 0
    said = "error: standard output cannot be written (No space left on device); the disk is full: free "
    for words in (
        *("validate trial.yaml", "schema", "run --help", f"status {SIMULATED} --check", f"rows {SIMULATED}"),
        *("ls", f"diff {SIMULATED} {SIMULATED}", "init", "run trial.yaml --simulate --format json"),
    ):
        done = await place.call(*words.split(), stdout=full)
        assert (done.code, done.stderr.count(f"{said}some space\n")) == (5, 1), words
        reading, writing = os.pipe()
        os.close(reading)
        done = await place.call(*words.split(), stdout=writing)
        os.close(writing)
        assert (done.code, "cannot be written" in done.stderr) == (0, False), words


@pytest.mark.parametrize("form", ["csv", "ndjson"])
@pytest.mark.asyncio
async def test_rows_prints_nothing_where_standard_output_is_closed(place, form):
    place.manifest(pairs(2))
    await place.call("run", "trial.yaml", "--simulate")
    done = await place.call("rows", SIMULATED, "--format", form, script=first(closing("stdout")))
    assert (done.code, done.stderr) == (0, "")


ACCOUNTS: dict[str, dict[str, str]] = {"a": {}, "b": {}}


def two_accounts(place):
    rows = [*pairs(3, account="a"), *pairs(4, first=3, account="b")]
    return place.manifest(rows, name="two", accounts=ACCOUNTS)


def test_a_selection_of_accounts_counts_its_own_rows(place):
    path = two_accounts(place)
    preview = run.dry_run(path, Options(simulate=True, accounts=("a",)))
    assert (preview.rows, preview.counts.total) == (3, 7)


@pytest.mark.asyncio
async def test_what_a_selection_leaves_is_named_by_the_next_command(place):
    path = two_accounts(place)
    options = Options(simulate=True, accounts=("a",), command_line="run --accounts a")
    summary = await run.run(path, options)
    assert summary.counts == (3, 0, 0, 4)
    (step,) = summary.next_steps
    assert "--accounts" not in step
    assert "--simulate" in step


@pytest.mark.asyncio
async def test_a_retry_holds_every_account_that_it_calls_for(place):
    """Those of the last run, not of the first alone."""
    path = two_accounts(place)
    first = Options(simulate=True, accounts=("a",))
    summary = await run.run(path, first)
    await run.run(path, Options(simulate=True))
    now = utc_now()
    world = {"simulator_state": place.folder / "world", "state_dir": place.folder}
    options = Options(simulated_state_dir=place.folder / "simulated")
    other = Options(simulate=True, accounts=("b",), ledger="other.ndjson", **world)
    with retry_job(place.folder / summary.ledger, options, now) as retrying:
        assert set(retrying.accounts) == {"a", "b"}
        with pytest.raises(LockedError, match="account 'b'"):
            await run.run(path, other)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_PARTNERCENTRAL_SELLING"])
@pytest.mark.asyncio
async def test_an_endpoint_of_the_environment_is_called_and_told(place, monkeypatch, name):
    path = place.manifest(pairs(2))
    async with serve() as (url, simulator):
        monkeypatch.setenv(name, url)
        summary = await run.run(path, Options())
        assert len(simulator.snapshots) == 2
    header = reader.history_of(place.folder / summary.ledger).first
    assert header is not None
    assert header.endpoint == url
    monkeypatch.delenv(name)
    with pytest.raises(LedgerError, match="was written against"):
        await run.run(path, Options())


@pytest.mark.asyncio
async def test_an_account_with_another_endpoint_is_another_account(place):
    async with serve() as (url, _):
        path = place.manifest(pairs(2), accounts={"m": {"endpoint_url": url}})
        await run.run(path, Options())
        place.manifest(pairs(2), accounts={"m": {"endpoint_url": f"{url}/elsewhere"}})
        with pytest.raises(LedgerError, match="has other settings for account"):
            await run.run(path, Options())


@pytest.mark.asyncio
async def test_the_region_that_is_the_default_may_be_written_out_later(place, monkeypatch):
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    async with serve() as (url, simulator):
        options = Options(state_dir=place.folder, endpoint_url=url, region="us-east-1")
        path = place.manifest(pairs(2))
        await run.run(path, replace(options, region=None, limit=1))
        assert (await run.run(path, options)).counts.succeeded == len(simulator.snapshots) == 2
        place.manifest(pairs(3))
        text = r"has other settings for account 'default' \(region us-east-1\); use these, or name another"
        with pytest.raises(LedgerError, match=text):
            await run.run(path, replace(options, region="us-west-2"))


@pytest.mark.parametrize(("own", "called"), [("eu-west-1", "eu-west-1"), (None, "us-west-2")])
def test_an_accounts_own_region_and_profile_go_before_the_given_ones(place, own, called):
    accounts = {"m": {"region": own, "profile": own} if own else {}, "n": {}}
    listed = place.manifest(pairs(1, account="m"), accounts=accounts)
    options = Options(region="us-west-2", profile="us-west-2")
    account = run.dry_run(listed, options).accounts["m"]
    assert (account.region, account.profile) == (called, called)


def test_a_row_that_was_added_under_the_run_is_not_sent(place):
    """It was not there when all was validated: the run ends, and the next one takes it."""
    listed = place.manifest(pairs(5000))
    options = Options(simulate=True)
    sent = []
    with run_job(manifest.load(listed), options, utc_now()) as running:
        requests = running.requests()
        sent.append(next(requests))
        with listed.open("a", encoding="utf-8") as file:
            file.write('- {"engagement": "eng-aaaaaaaaaaaaaa", "resource": "O99999"}\n')
        with pytest.raises(ManifestError, match="changed"):
            sent.extend(requests)
    assert len(sent) == 5000
    assert all(request and request.row.resource != "O99999" for request in sent)


# -- what the environment says of endpoints -----------------------------------------------------------


def test_the_environment_can_say_that_it_names_no_endpoint(place, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "True")
    assert run.dry_run(place.manifest(pairs(2)), Options()).endpoint == "aws"


@pytest.mark.asyncio
async def test_without_standard_input_nobody_is_asked(place):
    place.manifest(pairs(2), catalog="AWS")
    place.env["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    line = ["run", "trial.yaml", "--max-duration", "0.1s", "--progress", "none"]
    done = await place.call(*line, script=first(closing("stdin")))
    assert done.code == 4, done.stderr


# -- the last row of a run ----------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "outcome", "code"), [(3, "completed", 1), (4, "stopped", 3)])
@pytest.mark.asyncio
async def test_too_many_failures_by_the_very_last_row_stop_nothing(place, rows, outcome, code):
    refused = [{"engagement": f"eng-missing{n:07d}", "resource": f"O{n + 1}"} for n in range(rows)]
    settings = Settings(failure_limit=retry.FailureLimit.parse("2"), concurrency=1)
    options = Options(simulate=True, engine=settings)
    summary = await run.run(place.manifest(refused), options)
    assert (summary.outcome, summary.exit_code) == (outcome, code)
    assert sum(summary.counts[1:3]) == 3
