"""The scenarios: what the endpoint allows, what is asked of it, and what would be good."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import NamedTuple

from tests.bench.figures import Bound


class Target(NamedTuple):
    """What is to be reached; no row may be lost or doubled in any case."""

    #: Elapsed time over the ideal, and seconds beyond it.
    ratio: Bound | None = None
    seconds: Bound | None = None
    #: Share of the calls that may be throttled.
    throttled: Bound | None = None
    #: The smallest share of any process while all were active.
    share: Bound | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """An endpoint with one kind of limit, and the rows to get through it.

    Throttles carry no hint of how long to wait, as the service's documentation promises none.
    """

    name: str
    #: Of each process.
    rows: int
    #: Seconds added to each answer.
    latency: float
    #: Calls a second: a token bucket that begins full.
    limit: float | None = None
    burst: int = 1
    #: How that limit changes: (calls a second, seconds after the first call).
    then: tuple[tuple[float, float], ...] = ()
    #: A rolling window: (calls, seconds).
    window: tuple[int, int] | None = None
    #: What the manifest says about the limit; other clients have no word for it and sit out.
    quota: Mapping[str, float] = field(default_factory=dict)
    #: More flags of `batch-snapshot run`.
    flags: tuple[str, ...] = ()
    processes: int = 1
    target: Target | None = None

    @property
    def total(self) -> int:
        """The rows of all processes."""
        return self.rows * self.processes

    @property
    def ideal(self) -> float:
        """Seconds from the first call to the last at the soonest.

        Who declared a rate keeps to it, and so has no use for the bucket's burst.
        """
        if self.window is not None:
            calls, seconds = self.window
            return (self.total - 1) // calls * float(seconds)
        if self.limit is None:
            raise ValueError(f"{self.name}: without a limit there is no ideal")
        left = float(self.total if self.quota else self.total - self.burst)
        for (rate, begin), (_, end) in pairwise([(self.limit, 0.0), *self.then, (0.0, inf)]):
            if left <= (end - begin) * rate:
                return begin + left / rate
            left -= (end - begin) * rate
        raise AssertionError("the last rate holds for ever")

    @property
    def server(self) -> list[str]:
        """The flags of `batch-snapshot simulate`."""
        flags = ["--no-retry-hint", "--latency", f"{self.latency}s"]
        if self.limit is not None:
            flags += ["--rate", f"{self.limit}", "--burst", f"{self.burst}"]
        if self.window is not None:
            flags += ["--window", f"{self.window[0]}/{self.window[1]}s"]
        return [*flags, *(word for rate, at in self.then for word in ("--then", f"{rate}@{at}s"))]


#: The short ones, for `--quick`, have an ideal below this many seconds.
QUICK = 41.0

_DECLARED = Target(ratio=Bound(1.03), throttled=Bound(0.005))


def _steady(kind: str, rate: int, rows: int, target: Target) -> Scenario:
    """A bucket of a second's calls, whose rate is declared or not."""
    quota = {"per_second": rate} if kind == "declared" else {}
    return Scenario(
        name=f"{kind}-{rate}", limit=rate, burst=rate, latency=0.08, rows=rows, quota=quota, target=target
    )


SCENARIOS = (
    _steady("unknown", 20, 400, Target(ratio=Bound(1.08), throttled=Bound(0.03))),
    _steady("unknown", 50, 2_000, Target(ratio=Bound(1.05), throttled=Bound(0.01))),
    _steady("unknown", 1, 120, Target(ratio=Bound(1.10), throttled=Bound(0.05))),
    _steady("declared", 20, 400, _DECLARED),
    _steady("declared", 50, 2_000, _DECLARED),
    _steady("declared", 1, 120, _DECLARED),
    # These five have no target, so that nothing is tuned for them.
    Scenario(name="5-burst-1", limit=5, burst=1, latency=0.03, rows=250),
    Scenario(name="10-burst-50", limit=10, burst=50, latency=0.3, rows=400),
    Scenario(name="3-burst-10", limit=3, burst=10, latency=0.15, rows=150),
    Scenario(name="100-burst-1", limit=100, burst=1, latency=0.02, rows=3_000),
    Scenario(name="window-10-per-1s", window=(10, 1), latency=0.05, rows=400),
    Scenario(
        name="halves-and-recovers",
        limit=20,
        burst=20,
        then=((10, 20), (20, 40)),
        latency=0.08,
        rows=1_200,
        target=Target(ratio=Bound(1.10), throttled=Bound(0.04)),
    ),
    Scenario(
        name="two-processes",
        limit=20,
        burst=20,
        latency=0.08,
        rows=600,
        processes=2,
        target=Target(ratio=Bound(1.10), throttled=Bound(0.05), share=Bound(0.3, at_least=True)),
    ),
    Scenario(
        name="per-minute-100",
        window=(100, 60),
        latency=0.08,
        rows=250,
        quota={"per_minute": 100},
        flags=("--wait",),
        target=Target(seconds=Bound(3), throttled=Bound(0)),
    ),
)
