"""Rows a second by the workers of a Dask cluster on this machine, against the program alone.

Against an endpoint that takes its time a worker is bound by its calls in flight, as at the service, and
not by the cores, which workers, coordinator, scheduler and endpoint share here. Rows a second are those of
the run itself (`elapsed_s` of its summary); what the rest of the process takes, the start and end of the
cluster above all, is shown with it.
"""

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import NamedTuple

import click

from tests.bench.figures import Bound, Figure, Line, Table, interleaved, ratios
from tests.bench.speed.children import Ended, folder, python, run
from tests.bench.speed.stub import Record, Stub, served
from tests.support.processes import Json, pairs, write_manifest

_HEAD = (
    "accounts, engine",
    "rows/s",
    "÷ one worker",
    "elapsed ÷ local",
    "run s",
    "start and end s",
    "CPU µs a row",
)

#: Calls in flight of one process, the local engine or a worker.
CONCURRENCY = 8

#: Of two workers' rows a second over one's, and of one worker's time over the local engine's: to be
#: reached where the endpoint takes its time.
_EFFICIENCY, _OVERHEAD = Bound(1.6, at_least=True), Bound(1.25)


class Kind(NamedTuple):
    """What is measured."""

    accounts: int
    #: Of the cluster; 0: the local engine.
    workers: int

    def __str__(self) -> str:
        if not self.workers:
            return "local"
        return f"Dask, {self.workers} worker{'s' if self.workers > 1 else ''}"


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

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.elapsed


Runs = Mapping[Kind, Sequence[Run]]


def table(rows: int, repeat: int, accounts: Sequence[int], latency: float) -> Table:
    """Measure one worker, two, and the local engine, with so many accounts each."""
    runs: dict[Kind, list[Run]] = {}
    with folder() as place, served(place, latency) as stub:
        for number in accounts:
            kinds = [Kind(number, workers) for workers in (0, 1, 2)]
            name = f"cluster, {number} accounts"
            runs |= interleaved(name, kinds, repeat, lambda kind: measure(kind, rows, stub))
    title = (
        f"{latency * 1000:g} ms"
        if latency
        else "no latency: the cores are the limit, not the calls in flight"
    )
    return Table(
        "cluster",
        f"A cluster of this machine, {rows:,} rows, {CONCURRENCY} calls in flight a process; {title}",
        _HEAD,
        [Line(f"{kind.accounts}, {kind}", _figures(kind, runs, bounded=latency > 0)) for kind in runs],
        [f"{kind.accounts} accounts, {kind}: {one}" for kind in runs for one in _troubles(runs[kind])],
    )


def measure(kind: Kind, rows: int, stub: Stub) -> Run:
    """Send so many rows, as evenly as can be of all accounts."""
    with folder() as place:
        stub.take()
        ended = run(_words(kind, rows, stub.url, place), place, AWS_CONFIG_FILE=str(_profiles(kind, place)))
        trouble = _trouble(ended, rows, stub.take())
    elapsed = nan if trouble else ended.json["elapsed_s"]
    click.echo(f"  {trouble or f'{elapsed:.1f} of {ended.seconds:.1f} s'}", err=True)
    return Run(rows, elapsed, nan if trouble else ended.seconds, ended.cpu, trouble)


def _words(kind: Kind, rows: int, url: str, place: Path) -> list[str]:
    accounts: dict[str, Json] = {f"a{number}": {"profile": f"a{number}"} for number in range(kind.accounts)}
    made = [{**row, "account": f"a{number % kind.accounts}"} for number, row in enumerate(pairs(rows))]
    manifest = write_manifest(place / "bench.yaml", made, name="bench", accounts=accounts)
    words = ["--endpoint-url", url, "--state-dir", place / "state", "--ledger", place / "bench.ndjson"]
    words += ["--progress", "none", "--format", "json", "--concurrency", CONCURRENCY]
    words += ["--engine", "dask", "--workers", kind.workers] if kind.workers else []
    return python("batch_snapshot", "run", manifest, *words)


def _profiles(kind: Kind, place: Path) -> Path:
    """Keys of its own for each account: what signs with one key shares one pace."""
    path = place / "aws-config"
    profile = "[profile a{0}]\naws_access_key_id = AKIAEXAMPLE{0:09d}\naws_secret_access_key = made-up\n"
    path.write_text("".join(profile.format(number) for number in range(kind.accounts)), "utf-8")
    return path


def _trouble(ended: Ended, rows: int, seen: Record) -> str:
    if ended.trouble or rows == seen.creates == seen.tokens:
        return ended.trouble
    return f"{rows} rows, {seen.creates} calls, {seen.tokens} tokens"


def _troubles(runs: Sequence[Run]) -> list[str]:
    return sorted({one.trouble for one in runs} - {""})


def _figures(kind: Kind, runs: Runs, *, bounded: bool) -> list[Figure | None]:
    own, local, one = runs[kind], runs[kind._replace(workers=0)], runs[kind._replace(workers=1)]
    gained = ratios([run.rate for run in own], [run.rate for run in one]) if kind.workers > 1 else []
    spent = ratios([run.elapsed for run in own], [run.elapsed for run in local]) if kind.workers == 1 else []
    return [
        Figure([run.rate for run in own]),
        Figure(gained, ".2f", _EFFICIENCY if bounded else None) if gained else None,
        Figure(spent, ".2f", _OVERHEAD if bounded else None) if spent else None,
        Figure([run.elapsed for run in own], ".1f"),
        Figure([run.whole - run.elapsed for run in own], ".1f"),
        Figure([run.cpu / run.rows * 1e6 for run in own]),
    ]
