"""What one process carries: the same rows, spread over few accounts and over many."""

from collections.abc import Sequence
from math import nan

from tests.bench.figures import Bound, Figure, Line, Table, interleaved
from tests.bench.speed import material
from tests.bench.speed.children import folder, run
from tests.bench.speed.clients import ours
from tests.bench.speed.stub import Stub, served
from tests.bench.speed.throughput import Run

_HEAD = ("accounts", "rows", "calls/s", "CPU µs a row", "whole process s", "peak MB")

_MEMORY = Bound(300)


def table(rows: int, sizes: Sequence[int], repeat: int) -> Table:
    """Run this program over so many rows in all, in so many accounts."""
    with folder() as place, served(place) as stub:
        runs = interleaved("accounts", sizes, repeat, lambda accounts: measure(rows, accounts, stub))
    troubles = {f"{size:,} accounts: {one.trouble}" for size in sizes for one in runs[size] if one.trouble}
    lines = [Line(f"{size:,}", _figures(runs[size])) for size in sizes]
    return Table("accounts", f"Accounts of one run, {rows:,} rows", _HEAD, lines, sorted(troubles))


def measure(rows: int, accounts: int, stub: Stub) -> Run:
    """Send so many rows to the endpoint, an account's after another's as a manifest would list them."""
    with folder() as place:
        manifest = material.spread(place / "bench.yaml", rows, accounts)
        stub.take()
        ended = run(ours(manifest, stub.url, place), place)
    seen = stub.take()
    trouble = ended.trouble
    if not trouble and not rows == seen.creates == seen.tokens:
        trouble = f"{rows} rows, {seen.creates} calls, {seen.tokens} tokens"
    return Run(rows, nan if trouble else seen.rate, ended.seconds, ended.cpu, ended.peak, trouble)


def _figures(own: Sequence[Run]) -> list[Figure | None]:
    return [
        Figure([own[0].rows]),
        Figure([one.rate for one in own]),
        Figure([one.cpu_a_row for one in own]),
        Figure([one.seconds for one in own], ".1f"),
        Figure([one.peak for one in own], ",.0f", _MEMORY),
    ]
