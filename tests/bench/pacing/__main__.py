"""Print how each pace does: elapsed over ideal, and throttled; the median and the worst.

With `--random N`, the score over that many random services, from `--seed`; `--worst` lists the slowest.
`informed` is a client that knows each service's limit: a pace that must measure it cannot score better.
"""

import argparse
import sys
from statistics import median

from tests.bench.pacing.controllers import CONTROLLERS, Ours
from tests.bench.pacing.random_servers import draw, play_random, score
from tests.bench.pacing.scenarios import DECLARED, SCENARIOS, play

SEEDS = range(7)
#: A client that knows the limit, to show what no pace can do better.
INFORMED = "informed"


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


def random_services(number: int, seed: int, wanted: list[str], worst: int) -> None:
    services = [draw(seed * 1_000_000 + each) for each in range(number)]
    for name in wanted or [*CONTROLLERS, INFORMED]:
        make = None if name == INFORMED else CONTROLLERS[name]
        results = [(*play_random(service, make), service) for service in services]
        found = score([result[:2] for result in results])
        sys.stdout.write(
            f"{name}: elapsed {found.mean:.3f} x ideal, worst 5 % {found.worst:.3f}, "
            f"throttled {found.throttled:.2%}\n"
        )
        slowest = sorted(results, key=lambda result: -result[0])[:worst]
        sys.stdout.writelines(f"  {each[0]:.2f} {each[1]:.1%} {each[2]}\n" for each in slowest)


parser = argparse.ArgumentParser()
parser.add_argument("words", nargs="*", help="parts of names of scenarios; with --random, controllers")
parser.add_argument("--random", type=int, metavar="N")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--worst", type=int, default=0)
given = parser.parse_args()
if given.random:
    random_services(given.random, given.seed, given.words, given.worst)
else:
    main(*given.words)
