"""Rows a second by the workers of a Dask cluster on this machine, against the program alone.

Against an endpoint that takes its time a worker is bound by its calls in flight, as at the service, and
not by the cores, which workers, coordinator, scheduler and endpoint share here. Rows a second are those of
the run itself (`elapsed_s` of its summary); what the rest of the process takes, the start and end of the
cluster above all, is shown with it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import nan
from typing import NamedTuple

import click

from tests.bench import stub
from tests.bench.clients import ours
from tests.bench.figures import Bound, Figure, Line, Table, interleaved, ratios
from tests.bench.processes import folder
from tests.bench.speed import sent, troubles
from tests.support.processes import Json, pairs, write_manifest, write_profiles

#: Calls in flight of one process, the local engine or a worker.
CONCURRENCY = 8

#: Of two workers' rows a second over one's, and of one worker's time over the local engine's: to be
#: reached where the endpoint takes its time.
_EFFICIENCY, _OVERHEAD = Bound(1.6, at_least=True), Bound(1.25)

#: What is measured, by the number of workers.
KINDS = ("local", "Dask, 1 worker", "Dask, 2 workers")


class Run(NamedTuple):
    """One run through its rows; times are not a number where there was trouble."""

    rows: int
    #: Seconds: of the run itself, and of the whole process.
    elapsed: float
    whole: float
    #: Seconds of processors, all processes of the cluster together.
    cpu: float
    #: What was wrong with it; empty where nothing was.
    trouble: str


def table(rows: int, repeat: int, accounts: Sequence[int], latency: float) -> Table:
    """Measure one worker, two, and the local engine, with so many accounts each."""
    lines: dict[str, Line] = {}
    notes: list[str] = []
    with folder() as place, stub.serve(place, latency) as url:
        for number in accounts:
            measured = {
                kind: partial(measure, number, workers, rows, url) for workers, kind in enumerate(KINDS)
            }
            runs = interleaved(f"cluster, {number} accounts", measured, repeat)
            lines |= {f"{number}, {kind}": figures(kind, runs, bounded=latency > 0) for kind in KINDS}
            notes += troubles({f"{number} accounts, {kind}": runs[kind] for kind in KINDS})
    limit = f"{latency * 1000:g} ms" if latency else "no latency: the cores are the limit"
    title = f"A cluster of this machine, {rows:,} rows, {CONCURRENCY} calls in flight a process; {limit}"
    return Table("cluster", title, "accounts, engine", lines, notes)


def measure(accounts: int, workers: int, rows: int, url: str) -> Run:
    """Send so many rows, as evenly as can be of all accounts."""
    names = [f"a{number}" for number in range(accounts)]
    made = [{**row, "account": names[number % accounts]} for number, row in enumerate(pairs(rows))]
    settings: dict[str, Json] = {name: {"profile": name} for name in names}
    with folder() as place:
        manifest = write_manifest(place / "bench.yaml", made, name="bench", accounts=settings)
        # Keys of its own for each account: what signs with one key shares one pace.
        keys = {name: f"AKIAEXAMPLE{number:09d}" for number, name in enumerate(names)}
        profiles = write_profiles(place / "credentials", **keys)
        flags = ["--engine", "dask", "--workers", workers] if workers else []
        words = ours(manifest, url, place, "--concurrency", CONCURRENCY, *flags)
        one = sent(words, rows, url, place, AWS_SHARED_CREDENTIALS_FILE=profiles)
    elapsed = nan if one.trouble else one.ended.json["elapsed_s"]
    click.echo(f"  {one.trouble or f'{elapsed:.1f} of {one.ended.seconds:.1f} s'}", err=True)
    return Run(rows, elapsed, nan if one.trouble else one.ended.seconds, one.ended.cpu, one.trouble)


def figures(kind: str, runs: Mapping[str, Sequence[Run]], *, bounded: bool) -> Line:
    """What the runs of a kind come to, against those of the others."""
    local, single, double = KINDS
    own, times = runs[kind], {name: [run.elapsed for run in runs[name]] for name in runs}
    gained = ratios(times[single], times[kind]) if kind == double else []
    spent = ratios(times[kind], times[local]) if kind == single else []
    return {
        "rows/s": Figure([run.rows / run.elapsed for run in own]),
        "÷ one worker": Figure(gained, ".2f", _EFFICIENCY if bounded else None) if gained else None,
        "elapsed ÷ local": Figure(spent, ".2f", _OVERHEAD if bounded else None) if spent else None,
        "run s": Figure([run.elapsed for run in own], ".1f"),
        "start and end s": Figure([run.whole - run.elapsed for run in own], ".1f"),
        "CPU µs a row": Figure([run.cpu / run.rows * 1e6 for run in own]),
    }
