"""One account in a run: its pace, its breaker, its pause, and why it stopped if it did."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from math import inf
from typing import NamedTuple, Self

import anyio

from batch_snapshot.engine.signal import Signal
from batch_snapshot.failures.breakers import UNREACHABLE, Breaker, Pause
from batch_snapshot.ratelimit import forecast
from batch_snapshot.ratelimit.pace import Pace
from batch_snapshot.ratelimit.pace_handover import shifted
from batch_snapshot.ratelimit.pacer import Pacer
from batch_snapshot.ratelimit.windows import WindowFull
from batch_snapshot.text import duration, plural


class StopKind(IntEnum):
    """Why no further calls are made. The largest one decides the outcome of the run."""

    #: The same command continues later: a quota is spent, or the time is up.
    DEFERRED = 1
    #: The same command would meet the same problem again.
    STOPPED = 2
    #: A signal.
    INTERRUPTED = 3


class Stop(NamedTuple):
    """Why an account or the run ended early, and a sentence about it."""

    kind: StopKind
    reason: str


class Abandoned(Exception):  # noqa: N818 - not an error: the row is left for another run
    """The run or the account stopped before the next call of a row."""


@dataclass(slots=True)
class Traffic:
    calls: int = 0
    throttled: int = 0


@dataclass(slots=True)
class AccountState:
    name: str
    pacer: Pacer
    #: The service counts reads apart from writes.
    read_pacer: Pacer
    traffic: Traffic = field(default_factory=Traffic)
    stop: Stop | None = None
    #: No further call: this account or the run stopped, or outcomes cannot be recorded.
    halted: bool = False
    #: The window that stopped it, and its pacer.
    spent: tuple[Pacer, WindowFull] | None = None
    breaker: Breaker = field(default_factory=Breaker)
    #: While set, the account makes no call but probes.
    pause: Pause | None = None
    #: Held by the next probe.
    probe_turn: anyio.Lock = field(default_factory=anyio.Lock)
    #: Rows whose outcome is not known yet.
    active: int = 0
    #: Sent when a pause ends or a row is done.
    changed: Signal = field(default_factory=Signal)
    #: Accounts of the run that are the same AWS account, and share its pace.
    sharing: int = 1
    #: Its AWS account is known, and its quota windows are set.
    identified: bool = False
    #: Catalogs in which the first read was made.
    read_catalogs: set[str] = field(default_factory=set)
    first_read: anyio.Lock = field(default_factory=anyio.Lock)
    warnings: list[str] = field(default_factory=list)
    _waits: set[anyio.CancelScope] = field(default_factory=set)

    def halt(self) -> None:
        """Make no further call, and end all waits for one."""
        self.halted = True
        for scope in self._waits:
            scope.cancel()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Wait inside; a halt, before or meanwhile, ends the wait and raises `Abandoned`."""
        self.check_halted()
        with anyio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)
        self.check_halted()

    def check_halted(self) -> None:
        if self.halted:
            raise Abandoned

    async def begin_row(self) -> None:
        """Work on one more row, as soon as the breaker allows it; `end_row` follows.

        So no more rows than the breaker's limit fail in the same way before it trips. A halt raises
        `Abandoned`.
        """
        while (allowed := self.breaker.allowed_rows) is not None and self.active >= allowed:
            with self.interruptible():
                await self.changed.wait()
        self.check_halted()
        self.active += 1

    def end_row(self) -> None:
        self.active -= 1
        self.changed.send()

    async def until_next_probe(self) -> None:
        while (pause := self.pause) is not None and (left := pause.next_at - anyio.current_time()) > 0:
            with anyio.move_on_after(left):
                await self.changed.wait()

    def end_pause(self) -> None:
        self.pause = None
        self.changed.send()

    def stopped(self, kind: StopKind, why: str) -> Stop:
        return Stop(kind, f"account {self.name}: {why}")

    def window_spent(self, pacer: Pacer, spent: WindowFull, now: datetime) -> Stop:
        """Note which window of which pacer is spent, and return the stop that says when it opens."""
        if self.stop is None:
            self.spent = pacer, spent
        calls = "read" if pacer is self.read_pacer else "call"
        return self.stopped(StopKind.DEFERRED, _describe_spent(spent, calls, now))

    def pause_failed(self, pause: Pause, now: float) -> Stop:
        why = f"{pause.what}; tries for another {now - pause.began:.0f} s were refused as well"
        if pause.key == UNREACHABLE:
            why = (
                f"{pause.what} for {now - pause.began:.0f} s: no call left this machine; "
                "check the network, HTTPS_PROXY and --endpoint-url, then run the same command"
            )
        return self.stopped(StopKind.DEFERRED, why)


class Progress(NamedTuple):
    """What an account has done and learned, for an engine on another machine. Times are seconds from now."""

    traffic: Traffic
    read_catalogs: set[str]
    pace: Pace
    read_pace: Pace
    breaker: Breaker
    pause: Pause | None

    @classmethod
    def of(cls, account: AccountState) -> Self:
        now = anyio.current_time()
        pause = account.pause and account.pause.shifted(-now)
        pace, read_pace = shifted(account.pacer.pace, -now), shifted(account.read_pacer.pace, -now)
        return cls(account.traffic, account.read_catalogs, pace, read_pace, account.breaker, pause)

    def apply(self, account: AccountState) -> None:
        now = anyio.current_time()
        account.traffic, account.read_catalogs = self.traffic, self.read_catalogs
        account.pacer.change(lambda _: shifted(self.pace, now))
        account.read_pacer.change(lambda _: shifted(self.read_pace, now))
        account.breaker, account.pause = self.breaker, self.pause and self.pause.shifted(now)


def _describe_spent(spent: WindowFull, calls: str, now: datetime) -> str:
    window, opens_in = spent
    if opens_in == inf:
        way = "raise it or lower the reserve"
        return f"{window.name} less its reserve leaves room for no {calls}: {way}"
    when = forecast.clock_time(opens_in, now.astimezone())
    return (
        f"{window.name} is spent ({plural(window.limit, calls)} in any {window.span}): opens {when} "
        f"(in {duration(opens_in)}); run the same command then, or use --wait"
    )
