"""What a coordinator has of an account: rows that wait for its worker, and rows that are there."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import anyio

from batch_snapshot.cluster.lease import PARCEL
from batch_snapshot.cluster.purse import Purse
from batch_snapshot.models import ErrorKind, Outcome, RowError, Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from batch_snapshot.cluster.hosts import Post
    from batch_snapshot.engine.account import AccountState
    from batch_snapshot.models import Request

#: An account with quota windows is handed rows for so many seconds at a time: each claims its slot.
CLAIM_AHEAD = 15.0
#: Calls a second of an account of which nothing is known.
GUESS = 1.0

#: What became of a row whose worker was lost.
_LOST = RowError(
    ErrorKind.TRANSIENT, "WorkerLost", "its worker was lost before it told what the service had answered"
)


class Leased(NamedTuple):
    """A row at a worker."""

    request: Request
    at: datetime

    def in_doubt(self, now: datetime, skew: float | None) -> Outcome:
        """What is known of it once its worker is lost; `skew` is the service's clock less ours in seconds."""
        request = self.request
        return Outcome(
            request=request,
            status=Status.IN_DOUBT,
            attempts=0,
            throttles=0,
            ambiguous=True,
            first_sent_at=request.first_sent_at or self.at,
            started_at=self.at,
            finished_at=now,
            error=_LOST,
            clock_skew=request.clock_skew if request.first_sent_at else skew,
        )


def again(lost: Outcome) -> Request:
    """A row that is in doubt, as it is to be sent again."""
    return replace(lost.request, ambiguous=True, first_sent_at=lost.first_sent_at, clock_skew=lost.clock_skew)


@dataclass(slots=True)
class Desk:
    """An account here: what waits for its worker, and what is there."""

    lane: AccountState
    backlog: deque[Request] = field(default_factory=deque)
    #: No more will come from the feed.
    exhausted: bool = False
    #: At the worker, by the row's key.
    leased: dict[bytes, Leased] = field(default_factory=dict)
    #: Rows of the backlog that an intent of this invocation names.
    named: set[bytes] = field(default_factory=set)
    #: Slots of the windows for them, and of the quota of reads.
    slots: Purse = field(init=False)
    reads: Purse = field(init=False)
    #: Where it began; None: nowhere.
    post: Post | None = None
    #: Nothing is in flight there, and nothing will be.
    over: bool = False
    #: It will get no further rows.
    finishing: bool = False
    parcels: int = 0
    #: Calls made and throttled at workers before this one.
    before: tuple[int, int] = (0, 0)
    #: Around the search for a worker.
    placing: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    changed: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        """Its worker has nothing yet."""
        self.slots = Purse(self.lane.pacer)
        self.reads = Purse(self.lane.read_pacer)

    @property
    def owing(self) -> int:
        """Rows at the worker that have no slot: those of their tries were used."""
        return len(self.leased) - len(self.slots.claims) if self.slots.counted else 0

    @property
    def spare(self) -> int:
        """Slots at the worker beyond those for its rows: some had been made by earlier tries."""
        return max(0, len(self.slots.claims) - len(self.leased))

    @property
    def low(self) -> bool:
        """Whether the worker is to get further rows before it has nothing to do."""
        if len(self.leased) > PARCEL // 2 or self.owing > 0:
            return False
        return self.slots.short or len(self.leased) <= self.slots.portion // 2

    @property
    def parcel_size(self) -> int:
        """Rows to hand out at a time."""
        if self.lane.pacer.meter is None:
            return PARCEL
        return max(1, min(PARCEL, int(CLAIM_AHEAD * (self.lane.pacer.pace.known or GUESS))))

    def lease(self, batch: Sequence[Request], at: datetime) -> None:
        """Note that these rows go to the worker."""
        for request in batch:
            self.named.discard(request.row.key)
            self.leased[request.row.key] = Leased(request, at)

    def poke(self) -> None:
        """Something changed."""
        self.changed.set()
        self.changed = anyio.Event()


class Pairs:
    """Which account's worker has which pairs: one pair is at one worker, which sends its rows in turn."""

    def __init__(self) -> None:
        """Nobody has any."""
        #: The account that has a pair, and with how many rows.
        self._holders: dict[tuple[str, str, str], tuple[str, int]] = {}

    def hold(self, account: str, request: Request) -> bool:
        """Hold a row's pair for an account; returns False if another one does."""
        pair = _pair(request)
        holder, rows = self._holders.get(pair, (account, 0))
        if holder != account:
            return False
        self._holders[pair] = (account, rows + 1)
        return True

    def let_go(self, account: str, request: Request) -> bool:
        """A row is at the account's worker no longer; returns whether its pair is free now."""
        pair = _pair(request)
        _, rows = self._holders.pop(pair)
        if rows == 1:
            return True
        self._holders[pair] = (account, rows - 1)
        return False


def _pair(request: Request) -> tuple[str, str, str]:
    return request.row.catalog, request.row.engagement, request.row.resource
