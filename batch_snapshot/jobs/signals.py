"""Signals while rows are sent: the first lets calls in flight finish, the second drops them."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Any

from batch_snapshot import interrupts
from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.engine.pool import Engine
from batch_snapshot.text import plural

#: Called with a sentence, and its facts by name.
Notify = Callable[[str, Mapping[str, Any]], None]


class StopHandler:
    def __init__(self, notify: Notify | None) -> None:
        self._notify = notify or (lambda _, __: None)
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False
        #: Signals of this run, in their order.
        self.caught: list[int] = []

    @property
    def signum(self) -> int | None:
        """The signal that the exit code names; None: no signal ended the run."""
        return interrupts.equivalent_signal(self.caught[0]) if self.caught else None

    def begin(self, engine: Engine, *, signals: bool) -> None:
        """Announce how the engine stops, and with `signals` let them stop it; then the loop is asyncio's."""
        self._engine, self._loop = engine, asyncio.get_running_loop() if signals else None
        engine.announce = self._announce

    def end(self) -> None:
        """Ignore signals from now on, so that the end line is written."""
        self._over = True

    def __call__(self, number: int) -> bool:
        """Take a signal between any two steps of the program; the event loop handles it."""
        if self._loop is None:
            return False
        self._loop.call_soon_threadsafe(self._handle, number)
        return True

    def _handle(self, number: int) -> None:
        engine = self._engine
        if self._over or engine is None:
            return
        self.caught.append(number)
        name = signal.Signals(number).name
        if len(self.caught) == 1:
            engine.request_stop(Stop(StopKind.INTERRUPTED, f"{name} received"))
            return
        dropped = engine.in_flight
        engine.abort()
        what = "no call was in flight"
        if dropped:
            calls = plural(dropped, "call")
            what = f"dropped {calls}: their rows are in doubt, and the same command settles them"
        reason = f"{name} received again"
        self._notify(f"{reason}: {what}", {"reason": reason, "in_flight": 0, "dropped": dropped})

    def _announce(self, stop: Stop) -> None:
        engine = self._engine
        if engine is None:
            return
        waiting, seconds = engine.in_flight, engine.drain_left or 0.0
        facts = {"reason": stop.reason, "in_flight": waiting, "drain_s": round(seconds, 3)}
        if not waiting:
            self._notify(f"{stop.reason}: no further row is sent, and no call is in flight", facts)
            return
        again = "again, or send another signal" if self.caught else "twice, or send two signals"
        wait = f"waiting for {plural(waiting, 'call')} in flight, {seconds:.0f} s at most (--drain-timeout)"
        drop = f"press Ctrl-C {again}, to drop them: their rows are then in doubt"
        self._notify(f"{stop.reason}: no further row is sent; {wait}; {drop}", facts)
