"""What happens in a life, drawn from its seed; `shrink` makes it smaller field by field."""

from dataclasses import dataclass
from itertools import accumulate
from random import Random

FAULTS = (
    "throttled", "unreachable", "broken before", "broken after", "lost before", "lost after", "late",
    "denied", "invalid", "quota", "expired",
)  # fmt: skip


@dataclass(frozen=True)
class Invocation:
    command: str = "run"
    #: "kill" or "power"; None: it is not crashed.
    crash: str | None = None
    #: The crash comes at this point, counted from the start among those of one kind, or of all.
    at: int = 0
    where: str | None = None
    #: Seconds until the next invocation, and by how much our clock is set meanwhile.
    pause: float = 0.0
    clock_step: float = 0.0
    #: Rows that the manifest lists.
    first: int = 0
    last: int = 4
    disk_fault: str | None = None
    #: Seconds after which the same command is run beside it; None: it is not.
    second_after: float | None = None
    resend_in_doubt: bool = False


@dataclass(frozen=True)
class Scenario:
    seed: int
    accounts: int = 1
    #: Rows of each pair, in other accounts if there are several.
    templates: int = 1
    per_second: float | None = None
    per_minute: int | None = None
    concurrency: int = 8
    #: The service's own limit.
    service_rate: float = 50.0
    service_burst: float = 50.0
    #: Seconds for which the service remembers a token, and for which reads lag behind.
    token_memory: float = 3600.0
    read_lag: float = 0.0
    #: The service's clock less ours at the start, in seconds.
    skew: float = 0.0
    reads_denied: bool = False
    #: Whether each row has a snapshot that another program made before.
    made_before: bool = False
    faults: tuple[tuple[str, float], ...] = ()
    invocations: tuple[Invocation, ...] = ()
    #: The rows that the manifest lists in the end.
    first: int = 0
    last: int = 4

    def draw_fate(self, rng: Random) -> str:
        drawn = rng.random()
        sums = accumulate(share for _, share in self.faults)
        return next((fault for (fault, _), upto in zip(self.faults, sums, strict=True) if drawn < upto), "ok")


def scenario_of(seed: int) -> Scenario:
    rng = Random(f"scenario {seed}")
    rows = rng.choice([1, 1, 2, 3, 5, 8, 13])
    extra = rng.choice([0, 0, 0, 1, 4])
    per_minute = rng.choice([None, None, 3, 10, 30])
    chosen = rng.sample(FAULTS, rng.choice([0, 1, 2, 4]))
    faults = tuple((fault, rng.choice([0.03, 0.1, 0.25]) / max(1, len(chosen) / 2)) for fault in chosen)
    if "expired" in chosen:
        faults = tuple((fault, min(share, 0.05) if fault == "expired" else share) for fault, share in faults)
    return Scenario(
        seed,
        accounts=rng.choice([1, 1, 2, 3]),
        templates=Random(f"number of templates {seed}").choice([1, 1, 1, 2, 3]),
        per_second=rng.choice([None, None, 1.0, 20.0]),
        per_minute=per_minute,
        concurrency=rng.choice([1, 2, 8, 32]),
        service_rate=rng.choice([1.0, 10.0, 50.0]),
        service_burst=rng.choice([1.0, 5.0, 50.0]),
        token_memory=rng.choice([660.0, 900.0, 3600.0, 86_400.0]),
        read_lag=rng.choice([0.0, 0.0, 1.0, 3.0]),
        skew=rng.choice([0.0, 0.0, 2.0, -45.0, 200.0, -3000.0]),
        reads_denied=rng.random() < 0.05,
        made_before=rng.random() < 0.3,
        faults=faults,
        invocations=tuple(
            _invocation(rng, rows, extra, per_minute) for _ in range(rng.choice([1, 2, 5, 10, 20]))
        ),
        first=rng.choice([0, 0, min(1, rows - 1)]),
        last=rows + extra,
    )


def _invocation(rng: Random, rows: int, extra: int, per_minute: int | None) -> Invocation:
    # From one boot to the next windows follow the wall clock: one that is set forward meanwhile is a limit.
    step = rng.choice([0.0] * 6 + [-120.0, 0.0 if per_minute else 30.0])
    where = rng.choice([None, None, "fsync", "written", "made"])
    return Invocation(
        command=rng.choice(["run", "run", "run", "retry"]),
        crash=rng.choice(["kill", "kill", "power", "power", "power", None]),
        at=int(2 ** rng.uniform(0, 3.5 if where else 3.5 + min(rows, 5))),
        where=where,
        pause=rng.choice([0.0, 0.0, 1.0, 5.0, 30.0, 300.0, 595.0, 700.0, 5000.0, 100_000.0]),
        clock_step=step,
        first=rng.choice([0, 0, 0, min(1, rows - 1)]),
        last=rows + rng.choice([0, 0, extra]),
        disk_fault=rng.choice([None] * 10 + ["full", "fsync", "fsync"]),
        second_after=rng.choice([None] * 30 + [0.01, 1.0]),
    )
