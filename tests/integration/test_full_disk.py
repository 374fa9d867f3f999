"""Ledgers that cannot be written, or are damaged under the run: nothing begins that cannot be recorded.

How the service was called is judged by its own log.
"""

import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from batch_snapshot import paths
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.errors import LedgerWriteError, StorageError
from batch_snapshot.jobs import run
from batch_snapshot.jobs.preview import Preview
from batch_snapshot.models import Outcome
from batch_snapshot.reporting import status
from batch_snapshot.simulator import Simulator, SimulatorSettings, serve
from tests.support.disks import mounted
from tests.support.marks import on_linux
from tests.support.processes import (
    Finished,
    Place,
    assert_exactly_once,
    first,
    move_in,
    of_type,
    pairs,
    until,
)

pytestmark = pytest.mark.asyncio

CREATE = "CreateResourceSnapshot"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to run in, also for runs of this process."""
    made = Place(tmp_path)
    made.env["PYTHONDONTWRITEBYTECODE"] = "1"  # where files may not grow
    move_in(monkeypatch, tmp_path, made.env)
    return made


def options(place: Place, url: str, concurrency: int = 32) -> Options:
    return Options(
        ledger=str(place.ledger), endpoint_url=url, rate=500.0, engine=Settings(concurrency=concurrency)
    )


def command(url: str, ledger: Path | str, *more: str) -> list[str | Path]:
    return ["run", "trial.yaml", "--endpoint-url", url, "--ledger", ledger, "--progress", "none", *more]


def assert_stopped(said: Finished, words: str) -> None:
    """It ended with 5 and one clear line."""
    assert (said.code, said.stdout) == (5, "")
    assert words in said.stderr
    assert "then run the same command" in said.stderr
    assert len(said.stderr.splitlines()) == 1


def assert_no_call_after(simulator: Simulator, ledger: Path, in_flight: int) -> None:
    """No call began once a write had failed, and what was in flight then is all that has no line."""
    # The last thing that was done to the file was to take the failed line out of it. A tick of the
    # kernel's clock lies between that and the time it notes.
    stopped_at = ledger.stat().st_mtime
    begun = [call.time for call in simulator.log if call.operation == CREATE]
    assert all(at < stopped_at + 0.03 for at in begun)
    assert len(begun) <= len(of_type(ledger, "result")) + in_flight


# -- no room -----------------------------------------------------------------------------------------


class Disk(NamedTuple):
    """A folder with little room, and how to make more."""

    folder: Path
    #: What a write is told where there is none.
    words: str
    #: Bytes that a process may write to a file, where that is what makes the room little.
    largest: int | None
    make_room: Callable[[], None]


@pytest.fixture
def disk(place):
    """A real file system of 64 KB, nearly full; or a limit to the size of files, where none can be had."""
    folder = place.folder / "disk"
    with mounted(folder, "-o", "size=64k") as real:
        if not real:
            yield Disk(folder, "File too large", 12_000, lambda: None)
            return
        ballast = folder / "ballast"
        # Three pages are left, and one of them is for the lock.
        ballast.write_bytes(bytes(52 * 1024))
        yield Disk(folder, "No space left on device", None, ballast.unlink)


async def test_a_full_disk_ends_the_run_and_with_room_it_goes_on(place, disk):
    rows = pairs(50)
    place.manifest(rows)
    ledger = disk.folder / "trial.ndjson"
    async with serve(SimulatorSettings(latency=0.02)) as (url, simulator):
        # So slow that an intent is long on disk, and rows are left, when there is no more room.
        line = command(url, ledger, "--rate", "100", "--concurrency", "4")
        said = await place.call(*line, largest=disk.largest)
        assert_stopped(said, f"{ledger}: cannot be written ({disk.words})")
        assert "then run the same command: batch-snapshot run trial.yaml --endpoint-url " in said.stderr
        assert 0 < len(of_type(ledger, "result")) < 40
        assert ledger.read_bytes().endswith(b"\n"), "no half of a line stays behind"
        assert_no_call_after(simulator, ledger, in_flight=4)
        calls = simulator.calls[CREATE]
        again = await place.call(*line, largest=disk.largest)
        assert_stopped(again, f"({disk.words})")
        assert simulator.calls[CREATE] == calls, "there is no more room than before"
        disk.make_room()
        assert (await place.call(*line)).code == 0
        assert_exactly_once(simulator, ledger, rows)
        assert status.check_ledger(ledger) == len(rows)


def lengths(ledger: Path) -> list[int]:
    return [len(line) for line in ledger.read_bytes().splitlines(keepends=True)]


#: Bytes that there still is room for, by the line that finds none: `lines` are those of the first run.
SHORT: dict[str, Callable[[Sequence[int]], int]] = {
    "the run line": lambda lines: lines[0] // 2,
    "the intent": lambda lines: lines[0] + lines[1] // 2,
    "a result": lambda lines: lines[0] + lines[1] + 3 * lines[2] // 2,
    "the end line": lambda lines: sum(lines) - lines[-1] // 2,
}


@pytest.mark.parametrize("short", SHORT)
async def test_no_room_for_this_line_and_no_call_follows_it(place, short):
    """A second run of three other rows leaves lines as long as the first one's."""
    before, rows = pairs(3), pairs(6)
    manifest = place.manifest(before)
    async with serve() as (url, simulator):
        calm = options(place, url, concurrency=1)
        assert (await run.run(manifest, calm)).exit_code == 0
        place.manifest([*before, *pairs(3, first=3)])
        room = place.ledger.stat().st_size + SHORT[short](lengths(place.ledger))
        line = command(url, place.ledger, "--rate", "500", "--concurrency", "1")
        said = await place.call(*line, largest=room)
        assert_stopped(said, "cannot be written (File too large)")
        made = {"the run line": 0, "the intent": 0, "a result": 2, "the end line": 3}[short]
        assert simulator.calls[CREATE] == 3 + made
        assert (await run.run(manifest, calm)).exit_code == 0
        assert_exactly_once(simulator, place.ledger, rows)


async def test_what_waits_for_its_turn_does_not_begin_once_a_line_has_failed(place):
    """It is woken by the very call whose answer cannot be recorded."""
    manifest = place.manifest(
        [*pairs(2, account="a"), *pairs(2, first=2, account="b")], accounts={"a": {}, "b": {}}
    )

    def fail(_: Outcome) -> None:
        raise LedgerWriteError("no room")

    async with serve(SimulatorSettings(latency=0.1)) as (url, simulator):
        with pytest.raises(LedgerWriteError, match="no room"):
            await run.run(manifest, options(place, url, concurrency=1), run.Hooks(outcome=fail))
        assert simulator.calls[CREATE] == 1


#: Lets every fsync of its process fail.
REFUSING = f"""
from tests.support.seccomp import fail_system_call
fail_system_call("fsync", {errno.EIO})()
"""


@on_linux
async def test_a_disk_that_keeps_nothing_is_told_before_any_call(place):
    """It takes all that is written, and fails where that is to be made durable."""
    place.manifest(pairs(3))
    async with serve() as (url, simulator):
        line = command(url, place.ledger)
        said = await place.call(*line, script=first(REFUSING))
        assert_stopped(said, f"{place.ledger}: cannot be written (Input/output error)")
        assert not simulator.calls
        assert (await place.call(*line)).code == 0
        assert_exactly_once(simulator, place.ledger, pairs(3))


async def test_a_folder_that_cannot_be_written_is_told_before_any_call(place):
    """A file system that is read-only; where none can be had, a path below a file."""
    folder = place.folder / "disk"
    place.manifest(pairs(2))
    with mounted(folder, "-o", "ro") as real:
        where = folder if real else place.folder / "trial.yaml"
        async with serve() as (url, simulator):
            ledger = await place.call(*command(url, f"{where}/trial.ndjson"))
            state = await place.call(*command(url, place.ledger, "--state-dir", f"{where}/state"))
            assert not simulator.calls
    for said, flag in ((ledger, "--ledger"), (state, "--state-dir")):
        assert f"with {flag}\n" in said.stderr
        assert (said.code, said.stdout) == (2, "")
        assert str(where) in said.stderr
        assert len(said.stderr.splitlines()) == 1


async def test_a_state_folder_that_breaks_after_the_first_call_is_no_wrong_argument(place):
    """Exit code 2 says that nothing was called."""
    manifest = place.manifest(pairs(2))
    async with serve() as (url, simulator):
        (file,) = paths.unfinished_files(place.folder / "state", "trial", ["default"], url).values()

        def break_it(_: Preview) -> bool:
            file.mkdir()
            return True

        with pytest.raises(StorageError, match=r"then run the same command$") as caught:
            await run.run(manifest, options(place, url), run.Hooks(confirm=break_it))
        assert caught.value.exit_code == 5
        assert simulator.calls
        file.rmdir()
        assert (await run.run(manifest, options(place, url))).exit_code == 0
        assert_exactly_once(simulator, place.ledger, pairs(2))


# -- damaged under the run ---------------------------------------------------------------------------


async def test_a_ledger_removed_under_a_process_ends_it_with_5(place):
    rows = pairs(60)
    place.manifest(rows)
    async with serve(SimulatorSettings(latency=0.02)) as (url, simulator):
        line = command(url, place.ledger, "--rate", "25", "--concurrency", "4")
        async with place.started(*line) as child:
            await until(lambda: len(of_type(place.ledger, "result")) >= 5, "five results")
            aside = place.ledger.rename(place.folder / "aside")
            said = await child.finished()
        assert_stopped(said, "was removed, replaced or cut")
        # All rows stand in one intent: the next sync, at most a second later, finds out.
        assert len(simulator.snapshots) < 5 + 25 * 1.5 + 4
        with suppress(FileNotFoundError):
            assert not place.ledger.read_bytes(), "nothing new was begun in its place"
        aside.replace(place.ledger)
        assert (await place.call(*line, "--rate", "500")).code == 0
        assert_exactly_once(simulator, place.ledger, rows)
