"""Calls a second of whole processes, against an endpoint that is no limit.

Calls a second are counted from the first call that the endpoint received to the last. The processor time of a
row is the difference between a run of many rows and one of few. So start-up counts for neither, and is shown
apart. On a machine that does other work too, ratios of processor time say more than those of calls a second.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import NamedTuple

from tests.bench.figures import Bound, Figure, Line, Table, interleaved, ratios
from tests.bench.speed.children import PATIENCE, folder, run
from tests.bench.speed.clients import AWS, CLIENTS, OURS, aws_executable, command
from tests.bench.speed.stub import Stub, served

_HEAD = (
    "client",
    "rows",
    "calls/s",
    "ours ÷ it",
    "CPU µs a row",
    "CPU, it ÷ ours",
    "start-up CPU s",
    "whole process s",
    "peak MB",
)

#: Of our calls a second over theirs, and of their processor time a row over ours.
_TARGETS = {"boto3": Bound(2.0, at_least=True), "aioboto3": Bound(1.1, at_least=True)}

#: A run of few rows has one for so many of the other's.
_MANY = 20

#: The AWS CLI starts an interpreter a row: more of them would show nothing else.
_AWS_ROWS = 20


class Run(NamedTuple):
    """One client's run through its rows."""

    rows: int
    #: Calls a second; not a number where there was trouble.
    rate: float
    seconds: float
    cpu: float
    #: MB.
    peak: float
    #: What was wrong with it; empty where nothing was.
    trouble: str

    @property
    def cpu_a_row(self) -> float:
        """In microseconds."""
        return self.cpu / self.rows * 1e6


class Pair(NamedTuple):
    """A run of few rows, and one of many that followed it."""

    few: Run
    many: Run

    @property
    def cpu_a_row(self) -> float:
        """In microseconds, without start-up."""
        return (self.many.cpu - self.few.cpu) / max(1, self.many.rows - self.few.rows) * 1e6

    @property
    def startup(self) -> float:
        """Seconds of processor time."""
        return max(0.0, self.few.cpu - self.few.rows * self.cpu_a_row / 1e6)


def measure(name: str, rows: int, stub: Stub, *, patience: float = PATIENCE) -> Run:
    """Send so many rows to the endpoint."""
    with folder() as place:
        how = command(name, stub.url, rows, place)
        stub.take()
        ended = run(how.words, place, stdin=how.stdin, patience=patience)
    seen = stub.take()
    trouble = ended.trouble
    if not trouble and not rows == seen.creates == seen.tokens:
        trouble = f"{rows} rows, {seen.creates} calls, {seen.tokens} tokens"
    return Run(rows, nan if trouble else seen.rate, ended.seconds, ended.cpu, ended.peak, trouble)


def _pair(name: str, rows: int, stub: Stub) -> Pair:
    return Pair(measure(name, max(1, rows // _MANY), stub), measure(name, rows, stub))


def table(rows: int, repeat: int, clients: Iterable[str] = CLIENTS) -> Table:
    """Measure all clients in turn."""
    present = [name for name in clients if name != AWS or aws_executable()]
    sizes = {name: min(rows, _AWS_ROWS) if name == AWS else rows for name in present}
    with folder() as place, served(place) as stub:
        runs = interleaved("throughput", present, repeat, lambda name: _pair(name, sizes[name], stub))
    absent = [f"{CLIENTS[name]}: not installed" for name in clients if name not in present]
    troubles = [f"{CLIENTS[name]}: {one}" for name in present for one in _troubles(runs[name])]
    return Table(
        "throughput",
        f"Throughput, {rows:,} rows",
        _HEAD,
        [Line(CLIENTS[name], _figures(name, runs)) for name in present],
        [*absent, *troubles],
    )


def _troubles(pairs: Sequence[Pair]) -> list[str]:
    return sorted({run.trouble for pair in pairs for run in pair} - {""})


def _figures(name: str, runs: Mapping[str, Sequence[Pair]]) -> list[Figure | None]:
    own, ours = runs[name], runs.get(OURS, ())
    many = [pair.many for pair in own]
    compared = bool(ours) and name != OURS
    rates = ratios([pair.many.rate for pair in ours], [one.rate for one in many]) if compared else []
    spent = ratios([one.cpu_a_row for one in own], [one.cpu_a_row for one in ours]) if compared else []
    return [
        Figure([many[0].rows]),
        Figure([one.rate for one in many], ",.0f"),
        Figure(rates, ".2f", _TARGETS.get(name)) if compared else None,
        Figure([pair.cpu_a_row for pair in own]),
        Figure(spent, ".2f", _TARGETS.get(name)) if compared else None,
        Figure([pair.startup for pair in own], ".2f"),
        Figure([one.seconds for one in many], ".2f"),
        Figure([one.peak for one in many]),
    ]
