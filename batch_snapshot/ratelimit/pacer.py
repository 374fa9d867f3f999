"""Hands out permits to call: at the account's pace, and within its quota windows.

A permit is for one call: it is taken just before the call leaves, learns how the call went, and is given
back. `pace` decides when, `windows` count; this module waits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Protocol, Self

import anyio

from batch_snapshot.errors import StorageError
from batch_snapshot.ratelimit.pace import Pace
from batch_snapshot.ratelimit.windows import QuotaWindow, WindowFull

#: Seconds between two looks at a full window: other programs and ended calls may make room earlier than
#: predicted, and a machine that slept wakes late.
LOOK_AGAIN = 1.0
#: Only this part of what a window has left is reserved at once: other accounts may share it.
WINDOW_SHARE = 4

#: Stands for the windows on another machine.
_USED_UP = QuotaWindow("reserved", 0, 0.0)


class Meter(Protocol):
    """An account's quota windows."""

    def reserve(self) -> int | WindowFull: ...

    def free_calls(self) -> int: ...

    def finish(self, reservation: int) -> None: ...

    def cancel(self, reservation: int) -> None: ...


class WindowFullError(Exception):
    def __init__(self, spent: WindowFull) -> None:
        super().__init__(spent.window.name)
        self.spent = spent


class Reserved:
    """Calls of an account's windows that another machine may make; it takes their place there."""

    def __init__(self, calls: list[int]) -> None:
        self.calls = calls
        self.left = len(calls)

    def add(self, reservation: int) -> None:
        self.calls.append(reservation)
        self.left += 1

    def reserve(self) -> int | WindowFull:
        if not self.left:
            return WindowFull(_USED_UP, inf)
        self.left -= 1
        return self.left

    def free_calls(self) -> int:
        return self.left

    def finish(self, _: int) -> None:
        """Only the machine that reserved the calls counts them."""

    def cancel(self, _: int) -> None:
        self.left += 1


class LocalPace:
    """Keeps an account's pace, which no other process uses."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace

    def change(self, event: Callable[[Pace], Pace]) -> None:
        """Replace the pace by the one after an event, atomically."""
        self.pace = event(self.pace)


class Permit:
    """The right to make one call now, taken at `sent_at`; leaving the `with` block gives it back."""

    def __init__(self, pacer: "Pacer", sent_at: float, reservation: int | None) -> None:
        self.sent_at = sent_at
        self._pacer = pacer
        self._reservation = reservation
        self._left = False
        self._reported = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        """The call is over: if it left, it counts in the windows for their full length from now."""
        if not self._reported:
            self._pacer.change(Pace.dropped)
        if self._reservation is not None:
            self._pacer.release(self._reservation, left=self._left)

    def used(self) -> None:
        self._left = True

    def never_left(self) -> None:
        """The call did not leave after all: it counts neither for the pace nor in the windows."""
        self._left = False
        self._reported = True
        self._pacer.change(lambda pace: pace.unsent(self.sent_at))

    def answered(self) -> None:
        """The service answered, with success or an error that is no throttle."""
        self._reported = True
        self._pacer.change(lambda pace: pace.answered(self.sent_at))

    def throttled(self, hint: float | None) -> None:
        """The service throttled the call; `hint` is its retry-after in seconds, if it sent one."""
        self._reported = True
        now = self._pacer.now()
        self._pacer.change(lambda pace: pace.throttled(self.sent_at, now, hint))


class Pacer:
    """Hands out permits one at a time, first come first served.

    Waiters queue behind a lock and only the first sleeps, so a rate that changes meanwhile applies to all
    that wait behind it. Whatever asks the windows raises `StorageError` if the log of calls cannot be read or
    written, and what waits for them `WindowFullError` if one is full and is not waited for.
    """

    def __init__(
        self,
        pace: Pace,
        meter: Meter | None = None,
        *,
        wait: bool = False,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        """Start at `pace`; `wait` until a full window opens again, instead of raising."""
        self.store = LocalPace(pace)
        self.meter = meter
        #: The window that is being waited for, and until when by the clock.
        self.waiting: tuple[WindowFull, float] | None = None
        #: Seconds spent in such waits.
        self.waited = 0.0
        self.now = clock
        self._wait = wait
        self._queue = anyio.Lock(fast_acquire=True)
        #: Wakes the waiter at the head of the queue, which sleeps until `_due`.
        self._wake: anyio.Event | None = None
        self._due = inf
        self._failed: StorageError | None = None

    @property
    def pace(self) -> Pace:
        return self.store.pace

    def change(self, event: Callable[[Pace], Pace]) -> None:
        """Apply an event to the pace; wakes the waiter if its call may now leave sooner."""
        with self._keep_failure():
            self.store.change(event)
        if self._wake is not None and (self._failed or self.pace.opens(self.now()) < self._due):
            self._wake.set()

    def release(self, reservation: int, *, left: bool) -> None:
        """End a reservation; unless its call `left`, it counts no longer."""
        if self.meter is not None:
            with self._keep_failure():
                (self.meter.finish if left else self.meter.cancel)(reservation)

    @contextmanager
    def _keep_failure(self) -> Iterator[None]:
        """Let the outcome of a call be recorded although its permit cannot be; no further call leaves."""
        try:
            yield
        except StorageError as error:
            self._failed = error

    def acquire_nowait(self) -> Permit | None:
        """A permit, if nothing waits for one and a call may leave at once."""
        if self._queue.locked() or self._failed or self.pace.opens(now := self.now()) > now:
            return None
        reservation = self._reserve()
        return None if isinstance(reservation, WindowFull) else self._permit(reservation)

    async def acquire(self) -> Permit:
        """Wait until a call may leave; the windows are asked last."""
        async with self._queue:
            while True:
                await self._wait_for_pace()
                reservation = self._reserve()
                if isinstance(reservation, WindowFull):
                    await self._wait_for_window(reservation)
                elif permit := self._permit(reservation):
                    return permit

    def _reserve(self) -> int | WindowFull | None:
        return self.meter.reserve() if self.meter else None

    def _permit(self, reservation: int | None) -> Permit | None:
        """The permit that the pace allows now; None: another process was faster."""
        if (now := self._take()) is not None:
            return Permit(self, now, reservation)
        if reservation is not None:
            self.release(reservation, left=False)
        return None

    async def reserve(self, wanted: int) -> Reserved | None:
        """Reserve up to `wanted` calls, at least one, for another machine; None: there are no windows."""
        if self.meter is None:
            return None
        reserved = Reserved([])
        try:
            wanted = min(wanted, max(1, -(-self.meter.free_calls() // WINDOW_SHARE)))
            while len(reserved.calls) < wanted:
                self._check_failure()
                reservation = self.meter.reserve()
                if not isinstance(reservation, WindowFull):
                    reserved.add(reservation)
                elif reserved.calls:
                    break
                else:
                    await self._wait_for_window(reservation)
        except BaseException:
            self.settle(reserved)
            raise
        return reserved

    def settle(self, reserved: Reserved | None) -> None:
        """End reserved calls: those that are left were not made, and count no longer."""
        for number, reservation in enumerate(reserved.calls if reserved else ()):
            self.release(reservation, left=reserved is not None and number >= reserved.left)

    def _take(self) -> float | None:
        """Take the turn that the pace allows; None: another process was faster."""
        now = self.now()
        taken = False

        def take(pace: Pace) -> Pace:
            nonlocal taken
            taken = pace.opens(now) <= now
            return pace.permitted(now) if taken else pace

        self.store.change(take)
        return now if taken else None

    async def _wait_for_pace(self) -> None:
        while (due := self.pace.opens(now := self.now())) > now and not self._failed:
            self._wake, self._due = anyio.Event(), due
            with anyio.move_on_after(due - now):
                await self._wake.wait()
            self._wake = None
        self._check_failure()

    def _check_failure(self) -> None:
        """Raise the `StorageError` by which an earlier call could not be logged."""
        if self._failed:
            raise self._failed

    async def _wait_for_window(self, full: WindowFull) -> None:
        """Wait a little for a window to open."""
        if not self._wait or full.opens_in == inf:
            raise WindowFullError(full)
        began = self.now()
        self.waiting = (full, began + full.opens_in)
        try:
            await anyio.sleep(min(full.opens_in, LOOK_AGAIN))
        finally:
            self.waiting = None
            self.waited += self.now() - began

    def spent(self, before: WindowFull) -> WindowFull:
        """How long a window that was full `before` stays full."""
        reservation = self.meter.reserve() if self.meter else 0
        if isinstance(reservation, WindowFull):
            return reservation
        if self.meter and reservation:
            self.meter.cancel(reservation)
        return before._replace(opens_in=0.0)

    def starved(self, patience: float) -> bool:
        """Whether nothing but throttles came at the lowest rate for `patience` seconds."""
        return self.pace.starved(self.now(), patience)
