"""What a run's coordinator and its workers tell each other, and for how long a worker may call.

A worker calls while its lease holds. The coordinator renews it every few seconds, and hands its rows
to another worker only when it must be over: whoever is cut off, hangs, or has lost its coordinator
falls silent by itself, before somebody else calls in its place. No two clocks are compared: the
worker counts from a time of its own clock that the coordinator sends back (`Lease`), and the
coordinator from the moment it last sent one (`Term`), which is later.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from batch_snapshot.aws.target import Target
    from batch_snapshot.config.options import Settings
    from batch_snapshot.engine.account import Stop
    from batch_snapshot.failures.breakers import Pause
    from batch_snapshot.models import Account, Outcome, Request

#: Parts of that between two renewals: the next ones make up for one that is lost.
RENEWALS = 5
#: A clock may run faster than another by this share, and a message be looked at so much later.
MARGIN = 0.05

#: Rows that are handed to a worker at once. So many an account, and half as many, are in doubt when a
#: worker is lost.
PARCEL = 32

#: Seconds after which a worker gives back a slot of a quota window that it did not use.
CLAIM_HELD = 60.0


class LostError(Exception):
    """An account's worker is gone, or nobody can tell whether it is."""


class LeaseOverError(Exception):
    """The coordinator may have given the account to another worker: nothing is sent any more."""


class Lease:
    """A worker's right to call, by a clock that counts the machine's sleep too."""

    def __init__(self, seconds: float) -> None:
        """None yet; each renewal is for so many `seconds`."""
        self._seconds = seconds
        self._until = -inf

    def renew(self, stamp: float) -> None:
        """Go on, for as long as one lease is from `stamp`, which was read off the same clock."""
        self._until = max(self._until, stamp + self._seconds)

    def left(self, now: float) -> float:
        """Seconds until it is over; none or less: it is."""
        return self._until - now


class Term:
    """When a worker's lease must be over, as its coordinator can know."""

    def __init__(self, seconds: float) -> None:
        """It never had one of so many `seconds`."""
        self._seconds = seconds * (1 + MARGIN)
        self._until = -inf

    def renew(self, now: float) -> None:
        """A renewal is about to be sent; whether it arrives may never be known."""
        self._until = now + self._seconds

    def left(self, now: float) -> float:
        """Seconds until it must be over; none or less: it is."""
        return self._until - now


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What a worker is told of an account: never who signs for it, only where to find that.

    Attributes:
        run: one coordinator's, for as long as it lives.
        account: whose rows it will send.
        target: where the calls go.
        settings: how the account is driven; the concurrency is one worker's.
        read_rate: reads a second.
        lease: seconds.
        turn: of two placings of an account the one with the greater number holds it.
    """

    run: str
    account: Account
    target: Target
    settings: Settings
    read_rate: float
    lease: float
    turn: int = 0


class Hello(NamedTuple):
    """A worker's first word."""

    #: Of the worker's process in this run: a new one after it was lost.
    host: str
    address: str
    version: str
    #: See `Lease`.
    stamp: float


class Start(NamedTuple):
    """How an account begins at a worker."""

    #: Calls a second that are declared, or were learned; None: to be found out.
    declared: float | None
    learned: float | None
    #: Seconds before the first call.
    delay: float
    #: It has quota windows: a call needs a slot that came with a parcel.
    windowed: bool
    #: The first row, for a first read as the account.
    request: Request
    #: Slots of the quota of its reads; None: they are not counted.
    reads: tuple[int, ...] | None = None


class Started(NamedTuple):
    """How it began."""

    #: Why the account cannot call; None: it can.
    stop: Stop | None
    #: The service's clock less the worker's in seconds; None: it has not told.
    skew: float | None
    #: By the worker's wall clock.
    at: datetime


class Parcel(NamedTuple):
    """Rows to send, and slots of the account's quota windows, by their claims."""

    #: One parcel may arrive twice.
    number: int
    requests: tuple[Request, ...]
    claims: tuple[int, ...] = ()
    #: Those for its reads.
    reads: tuple[int, ...] = ()


class Used(NamedTuple):
    """What became of slots of a quota window that a worker has."""

    #: Claims whose calls are over.
    finished: tuple[int, ...] = ()
    #: Claims that are given back.
    unused: tuple[int, ...] = ()
    #: None is left, and more would be used.
    short: bool = False


NOTHING_USED = Used()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tale:
    """What happened to an account at its worker since the tale before.

    Attributes:
        account: its name.
        outcomes: of rows that are settled.
        calls: made at this worker so far, and how many of them were `throttled`.
        throttled: see `calls`.
        learned: calls a second that were measured; None: none yet.
        skew: the service's clock less the worker's, in seconds.
        parcel: the last that arrived, if slots come with them.
        slots: of the account's windows.
        reads: of the quota of its reads.
        warnings: to tell people.
        stop: why no further calls are made.
        pause: what it waits for; its times are the worker's.
        over: nothing more is in flight, and what has no outcome was not sent.
        crash: what broke, if the worker's program did: nothing is known of the other rows.
    """

    account: str
    outcomes: tuple[Outcome, ...] = ()
    calls: int = 0
    throttled: int = 0
    learned: float | None = None
    skew: float | None = None
    parcel: int = 0
    slots: Used = NOTHING_USED
    reads: Used = NOTHING_USED
    warnings: tuple[str, ...] = ()
    stop: Stop | None = None
    pause: Pause | None = None
    over: bool = False
    crash: str | None = None


class Bulletin(NamedTuple):
    """The tales of a worker's accounts, numbered from 1."""

    number: int
    #: By the worker's wall clock.
    at: datetime
    tales: tuple[Tale, ...]


class Orders(NamedTuple):
    """A renewal, and what every account of a worker is to do."""

    #: See `Lease`: the worker's last word that has arrived.
    stamp: float
    #: The last bulletin that has.
    heard: int
    #: Make no further call, for this reason.
    stop: Stop | None = None
    #: About so many accounts are to share the worker's slots.
    accounts: int = 1
    #: Drop the calls in flight too.
    abort: bool = False


class RenewalReply(NamedTuple):
    """To a renewal: all that was told and perhaps not heard."""

    stamp: float
    bulletins: tuple[Bulletin, ...]
