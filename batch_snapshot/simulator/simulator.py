"""The simulated service as its user holds it: the world, and a record of what was asked of it."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

from batch_snapshot.simulator.settings import SimulatorSettings
from batch_snapshot.simulator.world import Series, Snapshot, World


class LoggedCall(NamedTuple):
    #: When it arrived, seconds since the epoch by our clock (not the server's).
    time: float
    operation: str
    access_key: str
    client_token: str | None
    #: `ok`, `replay`, the error's code, or what a fault sent instead: `http-503`, `reset`, `hang-up`,
    #: `cut`, `junk`.
    answer: str
    #: The fault that hit it.
    fault: str | None


class Simulator:
    """The world and its record.

    Attributes:
        snapshots: in the order in which they were made.
        log: the last million calls, in the order in which they were answered.
        calls: how many calls each operation met, refused ones too.
        faults: how many calls each kind of fault hit.
        throttled: how many ThrottlingExceptions were answered.
        max_in_flight: the most calls that were in flight at once.
        pair_overlaps: how often a CreateResourceSnapshot arrived while another of the same catalog,
            engagement, resource type, resource and template was in flight on an open connection.
    """

    def __init__(
        self, settings: SimulatorSettings | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings or SimulatorSettings()
        self.world = World(self.settings)
        self.snapshots: list[Snapshot] = self.world.snapshots
        #: The time by our clock; `clock` is the server's.
        self.now = now
        self.calls: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.throttled = 0
        self.max_in_flight = 0
        self.pair_overlaps = 0
        self._in_flight = 0
        self._pairs: dict[Series, list[Callable[[], bool]]] = {}
        self.log: deque[LoggedCall] = deque(maxlen=1_000_000)
        self._late_work: set[asyncio.Task[None]] = set()

    def clock(self) -> float:
        return self.now() + self.settings.clock_offset

    def touch(self, opportunity: str) -> float:
        """Modify an opportunity now; return its LastModifiedDate in seconds since the epoch."""
        self.world.touch(opportunity, self.clock())
        return next(iter(self.world.opportunities.values()))[opportunity]

    def record(self) -> dict[str, Any]:
        """Sum up what happened; everything in it can be written as JSON."""
        return {
            "calls": dict(self.calls),
            "faults": dict(self.faults),
            "throttled": self.throttled,
            "max_in_flight": self.max_in_flight,
            "pair_overlaps": self.pair_overlaps,
            "late_pending": len(self._late_work),
            "snapshots": [asdict(snapshot) for snapshot in self.snapshots],
        }

    async def settled(self) -> None:
        while self._late_work:
            await asyncio.wait(self._late_work)

    def note(self, call: LoggedCall) -> None:
        """Count an answered call and log it."""
        self.calls[call.operation] += 1
        if call.fault is not None:
            self.faults[call.fault] += 1
        if call.answer == "ThrottlingException":
            self.throttled += 1
        self.log.append(call)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1

    @contextmanager
    def pair_in_flight(self, series: Series | None, is_open: Callable[[], bool]) -> Iterator[None]:
        """Count overlaps of a pair's calls; one whose client has gone away overlaps with nothing."""
        if series is None:
            yield
            return
        others = self._pairs.setdefault(series, [])
        self.pair_overlaps += any(other() for other in others)
        others.append(is_open)
        try:
            yield
        finally:
            others.remove(is_open)
            if not others:
                del self._pairs[series]

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """Do work in the background after a while, unless the simulator is closed before."""

        async def wait_and_work() -> None:
            await asyncio.sleep(seconds)
            work()

        task = asyncio.get_running_loop().create_task(wait_and_work())
        self._late_work.add(task)
        task.add_done_callback(self._late_work.discard)

    async def close(self) -> None:
        late = list(self._late_work)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self.world.close()
