"""Charts: sums → positions of bars and labels, which a template writes as SVG. Pure."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from itertools import pairwise
from typing import NamedTuple

from batch_snapshot.reporting.stats import Invocation, percentile

#: Sizes of a chart, in its own units.
WIDTH, HEIGHT = 560, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 10, 26
HIGHEST = HEIGHT - TOP - BOTTOM
#: About so many bars has a chart over time.
BARS = 100
#: Seconds that a bar can stand for.
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400)
#: Bars of a distribution, and tries from which on they are counted together.
BINS, MANY_TRIES = 28, 9


class Piece(NamedTuple):
    kind: str
    x: float
    y: float
    width: float
    height: float


class Mark(NamedTuple):
    at: float
    text: str


class Bar(NamedTuple):
    title: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart, and the same as a table."""

    name: str
    title: str
    summary: str
    #: What each bar stands for, and its rectangles' kinds and values.
    labels: Sequence[str]
    label_unit: str = ""
    kinds: Sequence[str]
    values: Sequence[Sequence[int]]
    x_marks: Sequence[Mark]
    #: Where one invocation ends and the next begins.
    borders: Sequence[float] = ()
    head: Sequence[str]
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def most(self) -> int:
        return max(map(sum, self.values))

    @property
    def rows(self) -> Sequence[Sequence[str]]:
        """The table's."""
        return [
            (label, *map("{:,}".format, row)) for label, row in zip(self.labels, self.values, strict=True)
        ]

    @property
    def y_marks(self) -> list[Mark]:
        """Nothing, half and all of the height."""
        values = sorted({0, self.most // 2 if self.most > 1 else 0, self.most})
        heights = [HEIGHT - BOTTOM - value / max(1, self.most) * HIGHEST for value in values]
        return [Mark(round(at, 2), f"{value:,}") for at, value in zip(heights, values, strict=True)]

    @property
    def bars(self) -> list[Bar]:
        """A stack of rectangles for each row of values that has any, the first kind at the bottom."""
        width = (WIDTH - LEFT - RIGHT) / len(self.values)
        gap = 1.0 if width > 3 else 0.0
        bars = []
        for at, (values, label) in enumerate(zip(self.values, self.labels, strict=True)):
            base = float(HEIGHT - BOTTOM)
            pieces, words = [], []
            for kind, value in zip(self.kinds, values, strict=True):
                if value:
                    height = max(1.0, value / self.most * HIGHEST)
                    base -= height
                    x = round(_x(at, len(self.values)), 2)
                    pieces.append(Piece(kind, x, round(base, 2), round(width - gap, 2), height))
                    words.append(f"{value:,} {kind.replace('_', ' ')}".removesuffix(" plain"))
            if pieces:
                bars.append(Bar(f"{label}{self.label_unit}: {', '.join(words)}", tuple(pieces)))
        return bars


class TimeBucket(NamedTuple):
    invocation: int
    begins: int
    #: Rows that succeeded, failed, are in doubt, and throttles.
    sums: tuple[int, int, int, int]


def buckets(invocations: Sequence[Invocation]) -> tuple[int, list[TimeBucket]]:
    """Cut the time of all invocations into parts of equal length; returns their seconds, and the parts."""
    lengths = [max(invocation.seconds, default=-1) + 1 for invocation in invocations]
    total = sum(lengths)
    # After a jump of the clock an invocation may seem to last for years.
    longest = max(1, math.ceil(total / BARS / STEPS[-1])) * STEPS[-1]
    step = next((step for step in STEPS if total <= step * BARS), longest)
    found = []
    for number, (invocation, length) in enumerate(zip(invocations, lengths, strict=True)):
        sums = [[0, 0, 0, 0] for _ in range(math.ceil(length / step))]
        for second, values in invocation.seconds.items():
            for column, value in enumerate(values):
                sums[second // step][column] += value
        found += [TimeBucket(number, at * step, (s, f, d, t)) for at, (s, f, d, t) in enumerate(sums)]
    return step, found


def over_time(invocations: Sequence[Invocation]) -> list[Chart]:
    """Rows and throttles over time; one drawing each, none where there is nothing to draw."""
    step, found = buckets(invocations)
    if not found:
        return []
    span = _span(step)
    times = [_moment(invocations[bucket.invocation], bucket.begins) for bucket in found]
    x_marks, borders = _time_axis(found, times)
    rows = [bucket.sums[:3] for bucket in found]
    most = max(map(sum, rows))
    settled = Chart(
        name="throughput",
        title=f"Rows settled in each {span}",
        summary=f"At most {most:,} rows in {span}, {sum(map(sum, rows)):,} results in all.",
        labels=times,
        label_unit=" UTC",
        kinds=("succeeded", "failed", "in_doubt"),
        values=rows,
        x_marks=x_marks,
        borders=borders,
        head=("Time (UTC)", "Succeeded", "Failed", "In doubt"),
    )
    throttles = [bucket.sums[3:] for bucket in found]
    worst, total = max(map(sum, throttles)), sum(map(sum, throttles))
    if not worst:
        return [settled]
    throttled = replace(
        settled,
        name="throttles",
        title=f"Throttled calls in each {span}",
        summary=f"{total:,} calls were throttled, at most {worst:,} in {span}.",
        kinds=("throttled",),
        values=throttles,
        head=("Time (UTC)", "Throttled"),
    )
    return [settled, throttled]


def latency(values: Sequence[float]) -> Chart | None:
    """How long calls took, in bins that grow; None: nothing was measured."""
    if not values:
        return None
    ordered = sorted(values)
    low, high = max(ordered[0], 0.001), max(ordered[-1], 0.001)
    growth = max((high / low) ** (1 / BINS), 1.02)
    numbers = [0] * BINS
    for value in ordered:
        numbers[min(BINS - 1, int(math.log(max(value, low) / low, growth) + 1e-9))] += 1
    edges = [low * growth**at for at in range(BINS + 1)]
    names = [f"{_time(begin)} to {_time(end)}" for begin, end in pairwise(edges)]
    shares = {share: _time(percentile(ordered, share)) for share in (0.5, 0.9, 0.99)}
    return Chart(
        name="latency",
        title="Time of a call",
        summary=f"Half of {len(ordered):,} calls took up to {shares[0.5]}, 90 % up to {shares[0.9]}, "
        f"99 % up to {shares[0.99]}, the longest {_time(ordered[-1])}. "
        "Counted are rows that took one call.",
        labels=names,
        kinds=("plain",),
        values=[(number,) for number in numbers],
        x_marks=[Mark(_x(at, BINS), _time(edges[at])) for at in range(0, BINS + 1, 7)],
        head=("Time", "Calls"),
    )


def attempts(numbers: Counter[int]) -> Chart | None:
    """How many tries rows took; None: no row was settled."""
    if not numbers:
        return None
    least, last = min(1, *numbers), max(2, min(MANY_TRIES, max(numbers)))
    labels = {tries: str(tries) for tries in range(least, last + 1)}
    if max(numbers) > last:
        labels[last] += " or more"
    counts = [
        sum(number for tries, number in numbers.items() if tries == label or (tries > label == last))
        for label in labels
    ]
    special = {0: "no try, but a look", 1: "1 try"}
    names = [special.get(tries, f"{label} tries") for tries, label in labels.items()]
    return Chart(
        name="attempts",
        title="Tries a row",
        summary=f"{numbers[1]:,} of {sum(numbers.values()):,} results took one try. Throttles are no tries.",
        labels=names,
        kinds=("plain",),
        values=[(number,) for number in counts],
        x_marks=[Mark(_x(at + 0.5, len(counts)), label) for at, label in enumerate(labels.values())],
        head=("Tries", "Results"),
    )


def _x(at: float, number: int) -> float:
    return LEFT + at * (WIDTH - LEFT - RIGHT) / number


def _time_axis(found: Sequence[TimeBucket], times: Sequence[str]) -> tuple[list[Mark], list[float]]:
    """Times that don't overlap, those at which an invocation begins first; and the borders between those."""
    short = len({time[:10] for time in times}) == 1
    begins = [
        at for at, bucket in enumerate(found) if at == 0 or bucket.invocation != found[at - 1].invocation
    ]
    width = 70 if short else 105
    marks: dict[int, float] = {}
    for at in [*begins, *range(0, len(found), max(1, len(found) // 6))]:
        x = _x(at, len(found))
        if all(abs(x - other) >= width for other in marks.values()) and x <= WIDTH - width / 2:
            marks[at] = x
    words: Callable[[str], str] = (lambda time: time[11:]) if short else (lambda time: time[5:])
    borders = [round(_x(at, len(found)), 2) for at in begins[1:]]
    return [Mark(round(x, 2), words(times[at])) for at, x in sorted(marks.items())], borders


def _moment(invocation: Invocation, seconds: int) -> str:
    moment = invocation.began.astimezone(UTC) + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def _span(step: int) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if step % size == 0:
            return f"{step // size} {unit}"
    return f"{step} s"


def parts(counts: Mapping[str, int]) -> list[tuple[str, float]]:
    """The percentages of all rows, for a bar of outcomes; without zeros."""
    total = sum(counts.values())
    return [(name, number / total * 100) for name, number in counts.items() if number]
