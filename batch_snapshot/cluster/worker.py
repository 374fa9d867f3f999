"""What runs on a cluster's worker: the engine over one batch, for at most its budget of time.

`carry` is an ordinary Dask task. The worker's own clock ends it, even on a worker that is cut off or was
frozen: no call begins after the budget, and calls in flight are dropped after the drain time-out. Clients
and credentials are kept by the process from one batch to the next.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
from distributed import Event, Queue, get_client, get_worker
from distributed.worker_state_machine import SecedeEvent

from batch_snapshot import __version__
from batch_snapshot.aws.client import Clients
from batch_snapshot.clock import seconds_since_boot, utc_now
from batch_snapshot.cluster.batch import BatchResult, Progress
from batch_snapshot.engine.account import AccountState, Stop, StopKind
from batch_snapshot.engine.limits import ConcurrencyLimit
from batch_snapshot.engine.pool import Engine
from batch_snapshot.engine.seams import Seams
from batch_snapshot.models import UNKNOWN_ACCOUNT, ApiError, ErrorKind, Failure, Verdict
from batch_snapshot.ratelimit.pace import Pace
from batch_snapshot.ratelimit.pacer import Pacer
from batch_snapshot.ratelimit.windows import QuotaWindow, WindowFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from batch_snapshot.cluster.batch import Batch
    from batch_snapshot.engine.attempts import Attempts
    from batch_snapshot.models import Account, Outcome, Request

#: When the current task must begin no further call, by `seconds_since_boot`, and the engine to stop then.
_budget: ContextVar[tuple[float, Engine | None]] = ContextVar("budget", default=(inf, None))

_BUDGET_OVER = Failure(
    ErrorKind.TRANSIENT,
    "BudgetOver",
    "its time is over",
    Verdict.RETRY,
    may_have_landed=False,
    never_left=True,
)

#: Seconds without a batch after which a run is taken to be over.
IDLE_FOR = 600.0

#: Stands for the account's windows, which only the coordinator counts.
_RESERVED = QuotaWindow("reserved", 0, 0.0)

_log = logging.getLogger(__name__)


def version() -> str:
    """The version of this package on the worker."""
    return __version__


async def dask_setup(_: object) -> None:
    """Leave Ctrl-C to the coordinator, where a local worker shares its terminal (a Dask preload)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


async def carry(batch: Batch) -> BatchResult | None:
    """Send a batch (a Dask task); None: another worker took its turn, so nothing was sent here."""
    deadline = seconds_since_boot() + (batch.settings.max_duration or 0.0)
    dask = await _begin(batch)
    turn = await Queue(batch.turn, client=dask)
    if not await turn.get(batch=True):
        return None
    return await send(batch, await _keep(batch, dask), deadline)


async def ask(batch: Batch, method: str, *arguments: Any) -> Any:
    """Call a method of `Clients` for the batch's account (a Dask task); returns its answer or `Failure`."""
    kept = await _keep(batch, await _begin(batch))
    try:
        return await getattr(kept.clients, method)(batch.account.name, *arguments)
    except ApiError as error:
        return error.failure


async def close(run: str) -> None:
    """Close what this process keeps of a run."""
    if kept := _kept.pop(run, None):
        await kept.close()


def stop_event(run: str, *, abort: bool) -> str:
    """The name of the Dask event that ends a run's batches early, or with `abort` drops their calls."""
    return f"batch-snapshot-{run}-{'abort' if abort else 'stop'}"


async def _begin(batch: Batch) -> Any:
    """Let the worker run other tasks meanwhile, as this one only waits; returns a client of the scheduler."""
    worker = get_worker()
    worker.handle_stimulus(
        SecedeEvent(key=batch.turn, compute_duration=0.0, stimulus_id=f"secede-{time.time()}")
    )
    return await get_client()


def _check_budget() -> None:
    """Refuse a call after the budget: another worker may send the rows then."""
    deadline, engine = _budget.get()
    if seconds_since_boot() >= deadline:
        if engine is not None:
            _stop(engine)
        raise ApiError(_BUDGET_OVER)


class KeptRun:
    """What the process keeps of a run from one batch to the next."""

    def __init__(self, batch: Batch, dask: Any) -> None:
        self.accounts: dict[str, Account] = {}
        self.clients = Clients(self.accounts, batch.target, utc_now, allowed=_check_budget)
        self.concurrency = ConcurrencyLimit(batch.settings.concurrency)
        self.engines: set[Engine] = set()
        self.used_at = seconds_since_boot()
        self._heeding = [
            asyncio.ensure_future(self._heed(Event(stop_event(batch.run, abort=abort), dask), act))
            for abort, act in ((False, _stop), (True, Engine.abort))
        ]

    async def _heed(self, event: Any, act: Callable[[Engine], None]) -> None:
        with suppress(Exception):  # without a scheduler the budget ends the batches
            await event.wait()
            while True:
                for engine in [*self.engines]:
                    act(engine)
                await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Close the clients."""
        for task in self._heeding:
            task.cancel()
        await self.clients.__aexit__(None, None, None)


_kept: dict[str, KeptRun] = {}


async def _keep(batch: Batch, dask: Any) -> KeptRun:
    now = seconds_since_boot()
    if batch.run not in _kept:
        await _close_idle(now)
        _kept[batch.run] = KeptRun(batch, dask)
    kept = _kept[batch.run]
    kept.used_at = now
    kept.accounts[batch.account.name] = batch.account
    return kept


async def _close_idle(now: float) -> None:
    """Close runs that their coordinators did not; the runs of other coordinators may share this worker."""
    idle = [run for run, kept in _kept.items() if not kept.engines and now - kept.used_at > IDLE_FOR]
    for run in idle:
        await close(run)


def _stop(engine: Engine) -> None:
    if engine.stop is None:
        engine.request_stop(Stop(StopKind.INTERRUPTED, "the run stops"))


class Reservations:
    """Reservations that came with a batch; takes the place of the account's windows."""

    def __init__(self, reservations: Iterable[int] | None) -> None:
        self._given = reservations is not None  # else the account has no windows
        self._free = deque(reservations or ())

    def pacer(self) -> Pacer:
        """A pacer within these reservations; its pace comes with the batch."""
        return Pacer(Pace(), self if self._given else None, wait=False)

    def reserve(self) -> int | WindowFull:
        """Use one."""
        return self._free.popleft() if self._free else WindowFull(_RESERVED, inf)

    def free_calls(self) -> int:
        """How many are left."""
        return len(self._free)

    def finish(self, reservation: int) -> None:
        """The call ended; the coordinator counts it."""

    def cancel(self, reservation: int) -> None:
        """The call never left."""
        self._free.append(reservation)

    def unused(self) -> tuple[int, ...]:
        """Those that no call has used."""
        return tuple(self._free)


async def send(
    batch: Batch,
    kept: KeptRun,
    deadline: float,
    *,
    clock: Callable[[], float] = seconds_since_boot,
    now: Callable[[], datetime] = utc_now,
) -> BatchResult:
    """Run the engine over a batch until all rows have an outcome, or its time or reservations are used up.

    No call begins after `deadline` by `clock`, which counts monotonic seconds.
    """
    kept.concurrency.expected = batch.sharing
    permits, reads = Reservations(batch.reservations), Reservations(batch.read_reservations)
    account = AccountState(batch.account.name, permits.pacer(), reads.pacer())
    batch.progress.apply(account, anyio.current_time())
    outcomes: list[Outcome] = []
    unsettled: list[tuple[Request, Outcome | None]] = []

    def leave(attempts: Attempts) -> None:
        unsettled.append((attempts.resend(), attempts.outcome_if_left(now())))

    seams = _seams(batch, kept.clients, outcomes.append, leave, now)
    settings = replace(batch.settings, max_duration=max(0.0, deadline - clock()))
    engine = Engine({account.name: account}, seams, settings, concurrency=kept.concurrency)
    _budget.set((deadline, engine))
    kept.engines.add(engine)
    try:
        crash = await _run(engine, account, batch)
    finally:
        kept.engines.discard(engine)
    return BatchResult(
        outcomes=tuple(outcomes),
        unsettled=tuple(unsettled),
        progress=Progress.of(account, anyio.current_time()),
        unused=permits.unused(),
        unused_reads=reads.unused(),
        calls=account.traffic.calls,
        throttled=account.traffic.throttled,
        skew=kept.clients.clock_skew(account.name),
        now=now(),
        warnings=tuple(account.warnings),
        # Reservations that are used up end the batch, not the account.
        stop=None if account.spent else account.stop,
        crash=crash,
    )


def _seams(
    batch: Batch,
    clients: Clients,
    record: Callable[[Outcome], None],
    leave: Callable[[Attempts], None],
    now: Callable[[], datetime],
) -> Seams:
    return Seams(
        intend=_nothing,  # the coordinator did, before it handed out the batch
        send=clients.send,
        record=record,
        leave=leave,
        look_up=clients.look_up,
        identify=lambda _: _check_identity(batch, clients),
        probe=clients.probe,
        clock_skew=clients.clock_skew,
        now=now,
        rng=Random(),  # noqa: S311 - it draws the jitter
    )


async def _run(engine: Engine, account: AccountState, batch: Batch) -> str | None:
    """Run the engine; returns the class of an unexpected error."""
    try:
        if batch.prepare is None:
            await engine.run([batch.requests], {account.name: len(batch.requests)})
        else:
            await engine.preflight.ready(account, batch.prepare)
    except Exception as error:  # noqa: BLE001 - the coordinator reports it, whatever it is
        _log.exception("account %s", account.name)
        return type(error).__name__
    return None


async def _check_identity(batch: Batch, clients: Clients) -> None:
    """Refuse to sign for another AWS account than the one whose quotas the coordinator counts.

    Raises:
        ApiError: it is another one, or the worker cannot sign.
    """
    found = await clients.identify(batch.account.name)
    known = {found, batch.identity or found}
    if len(known) > 1 and not any(one.startswith(UNKNOWN_ACCOUNT) for one in known):
        why = f"a worker signs for {found}, not for {batch.identity}: give all workers the same credentials"
        raise ApiError(
            Failure(ErrorKind.DENIED, "WorkerIdentity", why, Verdict.STOP_ACCOUNT, may_have_landed=False)
        )


async def _nothing(_: object) -> None:
    pass
