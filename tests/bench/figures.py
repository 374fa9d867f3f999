"""What was measured: figures, each from several repeats, in tables for people and for machines.

Things are compared within one repeat: their k-th values were taken one after the other, so that
whatever else the machine did then was done to both.
"""

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import inf, isfinite
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

import click

Taken = TypeVar("Taken")

LEGEND = """\
Figures of several repeats are least · median · greatest. Ratios are taken within a repeat, whose
runs follow one another, in the opposite order every other time. A target is met by the median; in
brackets, how many of the repeats met it. CPU and peak memory are those of whole processes, start-up
included; a peak is never shown below that of the process that measures, some 50 MB."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure is to reach, or not to pass."""

    limit: float
    at_least: bool = False

    def met_by(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured, in each repeat."""

    values: Sequence[float]
    form: str = ",.0f"
    bound: Bound | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the median is within the bound; None where there is none.

        A repeat that came to nothing (not a number) is never made good by the others.
        """
        if self.bound is None:
            return None
        return all(map(isfinite, self.values)) and self.bound.met_by(median(self.values))

    def __str__(self) -> str:
        several = len(self.values) > 1
        shown = [min(self.values), median(self.values), max(self.values)] if several else self.values
        text = " · ".join(format(value, self.form) for value in shown)
        if self.bound is None:
            return text
        verdict = "met" if self.reached else "**missed**"
        times = sum(map(self.bound.met_by, self.values))
        return f"{text}; {self.bound}: {verdict} ({times} of {len(self.values)})"


#: By column; None where a column says nothing of the line.
Line = Mapping[str, Figure | None]


class Table(NamedTuple):
    """One bench."""

    name: str
    title: str
    #: The first column's head.
    what: str
    lines: Mapping[str, Line]
    #: What else there is to say, and what went wrong.
    notes: Sequence[str] = ()


def interleaved(
    title: str, measured: Mapping[str, Callable[[], Taken]], repeat: int
) -> dict[str, list[Taken]]:
    """Measure each once a repeat; says on standard error which is at it."""
    taken: dict[str, list[Taken]] = {name: [] for name in measured}
    for number in range(repeat):
        for name in reversed(taken) if number % 2 else taken:
            click.echo(f"{title}, {name}, {number + 1} of {repeat}", err=True)
            taken[name].append(measured[name]())
    return taken


def ratios(over: Iterable[float], under: Iterable[float]) -> list[float]:
    """Divide repeat by repeat; by nothing, it is infinite."""
    return [one / other if other else inf for one, other in zip(over, under, strict=True)]


def machine() -> dict[str, Any]:
    """Name what was measured on."""
    packages = {package: version(package) for package in ("aioboto3", "boto3", "botocore")}
    return {"cpu": _cpu(), "cores": os.cpu_count(), "Python": platform.python_version(), **packages}


def _cpu() -> str:
    """The processor's model, where the system tells."""
    try:
        cpus = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in cpus.splitlines() if line.startswith("model name"))
    return next(models, platform.machine())


def as_markdown(tables: Iterable[Table], load: float) -> str:
    """Write the tables below the machine's name; `load` is the run queue's length before."""
    on = ", ".join(f"{name} {value}" for name, value in machine().items())
    return "\n\n".join([f"{on}. Load before: {load:.1f}.", *map(_as_markdown, tables), LEGEND])


def _as_markdown(table: Table) -> str:
    head = [table.what, *next(iter(table.lines.values()), {})]
    cells = [[name, *(str(one or "–") for one in line.values())] for name, line in table.lines.items()]
    rows = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells)]
    notes = ["", *(f"- {note}" for note in table.notes)] if table.notes else []
    return "\n".join([f"### {table.title}", "", *rows, *notes])


def as_json(tables: Iterable[Table], load: float) -> dict[str, Any]:
    """Everything that was measured."""
    return {"machine": machine(), "load": load, "tables": [*map(_as_json, tables)]}


def _as_json(table: Table) -> dict[str, Any]:
    lines = [
        {
            "what": name,
            "figures": {
                column: {**asdict(figure), "reached": figure.reached}
                for column, figure in line.items()
                if figure is not None
            },
        }
        for name, line in table.lines.items()
    ]
    return {"name": table.name, "title": table.title, "notes": [*table.notes], "lines": lines}
