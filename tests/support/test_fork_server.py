"""Forked processes behave like interpreters of their own; and each command runs in such an interpreter."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from batch_snapshot.simulator import SimulatorSettings, serve
from tests.support.marks import on_linux
from tests.support.processes import closing, until

pytestmark = pytest.mark.asyncio

WAYS = {"forked": None, "interpreted": ()}
WORLD = SimulatorSettings(engagements=2, opportunities_per_engagement=2)


@pytest.mark.parametrize("line", [["run", "--help"], ["run", "--no-such-flag"]], ids=" ".join)
async def test_both_write_the_same(place, line):
    forked, interpreted = [await place.call(*line, python=way) for way in WAYS.values()]
    assert forked == interpreted
    assert forked.stdout or forked.stderr


@pytest.mark.long
async def test_each_command_works_in_an_interpreter_of_its_own(place):
    async def call(*line: str | Path) -> str:
        said = await place.call(*line, python=())
        assert said.code == 0, (line, said)
        return str(said.stdout)

    async with serve(WORLD) as (url, simulator):
        there = ["--endpoint-url", url, "--rate", "100"]
        await call("discover", "--catalog", "Sandbox", "--output", "trial.yaml", "--endpoint-url", url)
        await call("run", "trial.yaml", "--ledger", place.ledger, *there)
        await call("retry", place.ledger, *there)
        await call("verify", place.ledger, "--endpoint-url", url)
        assert len(simulator.snapshots) == 4
    status = json.loads(await call("status", place.ledger, "--check", "--format", "json"))
    assert status["counts"]["succeeded"] == 4
    assert "version: 1" in await call("init")
    for line in (
        ["validate", "trial.yaml"],
        ["plan", "trial.yaml", "--simulate"],
        ["report", place.ledger, "--html", "report.html"],
        ["diff", place.ledger, place.ledger],
        ["prune", "ledgers", "--keep", "7"],
        ["schema"],
        ["schedule", "cron", "trial.yaml"],
        ["completion", "bash"],
    ):
        assert await call(*line) or line[0] == "report"
    assert (place.folder / "report.html").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_signals_end_an_interpreter_with_the_exit_code_of_forked_ones(place, number, code):
    """Those are in `e2e/test_signals`."""
    out = place.folder / "url"
    with out.open("wb") as file:
        async with place.started("simulate", python=(), stdout=file) as child:
            await until(lambda: out.read_bytes().endswith(b"\n"), "its URL")
            child.signal(number)
            assert (await child.finished()).code == code


@on_linux
async def test_both_have_the_same_open_files_and_ignored_signals(place):
    async def state_of(way: tuple[()] | None) -> tuple[list[str], str, int]:
        out = place.folder / "url"
        with out.open("wb") as file:
            async with place.started("simulate", python=way, stdout=file) as child:
                await until(lambda: out.read_bytes().endswith(b"\n"), "its URL")
                at = Path("/proc", str(child.pid))
                opened = sorted(str(one.readlink()).partition("[")[0] for one in (at / "fd").iterdir())
                ignored = (at / "status").read_text("utf-8").partition("SigIgn:")[2].split()[0]
                # Signals 32 and 33 are the C library's own; Python 3.13 passes on how they stand.
                return opened, str((at / "cwd").readlink()), int(ignored, 16) & ~(0b11 << 31)

    forked, interpreted = [await state_of(way) for way in WAYS.values()]
    assert forked == interpreted


#: Writes which streams there are, and the number of the first file that is opened.
STREAMS = """
import sys
with open(sys.argv[1], "w") as said:
    print(said.fileno(), sys.stdin is None, sys.stdout is None, sys.stderr is None, file=said)
"""


@pytest.mark.parametrize(("stream", "sign"), [("stdin", "<&-"), ("stdout", ">&-"), ("stderr", "2>&-")])
async def test_a_closed_stream_is_closed_in_both(place, stream, sign):
    line = ["sh", "-c", f'exec "$0" -c "$1" interpreted {sign}', sys.executable, STREAMS]
    shell = await asyncio.create_subprocess_exec(*line, cwd=place.folder)
    assert await shell.wait() == 0
    assert (await place.call("forked", script=closing(stream) + STREAMS)).code == 0
    forked, interpreted = [(place.folder / way).read_text("utf-8") for way in WAYS]
    assert forked == interpreted
    assert forked.count("True") == 1


async def test_variables_that_the_interpreter_reads_need_an_interpreter_of_their_own(place):
    place.env["PYTHONUTF8"] = "0"
    with pytest.raises(AssertionError, match="an interpreter of its own"):
        await place.call("--version")
    assert (await place.call("--version", python=())).code == 0
