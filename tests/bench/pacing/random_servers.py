"""Random services, seeded: a score that no constant of the pace can be fitted to by hand.

The ideal of a run is what `oracle.soonest` reaches on the same service: a client that knows when each call
will be admitted. It counts what no client can avoid: the last call's latency and its jitter, calls lost to
strays, windows in which nothing more is admitted, and the calls of other programs that the service admitted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from random import Random
from statistics import fmean

from tests.bench.pacing.controllers import Controller, Steady
from tests.bench.pacing.oracle import Informed, soonest
from tests.bench.pacing.servers import Bucket, Fixed, Sliding, Weighted
from tests.bench.pacing.simulation import WORKERS, Client, Simulation

Window = Sliding | Fixed | Weighted

#: Kinds of services; most services of AWS have token buckets.
KINDS = ("bucket", "bucket", "bucket", "steps", "drift", "sliding", "fixed", "weighted")
#: Rates that AWS often sets; every other limit is one of them.
USUAL_RATES = (0.5, 1, 2, 5, 10, 15, 20, 50, 100)
#: A run that takes this many times its ideal is ended, and counts as this much.
GIVE_UP = 20.0


@dataclass(frozen=True)
class RandomServer:
    """One service, and the run that calls it."""

    seed: int
    kind: str
    #: Calls a second at the beginning.
    rate: float
    burst: int
    #: (Time, rate), for limits that step or drift.
    changes: tuple[tuple[float, float], ...]
    #: Length of a window in seconds.
    seconds: float
    latency: float
    stray: float
    #: The share of the limit that each of the other programs calls at, and when it starts.
    others: tuple[tuple[float, float], ...]
    rows: int

    def server(self) -> Bucket | Window:
        windows: dict[str, type[Window]] = {"sliding": Sliding, "fixed": Fixed, "weighted": Weighted}
        if self.kind in windows:
            return windows[self.kind](max(1, round(self.rate * self.seconds)), self.seconds)
        return Bucket(self.rate, self.burst, self.changes)

    def soonest(self, others: Sequence[float]) -> float:
        """Seconds that the run takes at least if these calls of others are admitted."""
        return soonest(self.server(), self.rows, self.latency, self.stray, others, self.seed)

    def __str__(self) -> str:
        return (
            f"{self.seed}: {self.kind} {self.rate:.3g}/s burst {self.burst} window {self.seconds:g} s, "
            f"{self.latency * 1000:.0f} ms, strays {self.stray:.1%}, {len(self.others)} others, "
            f"{self.rows} rows"
        )


@dataclass(frozen=True)
class Score:
    """Elapsed over ideal (mean, and mean of the worst 5 %) and the mean share of throttled calls."""

    mean: float
    worst: float
    throttled: float


def draw(seed: int) -> RandomServer:
    """The random service of a seed."""
    rng = Random(seed)
    kind = rng.choice(KINDS)
    rate = rng.choice(USUAL_RATES) if rng.random() < 0.5 else _log_uniform(rng, 0.3, 200)
    burst = round(_log_uniform(rng, 1, 100))
    latency = _log_uniform(rng, 0.01, 2.0)
    lasts = max(_log_uniform(rng, 20, 120), 60 / rate)
    seconds = rng.choice([span for span in (1.0, 2.0, 10.0) if rate * span <= 200] or [1.0])
    seconds = max(seconds, 1 / rate)
    changes: tuple[tuple[float, float], ...] = ()
    if kind == "steps":
        first = rng.uniform(0.15, 0.5) * lasts
        factor = rng.choice([0.5, 0.7, 1.5, 2.0])
        changes = ((first, rate * factor), (first + rng.uniform(0.2, 0.4) * lasts, rate))
    elif kind == "drift":
        end = rng.uniform(0.6, 1.6)
        changes = tuple((lasts * part / 40, rate * (1 + (end - 1) * part / 40)) for part in range(1, 41))
    others = tuple(
        (rng.uniform(0.05, 0.25), rng.uniform(0, 0.5) * lasts) for _ in range(rng.choice((0, 0, 0, 1, 2)))
    )
    stray = rng.choice((0.0, rng.uniform(0, 0.02)))
    sends = min(rate, WORKERS / latency)
    rows = round(burst + sends * lasts)
    return RandomServer(seed, kind, rate, burst, changes, seconds, latency, stray, others, rows)


def _log_uniform(rng: Random, low: float, high: float) -> float:
    return low * float((high / low) ** rng.random())


def play_random(drawn: RandomServer, make: Callable[[], Controller] | None = None) -> tuple[float, float]:
    """Elapsed over ideal, and the share of throttled calls, of one run; `Informed` if no `make`."""
    ours = Client(make() if make else Informed(drawn.server(), drawn.latency), drawn.rows)
    others = [
        Client(Steady(share * drawn.rate), inf, starts, retries=False) for share, starts in drawn.others
    ]
    run = Simulation(drawn.server(), [ours, *others], drawn.latency, stray=drawn.stray, seed=drawn.seed)
    run.limit = GIVE_UP * _soonest_alone(drawn)
    run.run()
    throttled = ours.throttled / max(1, len(ours.done) + ours.throttled)
    if len(ours.done) < drawn.rows:
        return GIVE_UP, throttled
    taken = sorted(at - drawn.latency / 2 for other in others for at in other.done)
    return ours.done[-1] / (drawn.soonest(taken) if taken else _soonest_alone(drawn)), throttled


@cache
def _soonest_alone(drawn: RandomServer) -> float:
    return drawn.soonest(())


def score(results: Sequence[tuple[float, float]]) -> Score:
    """What counts of many runs."""
    elapsed = sorted(each for each, _ in results)
    worst = elapsed[-max(1, len(elapsed) // 20) :]
    return Score(fmean(elapsed), fmean(worst), fmean(throttled for _, throttled in results))
