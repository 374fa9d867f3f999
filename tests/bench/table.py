"""What the runs come to: a Markdown table, and the same for machines."""

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.measure import Run
from tests.bench.scenarios import Scenario

_HEAD = (
    "scenario",
    "client",
    "elapsed ÷ ideal",
    "throttled",
    "lost",
    "doubled",
    "shares",
    "target",
    "reached",
)
_PACKAGES = ("aioboto3", "boto3", "botocore")

LEGEND = """\
Elapsed: from the first call that the endpoint received to the last success that it answered, so
that no start-up counts; in brackets where rows were lost, for then the work was not done. Of
several runs: least · median · greatest for the time, the worst for the rest."""


@dataclass(frozen=True, slots=True)
class Line:
    """All runs of a client through a scenario."""

    scenario: Scenario
    client: str
    runs: Sequence[Run]

    @property
    def reached(self) -> int | None:
        """How many of the runs met the target; None where there is none."""
        target = self.scenario.target
        return None if target is None else sum(run.reaches(target) for run in self.runs)


def machine() -> dict[str, Any]:
    """Name what was measured on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def machine_line() -> str:
    """The same in words."""
    on = machine()
    packages = ", ".join(f"{package} {on[package]}" for package in _PACKAGES)
    return f"{on['cores']} cores of {on['cpu']}; Python {on['python']}, {packages}."


def spread(values: Sequence[float], form: str) -> str:
    """Write the least, the median and the greatest; of one value, itself."""
    shown = [min(values), median(values), max(values)] if len(values) > 1 else values
    return " · ".join(format(value, form) for value in shown)


def as_markdown(lines: Iterable[Line]) -> str:
    """Write the table, the machine above and what went wrong below it."""
    lines = list(lines)
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_cells, lines)]
    notes = [
        f"- {line.scenario.name}, {line.client}: {trouble}"
        for line in lines
        for trouble in sorted({trouble for run in line.runs for trouble in run.trouble})
    ]
    return "\n".join(
        [
            machine_line(),
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            LEGEND,
            *notes,
        ]
    )


def as_json(lines: Iterable[Line]) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "machine": machine(),
        "lines": [
            {
                "scenario": line.scenario.name,
                "client": line.client,
                "target": str(line.scenario.target or ""),
                "reached": line.reached,
                "runs": [{**asdict(run), "ratio": run.ratio} for run in line.runs],
            }
            for line in lines
        ],
    }


def _cells(line: Line) -> tuple[str, ...]:
    runs, target = line.runs, line.scenario.target
    lost, doubled = max(run.lost for run in runs), max(run.duplicates for run in runs)
    uneven = min((run.shares for run in runs), key=lambda shares: min(shares, default=0.0))
    return (
        line.scenario.name,
        line.client,
        _ratios([run.ratio for run in runs], whole=not lost),
        f"{max(run.throttled_share for run in runs):.1%}",
        f"{lost}" if not lost else f"{lost} of {line.scenario.total}",
        f"{doubled}",
        " : ".join(f"{share:.0%}" for share in uneven) or "–",
        str(target or "–"),
        "–" if target is None else f"{line.reached} of {len(runs)}",
    )


def _ratios(ratios: Sequence[float], *, whole: bool) -> str:
    text = spread(ratios, ".3f")
    return text if whole else f"({text})"


def _cpu() -> str:
    """The processor's model, where the system tells."""
    try:
        cpus = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in cpus.splitlines() if line.startswith("model name"))
    return next(models, platform.machine())
