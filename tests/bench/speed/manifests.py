"""Validating a manifest, against the least that reading its YAML takes."""

from collections.abc import Sequence
from pathlib import Path

from tests.bench.figures import Bound, Figure, Line, Table, interleaved, ratios
from tests.bench.speed import material
from tests.bench.speed.children import folder
from tests.bench.speed.passes import measure

_HEAD = ("rows", "validated rows/s", "bare YAML events rows/s", "time ÷ bare", "peak MB", "bare peak MB")

_RATIO = Bound(3.5)
#: Rows from which on the ratio is to be reached.
_MANY = 1_000_000


def table(sizes: Sequence[int], repeat: int) -> Table:
    """Validate manifests of so many rows."""
    with folder() as place:
        lines = [_line(rows, repeat, material.manifest(place / f"{rows}.yaml", rows)) for rows in sizes]
    return Table("manifest", "Validating a manifest", _HEAD, lines)


def _line(rows: int, repeat: int, path: Path) -> Line:
    taken = interleaved(
        f"manifest of {rows:,} rows", ("load", "events"), repeat, lambda name: measure(name, path)
    )
    load, bare = taken["load"], taken["events"]
    times = ratios([one.seconds for one in load], [one.seconds for one in bare])
    return Line(
        f"{rows:,}",
        [
            Figure([rows / one.seconds for one in load]),
            Figure([rows / one.seconds for one in bare]),
            Figure(times, ".2f", _RATIO if rows >= _MANY else None),
            Figure([one.peak for one in load]),
            Figure([one.peak for one in bare]),
        ],
    )
