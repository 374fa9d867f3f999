"""How long the commands take that call nothing: from the start of a process to its end."""

import sys

from tests.bench.figures import Bound, Figure, Line, Table, interleaved
from tests.bench.speed import material
from tests.bench.speed.children import Ended, folder, python, run

_HEAD = ("command", "s", "CPU s", "peak MB")

_SECONDS = Bound(0.25)
_BARE = "the interpreter alone"

_ROWS = 10


def table(repeat: int) -> Table:
    """Start each command so many times."""
    with folder() as place:
        manifest = material.manifest(place / "bench.yaml", _ROWS)
        ledger = material.ledger(place / "bench.ndjson", _ROWS)
        commands = {
            "--help": python("batch_snapshot", "--help"),
            f"validate ({_ROWS} rows)": python("batch_snapshot", "validate", manifest),
            f"status ({_ROWS} results)": python("batch_snapshot", "status", ledger),
            _BARE: [sys.executable, "-c", ""],
        }
        # The first start of all writes what Python compiles, which no later one does.
        run(commands["--help"], place)
        taken = interleaved("startup", commands, repeat, lambda what: run(commands[what], place))
    lines = [_line(what, runs) for what, runs in taken.items()]
    notes = sorted({f"{what}: {one.trouble}" for what, runs in taken.items() for one in runs if one.trouble})
    return Table("startup", "Start-up", _HEAD, lines, notes)


def _line(what: str, runs: list[Ended]) -> Line:
    return Line(
        what,
        [
            Figure([one.seconds for one in runs], ".3f", None if what == _BARE else _SECONDS),
            Figure([one.cpu for one in runs], ".3f"),
            Figure([one.peak for one in runs]),
        ],
    )
