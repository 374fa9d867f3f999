"""What the charts of the HTML page show; a template draws them. Pure."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain, count, pairwise
from typing import NamedTuple

from batch_snapshot.reporting.stats import Invocation, percentile
from batch_snapshot.text import plural

#: Sizes of a chart, in its own units.
WIDTH, HEIGHT = 560, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 12, 26
#: About so many bars has a chart over time.
BARS = 100
#: Seconds that a bar, and the distance of two marks, can stand for.
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400)
#: Bars of a distribution, and tries from which on they are counted together.
BINS, MANY_TRIES = 28, 9
#: Accounts and columns of a heat map, and the days of a calendar.
MOST_ACCOUNTS, COLUMNS, DAYS = 20, 16, 31
DAY = 86_400
#: Shades of a heat map.
SHADES = 4


class Mark(NamedTuple):
    at: float
    text: str


class Bar(NamedTuple):
    label: str
    #: A number for each kind of its chart.
    values: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Stacked bars, and the same as a table."""

    name: str
    title: str
    summary: str
    #: Of the table: what a bar stands for, and its kinds of values.
    head: Sequence[str]
    kinds: Sequence[str] = ("plain",)
    bars: Sequence[Bar]
    x_marks: Sequence[Mark]
    #: What one counted thing adds to the height of a bar.
    scale: float = 1.0
    #: Where one invocation ends and the next begins.
    borders: Sequence[float] = ()
    #: A line over the bars: its height at each of them; None: none there.
    line: Sequence[float | None] = ()

    @property
    def y_marks(self) -> list[Mark]:
        return [Mark(self._y(tick), f"{tick:,.10g}") for tick in self._ticks]

    @property
    def drawn(self) -> Iterator[tuple[str, list[tuple[str, float, float, float, float]]]]:
        """For each bar that is not 0 a title and rectangles (kind, x, y, width, height), from the bottom."""
        width = (WIDTH - LEFT - RIGHT) / len(self.bars)
        for at, bar in enumerate(self.bars):
            base, pieces, words = float(HEIGHT - BOTTOM), [], []
            for kind, value in zip(self.kinds, bar.values, strict=True):
                if value:
                    height = max(1.0, round(HEIGHT - BOTTOM - self._y(value * self.scale), 2))
                    base = round(base - height, 2)
                    x = round(_x(at, len(self.bars)), 2)
                    pieces.append((kind, x, base, round(width - (width > 3), 2), height))
                    words.append(f"{value:,} {kind.replace('_', ' ')}".removesuffix(" plain"))
            if pieces:
                yield f"{bar.label}: {', '.join(words)}", pieces

    @property
    def line_path(self) -> str:
        path, pen = "", "M"
        for at, value in enumerate(self.line):
            if value is not None:
                begin, end = (round(_x(place, len(self.line)), 2) for place in (at, at + 1))
                path += f"{pen}{begin} {self._y(value)}H{end}"
            pen = "M" if value is None else "L"
        return path

    @cached_property
    def _ticks(self) -> list[float]:
        values = [sum(bar.values) * self.scale for bar in self.bars]
        return round_ticks(max([*values, *filter(None, self.line)], default=0))

    def _y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - value / self._ticks[-1] * (HEIGHT - TOP - BOTTOM), 2)


def round_ticks(highest: float) -> list[float]:
    """At most six multiples of 1, 2 or 5 times a power of ten, from 0 to at least `highest`."""
    rough = max(highest, 1) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    return [float(f"{step * n:.10g}") for n in range(max(1, math.ceil(highest / step - 1e-9)) + 1)]


# -- over time ------------------------------------------------------------------------------------------


class TimeSlot(NamedTuple):
    """A part of the time of one invocation that begins at a round time."""

    invocation: int
    begins: int
    #: Rows that succeeded, failed, are in doubt, and throttles.
    sums: tuple[int, ...]

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.begins, UTC)


def time_slots(invocations: Sequence[Invocation]) -> tuple[int, list[TimeSlot]]:
    """Cut the time of all invocations into about `BARS` parts of equal length; returns their seconds too."""
    lengths = [max(invocation.seconds, default=-1) + 1 for invocation in invocations]
    # After a jump of the clock an invocation may seem to last for years.
    longest = max(1, math.ceil(sum(lengths) / BARS / DAY)) * DAY
    step = next((step for step in STEPS if sum(lengths) <= step * BARS), longest)
    found = []
    for number, (invocation, length) in enumerate(zip(invocations, lengths, strict=True)):
        began = int(invocation.began.timestamp())
        places = range(began // step, (began + length - 1) // step + 1) if length else ()
        sums = {at: [0, 0, 0, 0] for at in places}
        for second, values in invocation.seconds.items():
            slot = sums[(began + second) // step]
            slot[:] = [known + value for known, value in zip(slot, values, strict=True)]
        found += [TimeSlot(number, at * step, tuple(each)) for at, each in sums.items()]
    return step, found


def over_time(invocations: Sequence[Invocation], allowed: Sequence[float | None] = ()) -> list[Chart]:
    """Rows and throttles a minute; one chart each, none where there is nothing to draw.

    `allowed` are the calls a second that each invocation was allowed; None: not known.
    """
    step, slots = time_slots(invocations)
    if not slots:
        return []
    rows, throttled = (
        [Bar(f"{slot.moment:%Y-%m-%d %H:%M:%S}", slot.sums[kinds]) for slot in slots]
        for kinds in (slice(3), slice(3, None))
    )
    scale = 60 / step
    highest, worst = (max(sum(bar.values) for bar in bars) for bars in (rows, throttled))
    most = highest * scale
    line = [rate and rate * 60 for slot in slots for rate in [allowed[slot.invocation] if allowed else None]]
    rates = [amount(rate) for rate in sorted({rate for rate in line if rate})]
    marks, borders = _time_axis(step, slots)
    settled = Chart(
        name="throughput",
        title="Rows a minute",
        summary=f"At most {amount(most)} a minute, {sum(sum(bar.values) for bar in rows):,} results in all. "
        + (f"Allowed: {' or '.join(rates[:3])} a minute. " if rates else "")
        + f"A bar stands for {_span(step)}.",
        head=("From (UTC)", "Succeeded", "Failed", "In doubt"),
        kinds=("succeeded", "failed", "in_doubt"),
        bars=rows,
        x_marks=marks,
        scale=scale,
        borders=borders,
        # A limit far above what was done would press the bars flat.
        line=[None if rate is None or rate > 3 * most else rate for rate in line],
    )
    total = sum(sum(bar.values) for bar in throttled)
    throttles = replace(
        settled,
        name="throttles",
        title="Throttled calls a minute",
        # A bar of some seconds can stand for more a minute than there were in all.
        summary=f"{plural(total, 'call')} throttled, at most {worst:,} in {_span(step)}.",
        head=("From (UTC)", "Throttled"),
        kinds=("throttled",),
        bars=throttled,
        line=(),
    )
    return [settled, throttles] if worst else [settled]


def _time_axis(step: int, slots: Sequence[TimeSlot]) -> tuple[list[Mark], list[float]]:
    """Round times that don't overlap; and the borders between invocations."""
    begins = [at for at in range(1, len(slots)) if slots[at].invocation != slots[at - 1].invocation]
    dated = slots[0].moment.date() != slots[-1].moment.date()
    width = 105 if dated else 80
    wanted = step * width * len(slots) / (WIDTH - LEFT - RIGHT)
    distance = next((each for each in STEPS if each >= wanted and each % step == 0), max(DAY, step))
    form = ("%m-%d " if dated else "") + ("%H:%M:%S" if distance % 60 else "%H:%M")
    at_round = [at for at, slot in enumerate(slots) if slot.begins % distance == 0]
    marks: list[Mark] = []
    # First where an invocation begins, if there are several.
    for at in [*([0, *begins] if begins else []), *at_round] or [0]:
        x = round(_x(at, len(slots)), 2)
        if all(abs(x - mark.at) >= width for mark in marks) and x <= WIDTH - width / 2:
            marks.append(Mark(x, f"{slots[at].moment:{form}}"))
    return sorted(marks), [round(_x(at, len(slots)), 2) for at in begins]


# -- distributions --------------------------------------------------------------------------------------


def latency(values: Sequence[float]) -> Chart | None:
    if not values:
        return None
    ordered = sorted(values)
    low, high = max(ordered[0], 0.001), max(ordered[-1], 0.001)
    growth = max((high / low) ** (1 / BINS), 1.02)
    numbers = [0] * BINS
    for value in ordered:
        numbers[min(BINS - 1, int(math.log(max(value, low) / low, growth) + 1e-9))] += 1
    edges = [low * growth**at for at in range(BINS + 1)]
    bars = [
        Bar(f"{_time(begin)} to {_time(end)}", (number,))
        for (begin, end), number in zip(pairwise(edges), numbers, strict=True)
    ]
    shares = {share: _time(percentile(ordered, share)) for share in (0.5, 0.9, 0.99)}
    marks: list[Mark] = []
    for value in (factor * 10.0**power for power in range(-3, 5) for factor in (1, 2, 5)):
        at = _x(math.log(value / low, growth), BINS)
        if LEFT <= at <= WIDTH - RIGHT and (not marks or at - marks[-1].at >= 60):
            marks.append(Mark(round(at, 2), _time(value)))
    return Chart(
        name="latency",
        title="Time of a call",
        summary=f"Half of {len(ordered):,} calls took up to {shares[0.5]}, 90 % up to {shares[0.9]}, "
        f"99 % up to {shares[0.99]}, the longest {_time(ordered[-1])}. "
        "Only rows that one call settled are counted.",
        head=("Time", "Calls"),
        bars=bars,
        x_marks=marks,
    )


def attempts(numbers: Counter[int]) -> Chart | None:
    if not numbers:
        return None
    least, last = min(1, *numbers), max(2, min(MANY_TRIES, max(numbers)))
    bars, marks = [], []
    for at, tries in enumerate(range(least, last + 1)):
        label = f"{tries} or more" if tries == last < max(numbers) else str(tries)
        name = {0: "no try, but a look-up", 1: "1 try"}.get(tries, f"{label} tries")
        found = sum(number for each, number in numbers.items() if each == tries or (each > tries == last))
        bars.append(Bar(name, (found,)))
        marks.append(Mark(round(_x(at + 0.5, last + 1 - least), 2), label))
    return Chart(
        name="attempts",
        title="Tries a row",
        summary=f"{numbers[1]:,} of {sum(numbers.values()):,} results took one try. Throttles are no tries.",
        head=("Tries", "Results"),
        bars=bars,
        x_marks=marks,
    )


# -- heat maps ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """A table of counts; the higher a count, the darker its cell."""

    name: str
    title: str
    summary: str
    kind: str
    head: Sequence[str]
    #: A label, a count for each column, and what the last column says.
    rows: Sequence[tuple[str, Sequence[int], str]]

    def shade(self, value: int) -> int:
        most = max(max(values, default=0) for _, values, _ in self.rows)
        return math.ceil(value / most * SHADES) if value else 0


def failures_by_account(minutes: Mapping[str, Counter[int]]) -> HeatMap | None:
    """Results that failed or are in doubt, by account and minute since 1970; None: there are none."""
    times = sorted({minute * 60 for counter in minutes.values() for minute in counter})
    if not times:
        return None
    # Time in which nothing failed is left out.
    lengths = chain(STEPS[STEPS.index(60) :], (STEPS[-1] << n for n in count(1)))
    length = next(length for length in lengths if len({time // length for time in times}) <= COLUMNS)
    columns = sorted({time // length for time in times})
    accounts = sorted(minutes, key=lambda name: -minutes[name].total())
    rows = []
    for name in accounts[:MOST_ACCOUNTS]:
        sums: Counter[int] = Counter()
        for minute, number in minutes[name].items():
            sums[minute * 60 // length] += number
        rows.append((name, [sums[column] for column in columns], f"{sums.total():,}"))
    hidden = len(accounts) - len(rows)
    more = f" {hidden:,} accounts with fewer are left out." if hidden else ""
    moments = [datetime.fromtimestamp(column * length, UTC) for column in columns]
    days = [f"{moment:%m-%d}" for moment in moments]
    hours = [f"{moment:%H:%M}" if length < DAY else "" for moment in moments]
    new_day = [at == 0 or days[at] != days[at - 1] for at in range(len(days))]
    labels = [f"{day} {hour}" if new else hour for day, hour, new in zip(days, hours, new_day, strict=True)]
    return HeatMap(
        name="failing",
        title="Failures by account over time",
        summary="Results that failed or are in doubt, those of rows that succeeded later included. "
        f"A column stands for {_span(length)} (UTC) in which there were any.{more}",
        kind="failed",
        head=("Account", *labels, "All"),
        rows=rows,
    )


def calendar(hours: Mapping[int, int], per_day: int) -> HeatMap:
    """Calls by day and hour in UTC: `hours` has them by number of the hour since 1970, one hour at least.

    `per_day` calls are allowed in 24 hours; 0: not known.
    """
    days: defaultdict[int, list[int]] = defaultdict(lambda: [0] * 24)
    for hour, number in hours.items():
        days[hour // 24][hour % 24] += number
    rows = []
    for day in sorted(days)[-DAYS:]:
        share = f" ({sum(days[day]) / per_day:.0%})" if per_day else ""
        label = f"{datetime.fromtimestamp(day * DAY, UTC):%a %m-%d}"
        rows.append((label, days[day], f"{sum(days[day]):,}{share}"))
    of = f" of {per_day:,} allowed" if per_day else ""
    more = f" These are the last {DAYS} days of {len(days):,}." if len(days) > DAYS else ""
    return HeatMap(
        name="calendar",
        title="Calls by day and hour",
        summary=f"In UTC. Most calls in 24 hours: about {most_in_a_day(hours):,}{of}.{more}",
        kind="plain",
        head=("Day", *(f"{hour:02d}" for hour in range(24)), "Calls"),
        rows=rows,
    )


def most_in_a_day(hours: Mapping[int, int]) -> int:
    """The most calls in 24 hours that begin with a full one."""
    return max((sum(hours.get(hour + at, 0) for at in range(24)) for hour in hours), default=0)


def _x(at: float, number: int) -> float:
    return LEFT + at * (WIDTH - LEFT - RIGHT) / number


def _time(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{amount(seconds)} s"


def amount(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:,.3g}"


def _span(step: int) -> str:
    units = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    size, unit = next((size, unit) for size, unit in units if step % size == 0)
    return f"1 {unit}" if step == size else f"{step // size} {unit}s"
