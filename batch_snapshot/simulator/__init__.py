"""A local endpoint of the AWS Partner Central Selling API, for trials and tests.

No emulator serves this API, and the service's own sandbox is not for load. This one has snapshots,
idempotency tokens, quotas and lists as the service documents them, breaks on demand, and keeps a record
to check a client's claims against. It imports nothing of the rest of the package, so it cannot share its
mistakes. Requests are checked against botocore's service model, signatures only for their form. It serves
loopback addresses only.

::

    async with serve(SimulatorSettings(rate=20, burst=20, latency=0.08)) as (url, simulator):
        ...  # point a client's endpoint_url at url
        assert simulator.pair_overlaps == 0

What it refuses on demand, and its own paths, are in docs/reference/simulator.md.
"""

from batch_snapshot.simulator.faults import KINDS, Faults
from batch_snapshot.simulator.server import run_forever, serve
from batch_snapshot.simulator.settings import DEMO, SimulatorSettings
from batch_snapshot.simulator.simulator import LoggedCall, Simulator
from batch_snapshot.simulator.world import Snapshot

__all__ = [
    "DEMO",
    "KINDS",
    "Faults",
    "LoggedCall",
    "Simulator",
    "SimulatorSettings",
    "Snapshot",
    "run_forever",
    "serve",
]
