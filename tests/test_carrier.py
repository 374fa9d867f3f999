"""An account at its worker, without Dask: the service is real, the worker made up."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from batch_snapshot import engine
from batch_snapshot.carrier import Carrier, Host
from batch_snapshot.client import Target
from batch_snapshot.lease import Brief, LeaseOverError, Orders, Parcel, Start
from batch_snapshot.model import Account, Request, Row, client_token
from batch_snapshot.simulator import serve
from tests.processes import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from batch_snapshot.lease import Answer, Tale

pytestmark = pytest.mark.asyncio

LEASE = 30.0


def request(number: int) -> Request:
    row = Row("main", "Sandbox", f"eng-{number:014d}", "Opportunity", f"O{number + 1}", "T")
    return Request(row, client_token("run", row, 0))


@dataclass
class Worker:
    """Takes the place of Dask's: it keeps what is told."""

    address: str
    told: list[Any] = field(default_factory=list)

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
    if host := Host._open.get(("run", made.address)):
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
            settings=engine.Settings(),
            read_rate=1_000.0,
            lease=LEASE,
            turn=turn,
        )
    )


START = Start(declared=None, learned=None, delay=0.0, windowed=False, request=request(0))


async def renewed(placed: Carrier, stamp: float, **orders: Any) -> Answer:
    return await placed.renew(Orders(stamp, 0, **orders))


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
