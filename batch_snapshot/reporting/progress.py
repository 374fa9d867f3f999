"""An active run: how fast its accounts call, what they wait for, and when it will end."""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from math import inf, log
from pathlib import Path

import anyio

from batch_snapshot.clock import utc_now
from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.limits import AccountForecast, AccountLimits
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.errors import StorageError
from batch_snapshot.models import Outcome
from batch_snapshot.ratelimit import forecast
from batch_snapshot.reporting.display import DisplayPart, Frame, ShownFailure, Waiting, WindowUse, window_uses
from batch_snapshot.reporting.next_steps import resume_command
from batch_snapshot.reporting.stats import RunStats
from batch_snapshot.text import plural

REDRAW_EVERY = 0.25
#: Shortest and longest pause between two lines in a log, in seconds; it grows with the time elapsed.
SHORTEST_GAP, LONGEST_GAP = 5.0, 60.0
#: So many rows in a row that failed in one way are shown.
SHOWN_FAILURES = 10
#: Seconds over which the present rate is measured.
RECENT = 10.0
#: Seconds for which a forecast of the end holds, if no rate changes by about this factor meanwhile.
FORECAST_EVERY, FORECAST_WITHIN = 10.0, 1.2
#: Seconds of calls after which the rate of the rows that were settled counts.
MEASURED_AFTER = 10.0


@dataclass(slots=True)
class RunView:
    name: str
    stats: RunStats
    state: RunState
    limits: AccountLimits
    ledger: Path
    endpoint: str = ""
    #: By the run's monotonic clock, in seconds.
    started: float = 0.0
    #: Rows that this invocation sends, by account, where it does not send all that are left.
    planned: Mapping[str, int] | None = None
    #: Rows that are left to another run, as forecast last, because a window will be spent.
    deferred: int = 0
    #: The last forecast: when it was made, and the seconds from then to the end.
    _forecast: tuple[float, float] | None = None
    #: What it was made with: the rates declared, and the steps on a scale of those known; and the pauses.
    _rates: list[tuple[float | None, float | None]] = field(default_factory=list)
    #: By account the declared rate, and the seconds and settled rows before it was declared.
    _declared: dict[str, tuple[float | None, float, int]] = field(default_factory=dict)
    #: The last forecast of each account, and how many calls it had made then.
    _forecasts: dict[str, tuple[AccountForecast, int]] = field(default_factory=dict)

    @property
    def todo(self) -> Mapping[str, int]:
        return self.stats.todo if self.planned is None else self.planned

    @property
    def accounts(self) -> Mapping[str, AccountState]:
        return self.state.accounts

    @property
    def elapsed(self) -> float:
        return anyio.current_time() - self.started

    def rows_left(self, account: str) -> int:
        return self.todo.get(account, 0) - self.stats.settled[account]

    @property
    def left(self) -> float | None:
        """Seconds until the end, waits for quota windows included; None: too early to say."""
        if self.elapsed <= 0:
            return None
        paces = [account.pacer.pace for account in self.accounts.values()]
        rates = [(one.declared, one.known and round(log(one.known, FORECAST_WITHIN))) for one in paces]
        rates.append((self.state.slept, None))
        changed = self._rates not in ([], rates)
        if self._forecast is None or changed or self.elapsed - self._forecast[0] >= FORECAST_EVERY:
            self._forecast, self._rates = None, rates
            # A display never ends a run: if the log of calls cannot be read, the next permit reports it.
            with suppress(StorageError):
                ends = [self._end_of(account) for account in self.accounts.values()]
                known = [end for end in ends if end is not None]
                if len(known) == len(ends):
                    self._forecast = (self.elapsed, max(end.ends_in for end in known))
                    self.deferred = sum(end.deferred for end in known)
        return None if self._forecast is None else max(0.0, sum(self._forecast) - self.elapsed)

    def windows(self, name: str) -> list[WindowUse]:
        """How much of an account's quota windows is used: as forecast last, and by calls made since."""
        if name not in self._forecasts:
            return []
        last, calls = self._forecasts[name]
        return window_uses(last, self.accounts[name].traffic.calls - calls)

    def _end_of(self, account: AccountState) -> forecast.Forecast | None:
        """How an account's rows will go, at the rate that is known or, if lower, measured.

        None: neither is known yet.
        """
        name, pacer = account.name, account.pacer
        rows, settled = self.rows_left(name), self.stats.settled[name]
        if rows <= 0 or account.stop is not None:
            return forecast.Forecast((), 0.0)
        declared, seconds = pacer.pace.declared, self.elapsed - pacer.waited - self.state.slept
        began = self._declared.setdefault(name, (declared, 0.0, 0))
        if began[0] != declared:  # the average of the time before says nothing now
            began = self._declared[name] = (declared, seconds, settled)
        seconds, settled = seconds - began[1], settled - began[2]
        # Where a window is spent, the windows decide more than the rate, so a rough one will do.
        enough = 0.0 if pacer.waiting else MEASURED_AFTER
        measured = settled / seconds if seconds > 0 and seconds >= enough else None
        known = pacer.pace.known and pacer.pace.known / account.sharing
        rate = min(filter(None, (known, measured)), default=None)
        if rate is None and name in self._forecasts:
            return None
        # Without a rate it still says how full the windows are.
        found = self.limits.forecast(name, rows, rate)
        self._forecasts[name] = (found, account.traffic.calls)
        return None if rate is None else found.forecast


def line_gap(elapsed: float, every: float | None = None) -> float:
    return every or min(LONGEST_GAP, max(SHORTEST_GAP, elapsed / 20))


async def watch(
    view: RunView, show: Callable[[Frame], None], *, every: float | None = None, first: float | None = None
) -> None:
    meter = ProgressMeter(view)
    await anyio.sleep(line_gap(0, every) if first is None else first)
    while True:
        show(meter.frame(utc_now()))
        await anyio.sleep(line_gap(view.elapsed, every))


class ProgressMeter:
    """Makes frames of a run; remembers its calls of the last seconds to measure its rate."""

    def __init__(self, view: RunView) -> None:
        self._view = view
        self._seen: deque[tuple[float, dict[str, int]]] = deque([(view.elapsed, self._calls())])

    def frame(self, now: datetime) -> Frame:
        view = self._view
        traffic = [account.traffic for account in view.accounts.values()]
        rates, state, stopping = self._rates(), view.state, None
        if state.stop is not None:
            stopping = f"stopping: waiting for {plural(state.in_flight, 'call')} in flight"
            stopping += "" if state.drain_left is None else f", {state.drain_left:.0f} s at most"
        return Frame(
            name=view.name,
            counts=view.stats.counts,
            elapsed=view.elapsed,
            at=now,
            left=view.left,
            deferred=view.deferred,
            ends=None if view.left in {None, inf} else forecast.clock_time(view.left or 0, now.astimezone()),
            calls=sum(each.calls for each in traffic),
            throttled=sum(each.throttled for each in traffic),
            parts=[self._part(account, rates[name]) for name, account in view.accounts.items()],
            stopping=stopping,
            resume=resume_command(str(view.ledger)) if state.paused else None,
            failures=view.stats.rows.failures,
            last_error=view.stats.last_error,
        )

    def _part(self, account: AccountState, rate: float) -> DisplayPart:
        view, name, now, pace = self._view, account.name, account.pacer.now(), account.pacer.pace
        # The rate is that of the last seconds. The pace may have probed above the limit that it knows, or
        # have measured a lower one since; a declared limit was not exceeded, but may have been lowered.
        rate = min(rate, pace.declared or inf)
        waiting, failure = None, None
        if account.pacer.waiting is not None:
            spent, until = account.pacer.waiting
            waiting = Waiting(spent.window.name, max(0.0, until - now))
        if account.pause is not None:
            next_try = round(max(0.0, account.pause.next_at - now), 3)
            failure = ShownFailure(account.pause.short, view.rows_left(name), next_try)
        elif account.breaker.count >= SHOWN_FAILURES:
            what = f"{account.breaker.count} {account.breaker.pattern.what.partition(': ')[0]}"
            failure = ShownFailure(what, view.rows_left(name))
        return DisplayPart(
            name=name,
            done=view.stats.settled[name],
            rows=view.todo.get(name, 0),
            failed=sum(view.stats.accounts[name].failures.values()),
            rate=rate,
            allowed=max(pace.allowed, rate) / account.sharing,
            source=pace.source,
            throttled=account.traffic.throttled,
            windows=view.windows(name),
            waiting=waiting,
            failure=failure,
            stopped=account.stop.reason if account.stop else None,
        )

    def _calls(self) -> dict[str, int]:
        return {name: account.traffic.calls for name, account in self._view.accounts.items()}

    def _rates(self) -> dict[str, float]:
        now, calls = self._view.elapsed, self._calls()
        self._seen.append((now, calls))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RECENT:
            self._seen.popleft()
        since, before = self._seen[0]
        seconds = now - since
        return {name: (calls[name] - before.get(name, 0)) / seconds if seconds > 0 else 0.0 for name in calls}


def outcome_line(outcome: Outcome) -> str:
    row = outcome.request.row
    what = f"{row.engagement}/{row.resource} {outcome.status.replace('_', ' ')}"
    if outcome.error:
        return f"{what}: {outcome.error.code}: {outcome.error.message}"
    return f"{what}: revision {outcome.revision}"
