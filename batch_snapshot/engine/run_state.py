"""The state of a run: what was recorded, and what stopped it or one of its accounts."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from math import isfinite

import anyio

from batch_snapshot.config.options import Settings
from batch_snapshot.engine.account import AccountState, Stop, StopKind
from batch_snapshot.engine.seams import Record
from batch_snapshot.engine.signal import Signal
from batch_snapshot.errors import StorageError
from batch_snapshot.models import Outcome, Status
from batch_snapshot.text import plural


class RunState:
    """The state of a run, and the rules by which it ends early."""

    def __init__(
        self,
        accounts: dict[str, AccountState],
        record: Record,
        now: Callable[[], datetime],
        settings: Settings,
    ) -> None:
        """Begin a run; an exception of `record` ends it before another call."""
        self.accounts = accounts
        #: Why the whole run ended early.
        self.stop: Stop | None = None
        #: Called with each stop of the run, once it is in force.
        self.announce: Callable[[Stop], None] = lambda _: None
        #: Why calls can no longer be counted.
        self.call_log_error: StorageError | None = None
        self._write_outcome = record
        self._now = now
        self._settings = settings
        self._bad = self._done = 0
        self._recording_failed = False
        #: No call begins until `resume`.
        self.paused = False
        self._paused_at = 0.0
        #: Seconds that all pauses took which have ended.
        self.slept = 0.0
        self._resumed = Signal()
        self._ends_at: float | None = None
        #: Around all calls: its deadline drops those in flight.
        self._scope = anyio.CancelScope()

    @property
    def ending(self) -> Stop | None:
        """The gravest stop of the run and its accounts; None: every row was tried."""
        stops = [stop for stop in (self.stop, *(one.stop for one in self.accounts.values())) if stop]
        return max(stops, key=lambda stop: stop.kind, default=None)

    @property
    def in_flight(self) -> int:
        raise NotImplementedError

    @property
    def drain_left(self) -> float | None:
        """Seconds until the calls in flight are dropped; None: nothing has stopped the run."""
        left = self._scope.deadline - anyio.current_time()
        return max(0.0, left) if isfinite(left) else None

    def pause(self) -> None:
        """Begin no call until `resume`; those in flight go on to their end."""
        if not self.paused:
            self.paused, self._paused_at = True, anyio.current_time()

    def resume(self) -> None:
        """Let calls begin again; the time of the pause counts neither as throttled nor as an outage."""
        if not self.paused:
            return
        slept = anyio.current_time() - self._paused_at
        for account in self.accounts.values():
            for pacer in (account.pacer, account.read_pacer):
                pacer.change(lambda pace: pace._replace(starved_since=None))
            if account.pause is not None:
                account.pause = replace(account.pause, ends=account.pause.ends + slept)
        self.slept += slept
        self.paused = False
        self._resumed.send()

    async def until_resumed(self, account: AccountState) -> None:
        """Wait while the run is paused; raises `Abandoned` if it or the account stops."""
        while self.paused:
            with account.interruptible():
                await self._resumed.wait()

    def request_stop(self, stop: Stop) -> None:
        """Make no further call. Only a stop of a graver kind replaces an earlier one."""
        if self.stop is not None and stop.kind <= self.stop.kind:
            return
        self.stop = stop
        for account in self.accounts.values():
            account.halt()
        self._halt_changed()
        self._drain()
        self.announce(stop)

    def stop_account(self, name: str, stop: Stop) -> None:
        """Make no further call of one account. A stop of a graver kind replaces an earlier one."""
        account = self.accounts[name]
        if account.stop is None or stop.kind > account.stop.kind:
            if account.stop is not None:
                account.spent = None  # a spent window is no longer why it stopped
            account.stop = stop
            account.halt()
            self._halt_changed()

    def stop_uncounted(self, error: StorageError) -> None:
        """Stop the run because calls can no longer be counted; those in flight are waited for."""
        self.call_log_error = self.call_log_error or error
        self.request_stop(Stop(StopKind.STOPPED, str(error)))

    async def stop_in_time(self) -> None:
        """Stop the run when `max_duration` is over, counted from the first call of this method."""
        if (longest := self._settings.max_duration) is not None:
            self._ends_at = self._ends_at or anyio.current_time() + longest
            await anyio.sleep_until(self._ends_at)
            self.request_stop(Stop(StopKind.DEFERRED, f"--max-duration is over ({longest:g} s)"))

    def record(self, outcome: Outcome) -> None:
        """Record an outcome before anything else happens, and count it.

        Nothing follows a failed write, and no call leaves: what cannot be recorded is not begun.
        """
        if self._recording_failed:
            return
        try:
            self._write_outcome(outcome)
        except BaseException:
            self._recording_failed = True
            for account in self.accounts.values():
                account.halted = True
            raise
        self._done += 1
        self._bad += outcome.status is not Status.SUCCEEDED
        if self._settings.failure_limit.exceeded(bad=self._bad, done=self._done):
            reason = f"{self._bad} of {plural(self._done, 'row')} did not succeed: --max-failures is reached"
            self.request_stop(Stop(StopKind.STOPPED, reason))

    def _drain(self) -> None:
        """Give the calls in flight their time-out."""
        deadline = anyio.current_time() + self._settings.drain_timeout
        self._scope.deadline = min(self._scope.deadline, deadline)

    def _halt_changed(self) -> None:
        """Wake what else waits for an account that halted."""

    def _refresh_deferrals(self) -> None:
        """Compute anew when spent windows open: once no call is in flight it is earlier than it seemed."""
        for account in self.accounts.values():
            if account.spent is not None:
                pacer, spent = account.spent
                with suppress(StorageError):
                    account.stop = account.window_spent(pacer, pacer.spent(spent), self._now())
