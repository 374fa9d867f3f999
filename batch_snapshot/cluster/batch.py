"""What a coordinator and a worker hand each other: a batch of one account's rows, and what became of it.

Everything here is pickled by Dask. No credentials travel: a worker finds its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from batch_snapshot.failures.breakers import Breaker
from batch_snapshot.models import ErrorKind, Outcome, RowError, Status
from batch_snapshot.ratelimit.pace_handover import shifted

if TYPE_CHECKING:
    from datetime import datetime

    from batch_snapshot.aws.target import Target
    from batch_snapshot.config.options import Settings
    from batch_snapshot.engine.account import AccountState, Stop
    from batch_snapshot.failures.breakers import Pause
    from batch_snapshot.models import Account, Request
    from batch_snapshot.ratelimit.pace import Pace

#: A clock may run faster than another by this share.
CLOCK_DRIFT = 0.05

WORKER_LOST = RowError(
    ErrorKind.TRANSIENT, "WorkerLost", "its worker was lost before it reported what the service had answered"
)


class NotBegunError(Exception):
    """No worker took a batch, and none will: its rows were not sent."""


class LostError(Exception):
    """A worker took a batch, did not report, and makes no call any more."""


def silent_after(budget: float, drain: float) -> float:
    """Seconds after which a worker that took a batch makes no call any more, even if it is cut off."""
    return (budget + drain) * (1 + CLOCK_DRIFT)


class Progress(NamedTuple):
    """What is known about an account between two of its batches. Times are seconds from now."""

    pace: Pace
    read_pace: Pace
    breaker: Breaker = Breaker()
    pause: Pause | None = None
    read_catalogs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, account: AccountState, now: float) -> Progress:
        """The progress of an account, by a clock that says `now`."""
        pause = account.pause and account.pause.shifted(-now)
        pace, read_pace = shifted(account.pacer.pace, -now), shifted(account.read_pacer.pace, -now)
        return cls(pace, read_pace, account.breaker, pause, frozenset(account.read_catalogs))

    def apply(self, account: AccountState, now: float) -> None:
        """Continue from here with an account, by a clock that says `now`."""
        account.pacer.change(lambda _: shifted(self.pace, now))
        account.read_pacer.change(lambda _: shifted(self.read_pace, now))
        account.breaker = self.breaker
        account.pause = self.pause and self.pause.shifted(now)
        account.read_catalogs |= self.read_catalogs


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of one account for one worker, and all that it needs to send them.

    Attributes:
        run: names the run, for as long as its coordinator lives.
        turn: names this batch. The worker that takes the turn of this name from the scheduler may call.
        settings: `max_duration` is the budget: after so many seconds no further call begins.
        sharing: accounts that share a worker, about.
        identity: whose quotas the coordinator counts; the worker must sign for the same.
        prepare: instead of rows: identify the account, and make a first read with this row's names.
        reservations: of the account's quota windows, one a call; None: it has no windows.
        read_reservations: the same for reads.
    """

    run: str
    turn: str
    account: Account
    target: Target
    settings: Settings
    sharing: int
    identity: str | None
    requests: tuple[Request, ...] = ()
    prepare: Request | None = None
    progress: Progress
    reservations: tuple[int, ...] | None = None
    read_reservations: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What became of a batch. A row that is neither in `outcomes` nor in `unsettled` was not sent.

    Attributes:
        unsettled: rows that were begun: as they are to be sent again, and the outcome if they are not.
        unused: reservations that no call has used.
        skew: the service's clock less the worker's, in seconds; None: not known.
        now: the worker's wall clock at the end.
        stop: why the account makes no further call.
        crash: the class of an unexpected error: rows without an outcome may have been sent.
    """

    outcomes: tuple[Outcome, ...]
    unsettled: tuple[tuple[Request, Outcome | None], ...]
    progress: Progress
    unused: tuple[int, ...]
    unused_reads: tuple[int, ...]
    calls: int
    throttled: int
    skew: float | None
    now: datetime
    warnings: tuple[str, ...]
    stop: Stop | None
    crash: str | None


def lost_outcome(request: Request, sent_at: datetime, now: datetime, skew: float | None) -> Outcome:
    """The outcome of a row whose worker was lost: in doubt since `sent_at`, by our clock."""
    return Outcome(
        request=request,
        status=Status.IN_DOUBT,
        attempts=request.attempts,
        throttles=request.throttles,
        ambiguous=True,
        first_sent_at=request.first_sent_at or sent_at,
        started_at=sent_at,
        finished_at=now,
        error=WORKER_LOST,
        clock_skew=request.clock_skew if request.first_sent_at else skew,
    )


def resend(outcome: Outcome) -> Request:
    """A row in doubt as it is to be sent again: under the same token."""
    return replace(
        outcome.request,
        ambiguous=True,
        first_sent_at=outcome.first_sent_at,
        clock_skew=outcome.clock_skew,
        attempts=outcome.attempts,
        throttles=outcome.throttles,
    )
