"""The pace, purely and in virtual time."""

import anyio
import pytest
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_snapshot import pace
from batch_snapshot.pace import Pace, Pacer

INSTANTS = st.floats(0, 1e6, allow_nan=False)


@pytest.fixture
def anyio_backend():
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


@pytest.mark.anyio
@pytest.mark.parametrize("rate", [0.5, 3.0, 10.0, 250.0])
async def test_a_declared_rate_is_kept_in_every_window(rate):
    """However many wait, n slots span at least (n - 1) / rate seconds, so no window holds more."""
    pacer = Pacer(pace.declared(rate))
    taken = []

    async def worker():
        for _ in range(10):
            taken.append(await pacer.acquire())
            pacer.answered()

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(worker)
    assert len(taken) == 120
    assert taken == sorted(taken)
    for first in range(len(taken)):
        for last in range(first + 1, len(taken)):
            assert taken[last] - taken[first] >= (last - first) / rate - 1e-6


@pytest.mark.anyio
async def test_waiters_are_served_in_the_order_of_asking():
    pacer = Pacer(pace.declared(1))
    served = []

    async def worker(number):
        await pacer.acquire()
        served.append(number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(worker, number)
            await anyio.sleep(0.001)
    assert served == list(range(20))


@pytest.mark.anyio
async def test_a_throttle_slows_those_who_wait_already():
    pacer = Pacer(pace.declared(100))
    taken = []

    async def worker():
        taken.append(await pacer.acquire())

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(worker)
        await anyio.sleep(0.1)
        pacer.throttled(anyio.current_time(), 50.0)
    assert sum(50 > at > 0.11 for at in taken) == 0


@pytest.mark.anyio
async def test_a_cancelled_waiter_takes_no_slot():
    pacer = Pacer(pace.declared(0.1))
    await pacer.acquire()
    with anyio.move_on_after(3):
        await pacer.acquire()
    assert await pacer.acquire() == pytest.approx(10)


@given(st.floats(0.01, 1e4), st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=200))
def test_a_declared_rate_is_never_exceeded_whatever_is_answered(rate, events):
    state, now = pace.declared(rate), 0.0
    for throttle, passed in events:
        now += passed
        state = state.permitted(now)
        state = state.throttled(now, now, None) if throttle else state.answered(now)
        assert min(rate, pace.FLOOR_RATE) <= state.rate <= rate
        assert state.next_slot >= now


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.none() | st.floats(0, 1e9)), max_size=200))
def test_the_rate_stays_between_floor_and_top(events):
    state, now = Pace(), 0.0
    for throttle, passed, hint in events:
        now += passed
        state = state.throttled(now, now, hint) if throttle else state.answered(now)
        assert pace.FLOOR_RATE <= state.rate <= pace.TOP_RATE
        assert state.next_slot <= now + pace.LONGEST_HINT + 1


@given(INSTANTS, st.floats(0, 200))
def test_a_hint_is_honoured(now, hint):
    assert Pace().throttled(now, now, hint).next_slot >= now + hint


def test_one_burst_of_throttles_cuts_once():
    state = Pace(rate=100, searching=False).throttled(9.9, 10.0, None)
    for _ in range(30):
        state = state.throttled(9.95, 10.01, None)
    assert state.rate == 100 * pace.CUT


def test_the_search_ends_with_the_first_throttle():
    state = Pace()
    for _ in range(50):
        state = state.answered(1.0)
    assert state.rate > 1000
    state = state.throttled(1.0, 2.0, None)
    before = state.rate
    assert state.answered(2.5).rate < before * 1.02


def test_starving_is_told_by_the_lowest_rate_alone():
    state = Pace(rate=pace.FLOOR_RATE * 1.1, searching=False)
    state = state.throttled(10, 10, None).throttled(30, 30, None)
    assert not state.starved(309, 300)
    assert state.starved(310, 300)
    assert not state.answered(311).starved(1e9, 300)


@settings(max_examples=5, deadline=None)
@given(limit=st.floats(0.5, 60), latency=st.floats(0.01, 0.5))
def test_an_unknown_limit_is_found_and_most_of_it_used(limit, latency):
    """Against a token bucket of one: at least half of the limit is used, whatever it is."""

    async def body():
        pacer = Pacer(Pace())
        done, tokens, filled = 0, 1.0, 0.0

        async def worker():
            nonlocal done, tokens, filled
            while anyio.current_time() < 60 + 60 / limit:
                sent_at = await pacer.acquire()
                at = anyio.current_time()
                tokens, filled = min(1.0, tokens + (at - filled) * limit), at
                granted = tokens >= 1
                tokens -= granted
                await anyio.sleep(latency)
                if granted:
                    done += 1
                    pacer.answered()
                else:
                    pacer.throttled(sent_at, None)

        async with anyio.create_task_group() as group:
            for _ in range(64):
                group.start_soon(worker)
        return done / anyio.current_time()

    clock = trio.testing.MockClock(autojump_threshold=0)
    used = anyio.run(body, backend="trio", backend_options={"clock": clock})
    assert used >= limit / 2
