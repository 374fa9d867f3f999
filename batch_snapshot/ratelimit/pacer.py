"""Hands out permits to call: at the account's pace, and within its quota windows.

A permit is one call's: it is taken just before the call leaves, told what came of it, and given
back. The pace is a pure state machine (`pace`), the windows are a log (`quota`); here is the waiting.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Protocol, Self

import anyio

from batch_snapshot.errors import StorageError
from batch_snapshot.ratelimit.pace import Pace
from batch_snapshot.ratelimit.windows import WindowFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

#: Seconds between two looks at a window that is waited for: other programs and calls in flight free
#: slots earlier than can be foretold, and a machine that slept wakes late.
LOOK_AGAIN = 1.0


class Meter(Protocol):
    """An account's windows."""

    def claim(self) -> int | WindowFull:
        """Log a call that is about to leave, or tell when one would fit."""

    def room(self) -> int:
        """How many calls would fit now."""

    def finish(self, claim: int) -> None:
        """The call is over."""

    def cancel(self, claim: int) -> None:
        """The call never left."""


class WindowFullError(Exception):
    """No call fits the account's windows."""

    def __init__(self, spent: WindowFull) -> None:
        """Tell which, and when it opens."""
        super().__init__(spent.window.name)
        self.spent = spent


class Store(Protocol):
    """Where an account's pace is kept."""

    @property
    def pace(self) -> Pace:
        """As it was seen last."""

    def change(self, event: Callable[[Pace], Pace]) -> None:
        """Go from the pace to the one after an event, with nobody between."""


class LocalPace:
    """A pace that nobody else uses."""

    def __init__(self, pace: Pace) -> None:
        """Begin with `pace`."""
        self.pace = pace

    def change(self, event: Callable[[Pace], Pace]) -> None:
        """Go on."""
        self.pace = event(self.pace)


class Permit:
    """The right to make one call now."""

    def __init__(self, pacer: Pacer, sent_at: float, claim: int | None) -> None:
        """Taken at `sent_at`, and logged as `claim` if the account has windows."""
        self.sent_at = sent_at
        self._pacer = pacer
        self._claim = claim
        self._left = False
        self._told = False

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self.give_back()

    def give_back(self) -> None:
        """The call is over: its windows' slots are free a full window from now, or at once if none left."""
        if not self._told:
            self._pacer.change(Pace.dropped)
        if self._claim is not None:
            self._pacer.over(self._claim, left=self._left)

    def used(self) -> None:
        """The call leaves now."""
        self._left = True

    def never_left(self) -> None:
        """The call did not leave after all: it used neither its slot nor the windows."""
        self._left = False
        self._told = True
        self._pacer.change(lambda pace: pace.unsent(self.sent_at))

    def answered(self) -> None:
        """The service answered, whatever it said, and did not throttle."""
        self._told = True
        now = self._pacer.now()
        self._pacer.change(lambda pace: pace.answered(self.sent_at, now))

    def throttled(self, hint: float | None) -> None:
        """The service throttled the call, perhaps with a hint when to come back, in seconds."""
        self._told = True
        now = self._pacer.now()
        self._pacer.change(lambda pace: pace.throttled(self.sent_at, now, hint))


class Pacer:
    """Hands out permits one at a time, in the order of asking.

    Waiters queue behind a lock and only the first sleeps, so a rate that changes meanwhile holds
    for everybody behind it: no stampede, no slot handed out at a rate that is history.
    """

    def __init__(
        self,
        pace: Pace,
        meter: Meter | None = None,
        *,
        wait: bool = False,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        """Start from `pace`.

        Args:
            pace: how fast.
            meter: the account's windows, if it has any.
            wait: until a spent window opens again, instead of raising.
            clock: monotonic, in seconds.
        """
        self.store: Store = LocalPace(pace)
        self.meter = meter
        #: The window that is waited for, and until when by the clock; None: no wait for a window.
        self.waiting: tuple[WindowFull, float] | None = None
        #: Seconds that went by in such waits.
        self.waited = 0.0
        self.now = clock
        self._wait = wait
        self._turn = anyio.Lock(fast_acquire=True)
        #: Of whoever sleeps until its slot: wakes it, and when it wakes by itself.
        self._sooner: anyio.Event | None = None
        self._due = inf
        self._failed: StorageError | None = None

    @property
    def pace(self) -> Pace:
        """As it was seen last."""
        return self.store.pace

    def change(self, event: Callable[[Pace], Pace]) -> None:
        """Tell the pace of an event; wakes whoever waits for a slot that comes sooner by it."""
        with self._remembered():
            self.store.change(event)
        if self._sooner is not None and (self._failed or self.pace.opens(self.now()) < self._due):
            self._sooner.set()

    def over(self, claim: int, *, left: bool) -> None:
        """A call that was logged as `claim` is over; unless it `left`, its slots are free at once."""
        if self.meter is not None:
            with self._remembered():
                (self.meter.finish if left else self.meter.cancel)(claim)

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        """What a call came to is recorded even if this fails; but no further one leaves."""
        try:
            yield
        except StorageError as error:
            self._failed = error

    async def acquire(self) -> Permit:
        """Wait for the next slot and take it; the windows are asked last, when the call can leave.

        Raises:
            WindowSpent: a window is spent, and is not waited for.
            StorageError: the windows' log cannot be read or written.
        """
        async with self._turn:
            while True:
                await self._slot()
                claim = self.meter.claim() if self.meter else None
                if isinstance(claim, WindowFull):
                    await self.rest(claim)
                elif (now := self._took()) is not None:
                    return Permit(self, now, claim)
                elif claim is not None:
                    self.over(claim, left=False)

    def _took(self) -> float | None:
        """Take the slot; None: another process was faster."""
        now = self.now()
        taken = False

        def take(pace: Pace) -> Pace:
            nonlocal taken
            taken = pace.opens(now) <= now
            return pace.permitted(now) if taken else pace

        self.store.change(take)
        return now if taken else None

    async def _slot(self) -> None:
        while (due := self.pace.opens(now := self.now())) > now and not self._failed:
            self._sooner, self._due = anyio.Event(), due
            with anyio.move_on_after(due - now):
                await self._sooner.wait()
            self._sooner = None
        if self._failed:
            raise self._failed

    async def rest(self, spent: WindowFull) -> None:
        """Wait a little for a window to open.

        Raises:
            WindowSpent: it is not waited for.
        """
        if not self._wait or spent.opens_in == inf:
            raise WindowFullError(spent)
        began = self.now()
        self.waiting = (spent, began + spent.opens_in)
        try:
            await anyio.sleep(min(spent.opens_in, LOOK_AGAIN))
        finally:
            self.waiting = None
            self.waited += self.now() - began

    def spent(self, before: WindowFull) -> WindowFull:
        """How long a window that was spent `before` stays so.

        Raises:
            StorageError: the windows' log cannot be read.
        """
        claim = self.meter.claim() if self.meter else 0
        if isinstance(claim, WindowFull):
            return claim
        if self.meter and claim:
            self.meter.cancel(claim)
        return before._replace(opens_in=0.0)

    def starved(self, patience: float) -> bool:
        """Whether nothing but throttles came at the lowest rate for `patience` seconds."""
        return self.pace.starved(self.now(), patience)
