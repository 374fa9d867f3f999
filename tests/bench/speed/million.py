"""What a row costs and what memory a run takes, at few rows and at many."""

from collections.abc import Sequence

from tests.bench.figures import Bound, Figure, Line, Table, interleaved, ratios
from tests.bench.speed.children import folder
from tests.bench.speed.clients import OURS
from tests.bench.speed.stub import served
from tests.bench.speed.throughput import Run, measure

_HEAD = (
    "rows",
    "whole process µs a row",
    "÷ that at the fewest",
    "calls/s",
    "calls/s, fewest ÷ these",
    "CPU µs a row",
    "CPU, ÷ fewest",
    "peak MB",
)

_COST = Bound(1.15)
_MEMORY = Bound(300)

#: Seconds for a million rows, were a machine to make a hundred calls a second.
_PATIENCE = 10_000.0


def table(sizes: Sequence[int], repeat: int) -> Table:
    """Run this program over so many rows, the fewest first."""
    with folder() as place, served(place) as stub:
        runs = interleaved(
            "million", sizes, repeat, lambda rows: measure(OURS, rows, stub, patience=_PATIENCE)
        )
    least = runs[sizes[0]]
    notes = sorted(
        {f"{one.rows:,} rows: {one.trouble}" for own in runs.values() for one in own if one.trouble}
    )
    return Table(
        "million",
        "Cost of a row, and memory",
        _HEAD,
        [Line(f"{rows:,}", _figures(runs[rows], least)) for rows in sizes],
        notes,
    )


def _figures(own: Sequence[Run], least: Sequence[Run]) -> list[Figure | None]:
    costs = [one.seconds / one.rows * 1e6 for one in own]
    base = [one.seconds / one.rows * 1e6 for one in least]
    slower = ratios([one.rate for one in least], [one.rate for one in own])
    more = own is not least
    return [
        Figure(costs),
        Figure(ratios(costs, base), ".2f", _COST) if more else None,
        Figure([one.rate for one in own]),
        Figure(slower, ".2f", _COST) if more else None,
        Figure([one.cpu_a_row for one in own]),
        Figure(ratios(*([one.cpu_a_row for one in each] for each in (own, least))), ".2f") if more else None,
        Figure([one.peak for one in own], ",.0f", _MEMORY),
    ]
