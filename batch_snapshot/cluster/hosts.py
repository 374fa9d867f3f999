"""The workers of a cluster that carry a run's accounts, as the coordinator knows them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

if TYPE_CHECKING:
    from datetime import datetime

    from batch_snapshot.cluster.lease import Bulletin, Term

#: Accounts that begin at once at a worker: to begin takes its processor, and one that is asked for hundreds
#: at once answers none in time, nor the renewals of its lease.
STARTED_AT_ONCE = 8


@dataclass(slots=True)
class Host:
    """A worker's process in this run."""

    name: str
    address: str
    actor: Any
    term: Term
    #: See `Lease`.
    stamp: float
    #: Bulletins that arrived.
    heard: int = 0
    #: Its wall clock less ours in seconds, as far as messages have shown: they take their time.
    ahead: float = -math.inf
    lost: bool = False
    #: It answers renewals, and no questions.
    doubted: bool = False
    #: Around the questions that it has not answered.
    asked: set[anyio.CancelScope] = field(default_factory=set)
    #: Room for accounts that begin.
    beginning: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(STARTED_AT_ONCE))
    #: It was renewed for the first time, or lost.
    opened: anyio.Event = field(default_factory=anyio.Event)
    #: There are new orders.
    poked: anyio.Event = field(default_factory=anyio.Event)
    #: It answered after it was told to drop everything.
    aborted: bool = False

    def poke(self) -> None:
        """Send the next renewal at once."""
        self.poked.set()

    def told(self, at: datetime, now: datetime) -> None:
        """A message that its clock dates `at` was heard `now`."""
        self.ahead = max(self.ahead, (at - now).total_seconds())


@dataclass(slots=True)
class Post:
    """An account at its worker."""

    account: str
    host: Host
    actor: Any
    future: Any


class News(NamedTuple):
    """A bulletin of a worker; without one, the worker is lost and its lease over."""

    host: Host
    bulletin: Bulletin | None
