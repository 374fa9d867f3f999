"""An account at its worker, without Dask: the service is real, the worker made up."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from batch_snapshot.aws.target import Target
from batch_snapshot.cluster.carrier import Carrier, WorkerHost
from batch_snapshot.cluster.lease import CLAIM_HELD, Brief, LeaseOverError, Orders, Parcel, Start
from batch_snapshot.cluster.purse import Granted
from batch_snapshot.config import options
from batch_snapshot.models import Account, Request, Row, client_token
from batch_snapshot.ratelimit.windows import WindowFull
from batch_snapshot.simulator import serve
from tests.support.processes import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from batch_snapshot.cluster.lease import Bulletin, RenewalReply, Tale


LEASE = 30.0


def request(number: int) -> Request:
    row = Row(
        "main", "Sandbox", f"eng-{number:014d}", "Opportunity", f"O{number + 1}", "OpportunitySummaryView"
    )
    return Request(row, client_token("run", row, 0))


@dataclass
class Worker:
    """Takes the place of Dask's: it keeps what is told."""

    address: str
    told: list[Bulletin] = field(default_factory=list)

    def log_event(self, _: str, told: dict[str, Any]) -> None:
        self.told.append(pickle.loads(told["bulletin"]))

    def tales(self) -> Iterator[Tale]:
        return (tale for bulletin in self.told for tale in bulletin.tales)

    def settled(self) -> int:
        """Rows of which it was told what became of them."""
        return sum(len(tale.outcomes) for tale in self.tales())


@pytest_asyncio.fixture
async def worker(tmp_path) -> AsyncIterator[Worker]:
    made = Worker(f"tcp://{tmp_path.name}:1")
    yield made
    if host := WorkerHost._open.get(("run", made.address)):
        host._end()
        assert host._closing
        await host._closing


def carrier(url: str, turn: int) -> Carrier:
    """One placing of the account."""
    return Carrier(
        Brief(
            run="run",
            account=Account("main"),
            target=Target(endpoint_url=url, simulated=True),
            settings=options.Settings(),
            read_rate=1_000.0,
            lease=LEASE,
            turn=turn,
        )
    )


START = Start(declared=None, learned=None, delay=0.0, windowed=False, request=request(0))


async def renewed(placed: Carrier, stamp: float, **orders: Any) -> RenewalReply:
    return await placed.renew(Orders(stamp, 0, **orders))


@pytest.mark.asyncio
async def test_a_placing_that_was_given_up_takes_nothing_from_its_successor(worker):
    async with serve() as (url, _):
        given_up, successor = carrier(url, 1), carrier(url, 2)
        hello = successor.enter(worker)
        await renewed(successor, hello.stamp)
        await successor.start(START)
        with pytest.raises(LeaseOverError):
            given_up.enter(worker)
        await successor.carry(Parcel(1, (request(0), request(1))))
        await until(lambda: worker.settled() == 2, "what became of the successor's rows")
        await renewed(successor, hello.stamp, abort=True)
        await until(lambda: any(tale.over for tale in worker.tales()), "its end, by the order to drop all")


@pytest.mark.asyncio
async def test_a_later_placing_takes_the_account_over(worker):
    async with serve() as (url, _):
        earlier, later = carrier(url, 1), carrier(url, 2)
        hello = earlier.enter(worker)
        await renewed(earlier, hello.stamp)
        await earlier.start(START)
        for _ in range(2):
            assert later.enter(worker).host == hello.host, "asked twice, it says the same"
        await until(lambda: earlier.over, "the end of whoever had the account")
        await later.start(START)
        await later.carry(Parcel(1, (request(0),)))
        await until(lambda: worker.settled() == 1, "what became of its row")
        await renewed(later, hello.stamp, abort=True)
        await until(lambda: later.over, "its end")


@pytest.mark.asyncio
async def test_no_call_leaves_without_a_slot_of_its_quota(worker):
    async with serve() as (url, service):
        placed = carrier(url, 1)
        hello = placed.enter(worker)
        await renewed(placed, hello.stamp)
        await placed.start(START._replace(windowed=True, reads=(7,)))
        await until(lambda: any(tale.reads.finished == (7,) for tale in worker.tales()), "its first read")
        assert latest(worker).reads.short
        await placed.carry(Parcel(1, (request(0), request(1)), claims=(1,)))
        await until(lambda: worker.settled() == 1, "the row that has a slot")
        await until(lambda: latest(worker).slots.short, "its want of slots")
        assert latest(worker).parcel == 1
        assert len(service.snapshots) == 1
        await placed.carry(Parcel(2, (), claims=(2, 3)))
        await until(lambda: worker.settled() == 2, "the other")
        assert sorted(claim for tale in worker.tales() for claim in tale.slots.finished) == [1, 2]
        assert not latest(worker).slots.short
        await renewed(placed, hello.stamp, abort=True)
        await until(lambda: placed.over, "its end")


def latest(worker: Worker) -> Tale:
    """What was told last."""
    return worker.told[-1].tales[-1]


def test_slots_that_nobody_uses_in_time_are_given_back():
    clock, news = [0.0], list[None]()
    granted = Granted(lambda: news.append(None), lambda: clock[0])
    granted.add([1, 2])
    clock[0] = CLAIM_HELD - 1
    granted.add([3])
    assert granted.used() == ((), (), False)
    clock[0] = CLAIM_HELD
    assert granted.used() == ((), (1, 2), False)
    assert not news
    assert granted.reserve() == 3
    assert news, "the last is used: others are wanted"
    assert granted.used() == ((), (), True)
    assert isinstance(granted.reserve(), WindowFull)
    granted.add([4])
    assert granted.used() == ((), (), False)
