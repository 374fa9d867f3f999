"""Runs that are steered while they go on: paused, resumed, at another rate and concurrency."""

from itertools import pairwise

import anyio
import pytest

from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.engine.limits import AccountLimits
from batch_snapshot.models import Account, Status
from batch_snapshot.ratelimit.windows import CallLog
from tests.support.engine_world import REFUSED_CONNECTION, THROTTLED, Windows, World, requests

pytestmark = pytest.mark.anyio


async def steered(world, rows, *steps):
    """Run the rows, and take each step (seconds, function) at its time."""
    async with anyio.create_task_group() as tasks:
        for seconds, step in steps:

            async def take(seconds=seconds, step=step):
                await anyio.sleep(seconds)
                step()

            tasks.start_soon(take)
        await world.run(rows)


def calls_between(world, begins, ends):
    return [at for at, _ in world.sent if begins < at < ends]


async def test_a_paused_run_begins_no_call_and_finishes_those_in_flight():
    world = World(rate=20, latency=2.0)
    engine = world.engine
    done = []
    steps = [(5, engine.pause), (8, lambda: done.append(len(world.outcomes))), (100, engine.resume)]
    await steered(world, requests(400), *steps)
    before = [at for at, _ in world.sent if at <= 5]
    assert calls_between(world, 5, 100) == []
    assert done == [len(before)]
    assert world.statuses() == {Status.SUCCEEDED: 400}
    assert len(world.sent) == 400
    assert world.overlaps == 0
    assert calls_between(world, 100, 101)


async def test_a_resumed_run_keeps_to_its_declared_rate():
    world = World(rate=10, latency=0.5)
    await steered(world, requests(200), (3, world.engine.pause), (60, world.engine.resume))
    resumed = [at for at, _ in world.sent if at >= 60]
    assert min(later - earlier for earlier, later in pairwise(resumed)) > 0.05


async def test_a_pause_keeps_no_permit_of_a_window():
    world, windows = World(rate=5), Windows(1000)
    world.engine.accounts["main"].pacer.meter = windows
    held = []
    steps = [(5, world.engine.pause), (20, lambda: held.append((set(windows.in_flight), windows.used)))]
    await steered(world, requests(100), *steps, (30, world.engine.resume))
    assert held == [(set(), len([at for at, _ in world.sent if at <= 5]))]
    assert windows.used == 100


async def test_calls_that_wait_for_concurrency_do_not_begin_in_a_pause():
    world = World(accounts=("a", "b", "c"), concurrency=1, latency=1.0)
    rows = [row for name in ("a", "b", "c") for row in requests(5, name, f"eng-{name}")]
    await steered(world, rows, (4.5, world.engine.pause), (60, world.engine.resume))
    assert calls_between(world, 4.5, 60) == []
    assert len(world.sent) == 15


async def test_the_time_of_a_run_goes_on_in_a_pause():
    world = World(rate=10, max_duration=30.0)
    await steered(world, requests(1000), (5, world.engine.pause))
    assert world.ending().kind is StopKind.DEFERRED
    assert anyio.current_time() == pytest.approx(30, abs=1)


@pytest.mark.parametrize("failure", [REFUSED_CONNECTION, THROTTLED])
async def test_a_pause_is_no_part_of_an_outage_or_of_throttles_that_defer_a_run(failure):
    def answer(request, nth):
        return failure if 20 < anyio.current_time() < 5010 else None

    world = World(rate=2, answer=answer, pause=120.0, patience=120.0)
    await steered(world, requests(100), (60, world.engine.pause), (5000, world.engine.resume))
    assert world.engine.ending is None
    assert world.statuses() == {Status.SUCCEEDED: 100}


async def test_a_paused_run_can_be_drained():
    world = World(rate=10)
    stop = Stop(StopKind.DEFERRED, "drained")
    await steered(
        world, requests(1000), (5, world.engine.pause), (9, lambda: world.engine.request_stop(stop))
    )
    assert world.ending() is stop
    assert len(world.outcomes) == len(world.sent) < 60


async def test_a_lower_concurrency_holds_once_calls_in_flight_have_ended():
    world = World(rate=1000, latency=1.0, concurrency=20)
    flights = []
    steps = [(2.5, lambda: world.engine.set_concurrency(4))]
    steps += [(at, lambda: flights.append(world.in_flight.total())) for at in (2.4, 4.6, 7.6)]
    await steered(world, requests(200), *steps)
    assert flights == [20, 4, 4]
    assert world.statuses() == {Status.SUCCEEDED: 200}
    assert world.engine.in_flight == 0


async def test_a_higher_concurrency_is_used_at_once():
    world = World(rate=1000, latency=10.0, concurrency=1)
    flights = []
    steps = [
        (15, lambda: world.engine.set_concurrency(8)),
        (16, lambda: flights.append(world.engine.in_flight)),
    ]
    await steered(world, requests(60), *steps)
    assert flights == [8]
    assert world.peak == 8


@pytest.mark.parametrize(
    ("first", "rate", "logged"),
    [(None, 2.0, False), (None, 20.0, True), (0.1, 20.0, True), (50.0, 2.0, False)],
)
async def test_a_rate_holds_within_a_second(tmp_path, first, rate, logged):
    world = World(rate=first, latency=0.1, concurrency=4)
    account = world.engine.accounts["main"]
    with CallLog(tmp_path / "usage.sqlite") as log:
        limits = AccountLimits({"main": Account("main")}, "aws", log if logged else None, {})

        async def identify(_):
            return "aws:1"

        await limits.apply(account, identify)
        steps = [(10.5, lambda: limits.declare_rate(account, rate))]
        until = Stop(StopKind.DEFERRED, "enough")
        await steered(world, requests(1000), *steps, (32, lambda: world.engine.request_stop(until)))
    assert len(calls_between(world, 11.5, 31.5)) == pytest.approx(20 * rate, rel=0.06, abs=1)
    assert account.pacer.pace.allowed == pytest.approx(rate)
    assert account.pacer.pace.source == "declared"
