"""Simulated runs touch nothing of real ones: no ledger, lock, quota window, pace or reminder."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batch_snapshot import cli
from batch_snapshot.config.options import Options
from batch_snapshot.errors import LedgerError
from batch_snapshot.jobs import resume, run
from batch_snapshot.ledger import prune, reader
from batch_snapshot.simulator import serve
from tests.support.processes import pairs, write_manifest

pytestmark = pytest.mark.asyncio

MANIFEST = Path("trial.yaml")
DAY = datetime(2026, 3, 1, 2, tzinfo=UTC)
#: Ends with rows left over.
CUT_SHORT: dict[str, Any] = {"daily_quota": 2, "rate": 1000.0}


@pytest.fixture(autouse=True)
def place(cwd, monkeypatch):
    # For temporary folders.
    (cwd / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(cwd / "tmp"))
    write_manifest(MANIFEST, pairs(4))
    return cwd


def files(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def endpoint(path):
    head = reader.head(Path(path))
    return head and head.endpoint


def at(moment):
    return run.Hooks(now=lambda: moment)


# -- the ledger's name -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("n/{name}-{date}.ndjson", "n/trial-2026-03-01.simulated.ndjson"),
        ("{date}/{name}", "2026-03-01/trial.simulated"),
        ("mine.ndjson", "mine.simulated.ndjson"),
        ("mine.simulated.ndjson", "mine.simulated.ndjson"),
        (None, "ledgers/trial.simulated.ndjson"),
    ],
)
async def test_a_simulated_ledger_has_a_name_of_its_own(given, written):
    summary = await run.run(MANIFEST, Options(simulate=True, ledger=given, **CUT_SHORT), at(DAY))
    assert (summary.ledger, summary.outcome) == (written, "deferred")
    warnings = [warning for warning in summary.warnings if "simulated run" in warning]
    assert len(warnings) == (given is not None and written != given)
    assert all(written in warning for warning in warnings)
    async with serve() as (url, simulator):
        real = await run.run(
            MANIFEST, Options(endpoint_url=url, ledger=given, rate=1000.0), at(DAY + timedelta(hours=1))
        ) if given != written else None  # fmt: skip
        assert real is None or (real.exit_code, len(simulator.snapshots)) == (0, 4)
    # The same flags resume the simulated run.
    again = await run.run(MANIFEST, Options(simulate=True, ledger=given), at(DAY + timedelta(hours=2)))
    assert (again.ledger, again.run_id, again.exit_code) == (written, summary.run_id, 0)


async def test_a_simulated_ledger_of_an_earlier_version_is_resumed_under_its_name():
    summary = await run.run(MANIFEST, Options(simulate=True, ledger="x.ndjson", **CUT_SHORT))
    old = Path(summary.ledger).rename("old.ndjson")
    again = await run.run(MANIFEST, Options(simulate=True, ledger=str(old)))
    assert (again.ledger, again.run_id, again.exit_code) == ("old.ndjson", summary.run_id, 0)
    assert (await run.retry(old)).calls == 0


async def test_a_file_that_is_no_ledger_is_refused_and_an_empty_one_left_alone():
    Path("notes.ndjson").write_text("notes\n", "utf-8")
    with pytest.raises(LedgerError):
        await run.run(MANIFEST, Options(simulate=True, ledger="notes.ndjson"))
    Path("empty.ndjson").write_text("", "utf-8")
    summary = await run.run(MANIFEST, Options(simulate=True, ledger="empty.ndjson"))
    assert summary.ledger == "empty.simulated.ndjson"
    assert endpoint("empty.ndjson") is None


# -- the look-up by date ---------------------------------------------------------------------------------


async def test_ledgers_of_another_endpoint_are_passed_over_by_the_look_up():
    """An unfinished ledger of an hour ago is resumed, unless it was written against something else."""
    pattern, tomorrow = "n-{date}.ndjson", at(DAY + timedelta(hours=22, minutes=30))
    started = at(DAY + timedelta(hours=21))
    async with serve() as (url, _), serve() as (other, elsewhere):
        first = await run.run(
            MANIFEST, Options(endpoint_url=url, ledger=pattern, rate=1000.0, daily_quota=2), started
        )
        assert (first.outcome, first.ledger) == ("deferred", "n-2026-03-01.ndjson")
        real = await run.run(MANIFEST, Options(endpoint_url=other, ledger=pattern, rate=1000.0), tomorrow)
        assert (real.ledger, real.exit_code) == ("n-2026-03-02.ndjson", 0)
        assert len(elsewhere.snapshots) == 4
        assert [resume.newest_ledger(pattern, Options(endpoint_url=one))[0] for one in (url, other)] == [
            Path(first.ledger),
            Path(real.ledger),
        ]
        newest, warnings = resume.newest_ledger(pattern, Options())
        assert (newest, len(warnings)) == (None, 2)
        assert warnings[0] == (
            f"ignored: {real.ledger} was written against {other}, not aws; --endpoint-url {other} takes it"
        )


async def test_retry_by_date_takes_the_real_ledger_and_with_simulate_the_simulated_one(monkeypatch, capsys):
    async with serve() as (url, _):
        real = await run.run(
            MANIFEST, Options(endpoint_url=url, ledger="n-{date}.ndjson", rate=1000.0), at(DAY)
        )
        simulated = await run.run(
            MANIFEST, Options(simulate=True, ledger="n-{date}.ndjson"), at(DAY + timedelta(days=3))
        )
        # As an earlier version named it.
        Path(simulated.ledger).rename("n-2026-03-09.ndjson")
        again = await run.run(
            MANIFEST, Options(simulate=True, ledger="n-{date}.ndjson"), at(DAY + timedelta(days=4))
        )
        for flags, chosen in (["--endpoint-url", url], real.ledger), (["--simulate"], again.ledger):
            assert cli.main(["retry", "n-{date}.ndjson", *flags, "--dry-run", "--format", "json"]) == 0
            assert json.loads(capsys.readouterr().out)["ledger"] == chosen
        assert cli.main(["retry", again.ledger.replace(".simulated", ""), "--simulate", "--dry-run"]) == 0
        # Pruning keeps the two series apart.
        assert prune.prune(Path(), 1, DAY).removed == [Path("n-2026-03-09.ndjson")]
        assert [endpoint(path) for path in files(".") if path.endswith(".ndjson")] == [url, "simulator"]


# -- the state folder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [{}, {"state_dir": Path("given")}])
async def test_a_simulated_run_leaves_nothing_in_any_state_folder(place, flags):
    options = Options(simulate=True, daily_quota=2, **flags)
    first = await run.run(MANIFEST, options)
    assert first.outcome == "deferred"
    # Its windows are gone with it: the next one has the whole quota again.
    assert run.dry_run(MANIFEST, options).outlooks["default"].used == (0,)
    assert (await run.run(MANIFEST, options)).counts.succeeded == 4
    assert (await run.retry(first.ledger, None, Options(**flags))).calls == 0
    assert files("state") == files("given") == files("tmp") == []
    assert [path for path in Path("tmp").glob("*") if path.is_dir()] == []


async def test_a_simulated_run_does_not_block_a_real_one():
    """Name and account are locked in a folder of its own; only the ledger's lock is next to the ledger."""
    other = []

    async def meanwhile(view):
        async with serve() as (url, _):
            other.append(await run.run(MANIFEST, Options(endpoint_url=url, rate=1000.0)))
        with pytest.raises(Exception, match="is in use by another run"):
            await run.run(MANIFEST, Options(simulate=True))

    await run.run(MANIFEST, Options(simulate=True), run.Hooks(watch=meanwhile))
    assert [summary.exit_code for summary in other] == [0]


@pytest.mark.parametrize(
    ("given", "folder"), [(None, "worlds/w.ndjson.state"), (Path("given"), "given/simulated")]
)
async def test_a_kept_simulator_keeps_its_state_folder(place, given, folder):
    (place / "worlds").mkdir()
    options = Options(simulate=True, simulator_state=Path("worlds/w.ndjson"), state_dir=given, daily_quota=2)
    accounts: dict[str, Any] = {"main": {}, "acme": {}}
    write_manifest(MANIFEST, [*pairs(3, account="main"), *pairs(1, 50, account="acme")], accounts=accounts)
    for sent in (3, 0):  # the window of main is spent for the second run too, though the simulator is another
        summary = await run.run(MANIFEST, options)
        assert (summary.outcome, summary.calls) == ("deferred", sent)
    assert "usage.sqlite" in files(folder)
    write_manifest(MANIFEST, [*pairs(3, account="main"), *pairs(2, 50, account="acme")], accounts=accounts)
    used = {name: one.used for name, one in run.dry_run(MANIFEST, options).outlooks.items()}
    assert used == {"main": (2,), "acme": (1,)}
    assert files("state") == []
    assert [path for path in Path("given").glob("*") if path.is_dir()] == ([Path(folder)] if given else [])


async def test_a_temporary_state_folder_that_cannot_be_made_is_an_error(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    with pytest.raises(Exception, match="cannot make a folder for the state of the simulated run"):
        await run.run(MANIFEST, Options(simulate=True))
