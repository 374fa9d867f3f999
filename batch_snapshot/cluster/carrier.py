"""What runs on a cluster's worker: the engine for one account, for as long as the lease holds.

A `Carrier` is a Dask actor: its methods are called by the coordinator (see `cluster`) and run in the
worker's event loop. All carriers of a run in one process share a `WorkerHost`, which holds the lease and
tells the coordinator, by Dask's events, what happened.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
import time
from collections import deque
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
from distributed import get_worker

from batch_snapshot import __version__
from batch_snapshot.aws.client import Clients
from batch_snapshot.cluster.lease import (
    NOTHING_USED,
    Bulletin,
    Hello,
    Lease,
    LeaseOverError,
    RenewalReply,
    Started,
    Tale,
)
from batch_snapshot.cluster.purse import Granted
from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.limits import ConcurrencyLimit
from batch_snapshot.engine.pool import Engine
from batch_snapshot.engine.seams import Seams
from batch_snapshot.models import ApiError
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.pacer import Pacer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from batch_snapshot.cluster.lease import Brief, Orders, Parcel, Start, Used
    from batch_snapshot.engine.account import Stop
    from batch_snapshot.models import Account, Failure, Outcome, Request
    from batch_snapshot.ratelimit.pace import Pace

#: Seconds for which news is gathered before it is told.
GATHER = 0.05

_log = logging.getLogger(__name__)


def version() -> str:
    """This package's, as the worker has it."""
    return __version__


async def dask_setup(_: object) -> None:
    """Leave Ctrl-C to the coordinator, where a worker of its own shares the terminal (a Dask preload)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def topic(run: str) -> str:
    """The name under which a run's news is told."""
    return f"batch-snapshot-{run}"


def _clock() -> float:
    """Monotonic seconds that go on while the machine sleeps, where the system counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _now() -> datetime:
    return datetime.now(UTC)


class WorkerHost:
    """One run in one worker: its lease, its slots, and what there is to tell."""

    _open: dict[tuple[str, str], WorkerHost] = {}  # noqa: RUF012 - one a process and run, on purpose

    @classmethod
    def of(cls, brief: Brief, worker: Any) -> WorkerHost:
        """The one of this worker in this run."""
        place = (brief.run, worker.address)
        if place not in cls._open:
            cls._open[place] = cls(brief, worker, lambda: cls._open.pop(place, None))
        return cls._open[place]

    def __init__(self, brief: Brief, worker: Any, gone: Callable[[], object]) -> None:
        """Begin without the right to call; `gone` is told when it is over."""
        self.name = uuid4().hex
        self.address = worker.address
        self.concurrency = ConcurrencyLimit(brief.settings.concurrency)
        self.accounts: dict[str, Account] = {}
        self.clients = Clients(self.accounts, brief.target, _now, allowed=self.check)
        self.carriers: dict[str, Carrier] = {}
        self._lease = Lease(brief.lease)
        self._topic = topic(brief.run)
        self._worker = worker
        self._gone = gone
        self._told: deque[Bulletin] = deque()
        self._number = 0
        self._gathering: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._over = False
        self._closing: asyncio.Task[None] | None = None

    def admit(self, carrier: Carrier) -> None:
        """Take an account in, unless a later placing of it is here; an earlier one drops its calls.

        A worker that was busy may hear of a placing when the coordinator has long given it up.

        Raises:
            LeaseOverError: it came too late.
        """
        brief = carrier.brief
        there = self.carriers.get(brief.account.name)
        if there is not None and there is not carrier:
            if there.brief.turn > brief.turn:
                raise LeaseOverError
            there.abort()
        self.carriers[brief.account.name] = carrier
        self.accounts[brief.account.name] = brief.account

    def check(self) -> None:
        """Hold whoever is about to call to the lease.

        Raises:
            LeaseOverError: it is over.
        """
        if self._lease.left(_clock()) <= 0:
            self._end()
            raise LeaseOverError

    def renew(self, orders: Orders) -> RenewalReply:
        """Go on calling, or stop; answers with what the coordinator has not heard.

        Raises:
            LeaseOverError: it was over before, and all calls were dropped.
        """
        if self._over:
            raise LeaseOverError
        self._lease.renew(orders.stamp)
        self.concurrency.expected = orders.accounts
        self._watch()
        while self._told and self._told[0].number <= orders.heard:
            self._told.popleft()
        for carrier in self.carriers.values():
            if orders.stop is not None:
                carrier.stop(orders.stop)
            if orders.abort:
                carrier.abort()
        self._tell()
        return RenewalReply(_clock(), tuple(self._told))

    def news(self) -> None:
        """An account has something to tell: soon, with what others have by then."""
        if self._gathering is None and not self._over:
            self._gathering = asyncio.get_running_loop().call_later(GATHER, self._tell)

    def _tell(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        tales = tuple(tale for carrier in [*self.carriers.values()] if (tale := carrier.tale()))
        if not tales or self._over:
            return
        self._number += 1
        self.carriers = {name: one for name, one in self.carriers.items() if not one.over}
        bulletin = Bulletin(self._number, _now(), tales)
        self._told.append(bulletin)
        self._worker.log_event(self._topic, {"host": self.name, "bulletin": pickle.dumps(bulletin)})

    def _watch(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        left = self._lease.left(_clock())
        self._watching = asyncio.get_running_loop().call_later(max(0.0, left), self._look)

    def _look(self) -> None:
        self._watching = None
        if self._lease.left(_clock()) > 0:
            self._watch()
        else:
            self._end()

    def _end(self) -> None:
        """Fall silent: whoever carries the accounts from now on, it is not this worker."""
        if not self._over:
            self._over = True
            self._gone()
            for carrier in self.carriers.values():
                carrier.abort()
            self._closing = asyncio.get_running_loop().create_task(self.clients.__aexit__(None, None, None))


class Carrier:
    """An account at its worker."""

    engine: Engine | None = None

    def __init__(self, brief: Brief) -> None:
        """Take an account; nothing is opened or called yet."""
        self.brief = brief
        self._name = brief.account.name
        self._host: WorkerHost | None = None
        self._news = _News(self._name)
        self._inbox: Inbox | None = None
        self._granted: Granted | None = None
        self._reads: Granted | None = None
        self._task: asyncio.Task[None] | None = None
        self._parcel = 0

    async def hello(self) -> Hello:
        """Say where the account is now.

        Raises:
            LeaseOverError: it has been placed anew.
        """
        return self.enter(get_worker())

    def enter(self, worker: Any) -> Hello:
        """Be one of the accounts of a Dask worker; raises as `hello`."""
        if self._host is None:
            host = WorkerHost.of(self.brief, worker)
            host.admit(self)
            self._host = host
        return Hello(self._host.name, self._host.address, __version__, _clock())

    async def renew(self, orders: Orders) -> RenewalReply:
        """Renew the lease of the whole worker.

        Raises:
            LeaseOverError: it was over before.
        """
        return self._at.renew(orders)

    async def identify(self) -> str | Failure:
        """Name whose quotas the account spends (see `Clients.identify`)."""
        try:
            return await self._calling.identify(self._name)
        except ApiError as error:
            return error.failure

    async def whose(self) -> str | Failure:
        """Name whose quotas the account spends, though it may not sign (see `Clients.quota_owner`)."""
        try:
            return await self._calling.quota_owner(self._name)
        except ApiError as error:
            return error.failure

    async def read(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any] | Failure:
        """Make one read (see `Clients.read`)."""
        try:
            return await self._calling.read(self._name, operation, parameters)
        except ApiError as error:
            return error.failure

    async def start(self, start: Start) -> Started:
        """Get ready to send rows: the clocks are compared, for the first intent."""
        engine = self.engine or self._begin(start)
        lane = engine.accounts[self._name]
        await engine.preflight.ready(lane, start.request)
        self._at.news()
        return Started(lane.stop, self._calling.clock_skew(self._name), _now())

    async def carry(self, parcel: Parcel) -> None:
        """Take rows and slots."""
        if self._inbox is None:
            raise LeaseOverError
        if parcel.number <= self._parcel:
            return
        self._parcel = parcel.number
        self._inbox.put(parcel.requests)
        for granted, claims in ((self._granted, parcel.claims), (self._reads, parcel.reads)):
            if granted is not None:
                granted.add(claims)
                # A parcel without any cures no want of them.
                self._at.news()

    async def finish(self) -> None:
        """No further row will come."""
        if self._inbox is not None:
            self._inbox.end()

    async def halt(self, stop: Stop) -> None:
        """Make no further call; those in flight are waited for."""
        self.stop(stop)

    def stop(self, stop: Stop) -> None:
        """Make no further call; those in flight are waited for."""
        if self.engine is not None:
            self.engine.request_stop(stop)

    def abort(self) -> None:
        """Drop the calls in flight."""
        if self.engine is not None:
            self.engine.abort()

    def tale(self) -> Tale | None:
        """What happened since it was last asked; None: nothing."""
        if self.engine is None:
            return None
        lane = self.engine.accounts[self._name]
        skew = self._calling.clock_skew(self._name)
        if self._granted is self._reads is None:
            return self._news.tale(lane, skew)
        slots, reads = (one.used() if one else NOTHING_USED for one in (self._granted, self._reads))
        return self._news.tale(lane, skew, self._parcel, slots, reads)

    @property
    def over(self) -> bool:
        """Whether all was told that there ever will be."""
        return self._news.over and not self._news.outcomes

    @property
    def _at(self) -> WorkerHost:
        if self._host is None:
            raise LeaseOverError
        return self._host

    @property
    def _calling(self) -> Clients:
        return self._at.clients

    def _begin(self, start: Start) -> Engine:
        host, clients = self._at, self._calling
        if start.windowed:
            self._granted = Granted(host.news, _clock)
        if start.reads is not None:
            self._reads = Granted(host.news, _clock)
            self._reads.add(start.reads)
        pacer = Pacer(_pace(start, anyio.current_time()), self._granted, wait=True)
        lane = AccountState(
            self._name, pacer, Pacer(pace.declared(self.brief.read_rate), self._reads, wait=True)
        )
        lane.identified = True
        seams = Seams(
            intend=_nothing,
            send=clients.send,
            record=self._settled,
            look_up=clients.look_up,
            identify=_nothing,
            probe=clients.probe,
            clock_skew=clients.clock_skew,
            now=_now,
            rng=Random(),  # noqa: S311 - it draws the jitter
        )
        inbox = self._inbox = Inbox(lambda: lane.halted)
        engine = self.engine = Engine(
            {self._name: lane}, seams, self.brief.settings, concurrency=host.concurrency, queue=inbox
        )
        self._task = asyncio.get_running_loop().create_task(self._run(engine, host))
        return engine

    async def _run(self, engine: Engine, host: WorkerHost) -> None:
        try:
            await engine.run(())
        except Exception as error:  # noqa: BLE001 - whatever it is, the coordinator is told
            if not _is_lease_over(error):
                _log.exception("account %s", self._name)
            self._news.crash = type(error).__name__
        finally:
            self._news.over = True
            host.news()

    def _settled(self, outcome: Outcome) -> None:
        self._news.outcomes.append(outcome)
        self._at.news()


class _News:
    """What an account has to tell."""

    def __init__(self, account: str) -> None:
        self._account = account
        self.outcomes: list[Outcome] = []
        self.over = False
        self.crash: str | None = None
        self._warned = 0
        self._before: Tale | None = None

    def tale(
        self,
        lane: AccountState,
        skew: float | None,
        parcel: int = 0,
        slots: Used = NOTHING_USED,
        reads: Used = NOTHING_USED,
    ) -> Tale | None:
        tale = Tale(
            account=self._account,
            outcomes=tuple(self.outcomes),
            calls=lane.traffic.calls,
            throttled=lane.traffic.throttled,
            learned=lane.pacer.pace.known,
            skew=skew,
            parcel=parcel,
            slots=slots,
            reads=reads,
            warnings=tuple(lane.warnings[self._warned :]),
            stop=lane.stop,
            pause=lane.pause,
            over=self.over,
            crash=self.crash,
        )
        said = [tale.outcomes, tale.warnings, *slots[:2], *reads[:2]]
        if tale == self._before and not any(said):
            return None
        self.outcomes.clear()
        self._warned = len(lane.warnings)
        self._before = tale
        return tale


class Inbox:
    """An account's rows as they come; takes the place of a `RequestQueue`."""

    def __init__(self, halted: Callable[[], bool]) -> None:
        """Begin empty; `halted` says whether no more is taken."""
        self._rows: deque[Request] = deque()
        self._halted = halted
        self._ended = False
        self._changed = anyio.Event()

    def put(self, requests: Iterable[Request]) -> None:
        """Take in more rows."""
        self._rows.extend(requests)
        self.wake()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self.wake()

    def close(self) -> None:
        """Forget what waits."""
        self._rows.clear()

    def busy(self) -> int:
        """1 while there are rows that wait, or to come."""
        return int(bool(self._rows) or not (self._ended or self._halted()))

    def wake(self) -> None:
        """Something changed."""
        self._changed.set()
        self._changed = anyio.Event()

    async def read(
        self,
        batches: Iterable[Sequence[Request]],
        expected: Mapping[str, int] | None = None,  # noqa: ARG002 - as a feed
    ) -> None:
        """Wait until no more will come; `batches` are taken in before."""
        for batch in batches:
            self.put(batch)
        while not (self._ended or self._halted()):
            await self._changed.wait()

    async def take(self, _: str, size: int) -> list[Request]:
        """Take the next rows, up to `size`; none: there will be no more."""
        while not (self._rows or self._ended or self._halted()):
            await self._changed.wait()
        if self._halted():
            self._rows.clear()
        return [self._rows.popleft() for _ in range(min(size, len(self._rows)))]


def _pace(start: Start, now: float) -> Pace:
    if start.declared is not None:
        begun = pace.declared(start.declared)
    elif start.learned is not None:
        begun = pace.learned(start.learned, now)
    else:
        begun = pace.Pace()
    return begun._replace(next_call_at=now + start.delay) if start.delay > 0 else begun


async def _nothing(_: object) -> None:
    """The coordinator does that."""


def _is_lease_over(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_lease_over, error.exceptions))
    return isinstance(error, LeaseOverError)
