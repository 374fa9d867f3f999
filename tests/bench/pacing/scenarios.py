"""Services that a pace must handle well, and the bounds. The pace knows at most a declared rate."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from batch_snapshot.ratelimit import pace
from tests.bench.pacing.controllers import Controller
from tests.bench.pacing.servers import Bucket, Fixed, Sliding
from tests.bench.pacing.simulation import Client, Simulation


@dataclass(frozen=True)
class Scenario:
    server: Callable[[], Bucket | Sliding | Fixed]
    #: Rows of each client, and when it starts.
    rows: tuple[int, ...]
    starts: tuple[float, ...] = (0.0, 0.0)
    latency: float = 0.08
    stray: float = 0.0
    #: Bounds: elapsed over ideal, and the share of calls throttled.
    elapsed: float = 1.2
    throttled: float = 0.06
    #: The clients share one pace, as processes of one machine do.
    shared: bool = False
    #: The rate declared to our pace; it is the ideal where the service allows more.
    declared: float | None = None


class Result(NamedTuple):
    #: Elapsed over ideal.
    elapsed: float
    #: Share of all calls.
    throttled: float
    #: Share of the first client while all clients ran.
    share: float


def _bucket(rate: float, burst: int, *changes: tuple[float, float]) -> Callable[[], Bucket]:
    return lambda: Bucket(rate, burst, changes)


SCENARIOS = {
    "20/s burst 20": Scenario(_bucket(20, 20), (400,), elapsed=1.08, throttled=0.03),
    "50/s burst 50": Scenario(_bucket(50, 50), (2000,), elapsed=1.05, throttled=0.0125),
    "1/s burst 1": Scenario(_bucket(1, 1), (120,), elapsed=1.1, throttled=0.05),
    "1/s burst 1, long": Scenario(_bucket(1, 1), (1500,), elapsed=1.1, throttled=0.035),
    "5/s burst 1, 30 ms": Scenario(_bucket(5, 1), (250,), latency=0.03),
    "7/s burst 1": Scenario(_bucket(7, 1), (300,)),
    "15/s burst 15, 200 ms": Scenario(_bucket(15, 15), (600,), latency=0.2, elapsed=1.08),
    "10/s burst 50, 300 ms": Scenario(_bucket(10, 50), (400,), latency=0.3, elapsed=1.08),
    "3/s burst 10, 150 ms": Scenario(_bucket(3, 10), (150,), latency=0.15, elapsed=1.08, throttled=0.07),
    "30/s burst 5, 40 ms": Scenario(_bucket(30, 5), (600,), latency=0.04, elapsed=1.08),
    "2/s burst 2, 500 ms": Scenario(_bucket(2, 2), (200,), latency=0.5),
    "100/s burst 1, 20 ms": Scenario(_bucket(100, 1), (1500,), latency=0.02, elapsed=1.15),
    "10 in any second": Scenario(lambda: Sliding(10, 1.0), (400,), latency=0.05, elapsed=1.15),
    "20 in any second": Scenario(lambda: Sliding(20, 1.0), (400,), elapsed=1.3),
    "15 in each second": Scenario(lambda: Fixed(15, 1.0), (400,), elapsed=1.6),
    "stray throttles": Scenario(_bucket(20, 20), (600,), stray=0.003, elapsed=1.1, throttled=0.035),
    "halves and recovers": Scenario(
        _bucket(20, 20, (20, 10), (40, 20)), (1200,), elapsed=1.1, throttled=0.04
    ),
    "halves and recovers soon, 20/s": Scenario(
        _bucket(20, 20, (8, 10), (16, 20)), (440,), elapsed=1.1, throttled=0.04
    ),
    "halves and recovers soon, 30/s": Scenario(
        _bucket(30, 30, (8, 15), (16, 30)), (660,), elapsed=1.1, throttled=0.04
    ),
    "halves and recovers, 10/s": Scenario(
        _bucket(10, 10, (20, 5), (40, 10)), (600,), elapsed=1.12, throttled=0.04
    ),
    "halves and recovers, 50/s": Scenario(
        _bucket(50, 50, (20, 25), (40, 50)), (3000,), elapsed=1.1, throttled=0.04
    ),
    "doubles": Scenario(_bucket(10, 10, (20, 20)), (800,)),
    "two processes": Scenario(
        _bucket(20, 20), (600, 600), (0, 0.4), elapsed=1.1, throttled=0.05, shared=True
    ),
    "two processes, one late": Scenario(
        _bucket(20, 20), (600, 400), (0, 10), elapsed=1.1, throttled=0.05, shared=True
    ),
    "two processes, 1/s burst 1": Scenario(
        _bucket(1, 1), (80, 80), (0, 1.3), elapsed=1.1, throttled=0.05, shared=True
    ),
    "two machines": Scenario(_bucket(20, 20), (600, 600), elapsed=1.15, throttled=0.05),
    "falls by a little": Scenario(_bucket(20, 20, (20, 18.4)), (1200,), elapsed=1.03, throttled=0.025),
    "1% strays, 20/s burst 20": Scenario(_bucket(20, 20), (1200,), stray=0.01, elapsed=1.1, throttled=0.03),
    "1% strays, 100/s burst 100": Scenario(
        _bucket(100, 100), (6000,), stray=0.01, elapsed=1.8, throttled=0.035
    ),
    "1% strays, halves and recovers, 50/s": Scenario(
        _bucket(50, 50, (20, 25), (40, 50)), (3000,), stray=0.01, elapsed=1.3, throttled=0.045
    ),
    "1% strays, two processes, 50/s": Scenario(
        _bucket(50, 50), (1500, 1500), (0, 0.4), stray=0.01, elapsed=1.4, throttled=0.04, shared=True
    ),
}

_far = partial(Scenario, _bucket(5000, 5000))

#: With a declared rate: exact, too high, and below what the service allows.
DECLARED = {
    "250/s declared, 1% strays": _far((10_000,), declared=250, stray=0.01, elapsed=1.11, throttled=0.02),
    "250/s declared, 2% strays": _far((10_000,), declared=250, stray=0.02, elapsed=1.15, throttled=0.03),
    "50/s declared, 5% strays": _far((3000,), declared=50, stray=0.05, elapsed=2.3, throttled=0.065),
    "20/s declared, 1% strays": Scenario(
        _bucket(20, 20), (1200,), declared=20, stray=0.01, elapsed=1.12, throttled=0.015
    ),
    "20/s, 3% too high": Scenario(_bucket(20, 20), (1200,), declared=20.6, elapsed=1.03, throttled=0.006),
    "20/s, 10% too high": Scenario(_bucket(20, 20), (1200,), declared=22, elapsed=1.03, throttled=0.012),
    "20/s, twice too high": Scenario(_bucket(20, 20), (1200,), declared=40, elapsed=1.03, throttled=0.02),
    "250/s, 3% too high": Scenario(_bucket(250, 30), (8000,), declared=257.5, elapsed=1.03, throttled=0.002),
    "250/s, 10% too high": Scenario(_bucket(250, 30), (8000,), declared=275, elapsed=1.03, throttled=0.004),
    "250/s, twice too high": Scenario(_bucket(250, 30), (8000,), declared=500, elapsed=1.03, throttled=0.009),
}


def play(scenario: Scenario, make: Callable[..., Controller], seed: int) -> Result:
    """One run of `scenario` with paces that `make` makes, of a declared rate if there is one."""
    server = scenario.server()
    ideal = server.ideal(sum(scenario.rows))
    if scenario.declared is not None:
        make = partial(make, pace.declared(scenario.declared))
        ideal = max(ideal, sum(scenario.rows) / scenario.declared)
    common = make()
    controllers = [common if scenario.shared else make() for _ in scenario.rows]
    clients = [
        Client(controller, rows, starts)
        for controller, rows, starts in zip(controllers, scenario.rows, scenario.starts, strict=False)
    ]
    Simulation(server, clients, scenario.latency, stray=scenario.stray, seed=seed).run()
    assert all(len(client.done) == client.rows for client in clients), "rows are left"
    end = max(client.done[-1] for client in clients)
    calls = sum(client.rows + client.throttled for client in clients)
    since, until = max(client.starts for client in clients), min(client.done[-1] for client in clients)
    parts = [sum(since <= at <= until for at in client.done) for client in clients]
    throttled = sum(client.throttled for client in clients)
    return Result(end / ideal, throttled / calls, parts[0] / max(1, sum(parts)))
