"""Going on with a run of which almost everything is done: how long until the first call."""

import os
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import NamedTuple

from tests.bench.figures import Bound, Figure, Line, Table, interleaved
from tests.bench.speed import material
from tests.bench.speed.children import Ended, folder, run
from tests.bench.speed.clients import ours
from tests.bench.speed.stub import Stub, served

_HEAD = ("results in the ledger", "s to the first call", "CPU s in all", "s in all", "peak MB")

_SECONDS, _MEMORY = Bound(60), Bound(300)

#: Rows that are left to do.
LEFT = 1_000


class _Resumed(NamedTuple):
    ended: Ended
    #: Seconds from the start of the process; not a number where there was trouble.
    first_call: float
    trouble: str


def table(sizes: Sequence[int], repeat: int) -> Table:
    """Resume ledgers of so many results."""
    with folder() as place, served(place) as stub:
        lines, notes = [], []
        for rows in sizes:
            taken = _measured(rows, repeat, stub, place)
            lines.append(_line(rows, taken))
            notes += sorted({f"{rows:,} results: {one.trouble}" for one in taken if one.trouble})
    return Table("resume", f"Resume, with {LEFT:,} rows left", _HEAD, lines, notes)


def _measured(rows: int, repeat: int, stub: Stub, place: Path) -> Sequence[_Resumed]:
    manifest = material.manifest(place / "bench.yaml", rows + LEFT)
    # It must be the one that `ours` names.
    ledger = material.ledger(place / "bench.ndjson", rows, left=LEFT, endpoint=stub.url)
    size = ledger.stat().st_size

    def once(_: int) -> _Resumed:
        # What the run before this one has appended.
        os.truncate(ledger, size)
        stub.take()
        ended = run(ours(manifest, stub.url, place), place)
        seen = stub.take()
        trouble = ended.trouble
        if not trouble and seen.creates != LEFT:
            trouble = f"{seen.creates} calls for the {LEFT} rows that were left"
        return _Resumed(ended, nan if trouble else seen.first - ended.begun, trouble)

    return interleaved("resume", [rows], repeat, once)[rows]


def _line(rows: int, taken: Sequence[_Resumed]) -> Line:
    return Line(
        f"{rows:,}",
        [
            Figure([one.first_call for one in taken], ".2f", _SECONDS),
            Figure([one.ended.cpu for one in taken], ".2f"),
            Figure([one.ended.seconds for one in taken], ".2f"),
            Figure([one.ended.peak for one in taken], ",.0f", _MEMORY),
        ],
    )
