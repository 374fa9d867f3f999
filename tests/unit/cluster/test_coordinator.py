"""Rows whose workers are lost, cut off or missing, in virtual time; judged by the service's record."""

from collections import defaultdict
from datetime import timedelta

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_snapshot.engine.account import StopKind
from batch_snapshot.models import Account, Status
from tests.support.engine_world import BROKEN, START, THROTTLED, Windows, World, requests
from tests.support.virtual_time import in_virtual_time

FATES = st.lists(st.sampled_from([None, "refused", "lost", "cut off", "frozen"]), max_size=12)


@pytest.fixture(autouse=True)
def engine_kind():
    World.engine_kind = "cluster"
    yield
    World.engine_kind = "local"


def assert_one_token_a_row(world):
    tokens = defaultdict(set)
    for _, request in world.sent:
        tokens[request.row].add(request.client_token)
    assert all(len(of_row) == 1 for of_row in tokens.values())
    assert world.overlaps == 0


@settings(max_examples=15, deadline=None)
@given(FATES, st.sampled_from([None, BROKEN, THROTTLED]))
def test_rows_of_lost_workers_are_sent_again_under_the_same_tokens_and_never_twice_at_once(fates, first):
    async def body():
        world = World(
            fate=lambda number: fates[number] if number < len(fates) else None,
            answer=lambda _, nth: first if nth == 0 else None,
            accounts=("a", "b"),
            latency=0.5,
            drain_timeout=2,
            patience=1e6,
        )
        await world.run([*requests(20, "a"), *requests(8, "b")])
        return world

    world = in_virtual_time(body)
    assert world.statuses() == {Status.SUCCEEDED: 28}
    assert len({outcome.request.row for outcome in world.outcomes}) == 28
    assert_one_token_a_row(world)


@settings(max_examples=15, deadline=None)
@given(FATES, st.integers(5, 60))
def test_no_window_holds_more_calls_than_it_allows_whatever_becomes_of_workers(fates, limit):
    async def body():
        world = World(fate=lambda number: fates[number] if number < len(fates) else None, patience=1e6)
        world.engine.accounts["main"].pacer.meter = Windows(limit)
        await world.run(requests(60))
        return world

    world = in_virtual_time(body)
    assert len(world.sent) <= limit
    assert_one_token_a_row(world)


def test_a_lost_worker_leaves_its_rows_in_doubt_only_if_they_are_not_sent_again():
    async def body(**more):
        world = World(fate=lambda _: "cut off", latency=0.1, drain_timeout=2, patience=60, **more)
        await world.run(requests(10))
        return world

    world = in_virtual_time(body)
    assert world.statuses() == {Status.IN_DOUBT: 10}
    assert {outcome.error.code for outcome in world.outcomes} == {"WorkerLost"}
    assert {outcome.first_sent_at for outcome in world.outcomes} == {START + timedelta(seconds=0.51)}
    assert {outcome.attempts for outcome in world.outcomes} == {0}, "a lost worker costs no attempt"
    assert len(world.intended) == 10, "one intent names a row, however often it is sent"


def test_an_unexpected_error_at_a_worker_stops_the_account_and_leaves_its_rows_in_doubt():
    async def body():
        world = World()
        world.answer = lambda *_: 1 / 0
        await world.run(requests(10))
        return world

    world = in_virtual_time(body)
    assert world.statuses() == {Status.IN_DOUBT: 10}
    assert world.ending().kind is StopKind.STOPPED
    assert "batch-snapshot failed on a worker: see the worker's log" in world.ending().reason


def test_a_worker_that_signs_for_another_account_sends_nothing():
    async def body():
        world = World()

        async def carry(batch):
            batch.identity = "aws:another"
            return await carry_as_it_is(batch)

        carry_as_it_is = world.workers.carry
        vars(world.workers).update(carry=carry)
        await world.run(requests(10))
        return world

    world = in_virtual_time(body)
    assert world.sent == world.outcomes == []
    assert "give all workers the same credentials" in world.ending().reason


def test_a_batch_that_begins_after_the_stop_sends_nothing():
    async def body():
        world = World()
        await world.run(requests(1))
        await world.workers.host.stop(abort=False)
        batch, _ = await world.workers.host.answer(Account("main"), 1e6, "carry", world.workers.batches[0])
        return world, batch

    world, batch = in_virtual_time(body)
    assert len(world.sent) == 1
    assert batch.outcomes == batch.unsettled == []


def test_a_cancelled_run_ends_only_once_its_workers_are_silent():
    async def body():
        world = World(latency=3, fate=lambda number: "cut off" if number else None)
        with anyio.move_on_after(2):
            await world.run(requests(1))
        return world, anyio.current_time()

    world, ended = in_virtual_time(body)
    assert ended > 3
    assert world.in_flight.total() == 0
    assert world.statuses() == {Status.SUCCEEDED: 1}


def test_batches_grow_with_what_one_before_settled():
    async def body():
        world = World(rate=1000, latency=0.01)
        await world.run(requests(1000), size=1000)
        return world

    sizes = [len(batch.requests) for batch in in_virtual_time(body).workers.batches]
    assert sizes[:4] == [64, 128, 256, 512]


def test_an_account_that_no_worker_takes_is_deferred_after_the_patience():
    async def body():
        world = World(fate=lambda _: "refused", patience=60)
        await world.run(requests(10))
        return world, anyio.current_time()

    world, ended = in_virtual_time(body)
    assert world.sent == []
    assert world.outcomes == []
    assert world.ending().kind is StopKind.DEFERRED
    assert "no worker took the account for 60 s" in world.ending().reason
    assert 60 < ended < 70


def test_without_a_scheduler_the_run_stops_and_says_so():
    async def body():
        world = World(fate=lambda _: "refused")
        world.workers.reachable = False
        await world.run(requests(10))
        return world

    world = in_virtual_time(body)
    assert world.ending().kind is StopKind.STOPPED
    assert "the Dask scheduler is gone" in world.ending().reason
