"""When calls will leave under a rate and rolling windows: pure arithmetic.

A call leaves as soon as the rate and every window allow it, as if each call ended when it leaves: a forecast
knows neither latencies nor other programs that use the same quota.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil, inf, isinf

from batch_snapshot.text import plural

#: Of more spans than `NAMED` only the first `FIRST_NAMED` and the last are named.
NAMED, FIRST_NAMED = 6, 3
#: Seconds by which a window that is about to open still counts as spent: it sees a call's end, not its start.
MARGIN = 1e-9
#: Seconds ahead from which a weekday is ambiguous, and the date is shown.
DATED = 6 * 86_400


@dataclass(frozen=True, slots=True)
class ForecastSpan:
    """Calls without a long pause between them."""

    #: Seconds from now; inf: never.
    begins_in: float
    rows: int


@dataclass(frozen=True, slots=True)
class Forecast:
    spans: tuple[ForecastSpan, ...]
    #: Seconds from now until the last call leaves; 0 without any, inf if they never can.
    ends_in: float
    #: Rows that are left to another run as a window is spent, and seconds until it opens.
    deferred: int = 0
    opens_in: float = 0.0
    #: Of a run that ends where this one waits for a window; None: it waits for none.
    unwaited: "Forecast | None" = field(default=None, compare=False)


def days_needed(rows: Mapping[str, int], calls_a_day: Mapping[str, float]) -> list[str]:
    """Warnings for accounts whose rows need more than a day, and what that means for a nightly run."""
    warnings = []
    for account, number in rows.items():
        a_day = calls_a_day[account]
        if number <= a_day:
            continue
        if not a_day:
            warnings.append(f"account {account}: its quota leaves no call for its {plural(number, 'row')}")
            continue
        days = ceil(number / a_day)
        warnings.append(
            f"account {account}: its quota is {a_day:,.0f} calls a day and it has {plural(number, 'row')}: a "
            f"run takes at least {days:,} days. A nightly run first finishes the ledger of the night before, "
            f"so it falls behind: raise the quota, list fewer rows, or run it every {days:,} days"
        )
    return warnings


def forecast(
    calls: int,
    rate: float,
    windows: Sequence[tuple[float, int]],
    ages: Sequence[float],
    pause: float = 60.0,
) -> Forecast:
    """Say when `calls` will leave. It takes about a second for a million of them.

    Args:
        calls: one for each row.
        rate: calls per second, above 0.
        windows: (seconds, limit) of each rolling window. With a limit of 0 no call ever leaves: there is one
            span that begins in inf seconds.
        ages: for each earlier call, how many seconds ago it ended; in any order.
        pause: a gap longer than this many seconds begins a new span, unless it is the rate's own.
    """
    if not rate > 0:
        raise ValueError(f"a rate of {rate:g} calls a second makes none")
    if calls <= 0:
        return Forecast((), 0.0)
    if any(limit <= 0 for _, limit in windows):
        return Forecast((ForecastSpan(inf, calls),), inf)
    step = 1 / rate
    # A window with room for all calls delays none.
    binding = [(seconds, limit) for seconds, limit in windows if limit < calls + len(ages)]
    if not binding:
        return Forecast((ForecastSpan(0.0, calls),), (calls - 1) * step)
    # The margin is for rounding errors.
    return _spans(calls, _times(calls, step, binding, ages), max(pause, step * (1 + 1e-9)))


def _times(
    calls: int, step: float, windows: Sequence[tuple[float, int]], ages: Sequence[float]
) -> Iterator[tuple[float, bool]]:
    """When each call leaves, and whether a window of `limit` calls delays it, until the first leaves that."""
    size = max(limit for _, limit in windows)
    earlier = sorted((-age for age in ages), reverse=True)[:size][::-1]
    used = len(earlier)
    # The times of the last calls, earlier ones below 0; the widest window looks back no further.
    ring = array("d", earlier + [0.0] * (size - used))
    earliest = 0.0
    for number in range(used, used + calls):
        at, waits = earliest, False
        for seconds, limit in windows:
            if number >= limit and (opens := ring[(number - limit) % size] + seconds) > at - MARGIN:
                at, waits = max(at, opens), True
        ring[number % size] = at
        yield at, waits
        earliest = at + step


def _spans(calls: int, times: Iterator[tuple[float, bool]], pause: float) -> Forecast:
    found: list[ForecastSpan] = []
    unwaited: Forecast | None = None
    begins, last, rows = 0.0, 0.0, 0
    for number, (at, waits) in enumerate(times):
        if waits and unwaited is None:
            sent = (ForecastSpan(0.0, number),) if number else ()
            unwaited = Forecast(sent, last, calls - number, at)
        if not rows:
            begins = at
        elif at - last > pause:
            found.append(ForecastSpan(begins, rows))
            begins, rows = at, 0
        rows += 1
        last = at
    return Forecast((*found, ForecastSpan(begins, rows)), last, unwaited=unwaited)


def describe(forecast: Forecast, now: datetime) -> str:
    """The forecast as one line, in the time zone of `now`, which must be aware.

    Times are rounded up to minutes. For dates after a change to or from summer time, `now` needs a zone
    (`zoneinfo`), not an offset.
    """
    rows = sum(span.rows for span in forecast.spans)
    total = plural(rows + forecast.deferred, "row")
    if forecast.deferred:
        sent = f"{rows:,} now, then" if rows else "none now, as"
        end = "the run ends deferred (exit code 4); --wait waits for it"
        return f"{total}: {sent} its quota is spent until {clock_time(forecast.opens_in, now)}: {end}"
    if not rows:
        return f"{total}: nothing to do"
    if isinf(forecast.ends_in):
        return f"{total}: never, as a quota window leaves room for no call"
    spans, many = forecast.spans, len(forecast.spans) > NAMED
    named = (*spans[:FIRST_NAMED], spans[-1]) if many else spans
    words = [f"{span.rows:,} {_begins(span, now)}" for span in named]
    if many:
        words.insert(-1, "…")
    when = ", ".join(words) if len(spans) > 1 else _begins(spans[0], now)
    return f"{total}: {when}; ends {clock_time(forecast.ends_in, now)}"


def _begins(span: ForecastSpan, now: datetime) -> str:
    return "now" if span.begins_in < 1 else f"from {clock_time(span.begins_in, now, zone='')}"


def clock_time(seconds: float, now: datetime, zone: str = " %Z") -> str:
    """The time in `seconds` from now, with its zone; not today: with the weekday or, later, the date."""
    try:
        then = (now.astimezone(UTC) + timedelta(seconds=seconds)).replace(microsecond=0)
        local = (then + timedelta(seconds=-then.second % 60)).astimezone(now.tzinfo)
    except OverflowError:
        return "after the year 9999"
    day = "" if local.date() == now.date() else "%a " if seconds < DATED else "%Y-%m-%d "
    return f"{local:{day}%H:%M{zone}}"
