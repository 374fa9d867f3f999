"""Signals while rows are sent: the first lets the calls in flight be answered, the second drops them."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from batch_snapshot import interrupts
from batch_snapshot.engine.account import Stop, StopKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batch_snapshot.cluster.coordinator import Coordinator
    from batch_snapshot.engine.pool import Engine

    #: Gets a sentence, and its facts by name.
    Notify = Callable[[str, Mapping[str, Any]], None]

#: How a stopped run is made to drop its calls, by what stopped it.
_AGAIN = "press Ctrl-C again, or send another signal, to drop them: their rows are then in doubt"
_TWICE = "press Ctrl-C twice, or send two signals, to drop them: their rows are then in doubt"


class StopHandler:
    """The signals of a run; nothing is done about them before `begin`, nor after `end`."""

    def __init__(self, say: Notify | None) -> None:
        """Take what is to be told of a stop."""
        self._say = say or (lambda _, __: None)
        self._engine: Engine | Coordinator | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False
        #: Those that came while the run went on, in their order.
        self.caught: list[int] = []

    @property
    def signum(self) -> int | None:
        """The signal by whose number the run is said to have ended; None: no signal ended it."""
        return interrupts.acts_as(self.caught[0]) if self.caught else None

    def begin(self, engine: Engine | Coordinator) -> None:
        """Rows are sent from now on: a stop is announced, whatever the reason."""
        self._engine, self._loop = engine, asyncio.get_running_loop()
        engine.announce = self._announce

    def end(self) -> None:
        """The run is over. Nothing keeps its last line from being written."""
        self._over = True

    def __call__(self, number: int) -> bool:
        """Take a signal, wherever the program is; what follows is done by the event loop."""
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
            what = f"dropped {_calls(dropped)}; rows left in doubt by that are settled by the same command"
        reason = f"{name} received again"
        self._say(f"{reason}: {what}", {"reason": reason, "in_flight": 0, "dropped": dropped})

    def _announce(self, stop: Stop) -> None:
        engine = self._engine
        if engine is None:
            return
        waiting, seconds = engine.in_flight, engine.drain_left or 0.0
        facts = {"reason": stop.reason, "in_flight": waiting, "drain_s": round(seconds, 3)}
        if not waiting:
            self._say(f"{stop.reason}: no further row is sent, and no call is in flight", facts)
            return
        again = _AGAIN if self.caught else _TWICE
        wait = f"waiting for {_calls(waiting)} in flight, {seconds:.0f} s at most (--drain-timeout)"
        self._say(f"{stop.reason}: no further row is sent; {wait}; {again}", facts)


def _calls(number: int) -> str:
    return f"{number:,} call" if number == 1 else f"{number:,} calls"
