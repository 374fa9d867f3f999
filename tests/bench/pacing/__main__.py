"""Print how each pace does in each scenario: elapsed over ideal, and throttled; the median and the worst."""

from __future__ import annotations

import sys
from statistics import median

from tests.bench.pacing.controllers import CONTROLLERS, Ours
from tests.bench.pacing.scenarios import DECLARED, SCENARIOS, play

SEEDS = range(7)


def main(*wanted: str) -> None:
    sys.stdout.write(
        "| scenario | " + " | ".join(CONTROLLERS) + " |\n|---|" + "---|" * len(CONTROLLERS) + "\n"
    )
    for name, scenario in {**SCENARIOS, **DECLARED}.items():
        if wanted and not any(word in name for word in wanted):
            continue
        cells = []
        for make in CONTROLLERS.values():
            if scenario.declared is not None and make is not Ours:
                cells.append("–")
                continue
            try:
                results = [play(scenario, make, seed) for seed in SEEDS]
            except AssertionError:
                cells.append("never ends")
                continue
            elapsed = [result.elapsed for result in results]
            throttled = [result.throttled for result in results]
            cells.append(f"{median(elapsed):.2f} ({max(elapsed):.2f}), {median(throttled):.1%}")
        sys.stdout.write(f"| {name} | " + " | ".join(cells) + " |\n")


main(*sys.argv[1:])
