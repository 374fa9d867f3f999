"""One account in a run: its pace, its breaker, its queue, and why it stopped, if it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import anyio

from batch_snapshot import policy

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from batch_snapshot.model import Request
    from batch_snapshot.pace import Pacer

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
    breaker: policy.DenialBreaker = field(default_factory=lambda: policy.DenialBreaker(DENIAL_LIMIT))
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

    def close(self) -> None:
        """Drop the queue."""
        self.requests.close()
        self.queue.close()
