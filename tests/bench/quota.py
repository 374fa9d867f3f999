"""Rows through a limit, measured by the endpoint's own record.

Time runs from the first call that the endpoint received to the last success that it answered, so the
start of interpreters and their imports counts for nobody.
"""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from urllib.request import urlopen

from tests.bench.clients import OURS, limited
from tests.bench.figures import Bound, Figure, Line, Table, interleaved
from tests.bench.processes import folder, python, run, served
from tests.bench.scenarios import Scenario, Target
from tests.support.processes import Json

_CREATE = "CreateResourceSnapshot"


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one run."""

    #: Seconds.
    elapsed: float
    ideal: float
    #: Tries, and those that were throttled.
    calls: int
    throttled: int
    #: Rows without a snapshot, and snapshots beyond one a row.
    lost: int
    duplicates: int
    #: Each process' share of the snapshots made while all were active; empty where it was alone.
    shares: tuple[float, ...]
    #: Of processes that did not end well: exit codes and last words.
    trouble: tuple[str, ...]


def table(scenario: Scenario, clients: Iterable[str], repeat: int) -> Table:
    """Measure each client that the scenario concerns."""
    chosen = [client for client in clients if client == OURS or not scenario.quota]
    measured = {client: partial(measure, scenario, client) for client in chosen}
    runs = interleaved(scenario.name, measured, repeat)
    trouble = {f"{client}: {one}" for client in chosen for run in runs[client] for one in run.trouble}
    lines = {client: figures(runs[client], scenario.target) for client in chosen}
    return Table(scenario.name, f"{scenario.name}, {scenario.total:,} rows", "client", lines, sorted(trouble))


def figures(runs: Sequence[Run], target: Target | None) -> Line:
    """What the runs of a client come to."""
    wanted, none = target or Target(), Bound(0)
    return {
        "elapsed ÷ ideal": Figure([run.elapsed / run.ideal for run in runs], ".3f", wanted.ratio),
        "seconds beyond": Figure([run.elapsed - run.ideal for run in runs], ".1f", wanted.seconds),
        "throttled": Figure([run.throttled / max(1, run.calls) for run in runs], ".1%", wanted.throttled),
        "lost": Figure([run.lost for run in runs], bound=none),
        "doubled": Figure([run.duplicates for run in runs], bound=none),
        "smallest share": Figure([min(run.shares) for run in runs], ".0%", wanted.share)
        if runs[0].shares
        else None,
    }


def measure(scenario: Scenario, client: str) -> Run:
    """Run a client through a scenario, with an endpoint and a folder of their own."""
    server = python("batch_snapshot", "simulate", *scenario.server)
    with folder() as place, served(server, place) as url, ThreadPoolExecutor(scenario.processes) as pool:
        words = [limited(client, scenario, url, place, number) for number in range(scenario.processes)]
        # Killed, it took more than five times the ideal.
        ended = [*pool.map(partial(run, place=place, patience=5 * scenario.ideal + 60), words)]
        with urlopen(f"{url}/_simulator/record?log=1") as answer:
            record = json.load(answer)
    return judged(record, scenario, tuple(one.trouble for one in ended if one.trouble))


def judged(record: Json, scenario: Scenario, trouble: tuple[str, ...] = ()) -> Run:
    """Read the endpoint's record."""
    writes = [call for call in record["log"] if call["operation"] == _CREATE]
    answered = [call["time"] + scenario.latency for call in writes if call["answer"] == "ok"]
    # A client may read before it writes; that too is time its user waits.
    begin = min((call["time"] for call in record["log"]), default=0.0)
    made = record["snapshots"]
    distinct = len({(snapshot["engagement"], snapshot["resource"]) for snapshot in made})
    return Run(
        elapsed=max(answered, default=begin) - begin,
        ideal=scenario.ideal,
        calls=len(writes),
        throttled=sum(call["answer"] == "ThrottlingException" for call in writes),
        lost=scenario.total - distinct,
        duplicates=len(made) - distinct,
        shares=_shares(made, scenario),
        trouble=trouble,
    )


def _shares(made: list[Json], scenario: Scenario) -> tuple[float, ...]:
    """How the processes shared the limit, between the last one's first success and the first one's last."""
    times: list[list[float]] = [[] for _ in range(scenario.processes)]
    for snapshot in made:
        number = int(snapshot["engagement"].removeprefix("eng-"))
        times[number // scenario.rows].append(snapshot["created_at"])
    if scenario.processes == 1:
        return ()
    if not all(times):
        return (0.0,) * scenario.processes
    begin, end = max(map(min, times)), min(map(max, times))
    counts = [sum(begin <= at <= end for at in own) for own in times]
    return tuple(count / max(1, sum(counts)) for count in counts)
