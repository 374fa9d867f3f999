"""What runs on a cluster's worker: the engine over one batch, for at most its budget of time.

The worker's own clock ends a batch, even on a worker that is cut off or was frozen: no call begins after the
batch's deadline, and calls in flight are dropped after the drain time-out. Clients and credentials are kept
by the process from one batch to the next. What is pickled is all here; no credentials are in it.
"""

import logging
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from math import inf
from random import Random
from typing import Any, NamedTuple

from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import seconds_since_boot, utc_now
from batch_snapshot.config.options import Settings
from batch_snapshot.engine.account import Abandoned, AccountState, Progress, Stop, StopKind
from batch_snapshot.engine.attempts import Attempts
from batch_snapshot.engine.limits import ConcurrencyLimit
from batch_snapshot.engine.pool import Engine
from batch_snapshot.engine.seams import Seams
from batch_snapshot.models import Account, ApiError, ErrorKind, Failure, Outcome, Request, Verdict
from batch_snapshot.ratelimit.pace import Pace
from batch_snapshot.ratelimit.pacer import Pacer, Reserved

#: When the current task must begin no further call, by the host's clock.
_deadline: ContextVar[float] = ContextVar("deadline", default=inf)
_log = logging.getLogger(__name__)
#: What a worker answers, or the `Failure` instead; and the service's clock, if it is known.
Answer = tuple[Any, datetime | None]


class Run(NamedTuple):
    id: str
    target: Target
    settings: Settings
    #: Seconds for which a batch lasts at most.
    budget: float


@dataclass(slots=True)
class Batch:
    """Rows of one account for a worker, which answers with the same object and what became of them."""

    account: str
    #: Not sent, unless they are in `outcomes` or `unsettled`.
    requests: list[Request]
    progress: Progress
    #: Calls of the account's windows for writes, then for reads; None: it has no windows.
    reserved: list[Reserved | None]
    #: Whose quotas the coordinator counts; the worker must sign for the same.
    identity: str = ""
    outcomes: list[Outcome] = field(default_factory=list)
    #: What was tried of rows that are to be sent again.
    unsettled: list[Attempts] = field(default_factory=list)
    stop: Stop | None = None


class Host(Clients):
    """What a process keeps of a run from one batch to the next."""

    def __init__(self, run: Run) -> None:
        self.known: dict[str, Account] = {}
        super().__init__(self.known, run.target, utc_now, allowed=self._check_deadline)
        self.clock = seconds_since_boot
        self._run = run
        self._concurrency = ConcurrencyLimit(run.settings.concurrency)
        self._engines: set[Engine] = set()
        self._stopping = False

    async def answer(self, account: Account, deadline: float, method: str, *more: Any) -> Answer:
        """Call a method; no call that it makes begins after the deadline."""
        self.known[account.name] = account
        _deadline.set(deadline)
        try:
            value = await getattr(self, method)(*more)
        except ApiError as error:
            value = error.failure
        except Abandoned:
            late = ErrorKind.TRANSIENT, "TooLate", "the request reached the worker too late", Verdict.RETRY
            value = Failure(*late, may_have_landed=False)
        except Exception:  # noqa: BLE001 - the coordinator reports it, whatever it is
            _log.exception("account %s", account.name)
            why = "batch-snapshot failed on a worker: see the worker's log, then run the same command again"
            stop = ErrorKind.UNKNOWN, "WorkerBroke", why, Verdict.STOP_ACCOUNT
            value = Failure(*stop, may_have_landed=True)
        skew = self.clock_skew(account.name)
        return value, None if skew is None else self._now() + timedelta(seconds=skew)

    async def stop(self, *, abort: bool) -> None:
        self._stopping = True
        for engine in self._engines:
            engine.request_stop(Stop(StopKind.INTERRUPTED, "the run stops"))
            if abort:
                engine.abort()

    def _check_deadline(self) -> None:
        """Refuse to begin a call after the deadline: another worker may send the row then."""
        if self.clock() >= _deadline.get():
            raise Abandoned

    async def carry(self, batch: Batch) -> Batch:
        """Run the engine over a batch until all rows have an outcome, or its time or calls are used up.

        Nothing is sent if it raises an `ApiError`: the worker cannot sign as it should.
        """
        await self.check_identity(batch.account, batch.identity)
        writes, reads = (Pacer(Pace(), reserved) for reserved in batch.reserved)
        account = AccountState(batch.account, writes, reads)
        batch.progress.apply(account)
        seams = Seams(
            intend=_nothing,  # the coordinator did, before it handed out the batch
            send=self.send,
            record=batch.outcomes.append,
            leave=batch.unsettled.append,
            look_up=self.look_up,
            identify=_nothing,
            probe=self.probe,
            clock_skew=self.clock_skew,
            now=self._now,
            rng=Random(),  # noqa: S311 - it draws the jitter
        )
        budget = max(0.0, min(self._run.budget, _deadline.get() - self.clock()))
        settings = replace(self._run.settings, max_duration=budget)
        engine = Engine({account.name: account}, seams, settings, concurrency=self._concurrency)
        self._engines.add(engine)
        self._concurrency.expected = len(self._engines)
        try:
            if budget and not self._stopping:
                await engine.run([batch.requests], {account.name: len(batch.requests)})
        finally:
            self._engines.discard(engine)
        # Reserved calls that are used up end the batch, not the account.
        batch.requests, batch.stop = [], None if account.spent else account.stop
        batch.progress = Progress.of(account)
        return batch


#: The host of a run in this process; of many runs the oldest are forgotten.
host = lru_cache(maxsize=16)(Host)


async def _nothing(_: object) -> None:
    pass
