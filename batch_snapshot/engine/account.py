"""One account in a run: its pace, its breaker, its queue, and why it stopped, if it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import anyio

from batch_snapshot.failures.breakers import UNREACHABLE, Breaker
from batch_snapshot.ratelimit import forecast
from batch_snapshot.text import duration, plural

if TYPE_CHECKING:
    from datetime import datetime

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from batch_snapshot.failures.breakers import Pause
    from batch_snapshot.models import Request
    from batch_snapshot.ratelimit.pacer import Pacer
    from batch_snapshot.ratelimit.windows import WindowFull


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


def _when(found: WindowFull, calls: str, now: datetime) -> str:
    window, opens_in = found
    if opens_in == float("inf"):
        way = "raise the one or lower the other"
        return f"{window.name} leaves room for no {calls}, the reserve considered: {way}"
    when = forecast.moment(opens_in, now.astimezone())
    return (
        f"{window.name} is spent ({plural(window.limit, calls)} in any {_SPANS[window.name]}): opens {when} "
        f"(in {duration(opens_in)}); run the same command then, or use --wait"
    )


_SPANS = {"per_minute": "minute", "per_hour": "hour", "per_day": "24 hours"}


@dataclass(slots=True)
class Traffic:
    """What has been on the wire."""

    calls: int = 0
    throttled: int = 0


@dataclass(slots=True)
class AccountState:
    """One account in a run: its pace, its breaker, its queue."""

    name: str
    pacer: Pacer
    #: The service counts reads apart from writes.
    read_pacer: Pacer
    traffic: Traffic = field(default_factory=Traffic)
    stop: Stop | None = None
    #: The window that stopped it, and whose it is: its pacer's, or that of reads.
    spent: tuple[Pacer, WindowFull] | None = None
    breaker: Breaker = field(default_factory=Breaker)
    #: The account makes no call but probes; None: it calls as its pace allows.
    pause: Pause | None = None
    #: Who holds it makes the next probe.
    turn: anyio.Lock = field(default_factory=anyio.Lock)
    #: Rows on their way to an outcome.
    active: int = 0
    #: Set and replaced when a pause has ended, or there may be room for further rows.
    eased: anyio.Event = field(default_factory=anyio.Event)
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

    def deferred(self, pacer: Pacer, found: WindowFull, now: datetime) -> Stop:
        """Note that a window of one of its pacers is spent; why it stops, and when it can go on."""
        self.spent = pacer, found
        calls = "read" if pacer is self.read_pacer else "call"
        return Stop(StopKind.DEFERRED, f"account {self.name}: {_when(found, calls, now)}")

    def gave_up(self, pause: Pause, now: float) -> Stop:
        """Why it stops after a pause in which every probe failed."""
        seconds = f"{now - pause.began:.0f} s"
        if pause.key == UNREACHABLE:
            why = (
                f"{pause.what}, and so for {seconds}: nothing left this machine meanwhile; check the "
                "network, HTTPS_PROXY and --endpoint-url, then run the same command"
            )
        else:
            why = f"{pause.what}; tries for another {seconds} were refused as well"
        return Stop(StopKind.DEFERRED, f"account {self.name}: {why}")

    def ease(self) -> None:
        """Wake whoever waits for the end of a pause or for room."""
        self.eased.set()
        self.eased = anyio.Event()

    def resume(self) -> None:
        """The pause is over."""
        self.pause = None
        self.ease()

    def close(self) -> None:
        """Drop the queue."""
        self.requests.close()
        self.queue.close()
