"""What the charts of the HTML page show; a template draws them. Pure."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain, count, pairwise
from operator import add
from typing import Any, NamedTuple

from batch_snapshot.reporting.stats import Invocation, percentile

#: Sizes of a chart, in its own units.
WIDTH, HEIGHT = 560, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 12, 26
#: A chart over time has about this many bars.
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


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Stacked bars, and the same as a table; its template has the words."""

    #: The label of each bar, and a number for each kind.
    bars: Sequence[tuple[str, Sequence[int]]]
    kinds: Sequence[str] = ("plain",)
    x_marks: Sequence[Mark]
    #: What one counted thing adds to the height of a bar.
    scale: float = 1.0
    #: Where one invocation ends and the next begins.
    borders: Sequence[float] = ()
    #: A line over the bars: its height at each bar; None: no line there.
    line: Sequence[float | None] = ()
    #: Facts for the sentence below the chart.
    facts: Mapping[str, Any]

    @property
    def y_marks(self) -> list[Mark]:
        return [Mark(self._y(tick), f"{tick:,.10g}") for tick in self._ticks]

    @property
    def drawn(self) -> Iterator[tuple[str, list[tuple[str, float, float, float, float]]]]:
        """For each bar that is not 0 a title and rectangles (kind, x, y, width, height), from the bottom."""
        width = (WIDTH - LEFT - RIGHT) / len(self.bars)
        for at, (label, values) in enumerate(self.bars):
            base, pieces, words = float(HEIGHT - BOTTOM), [], []
            for kind, value in zip(self.kinds, values, strict=True):
                if value:
                    height = max(1.0, round(HEIGHT - BOTTOM - self._y(value * self.scale), 2))
                    base = round(base - height, 2)
                    x = _x(at, len(self.bars))
                    pieces.append((kind, x, base, round(width - (width > 3), 2), height))
                    words.append(f"{value:,} {kind.replace('_', ' ')}".removesuffix(" plain"))
            if pieces:
                yield f"{label}: {', '.join(words)}", pieces

    @property
    def line_path(self) -> str:
        path, pen = "", "M"
        for at, value in enumerate(self.line):
            if value is not None:
                begin, end = (_x(place, len(self.line)) for place in (at, at + 1))
                path += f"{pen}{begin} {self._y(value)}H{end}"
            pen = "M" if value is None else "L"
        return path

    @cached_property
    def _ticks(self) -> list[float]:
        values = [sum(values) * self.scale for _, values in self.bars]
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


#: By invocation and second since 1970 at which a part of its time begins: rows that succeeded, failed, are in
#: doubt, and throttles.
TimeSlots = dict[tuple[int, int], list[int]]


def time_slots(invocations: Sequence[Invocation]) -> tuple[int, TimeSlots]:
    """Cut the time of all invocations into about `BARS` parts of equal length that begin at round times.

    Returns the seconds of each too.
    """
    lengths = [max(invocation.seconds, default=-1) + 1 for invocation in invocations]
    # After a jump of the clock an invocation may seem to last for years.
    longest = max(1, math.ceil(sum(lengths) / BARS / DAY)) * DAY
    step = next((step for step in STEPS if sum(lengths) <= step * BARS), longest)
    slots: TimeSlots = {}
    for number, (invocation, length) in enumerate(zip(invocations, lengths, strict=True)):
        began = int(invocation.began.timestamp())
        begins = range(began // step * step, began + length, step) if length else ()
        slots |= {(number, at): [0, 0, 0, 0] for at in begins}
        for second, values in invocation.seconds.items():
            slot = slots[number, (began + second) // step * step]
            slot[:] = map(add, slot, values)
    return step, slots


def over_time(invocations: Sequence[Invocation], allowed: Sequence[float | None] = ()) -> list[Chart]:
    """Rows and throttles a minute; one chart each, none where there is nothing to draw.

    `allowed` are the calls a second that each invocation was allowed; None: not known.
    """
    step, slots = time_slots(invocations)
    if not slots:
        return []
    labels = [f"{_moment(begins):%Y-%m-%d %H:%M:%S}" for _, begins in slots]
    rows, throttled = (
        [(label, sums[kinds]) for label, sums in zip(labels, slots.values(), strict=True)]
        for kinds in (slice(3), slice(3, None))
    )
    sums, worst = [sum(values) for _, values in rows], max(number for _, [number] in throttled)
    most = max(sums) * 60 / step
    line = [rate and rate * 60 for number, _ in slots for rate in [allowed[number] if allowed else None]]
    marks, borders = _time_axis(step, [*slots])
    settled = Chart(
        bars=rows,
        kinds=("succeeded", "failed", "in_doubt"),
        x_marks=marks,
        scale=60 / step,
        borders=borders,
        # A limit far above what was done would press the bars flat.
        line=[None if rate is None or rate > 3 * most else rate for rate in line],
        facts={
            "total": sum(sums),
            "most": most,
            "allowed": sorted({rate for rate in line if rate})[:3],
            "step": _span(step),
        },
    )
    # A bar of some seconds can stand for more throttles a minute than there were in all.
    facts = {"total": sum(number for _, [number] in throttled), "worst": worst, "step": _span(step)}
    throttles = replace(settled, bars=throttled, kinds=("throttled",), line=(), facts=facts)
    return [settled, throttles] if worst else [settled]


def _time_axis(step: int, slots: Sequence[tuple[int, int]]) -> tuple[list[Mark], list[float]]:
    """Round times that don't overlap; and the borders between invocations."""
    borders = [at for at, (one, other) in enumerate(pairwise(slots), 1) if one[0] != other[0]]
    moments = [_moment(begins) for _, begins in slots]
    dated = moments[0].date() != moments[-1].date()
    width = 105 if dated else 80
    wanted = step * width * len(slots) / (WIDTH - LEFT - RIGHT)
    distance = next((each for each in STEPS if each >= wanted and each % step == 0), max(DAY, step))
    form = ("%m-%d " if dated else "") + ("%H:%M:%S" if distance % 60 else "%H:%M")
    at_round = [at for at, (_, begins) in enumerate(slots) if begins % distance == 0]
    marks: list[Mark] = []
    # First where an invocation begins, if there are several.
    for at in [*([0, *borders] if borders else []), *at_round] or [0]:
        x = _x(at, len(slots))
        if all(abs(x - mark.at) >= width for mark in marks) and x <= WIDTH - width / 2:
            marks.append(Mark(x, f"{moments[at]:{form}}"))
    return sorted(marks), [_x(at, len(slots)) for at in borders]


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
    edges = pairwise(low * growth**at for at in range(BINS + 1))
    marks: list[Mark] = []
    for value in (factor * 10.0**power for power in range(-3, 5) for factor in (1, 2, 5)):
        at = _x(math.log(value / low, growth), BINS)
        if LEFT <= at <= WIDTH - RIGHT and (not marks or at - marks[-1].at >= 60):
            marks.append(Mark(at, short_time(value)))
    return Chart(
        bars=[
            (f"{short_time(begin)} to {short_time(end)}", (number,))
            for (begin, end), number in zip(edges, numbers, strict=True)
        ],
        x_marks=marks,
        facts={"calls": len(ordered), "times": [percentile(ordered, share) for share in (0.5, 0.9, 0.99, 1)]},
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
        bars.append((name, (found,)))
        marks.append(Mark(_x(at + 0.5, last + 1 - least), label))
    return Chart(bars=bars, x_marks=marks, facts={"once": numbers[1], "results": numbers.total()})


# -- heat maps ------------------------------------------------------------------------------------------


class HeatMap(NamedTuple):
    """A table of counts; the higher a count, the darker its cell. Its template has the words."""

    columns: Sequence[str]
    #: A label, a count for each column, and what the last column says.
    rows: Sequence[tuple[str, Sequence[int], str]]
    facts: Mapping[str, Any]

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
    rows = []
    for name in sorted(minutes, key=lambda name: -minutes[name].total())[:MOST_ACCOUNTS]:
        sums: Counter[int] = Counter()
        for minute, number in minutes[name].items():
            sums[minute * 60 // length] += number
        rows.append((name, [sums[column] for column in columns], f"{sums.total():,}"))
    labels, day = [], ""
    for moment in (_moment(column * length) for column in columns):
        hour = f"{moment:%H:%M}" if length < DAY else ""
        labels.append(hour if day == f"{moment:%m-%d}" else f"{moment:%m-%d} {hour}")
        day = f"{moment:%m-%d}"
    return HeatMap(labels, rows, {"hidden": len(minutes) - len(rows), "step": _span(length)})


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
        rows.append((f"{_moment(day * DAY):%a %m-%d}", days[day], f"{sum(days[day]):,}{share}"))
    facts = {"most": most_in_a_day(hours), "per_day": per_day, "days": len(days), "shown": DAYS}
    return HeatMap([f"{hour:02d}" for hour in range(24)], rows, facts)


def most_in_a_day(hours: Mapping[int, int]) -> int:
    """The most calls in 24 hours that begin with a full one."""
    return max((sum(hours.get(hour + at, 0) for at in range(24)) for hour in hours), default=0)


def _x(at: float, number: int) -> float:
    return round(LEFT + at * (WIDTH - LEFT - RIGHT) / number, 2)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def short_time(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{amount(seconds)} s"


def amount(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:,.3g}"


def _span(step: int) -> str:
    units = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    size, unit = next((size, unit) for size, unit in units if step % size == 0)
    return f"1 {unit}" if step == size else f"{step // size} {unit}s"
