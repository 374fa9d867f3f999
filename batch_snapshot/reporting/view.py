"""A run as it goes, for whoever watches it: the states of its rows, what went wrong, when it will end."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from batch_snapshot.errors import StorageError
from batch_snapshot.ledger import history
from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.reporting import summary
from batch_snapshot.reporting.display import WindowUse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_snapshot.engine.account import AccountState
    from batch_snapshot.engine.allowance import AccountForecast, AccountLimits
    from batch_snapshot.engine.run_state import RunState
    from batch_snapshot.ledger.history import History
    from batch_snapshot.models import Outcome, Skip, Status

#: Seconds for which a forecast of the end holds.
FORECAST_EVERY = 10.0

#: Seconds of calls after which the measured rate tells more than a known one that is higher.
TELLING = 10.0


@dataclass(slots=True)
class RunView:
    """What is known of a run by now."""

    name: str
    total: int
    statuses: Counter[Status | Skip]
    failures: Counter[FailureGroup]
    #: Rows that had a state before this invocation.
    settled_before: int
    #: Rows that this invocation is to send, by account, and those that it has settled.
    todo: Mapping[str, int] = field(default_factory=dict)
    settled: Counter[str] = field(default_factory=Counter)
    #: The latter by account and status.
    by_account: Counter[tuple[str, Status]] = field(default_factory=Counter)
    #: By the row's key: outcomes of rows that are about to be sent again.
    provisional: dict[bytes, Outcome] = field(default_factory=dict)
    lanes: Mapping[str, AccountState] = field(default_factory=dict)
    allowances: AccountLimits | None = None
    #: What drives the run.
    course: RunState | None = None
    #: By the run's monotonic clock, in seconds.
    started: float = 0.0
    #: When the end was forecast last, and in how many seconds from then it was to be.
    _forecast: tuple[float, float] | None = None
    #: What is used of the windows by account, and how many calls it had made when that was counted.
    _used: dict[str, tuple[AccountForecast, int]] = field(default_factory=dict)

    def add(self, outcome: Outcome, past: History, *, provisional: bool = False) -> None:
        """Count an outcome, in place of the state that its row had.

        Args:
            outcome: of a row of this invocation.
            past: what the ledger said before it.
            provisional: the row is about to be sent again.
        """
        key, account = outcome.request.row.key, outcome.request.row.account
        self._take_back(key, account, past)
        self.statuses[outcome.status] += 1
        self.failures.update(_groups(outcome))
        self.by_account[account, outcome.status] += 1
        if provisional:
            self.provisional[key] = outcome
        else:
            self.settled[account] += 1

    def _take_back(self, key: bytes, account: str, past: History) -> None:
        """Count no longer what was known of a row."""
        if earlier := self.provisional.pop(key, None):
            self.statuses[earlier.status] -= 1
            self.failures.subtract(_groups(earlier))
            self.by_account[account, earlier.status] -= 1
            return
        if before := past.status(key):
            self.statuses[before] -= 1
        if failed := past.unfinished.get(key):
            self.failures[history.failure_group(failed)] -= 1

    @property
    def counts(self) -> summary.Counts:
        """The states of all rows by now."""
        return summary.count(self.statuses, self.total)

    @property
    def elapsed(self) -> float:
        """Seconds since the first row was taken up."""
        return anyio.current_time() - self.started

    @property
    def left(self) -> float | None:
        """Seconds until the end, waits for quota windows included; None: too early to say."""
        if self.allowances is None or self.elapsed <= 0:
            return None
        if self._forecast is None or self.elapsed - self._forecast[0] >= FORECAST_EVERY:
            self._forecast = None
            # A display ends no run: if the log of calls can't be read, the next permit says so.
            with suppress(StorageError):
                ends = [self._ends_in(name, self.allowances) for name in self.lanes]
                known = [seconds for seconds in ends if seconds is not None]
                if len(known) == len(ends):
                    self._forecast = (self.elapsed, max(known))
        return None if self._forecast is None else max(0.0, sum(self._forecast) - self.elapsed)

    def windows(self, name: str) -> list[WindowUse]:
        """How much of an account's quota windows is used: as counted last, and by calls made since."""
        if name not in self._used:
            return []
        outlook, calls = self._used[name]
        since = self.lanes[name].traffic.calls - calls
        return [
            WindowUse(window.name, min(used + since, window.limit), window.limit)
            for window, used in zip(outlook.windows, outlook.used, strict=True)
            if window.limit
        ]

    def _ends_in(self, name: str, allowances: AccountLimits) -> float | None:
        """Seconds until an account's rows are settled, at the rate that is known or, if lower, measured."""
        rows = self.todo.get(name, 0) - self.settled[name]
        lane = self.lanes[name]
        if rows <= 0 or lane.stop is not None:
            return 0.0
        rate = _rate(lane.pacer.pace.known, self.settled[name], self.elapsed - lane.pacer.waited)
        if not rate:
            return None
        outlook = allowances.outlook(name, rows, rate)
        self._used[name] = (outlook, lane.traffic.calls)
        return outlook.forecast.ends_in


def _groups(outcome: Outcome) -> list[FailureGroup]:
    error = outcome.error
    return [FailureGroup(outcome.status, error.kind, error.code)] if error else []


def _rate(known: float | None, settled: int, seconds: float) -> float:
    """Rows a second: as known, unless so many in so many seconds were fewer for long enough to tell."""
    measured = settled / seconds if seconds > 0 else 0.0
    if known is None:
        return measured
    return min(known, measured) if seconds >= TELLING and measured else known
