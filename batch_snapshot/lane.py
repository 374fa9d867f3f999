"""One account in a run: its pace, its breaker, its queue, and why it stopped, if it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import anyio

from batch_snapshot import forecast, policy

if TYPE_CHECKING:
    from datetime import datetime

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from batch_snapshot.model import Request
    from batch_snapshot.pacer import Pacer
    from batch_snapshot.quota import Spent

#: Denials are the account's when so many come in a row before any success.
DENIAL_LIMIT = 20


class StopKind(IntEnum):
    """Why no further calls are made; the larger one names the outcome of the run."""

    #: Go on another time with the same command: a quota is spent, or the time is up.
    DEFERRED = 1
    #: Something is wrong that the same command would meet again.
    STOPPED = 2
    #: A signal.
    INTERRUPTED = 3


class Stop(NamedTuple):
    """An early end, of an account or of the run, and what to tell people about it."""

    kind: StopKind
    reason: str


def _when(found: Spent, calls: str, now: datetime) -> str:
    window, opens_in = found
    if opens_in == float("inf"):
        way = "raise the one or lower the other"
        return f"{window.name} leaves room for no {calls}, the reserve considered: {way}"
    when = forecast.moment(opens_in, now.astimezone())
    plural = calls if window.limit == 1 else f"{calls}s"
    return (
        f"{window.name} is spent ({window.limit:,} {plural} in any {_SPANS[window.name]}): opens {when} "
        f"(in {timedelta(seconds=round(opens_in))}); run the same command then, or use --wait"
    )


_SPANS = {"per_minute": "minute", "per_hour": "hour", "per_day": "24 hours"}


@dataclass(slots=True)
class Traffic:
    """What has been on the wire."""

    calls: int = 0
    throttled: int = 0


@dataclass(slots=True)
class Lane:
    """One account in a run: its pace, its breaker, its queue."""

    name: str
    pacer: Pacer
    #: The service counts reads apart from writes.
    read_pacer: Pacer
    traffic: Traffic = field(default_factory=Traffic)
    stop: Stop | None = None
    #: The window that stopped it, and whose it is: its pacer's, or that of reads.
    spent: tuple[Pacer, Spent] | None = None
    breaker: policy.DenialBreaker = field(default_factory=lambda: policy.DenialBreaker(DENIAL_LIMIT))
    #: Whose account it is was found out, and its windows are set.
    identified: bool = False
    #: Catalogs in which a read was made, or refused, before the first write.
    probed: set[str] = field(default_factory=set)
    probing: anyio.Lock = field(default_factory=anyio.Lock)
    warnings: list[str] = field(default_factory=list)
    workers: int = 0
    requests: MemoryObjectSendStream[Request] = field(init=False)
    queue: MemoryObjectReceiveStream[Request] = field(init=False)

    def open(self) -> None:
        """Make the queue."""
        self.requests, self.queue = anyio.create_memory_object_stream(0)

    def deferred(self, pacer: Pacer, found: Spent, now: datetime) -> Stop:
        """Note that a window of one of its pacers is spent; why it stops, and when it can go on."""
        self.spent = pacer, found
        calls = "read" if pacer is self.read_pacer else "call"
        return Stop(StopKind.DEFERRED, f"account {self.name}: {_when(found, calls, now)}")

    def close(self) -> None:
        """Drop the queue."""
        self.requests.close()
        self.queue.close()
