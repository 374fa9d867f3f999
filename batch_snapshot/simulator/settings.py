"""How a simulated service behaves."""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from batch_snapshot.simulator.faults import Faults
from batch_snapshot.simulator.quotas import Steps, steps


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """How the simulator behaves. Where the real service's behaviour is not known, a setting chooses one."""

    #: Writes a second and access key id (a token bucket); None: no limit. A rate that changes is
    #: written as ((20, 0), (10, 60)): 20 a second, and 10 from 60 seconds after the first write on.
    rate: float | Steps | None = None
    #: Size of that bucket.
    burst: int = 1
    #: Exact rolling windows for writes: (calls, seconds) per access key id.
    windows: tuple[tuple[int, float], ...] = ()
    #: Reads a second and access key id; reads never spend the writes' quota.
    read_rate: float | None = None
    read_burst: int = 10
    #: Seconds added to each answer.
    latency: float = 0.0
    #: Seconds for which a ClientToken is remembered; None: for ever.
    forget_after: float | None = None
    #: What a remembered token answers: the same result, or ConflictException.
    replay: Literal["same", "conflict"] = "same"
    #: What a snapshot of an unchanged resource under a new token makes.
    unchanged: Literal["new", "same", "conflict"] = "new"
    #: Whether tokens are looked up before throttling and denial are, or only after.
    token_check: Literal["first", "last"] = "first"  # noqa: S105 - no secret
    #: Seconds until reads show a new snapshot.
    read_lag: float = 0.0
    #: Whether throttles carry `x-amz-retry-after` (milliseconds).
    retry_after: bool = True
    #: Seconds by which the server's clock is ahead of ours.
    clock_offset: float = 0.0
    faults: Faults = field(default_factory=Faults)
    #: Decides the faults' draws.
    seed: int = 0
    #: A file that keeps the world over restarts (NDJSON, append only).
    state: Path | None = None
    #: A world for the read operations, with ids that follow from these numbers.
    engagements: int = 0
    opportunities_per_engagement: int = 0
    #: Invitations to further engagements (see `world`).
    invitations: int = 0
    #: Operations that are refused, as by an IAM policy that does not allow them.
    denied: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.rate is not None:
            self._check_rate(steps(self.rate))
        for name in ("read_rate", "forget_after"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value} must be above 0; leave it out for no limit")
        for name in ("burst", "read_burst"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("latency", "read_lag", "engagements", "opportunities_per_engagement", "invitations"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        for limit, seconds in self.windows:
            if limit < 1 or not seconds > 0:
                raise ValueError(f"window ({limit}, {seconds}): give (calls >= 1, seconds > 0)")

    def describe(self) -> str:
        rates = [rate for rate, _ in steps(self.rate)] if self.rate is not None else []
        pace = ", then ".join(f"{rate:g}/s" for rate in rates)
        faults = [f"{share:g} {kind}" for kind, share in self.faults.rates.items()]
        parts = [
            f"{pace} in bursts of {self.burst}" if rates else "no rate limit",
            *(f"{limit:,} call{'s' * (limit != 1)} in {seconds:g} s" for limit, seconds in self.windows),
            f"{self.latency * 1000:g} ms a call",
            f"tokens forgotten after {self.forget_after:g} s" if self.forget_after else "",
            f"faults: {', '.join(faults)}" if faults else "no faults",
        ]
        return ", ".join(filter(None, parts))

    @staticmethod
    def _check_rate(given: Steps) -> None:
        for rate, _ in given:
            if not 0 < rate < math.inf:
                raise ValueError(f"rate={rate} must be finite and above 0; leave it out for no limit")
        times = [since for _, since in given]
        if times[:1] != [0] or any(earlier >= later for earlier, later in pairwise(times)):
            raise ValueError(f"rate: its changes must come one after the other, not at {times} seconds")


#: What a run against the simulator meets where nothing else is said.
DEMO = SimulatorSettings(rate=20, burst=20, latency=0.05)
