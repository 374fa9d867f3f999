"""Permits in virtual time: what a call waits for, and what is given back."""

from collections.abc import Callable
from itertools import pairwise
from math import inf

import anyio
import pytest

from batch_snapshot.errors import StorageError
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.pace import Pace, Phase
from batch_snapshot.ratelimit.pacer import LocalPace, Pacer, WindowFullError
from batch_snapshot.ratelimit.windows import DAY
from tests.support.engine_world import Windows

pytestmark = pytest.mark.anyio


async def call(pacer: Pacer, seconds: float = 0.0) -> float:
    """A successful call; returns when it left."""
    with await pacer.acquire() as permit:
        permit.used()
        left = anyio.current_time()
        await anyio.sleep(seconds)
        permit.answered()
    return left


# -- rate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.5, 3.0, 10.0, 250.0])
async def test_calls_leave_no_faster_than_the_declared_rate_however_many_wait(rate):
    pacer = Pacer(pace.declared(rate))
    left: list[float] = []

    async def worker():
        for _ in range(10):
            at = await call(pacer)
            left.append(at)

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(worker)
    assert left == sorted(left)
    for earlier, later in pairwise(left):
        assert later - earlier >= 1 / rate - pace.CATCH_UP - 1e-6
    assert left[-1] == pytest.approx(119 / rate, rel=0.03)


async def test_waiters_are_served_first_come_first_served():
    pacer = Pacer(pace.declared(1))
    served = []

    async def worker(number):
        await call(pacer)
        served.append(number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(worker, number)
            await anyio.sleep(0.001)
    assert served == list(range(20))


async def test_a_permit_at_once_overtakes_no_waiter_and_waits_for_nothing():
    windows = Windows(limit=2, opens_at=1000)
    pacer = Pacer(pace.declared(10), windows, wait=True)
    permit = pacer.acquire_nowait()
    assert permit
    with permit:
        permit.used()
        assert pacer.acquire_nowait() is None  # too early by the pace
    async with anyio.create_task_group() as group:
        group.start_soon(call, pacer)
        await anyio.sleep(0.05)
        # The clock moves on, and the waiter has not run yet.
        pacer.now = lambda: anyio.current_time() + 1
        assert pacer.acquire_nowait() is None
    assert windows.reserved == 2
    assert pacer.acquire_nowait() is None  # the window is full
    assert anyio.current_time() < 1000


async def test_a_throttle_delays_calls_that_wait_already():
    pacer = Pacer(pace.declared(100))
    left: list[float] = []

    async def worker():
        left.append(await call(pacer))

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(worker)
        await anyio.sleep(0.1)
        with await pacer.acquire() as permit:
            permit.throttled(50.0)
        throttled_at = anyio.current_time()
    assert not any(throttled_at < at < throttled_at + 50 for at in left[1:])
    assert len(left) == 100


async def test_a_cancelled_waiter_takes_no_turn():
    pacer = Pacer(pace.declared(0.1))
    await call(pacer)
    with anyio.move_on_after(3):
        await call(pacer)
    assert await call(pacer) == pytest.approx(10 / (1 - pace.MARGIN))
    assert pacer.pace.in_flight == 0


async def test_in_a_search_the_next_call_leaves_when_one_is_answered():
    """Only the bound on calls in flight delays a call: it leaves when another ends, not later."""
    pacer = Pacer(Pace())
    left = []

    async def worker():
        left.append(await call(pacer, seconds=0.2))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(worker)
    assert pacer.pace.phase is Phase.SEARCH
    alone = pace.SEARCH_ALONE
    assert left[: alone + 2] == pytest.approx(
        [*(0.2 * number for number in range(alone)), *[0.2 * alone] * 2]
    )
    assert pacer.pace.in_flight == 0


async def test_an_answer_that_changes_no_turn_wakes_no_waiter():
    """At many calls per second each answer would wake the next waiter for nothing."""
    looks: list[float] = []

    class Watched(LocalPace):
        @property
        def pace(self) -> Pace:
            looks.append(anyio.current_time())
            return self._pace

        @pace.setter
        def pace(self, pace: Pace) -> None:
            self._pace = pace

    pacer = Pacer(pace.declared(0.1))
    pacer.store = Watched(pacer.pace)
    first = await pacer.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(call, pacer)
        await anyio.sleep(1)
        first.answered()
        before = len(looks)
        await anyio.sleep(1)
        assert len(looks) == before
    assert anyio.current_time() == pytest.approx(10 / (1 - pace.MARGIN))


async def test_a_search_does_not_wait_for_calls_that_hang():
    pacer = Pacer(Pace())
    hung = [await pacer.acquire() for _ in range(9)]
    assert anyio.current_time() == pytest.approx(8 * pace.SEARCH_GAP, rel=0.05)
    assert pacer.pace.in_flight == len(hung)


# -- what a permit came to -----------------------------------------------------------------------------


async def test_a_reservation_is_finished_if_its_call_left_and_cancelled_if_not():
    windows = Windows(inf)
    pacer = Pacer(pace.declared(100), windows)
    with await pacer.acquire() as permit:
        permit.used()
        permit.answered()
    with await pacer.acquire():
        pass
    with await pacer.acquire() as permit:
        permit.used()
        permit.throttled(None)
    (await pacer.acquire()).give_back()
    with await pacer.acquire() as permit:
        # Its call left, and what became of it says nothing about limits.
        permit.used()
    assert windows.ended == [("finish", 1), ("cancel", 2), ("finish", 3), ("cancel", 4), ("finish", 5)]
    assert pacer.pace.in_flight == 0


@pytest.mark.parametrize("outcome", ["answered", "throttled", "nothing"])
async def test_the_pace_gets_the_outcome_of_a_call_once(outcome):
    before = pace.declared(100)
    pacer = Pacer(before)
    with await pacer.acquire() as permit:
        sent_at = anyio.current_time()
        await anyio.sleep(0.5)
        if outcome == "answered":
            permit.answered()
        elif outcome == "throttled":
            permit.throttled(7.0)
    flying = before.permitted(sent_at)
    expected = {
        "answered": flying.answered(sent_at),
        "throttled": flying.throttled(sent_at, sent_at + 0.5, 7.0),
        "nothing": flying.dropped(),
    }
    assert pacer.pace == expected[outcome]


# -- windows -------------------------------------------------------------------------------------------


async def test_a_full_window_is_an_error_at_once():
    windows = Windows(3, opens_at=7200)
    pacer = Pacer(pace.declared(100), windows)
    for _ in range(3):
        await call(pacer)
    before = pacer.pace
    with pytest.raises(WindowFullError) as caught:
        await pacer.acquire()
    assert anyio.current_time() < 1
    assert caught.value.spent.window == windows.width
    assert caught.value.spent.opens_in == pytest.approx(7200, abs=1)
    assert pacer.pace == before


async def test_a_full_window_is_waited_for_if_asked():
    # Not a whole number of looks away: a waiter that sleeps past it would be late.
    windows = Windows(limit=3, opens_at=7200.4)
    pacer = Pacer(pace.declared(100), windows, wait=True)
    left = []

    async def worker():
        left.append(await call(pacer))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(worker)
        await anyio.sleep(100.5)
        assert pacer.waiting is not None
        spent, until = pacer.waiting
        assert spent.window == windows.width
        assert until == pytest.approx(7200.4)
    assert left[2] < 1
    assert left[3:] == [pytest.approx(7200.4, abs=0.1)] * 2
    assert pacer.waiting is None


async def test_a_window_that_opens_early_is_noticed_early():
    windows = Windows(limit=1, opens_at=DAY)
    pacer = Pacer(pace.declared(100), windows, wait=True)
    permit = await pacer.acquire()
    left = []

    async def second():
        left.append(await call(pacer))

    async with anyio.create_task_group() as group:
        group.start_soon(second)
        await anyio.sleep(1000)
        permit.give_back()
    assert left == [pytest.approx(1000, abs=1.1)]


async def test_a_window_that_never_opens_is_not_waited_for():
    pacer = Pacer(pace.declared(100), Windows(limit=0), wait=True)
    with pytest.raises(WindowFullError):
        await pacer.acquire()
    assert anyio.current_time() < 1


async def test_a_waiter_cancelled_while_a_window_is_full_reserves_nothing():
    windows = Windows(limit=1, opens_at=DAY)
    pacer = Pacer(pace.declared(100), windows, wait=True)
    await call(pacer)
    with anyio.move_on_after(10):
        await pacer.acquire()
    assert pacer.waiting is None
    assert windows.reserved == 1
    assert pacer.pace.in_flight == 0


async def test_a_call_is_reserved_only_when_it_can_leave():
    """A call that only waits for the rate reserves nothing."""
    windows = Windows(inf)
    pacer = Pacer(pace.declared(0.1), windows)
    await call(pacer)
    with anyio.move_on_after(5):
        await pacer.acquire()
    assert windows.looks == [0]
    assert windows.ended == [("finish", 1)]


# -- failing files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [pace.declared(0.5), Pace()], ids=["follow", "search"])
async def test_a_failed_log_keeps_the_outcome_of_a_call_and_stops_the_next(start):
    """The outcome of the call is recorded, but the next permit is refused."""
    windows = Windows(inf)
    pacer = Pacer(start, windows)
    refused = []

    async def second():
        try:
            await pacer.acquire()
        except StorageError as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        with await pacer.acquire() as permit:
            permit.used()
            group.start_soon(second)
            await anyio.sleep(0.1)
            windows.broken |= {"reserve", "finish"}
            permit.answered()
        # Even if there is room again, the uncounted call is missing.
        windows.broken.clear()
    assert len(refused) == windows.reserved == 1
    with pytest.raises(StorageError) as again:
        await pacer.acquire()
    assert again.value is refused[0]


class Torn(LocalPace):
    """A pace whose file can fail."""

    broken = False

    def change(self, event: Callable[[Pace], Pace]) -> None:
        if self.broken:
            raise StorageError("torn")
        super().change(event)


async def test_a_waiter_fails_at_once_when_the_pace_cannot_be_stored():
    pacer = Pacer(pace.declared(0.01))
    pacer.store = store = Torn(pacer.pace)
    failed_at = []

    async def second():
        with pytest.raises(StorageError, match="torn"):
            await pacer.acquire()
        failed_at.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        with await pacer.acquire() as permit:
            group.start_soon(second)
            await anyio.sleep(1)
            store.broken = True
            permit.answered()
    assert failed_at == [1]


# -- other processes -----------------------------------------------------------------------------------


class Crowded(LocalPace):
    """A pace of which other processes take turns unnoticed."""

    def __init__(self, start: Pace, others: int) -> None:
        super().__init__(start)
        self.others = others

    def change(self, event: Callable[[Pace], Pace]) -> None:
        if self.others:
            self.others -= 1
            self.pace = self.pace.permitted(max(anyio.current_time(), self.pace.next_call_at))
        super().change(event)


async def test_a_turn_that_another_process_took_is_waited_for_again():
    windows = Windows(inf)
    pacer = Pacer(pace.declared(1), windows)
    pacer.store = Crowded(pacer.pace, others=2)
    left = await call(pacer)
    assert left == pytest.approx(2 / (1 - pace.MARGIN), abs=0.02)
    assert windows.ended == [("cancel", 1), ("cancel", 2), ("finish", 3)]
    assert pacer.pace.in_flight == 2, "those of the others"
