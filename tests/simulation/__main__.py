"""Lives many lives: `python -m tests.simulation --seeds 1000 --jobs 2`.

`--seed 17` lives one of them and prints its story. `--breaks` proves that each deliberate break of the code
is caught (see `breaks`).
"""

import argparse
import sys
import time
from multiprocessing import Pool
from typing import NamedTuple

from tests.simulation.breaks import prove
from tests.simulation.life import Violation, live
from tests.simulation.scenario import scenario_of
from tests.simulation.shrink import shrink


class Lived(NamedTuple):
    seed: int
    survived: bool
    crashes: int = 0
    points: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many lives")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="live this life alone, and print its story")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--no-shrink", action="store_true", help="only name the seed that fails")
    parser.add_argument("--breaks", action="store_true", help="prove that deliberate breaks are caught")
    given = parser.parse_args()
    if given.breaks:
        return prove(say)
    if given.seed is not None:
        return _tell(given.seed)
    failed = _live_many(range(given.first, given.first + given.seeds), given.jobs, given.seconds)
    if failed is None:
        return 0
    say(f"seed {failed} fails")
    return 1 if given.no_shrink else _tell_shrunk(failed)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _live_many(seeds: range, jobs: int, most_seconds: float) -> int | None:
    """The first seed found that fails; None: all lives end well."""
    began = time.monotonic()
    lives = crashes = points = 0
    with Pool(jobs) as pool:
        for one in pool.imap_unordered(_live, seeds, chunksize=4):
            if not one.survived:
                return one.seed
            lives, crashes, points = lives + 1, crashes + one.crashes, points + one.points
            seconds = time.monotonic() - began
            if lives % 500 == 0 or lives == len(seeds) or seconds > most_seconds:
                rates = f"{lives / seconds:.1f} lives and {crashes / seconds:.1f} crashes a second"
                say(f"{lives} lives, {crashes} crashes at {points} points where one was possible; {rates}")
            if seconds > most_seconds:
                break
    return None


def _live(seed: int) -> Lived:
    try:
        life = live(scenario_of(seed))
    except Violation:
        return Lived(seed, survived=False)
    return Lived(seed, survived=True, crashes=life.crashes, points=life.all_points)


def _tell(seed: int) -> int:
    try:
        say("\n".join(live(scenario_of(seed)).story))
    except Violation as violation:
        say(str(violation))
        return 1
    return 0


def _tell_shrunk(seed: int) -> int:
    _, story = shrink(scenario_of(seed))
    say(story)
    return 1


if __name__ == "__main__":
    sys.exit(main())
