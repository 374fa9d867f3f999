"""What signals do: while a command reads, while calls are in flight, and at a closed terminal."""

from __future__ import annotations

import json
import os
import pty
import signal

import pytest

from batch_snapshot import interrupts
from batch_snapshot.simulator import Faults, Settings, serve
from tests.processes import Place, assert_exactly_once, first, of_type, pairs, until

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def sending(number: signal.Signals, module: str) -> str:
    """A process that gets a signal as it loads a module, and then is the program."""
    return first(
        f"""
import os, sys
class Signalling:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {int(number)})
for name in [name for name in sys.modules if name.startswith("batch_snapshot")]:
    del sys.modules[name]
sys.meta_path.insert(0, Signalling())
"""
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("batch_snapshot.cli", ""),
        ("batch_snapshot.batch", ": nothing was sent; the same command starts again"),
    ],
)
async def test_a_signal_while_modules_are_imported_ends_in_a_line(place, number, module, said):
    place.manifest(pairs(1))
    ended = await place.call("run", "trial.yaml", "--simulate", script=sending(number, module))
    assert (ended.code, ended.stdout) == (CODES[number], "")
    assert ended.stderr == f"interrupted ({number.name}){said}\n"
    assert not (place.folder / "ledgers").exists()


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["text", "json"])
async def test_the_first_signal_says_what_is_waited_for_and_the_second_what_it_dropped(place, form):
    rows = pairs(3)
    place.manifest(rows)
    stuck = Faults(plan=lambda n, _: "slow" if n < 3 else None, slow_delay=600)
    log = place.folder / "log"
    async with serve(Settings(faults=stuck)) as (url, simulator):
        command = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "100", "--log-format", form]
        with log.open("wb") as errors:
            async with place.started(*command, stderr=errors) as child:
                await until(lambda: len(simulator.snapshots) == 3, "three calls in flight")
                child.signal(signal.SIGHUP)
                await until(lambda: "waiting for 3 calls in flight" in log.read_text("utf-8"), "the words")
                child.signal(signal.SIGTERM)
                ended = await child.finished()
        said = log.read_text("utf-8")
        assert ended.code == 143
        assert "SIGHUP received: no further row is sent" in said
        assert "30 s at most (--drain-timeout)" in said
        assert "SIGTERM received again: dropped 3 calls" in said
        if form == "json":
            events = [json.loads(line) for line in said.splitlines()]
            stops = [event for event in events if event["event"] == "stopping"]
            assert [(one["in_flight"], one.get("dropped")) for one in stops] == [(3, None), (0, 3)]
        (end,) = of_type(place.ledger, "end")
        assert (end["outcome"], end["counts"]["in_doubt"]) == ("interrupted", 3)
        assert (await place.call(*command)).code == 0
        assert_exactly_once(simulator, place.ledger, rows)


@pytest.mark.asyncio
async def test_a_run_out_of_time_says_what_it_waits_for(place):
    place.manifest(pairs(2))
    async with serve(Settings(latency=1.0)) as (url, _):
        ended = await place.call(
            "run", "trial.yaml", "--endpoint-url", url, "--rate", "100", "--max-duration", "0.3s"
        )
    assert ended.code == 4
    # The first read, before any row is sent, takes longer than the run may.
    said = (
        "--max-duration is over (0.3 s): no further row is sent; waiting for 1 call in flight, 30 s at most"
    )
    assert said in ended.stderr


@pytest.mark.asyncio
async def test_a_closed_terminal_ends_the_run_with_its_end_line(place):
    place.manifest(pairs(40))
    master, slave = pty.openpty()
    async with serve(Settings(latency=0.15)) as (url, simulator):
        command = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "80"]
        async with place.started(*command, stdout=slave, stderr=slave) as child:
            os.close(slave)
            await until(lambda: len(simulator.snapshots) >= 5, "some snapshots")
            os.close(master)
            child.signal(signal.SIGHUP)
            assert (await child.finished()).code == 143
        (end,) = of_type(place.ledger, "end")
        assert (end["outcome"], end["counts"]["succeeded"]) == ("interrupted", len(simulator.snapshots))
        assert end["counts"]["in_doubt"] == 0


def test_handlers_are_put_back_and_what_was_ignored_stays_ignored():
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.handled():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(interrupts.Interrupted):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is before[signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
