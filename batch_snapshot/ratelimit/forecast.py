"""How calls will be spread over time under a rate and rolling windows: pure arithmetic.

The k-th call leaves as soon as the rate and every window allow it, as if each call were over when it
leaves: a forecast knows no latencies, and other programs that use the same quota are no part of it.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from datetime import UTC, timedelta
from math import ceil, inf, isinf
from typing import TYPE_CHECKING

from batch_snapshot.text import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

#: More stretches than these are not all named; then the first so many are, and the last.
NAMED, FIRST_NAMED = 6, 3
#: Seconds ahead from which a weekday might be taken for an earlier one.
DATED = 6 * 86_400


@dataclass(frozen=True, slots=True)
class ForecastSpan:
    """Calls without a long pause between them."""

    #: Seconds from now; inf: never.
    begins_in: float
    rows: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """When how many calls will leave."""

    stretches: tuple[ForecastSpan, ...]
    #: Seconds from now until the last call leaves; 0 without any, inf if they never can.
    ends_in: float


def days_needed(rows: Mapping[str, int], calls_a_day: Mapping[str, float]) -> list[str]:
    """Say of which accounts the rows need more than a day, and what that means for a run every night.

    Args:
        rows: of a manifest, by account.
        calls_a_day: that its quota windows let through, by account.
    """
    texts = []
    for account, number in rows.items():
        a_day = calls_a_day[account]
        if number <= a_day:
            continue
        if not a_day:
            texts.append(f"account {account}: its quota leaves no call for its {number:,} rows")
            continue
        days = ceil(number / a_day)
        texts.append(
            f"account {account}: its quota is {a_day:,.0f} calls a day and it has {number:,} rows: a run "
            f"takes {days:,} days at least. A nightly run finishes the last night before a new one, "
            f"so nights fall behind: raise the quota, list fewer rows, or run it every {days:,} days"
        )
    return texts


def forecast(
    calls: int,
    rate: float,
    windows: Sequence[tuple[float, int]],
    ages: Sequence[float],
    pause: float = 60.0,
) -> Forecast:
    """Spread `calls` over time. It takes about a second for a million of them.

    Args:
        calls: how many are to be made; each is one row.
        rate: calls a second.
        windows: (seconds, limit) of each rolling window. A limit of 0 means never: then there is one
            stretch that begins in inf seconds.
        ages: for each earlier call, how many seconds ago it was over; in any order.
        pause: a gap longer than so many seconds begins a new stretch, unless it is the rate's own.

    Raises:
        ValueError: the rate is not positive.
    """
    if not rate > 0:
        raise ValueError(f"a rate of {rate:g} calls a second makes none")
    if calls <= 0:
        return Forecast((), 0.0)
    if any(limit <= 0 for _, limit in windows):
        return Forecast((ForecastSpan(inf, calls),), inf)
    step = 1 / rate
    # A window with room for all can hold none up.
    binding = [(seconds, limit) for seconds, limit in windows if limit < calls + len(ages)]
    if not binding:
        return Forecast((ForecastSpan(0.0, calls),), (calls - 1) * step)
    # The margin is for sums of floats.
    return _stretches(_times(calls, step, binding, ages), max(pause, step * (1 + 1e-9)))


def _times(
    calls: int, step: float, windows: Sequence[tuple[float, int]], ages: Sequence[float]
) -> Iterator[float]:
    """When each call leaves: a window that holds `limit` calls opens for the next a width after the first."""
    size = max(limit for _, limit in windows)
    earlier = sorted((-age for age in ages), reverse=True)[:size][::-1]
    used = len(earlier)
    # The times of the last calls, the earlier ones below 0: no window looks further back.
    ring = array("d", earlier + [0.0] * (size - used))
    earliest = 0.0
    for number in range(used, used + calls):
        at = earliest
        for seconds, limit in windows:
            if number >= limit and (opens := ring[(number - limit) % size] + seconds) > at:
                at = opens
        ring[number % size] = at
        yield at
        earliest = at + step


def _stretches(times: Iterator[float], pause: float) -> Forecast:
    found: list[ForecastSpan] = []
    begins = last = next(times)
    rows = 1
    for at in times:
        if at - last > pause:
            found.append(ForecastSpan(begins, rows))
            begins, rows = at, 0
        rows += 1
        last = at
    return Forecast((*found, ForecastSpan(begins, rows)), last)


def in_words(forecast: Forecast, now: datetime) -> str:
    """The forecast as one line for people, in the time zone of `now`, which must be aware.

    Times are rounded up to the minute. For dates beyond a change of clocks, `now` should bear a zone
    (`zoneinfo`), not a bare offset.
    """
    rows = sum(stretch.rows for stretch in forecast.stretches)
    total = plural(rows, "row")
    if not rows:
        return f"{total}: nothing to do"
    if isinf(forecast.ends_in):
        return f"{total}: never, as a quota window leaves room for no call"
    if len(forecast.stretches) == 1:
        when = _begins(forecast.stretches[0], now)
    else:
        when = ", ".join(_parts(forecast.stretches, now))
    return f"{total}: {when}; ends {moment(forecast.ends_in, now)}"


def _parts(stretches: Sequence[ForecastSpan], now: datetime) -> Iterable[str]:
    words = [f"{stretch.rows:,} {_begins(stretch, now)}" for stretch in _named(stretches)]
    return words if len(stretches) <= NAMED else [*words[:-1], "…", words[-1]]


def _named(stretches: Sequence[ForecastSpan]) -> Sequence[ForecastSpan]:
    return stretches if len(stretches) <= NAMED else [*stretches[:FIRST_NAMED], stretches[-1]]


def _begins(stretch: ForecastSpan, now: datetime) -> str:
    return "now" if stretch.begins_in < 1 else f"from {moment(stretch.begins_in, now)}"


def moment(seconds: float, now: datetime) -> str:
    """The time in so many `seconds`: of today, of a weekday, or with a date where that could be misread."""
    try:
        then = (now.astimezone(UTC) + timedelta(seconds=seconds)).replace(microsecond=0)
        local = (then + timedelta(seconds=-then.second % 60)).astimezone(now.tzinfo)
    except OverflowError:
        return "after the year 9999"
    if local.date() == now.date():
        return f"{local:%H:%M}"
    return f"{local:%a %H:%M}" if seconds < DATED else f"{local:%Y-%m-%d %H:%M}"
