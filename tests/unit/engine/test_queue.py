"""Requests by account: none lost, in order, no account delayed by another, and memory bounded."""

from collections import Counter
from contextlib import closing
from datetime import UTC, datetime

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.engine.queue import RequestQueue
from batch_snapshot.errors import StorageError
from batch_snapshot.models import Request, Row
from tests.support.strategies import patient
from tests.support.virtual_time import in_virtual_time

AHEAD, SIZE = 12, 4


def request(account, number=0, **more):
    row = Row(account, "Sandbox", f"eng-{number:014}", "Opportunity", f"O{number}", "View")
    return Request(row, f"token-{account}-{number}", **more)


def numbered(names):
    """A request for each name, numbered by account."""
    seen: Counter[str] = Counter()
    for name in names:
        yield request(name, seen[name])
        seen[name] += 1


def batched(requests, size):
    batch = []
    for one in requests:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    yield batch


def in_memory(queue):
    return sum(len(backlog.near) for backlog in queue._backlogs.values())


names = st.sampled_from("abcde")


@patient
@given(
    order=st.lists(st.tuples(names, st.integers(1, 40)), max_size=12).map(
        lambda runs: [name for name, number in runs for _ in range(number)]
    ),
    pauses=st.fixed_dictionaries({name: st.sampled_from([0.0, 0.01, 1.0, 50.0]) for name in "abcde"}),
    batch=st.integers(1, 9),
    claimed=st.sampled_from(["nothing", "the truth", "too few", "too many"]),
)
def test_any_order_and_rates_lose_nothing_and_keep_memory_bounded(order, pauses, batch, claimed):
    wanted = Counter(order)
    expected = {
        "nothing": None,
        "the truth": wanted,
        "too few": {name: number // 2 for name, number in wanted.items()},
        "too many": {name: number + 7 for name, number in wanted.items()},
    }[claimed]
    taken: dict[str, list[int]] = {name: [] for name in "abcde"}

    async def take(queue, name):
        while got := await queue.take(name, SIZE):
            assert len(got) <= SIZE
            taken[name] += [int(one.row.resource[1:]) for one in got]
            assert in_memory(queue) <= AHEAD + 5 * SIZE
            await anyio.sleep(pauses[name])

    async def main():
        with closing(RequestQueue("abcde", lambda _: False, read_ahead=AHEAD)) as queue:
            async with anyio.create_task_group() as group:
                for name in "abcde":
                    group.start_soon(take, queue, name)
                await queue.read(batched(numbered(order), batch), expected)

    in_virtual_time(main)
    assert taken == {name: list(range(wanted[name])) for name in "abcde"}


@pytest.fixture(scope="module")
def one_behind_another():
    return list(numbered([*["huge"] * 20_000, *["small"] * 100]))


@pytest.mark.anyio
@pytest.mark.parametrize("announced", [False, True])
async def test_an_account_behind_many_rows_of_another_does_not_wait_for_them(one_behind_another, announced):
    huge = 20_000
    done: dict[str, float] = {}
    most = 0

    async def take(queue, name, pause):
        nonlocal most
        while await queue.take(name, 64):
            most = max(most, in_memory(queue))
            await anyio.sleep(pause)
        done[name] = anyio.current_time()

    began = anyio.current_time()
    with closing(RequestQueue(["huge", "small"], lambda _: False, read_ahead=1_000)) as queue:
        async with anyio.create_task_group() as group:
            group.start_soon(take, queue, "huge", 64.0)
            group.start_soon(take, queue, "small", 1.0)
            await queue.read(
                batched(one_behind_another, 64), {"huge": huge, "small": 100} if announced else None
            )
    assert done["small"] - began < 10
    assert done["huge"] - began >= huge
    assert most < 1_300


@pytest.mark.anyio
async def test_nothing_is_read_while_every_account_has_rows():
    """Both have rows to take: the rest of the manifest waits where it is."""
    read = 0

    def batches():
        nonlocal read
        for one in numbered("ab" * 1_000):
            read += 1
            yield [one]

    with closing(RequestQueue("ab", lambda _: False)) as queue:
        async with anyio.create_task_group() as group:
            group.start_soon(queue.read, batches())
            await anyio.sleep(1)
            assert read == 2
            group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_the_rows_of_a_stopped_account_are_dropped_and_delay_no_other():
    stopped: set[str] = set()
    with closing(RequestQueue("ab", stopped.__contains__, read_ahead=AHEAD)) as queue:
        async with anyio.create_task_group() as group:
            group.start_soon(queue.read, batched(numbered("a" * 100 + "b" * 5), 7))
            assert len(await queue.take("b", SIZE)) == SIZE
            assert queue.busy() == 2
            stopped.add("a")
            queue.wake()
            assert await queue.take("a", SIZE) == []
            assert len(await queue.take("b", SIZE)) == 1
            assert await queue.take("b", SIZE) == []
            assert queue.busy() == 0


@pytest.mark.anyio
async def test_nothing_more_is_read_once_every_account_has_stopped():
    stopped: set[str] = set()
    read = []

    def batches():
        for one in numbered("a" * 100):
            read.append(one)
            yield [one]

    with closing(RequestQueue("a", stopped.__contains__)) as queue:
        async with anyio.create_task_group() as group:
            group.start_soon(queue.read, batches())
            assert await queue.take("a", SIZE)
            stopped.add("a")
            queue.wake()
    assert len(read) < 5


@pytest.mark.anyio
async def test_a_request_from_disk_is_as_it_was():
    since = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    doubtful = request("a", 1, generation=3, ambiguous=True, first_sent_at=since, clock_skew=-2.5)
    unusual = Request(request("a", 2).row._replace(resource="é\u2028"), "token")
    requests = [request("a"), doubtful, unusual, request("a", 3)]
    with closing(RequestQueue("a", lambda _: False, read_ahead=1)) as queue:
        await queue.read([requests], {"a": 4})
        assert in_memory(queue) == 1
        assert await queue.take("a", 9) == requests


@pytest.mark.anyio
async def test_what_is_read_later_does_not_overtake_what_waits_on_disk():
    first, second, third = (request("a", number) for number in range(3))
    with closing(RequestQueue("a", lambda _: False, read_ahead=1)) as queue:
        await queue.read([[first, second]], {"a": 2})
        assert await queue.take("a", 1) == [first]
        await queue.read([[third]], {"a": 3})
        assert await queue.take("a", 9) == [second, third]


@pytest.mark.anyio
async def test_a_file_that_fails_is_a_storage_error():
    with closing(RequestQueue("a", lambda _: False, read_ahead=1)) as queue:
        await queue.read([[request("a"), request("a", 1)]], {"a": 2})
        assert queue._disk
        queue._disk.execute("DROP TABLE requests")
        with pytest.raises(StorageError, match="TMPDIR"):
            await queue.read([[request("a", 2)]], {"a": 1})
        with pytest.raises(StorageError, match="TMPDIR"):
            await queue.take("a", 9)
