"""Appending to a ledger, and reading its history, against the least that parsing its lines takes."""

from collections.abc import Sequence
from pathlib import Path

from tests.bench.figures import Figure, Line, Table, interleaved, ratios
from tests.bench.speed import material
from tests.bench.speed.children import folder
from tests.bench.speed.passes import Pass, measure

_HEAD = ("what", "results", "results/s", "MB/s", "time ÷ bare", "peak MB")


def table(sizes: Sequence[int], repeat: int) -> Table:
    """Write and read ledgers of so many results."""
    with folder() as place:
        lines = [line for rows in sizes for line in _lines(rows, repeat, place)]
    return Table("ledger", "The ledger: appending, and reading its history", _HEAD, lines)


def _lines(rows: int, repeat: int, place: Path) -> list[Line]:
    path = material.ledger(place / f"{rows}.ndjson", rows)
    written = place / "appended.ndjson"

    def one(name: str) -> Pass:
        if name != "append":
            return measure(name, path)
        written.unlink(missing_ok=True)
        return measure(name, written, rows)

    names = ("append", "history", "parse")
    taken = interleaved(f"ledger of {rows:,} results", names, repeat, one)
    size = path.stat().st_size
    times = ratios(*([one.seconds for one in taken[name]] for name in ("history", "parse")))
    return [
        _line("append, with an fsync a second", rows, written.stat().st_size, taken["append"]),
        _line("history", rows, size, taken["history"], Figure(times, ".2f")),
        _line("bare orjson.loads", rows, size, taken["parse"]),
    ]


def _line(what: str, rows: int, size: int, taken: Sequence[Pass], against: Figure | None = None) -> Line:
    return Line(
        what,
        [
            Figure([rows]),
            Figure([rows / one.seconds for one in taken]),
            Figure([size / 1e6 / one.seconds for one in taken]),
            against,
            Figure([one.peak for one in taken]),
        ],
    )
