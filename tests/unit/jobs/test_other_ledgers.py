"""An unfinished ledger lies in another folder: no run begins a second one without --new-ledger."""

import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batch_snapshot import cli, paths
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.errors import InputError
from batch_snapshot.failures import retry
from batch_snapshot.jobs import run
from batch_snapshot.ledger import open_runs
from batch_snapshot.simulator import serve
from tests.support.processes import Place, assert_exactly_once, move_in, of_type, pairs, write_manifest

pytestmark = pytest.mark.asyncio

#: Stops at the second row that is refused.
CUT_SHORT = Settings(failure_limit=retry.FailureLimit.parse("0"), concurrency=1)
MISSING = {"engagement": "eng-missing0000000", "resource": "O99"}
ROWS = [*pairs(3), MISSING, *pairs(3, first=3)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    move_in(monkeypatch, tmp_path)
    found = Place(tmp_path)
    found.manifest(ROWS)
    for name in ("a", "b", "it's {here}"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    return found


def resolved(path):
    return Path(path).resolve()


def ledgers_below(folder):
    return list(Path(folder).rglob("*.ndjson"))


def at(moment):
    return run.Hooks(now=lambda: moment)


def options(url, **more):
    return Options(endpoint_url=url, rate=1000.0, engine=CUT_SHORT, **more)


async def stopped_run(place, url, **more):
    """A run that was stopped in the middle, in folder a."""
    summary = await run.run(place.folder / "trial.yaml", options(url, **more))
    assert summary.exit_code == 3
    return resolved(summary.ledger)


async def refused(place, asked, *known):
    """The message of a refusal that names these ledgers; nothing is called or written."""
    with pytest.raises(InputError) as caught:
        await run.run(place.folder / "trial.yaml", asked)
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert all(str(path) in text for path in known)
    assert "--new-ledger" in text
    [kept] = re.findall(r"give (--ledger .*); to start over", text)
    return shlex.split(kept)[1]


@pytest.mark.parametrize("given", [None, "mine.ndjson", "nights/{name}-{date}.ndjson"])
@pytest.mark.parametrize("folder", ["b", "it's {here}"])
async def test_another_working_directory_begins_no_second_ledger(place, monkeypatch, given, folder):
    async with serve() as (url, simulator):
        monkeypatch.chdir(place.folder / folder)
        known = await stopped_run(place, url, ledger=given)
        made, calls = len(simulator.snapshots), sum(simulator.calls.values())
        monkeypatch.chdir(place.folder / "a")
        kept = await refused(place, options(url, ledger=given), known)
        assert not ledgers_below(".")
        assert (len(simulator.snapshots), sum(simulator.calls.values())) == (made, calls)
        assert Path(kept) == known

        place.manifest([*pairs(6)])
        done = await run.run(place.folder / "trial.yaml", options(url, ledger=kept))
        assert done.counts == (6, 1, 0, 0)
        assert len(simulator.snapshots) == 6
        # It is finished now, so the next run of the same rows may begin a new one.
        assert (await run.run(place.folder / "trial.yaml", options(url, ledger=given))).exit_code == 0
        assert len(simulator.snapshots) == 12


async def test_new_ledger_flag_is_needed_only_once(place, monkeypatch):
    async with serve() as (url, simulator):
        known = await stopped_run(place, url)
        monkeypatch.chdir(place.folder / "b")
        anew = await run.run(place.folder / "trial.yaml", options(url, new_ledger=True))
        assert (anew.exit_code, resolved(anew.ledger) != known) == (3, True)
        made = len(simulator.snapshots)
        # The new one is resumed, and from a third folder it is the one that is named.
        monkeypatch.chdir(place.folder / "it's {here}")
        assert await refused(place, options(url)) == str(place.folder / "b/ledgers/trial.ndjson")
        monkeypatch.chdir(place.folder / "b")
        place.manifest(pairs(6))
        assert (await run.run(place.folder / "trial.yaml", options(url))).counts == (6, 1, 0, 0)
        assert len(simulator.snapshots) == made + 3
        # Nor does the old one block a later ledger.
        assert (await run.run(place.folder / "trial.yaml", options(url, ledger="2.ndjson"))).exit_code == 0


@pytest.mark.parametrize("again", [{}, {"new_ledger": True}])
async def test_new_ledger_flag_holds_after_a_run_that_sent_nothing(place, monkeypatch, again):
    """The first run with --new-ledger had no credentials: its ledger keeps the choice until a row is sent."""
    async with serve() as (url, _):
        await stopped_run(place, url)
        monkeypatch.chdir(place.folder / "b")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        stopped = await run.run(place.folder / "trial.yaml", options(url, new_ledger=True))
        assert (stopped.exit_code, stopped.counts.unattempted) == (3, 7)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE000000000")
        place.manifest(pairs(6))
        assert (await run.run(place.folder / "trial.yaml", options(url, **again))).counts.succeeded == 6


async def test_a_ledger_that_names_no_row_is_as_good_as_new(place, monkeypatch):
    """A run in b had no credentials, a run in a sent rows: resuming in b would send them again."""
    async with serve() as (url, simulator):
        monkeypatch.chdir(place.folder / "b")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        assert (await run.run(place.folder / "trial.yaml", options(url))).exit_code == 3
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE000000000")
        monkeypatch.chdir(place.folder / "a")
        known = await stopped_run(place, url)
        made = len(simulator.snapshots)
        monkeypatch.chdir(place.folder / "b")
        await refused(place, options(url), known)
        assert len(simulator.snapshots) == made


async def test_a_vanished_ledger_is_named_as_gone(place, monkeypatch):
    async with serve() as (url, _):
        known = await stopped_run(place, url)
        known.unlink()
        monkeypatch.chdir(place.folder / "b")
        with pytest.raises(InputError, match=r"gone\).*put it back, and give --ledger .*--new-ledger"):
            await run.run(place.folder / "trial.yaml", options(url))
        known.parent.mkdir(exist_ok=True)
        known.write_text('{"type":"end"}\n', "utf-8")
        await refused(place, options(url), known)


async def test_several_unfinished_ledgers_are_named_latest_first_and_given_up_together(place, monkeypatch):
    async with serve() as (url, _):
        ledgers = [await stopped_run(place, url)]
        file = paths.unfinished_files(place.folder / "state", "trial", ["default"], url)["default"]
        for number in range(1, 8):
            # As runs of an earlier version left them, which allowed any number.
            copy = place.folder / f"b/{number}.ndjson"
            copy.write_bytes(ledgers[0].read_bytes().replace(b'"run_id":"', b'"run_id":"%d' % number))
            run_id = of_type(copy, "run")[0]["run_id"]
            open_runs.record(file, copy, run_id)
            ledgers.append(copy)
        kept = await refused(place, options(url, ledger="new.ndjson"), *ledgers[:2:-1])
        assert Path(kept) == ledgers[-1]
        with pytest.raises(InputError, match="and 3 more"):
            await run.run(place.folder / "trial.yaml", options(url, ledger="new.ndjson"))
        anew = options(url, ledger="new.ndjson", new_ledger=True)
        assert (await run.run(place.folder / "trial.yaml", anew)).exit_code == 3
        assert list(open_runs.unfinished_runs(file)) == [str(resolved("new.ndjson"))]


@pytest.mark.parametrize("folder", ["link", "link/../b", "./b/../b"])
async def test_the_same_ledger_by_another_path_is_resumed(place, monkeypatch, folder):
    (place.folder / "link").symlink_to(place.folder / "b")
    async with serve() as (url, simulator):
        await stopped_run(place, url, ledger=str(place.folder / "b" / "l.ndjson"))
        place.manifest(pairs(6))
        again = options(url, ledger=f"{place.folder}/{folder}/l.ndjson")
        assert (await run.run(place.folder / "trial.yaml", again)).counts == (6, 1, 0, 0)
        assert_exactly_once_of(simulator, 6)


async def test_a_link_to_a_ledger_that_is_gone_begins_no_other_one(place):
    """Its file may lie on a disk that is not mounted, and records which snapshots exist."""
    link, file = Path("latest.ndjson"), place.folder / "disk" / "l.ndjson"
    link.symlink_to(file)
    given = Options(endpoint_url="http://127.0.0.1:9", ledger=str(link))
    what = re.escape(f"{link}: is a link to {file}, which does not exist; ")
    for begin in (run.run_sync, run.dry_run, lambda *_: run.retry_sync(link)):
        with pytest.raises(InputError, match=what):
            begin(place.folder / "trial.yaml", given)
    assert not file.parent.exists(), "no lock is left there either"


def assert_exactly_once_of(simulator, number):
    made = {(one.engagement, one.resource) for one in simulator.snapshots}
    assert len(made) == len(simulator.snapshots) == number


async def test_a_moved_ledger_is_resumed_and_its_reminder_cleared(place, monkeypatch):
    async with serve() as (url, simulator):
        known = await stopped_run(place, url)
        moved = known.rename(place.folder / "b" / "moved.ndjson")
        place.manifest(pairs(6))
        assert (await run.run(place.folder / "trial.yaml", options(url, ledger=str(moved)))).exit_code == 1
        assert_exactly_once_of(simulator, 6)
        monkeypatch.chdir(place.folder / "it's {here}")
        assert (await run.run(place.folder / "trial.yaml", options(url))).exit_code == 0


async def test_only_the_accounts_that_are_called_for_can_block_a_new_ledger(place, monkeypatch):
    rows = [*pairs(2, account="a"), {**MISSING, "account": "a"}, *pairs(2, 2, account="a"),
            *pairs(3, first=5, account="b")]  # fmt: skip
    accounts: dict[str, dict[str, str]] = {"a": {}, "b": {}}
    place.manifest(rows, accounts=accounts)
    async with serve() as (url, simulator):
        known = await stopped_run(place, url, accounts=("a",))
        monkeypatch.chdir(place.folder / "b")
        for selected in (("a",), ("b", "a"), ()):
            await refused(place, options(url, accounts=selected), known)
        done = await run.run(place.folder / "trial.yaml", options(url, accounts=("b",)))
        assert (done.counts.succeeded, len(simulator.snapshots)) == (3, 5)
        # Account b is finished in that ledger, which has open rows of a: that does not block the next.
        assert (
            await run.run(place.folder / "trial.yaml", options(url, accounts=("b",), ledger="2.ndjson"))
        ).counts.succeeded == 3


async def test_dated_ledgers_of_one_pattern_do_not_block_each_other(place, monkeypatch):
    """Unfinished ledgers of days ago, by the same pattern or through a link to their folder."""
    (place.folder / "link").symlink_to(place.folder / "a")
    first = datetime(2026, 3, 1, 2, tzinfo=UTC)
    async with serve() as (url, _):
        linked = f"{place.folder}/link/n/{{date}}/{{name}}.ndjson"
        for day, pattern in enumerate(["n/{date}/{name}.ndjson", "n/{date}/{name}.ndjson", linked]):
            hooks = at(first + timedelta(days=2 * day))
            summary = await run.run(place.folder / "trial.yaml", options(url, ledger=pattern), hooks)
            assert (summary.exit_code, summary.counts.succeeded) == (3, 3)
        assert len(ledgers_below("n")) == 3
        # By another pattern they count as ledgers at other paths.
        later = at(first + timedelta(days=9))
        for other in ("n/{name}-{date}.ndjson", "m/{date}/{name}.ndjson", None):
            with pytest.raises(InputError, match="is not finished"):
                await run.run(place.folder / "trial.yaml", options(url, ledger=other), later)


async def test_a_plan_says_that_the_run_would_be_refused(place, monkeypatch, capsys):
    async with serve() as (url, simulator):
        known = await stopped_run(place, url)
        calls = sum(simulator.calls.values())
        monkeypatch.chdir(place.folder / "b")
        path = str(place.folder / "trial.yaml")
        for line in (["plan", path], ["run", path, "--dry-run"]):
            assert cli.main([*line, "--endpoint-url", url]) == 0
            printed = capsys.readouterr().out
            assert "run would be refused" in printed
            assert f"--ledger {shlex.quote(str(known))}" in printed
        assert not list(Path.cwd().iterdir())
        assert sum(simulator.calls.values()) == calls


async def test_an_unfinished_ledger_of_another_endpoint_blocks_nothing(place, monkeypatch):
    async with serve() as (url, _), serve() as (other, simulator):
        await stopped_run(place, url)
        monkeypatch.chdir(place.folder / "b")
        place.manifest(pairs(2))
        for asked in (options(other), replace(options(None), simulate=True)):
            assert (await run.run(place.folder / "trial.yaml", asked)).exit_code == 0
        assert_exactly_once(simulator, Path("ledgers/trial.ndjson"), pairs(2))


async def test_an_unfinished_ledger_of_another_manifest_blocks_nothing(place, monkeypatch):
    async with serve() as (url, simulator):
        await stopped_run(place, url)
        made = len(simulator.snapshots)
        write_manifest(Path("other.yaml"), pairs(2, first=20), name="other")
        assert (await run.run("other.yaml", options(url))).exit_code == 0
        assert len(simulator.snapshots) == made + 2


async def test_a_finished_ledger_blocks_nothing_even_if_recorded_as_unfinished(place, monkeypatch):
    """Its end could not be recorded, or another machine has finished it."""
    place.manifest(pairs(3))
    async with serve() as (url, _):
        done = await run.run(place.folder / "trial.yaml", options(url))
        file = paths.unfinished_files(place.folder / "state", "trial", ["default"], url)["default"]
        open_runs.record(file, resolved(done.ledger), done.run_id)
        monkeypatch.chdir(place.folder / "b")
        assert (await run.run(place.folder / "trial.yaml", options(url))).exit_code == 0
