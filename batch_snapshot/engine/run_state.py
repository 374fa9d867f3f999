"""How a run goes, whichever engine drives it: what was recorded, and what stopped it or an account."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.errors import StorageError
from batch_snapshot.models import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from batch_snapshot.engine.account import AccountState
    from batch_snapshot.failures.retry import FailureLimit
    from batch_snapshot.models import Outcome

    Record = Callable[[Outcome], None]


class RunState:
    """The state of a run, and the rules by which it ends early."""

    def __init__(
        self, lanes: dict[str, AccountState], record: Record, now: Callable[[], datetime], limit: FailureLimit
    ) -> None:
        """Nothing has happened yet.

        Args:
            lanes: by account name.
            record: keeps an outcome; whatever it raises ends the run before another call.
            now: the wall clock.
            limit: how many rows may fail.
        """
        self.lanes = lanes
        self.stop: Stop | None = None
        #: Told of a stop of the run, once it is in force.
        self.announce: Callable[[Stop], None] = lambda _: None
        #: Why the calls can no longer be counted.
        self.uncounted: StorageError | None = None
        self._record_outcome = record
        self._now = now
        self._limit = limit
        self._bad = self._done = 0
        self._unrecordable = False

    @property
    def ending(self) -> Stop | None:
        """The gravest stop of the run and its accounts; None: everything was tried."""
        stops = [stop for stop in (self.stop, *(lane.stop for lane in self.lanes.values())) if stop]
        return max(stops, key=lambda stop: stop.kind, default=None)

    @property
    def in_flight(self) -> int:
        """How many calls are in flight."""
        raise NotImplementedError

    @property
    def drain_left(self) -> float | None:
        """Seconds until the calls in flight are dropped; None: nothing has stopped the run."""
        raise NotImplementedError

    def request_stop(self, stop: Stop) -> None:
        """Make no further call; a stop of a graver kind replaces an earlier one."""
        graver = self.stop is None or stop.kind > self.stop.kind
        if graver:
            self.stop = stop
        self._wake(None)
        self._drain()
        if graver:
            self.announce(stop)

    def _drain(self) -> None:
        """Give the calls in flight their time-out."""

    def stop_account(self, name: str, stop: Stop) -> None:
        """Make no further call of an account; the others go on."""
        self._stop_lane(self.lanes[name], stop)

    def _stop_lane(self, lane: AccountState, stop: Stop) -> None:
        if lane.stop is None:
            lane.stop = stop
            self._wake(lane)

    def _wake(self, lane: AccountState | None) -> None:
        """Tell whoever waits for an account, or for any, to look again."""

    def _halted(self, lane: AccountState) -> bool:
        return self._unrecordable or self.stop is not None or lane.stop is not None

    def _lose_count(self, error: StorageError) -> None:
        """Calls cannot be counted any more: those in flight are waited for, and no other leaves."""
        self.uncounted = self.uncounted or error
        self.request_stop(Stop(StopKind.STOPPED, str(error)))

    def _keep(self, outcome: Outcome) -> None:
        """Record an outcome before anything else happens, and count it.

        What cannot be recorded is not begun: the first failure ends all calls.
        """
        if not self._write(self._record_outcome, outcome):
            return
        self._done += 1
        self._bad += outcome.status is not Status.SUCCEEDED
        if self.stop is None and self._limit.exceeded(bad=self._bad, done=self._done):
            self.request_stop(
                Stop(
                    StopKind.STOPPED,
                    f"{self._bad} of {self._done} rows did not succeed: --max-failures is reached",
                )
            )

    def _write(self, record: Record, outcome: Outcome) -> bool:
        """Record an outcome, unless an earlier one could not be; returns whether it was."""
        if self._unrecordable:
            return False
        try:
            record(outcome)
        except BaseException:
            self._lose_record()
            raise
        return True

    def _lose_record(self) -> None:
        """What cannot be recorded is not begun: no call leaves after a write that failed."""
        self._unrecordable = True

    def _tell_again(self) -> None:
        """Say when spent windows open, now that no call is in flight: earlier than it seemed."""
        for lane in self.lanes.values():
            if lane.spent is not None:
                pacer, found = lane.spent
                with suppress(StorageError):
                    lane.stop = lane.deferred(pacer, pacer.spent(found), self._now())
