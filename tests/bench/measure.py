"""One run, measured by the endpoint's own record.

Time runs from the first call that the endpoint received to the last success that it answered, so the
start of interpreters and their imports counts for nobody.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from tests.bench.clients import OURS, command
from tests.bench.figures import Bound, Figure, Line, Table, interleaved
from tests.bench.scenarios import Scenario, Target
from tests.support.processes import Json, environment

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
    #: Processes that did not end well: exit codes and last words.
    trouble: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """Elapsed over ideal."""
        return self.elapsed / self.ideal

    @property
    def throttled_share(self) -> float:
        """Throttled calls over calls."""
        return self.throttled / max(1, self.calls)


_HEAD = ("client", "elapsed ÷ ideal", "seconds beyond", "throttled", "lost", "doubled", "smallest share")


def table(scenario: Scenario, clients: Iterable[str], repeat: int) -> Table:
    """Measure each client that the scenario concerns."""
    chosen = [client for client in clients if client == OURS or not scenario.quota]
    runs = interleaved(scenario.name, chosen, repeat, lambda client: measure(scenario, client))
    trouble = {f"{client}: {one}" for client in chosen for run in runs[client] for one in run.trouble}
    lines = [Line(client, figures(runs[client], scenario.target)) for client in chosen]
    return Table(scenario.name, f"{scenario.name}, {scenario.total:,} rows", _HEAD, lines, sorted(trouble))


def figures(runs: Sequence[Run], target: Target | None) -> list[Figure | None]:
    """What the runs of a client come to."""
    wanted = target or Target()
    none = Bound(0)
    return [
        Figure([run.ratio for run in runs], ".3f", wanted.ratio),
        Figure([run.elapsed - run.ideal for run in runs], ".1f", wanted.seconds),
        Figure([run.throttled_share for run in runs], ".1%", wanted.throttled),
        Figure([run.lost for run in runs], bound=none),
        Figure([run.duplicates for run in runs], bound=none),
        Figure([min(run.shares) for run in runs], ".0%", wanted.share) if runs[0].shares else None,
    ]


def measure(scenario: Scenario, client: str) -> Run:
    """Run a client through a scenario, with an endpoint and a folder of their own."""
    with TemporaryDirectory(prefix="bench-") as name, _served(scenario, Path(name)) as url:
        trouble = _carry_out(scenario, client, url, Path(name))
        with urlopen(f"{url}/_simulator/record?log=1") as answer:
            record = json.load(answer)
    return judged(record, scenario, trouble)


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


@contextmanager
def _served(scenario: Scenario, folder: Path) -> Iterator[str]:
    """Serve the scenario's endpoint in a process of its own; yields its URL."""
    arguments = [sys.executable, "-m", "batch_snapshot", "simulate", *scenario.server]
    with subprocess.Popen(arguments, env=environment(folder), stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip() if server.stdout else ""
            if not url:
                raise RuntimeError(f"{scenario.name}: the endpoint did not start")
            yield url
        finally:
            server.terminate()


def _carry_out(scenario: Scenario, client: str, url: str, folder: Path) -> tuple[str, ...]:
    """Run the client's processes side by side to their end; returns what went wrong with them."""
    (folder / "home").mkdir()
    deadline = time.monotonic() + 5 * scenario.ideal + 60
    with ExitStack() as stack:
        children = [
            stack.enter_context(_started(command(client, scenario, url, folder, number), folder))
            for number in range(scenario.processes)
        ]
        ends = [_end(child, deadline) for child in children]
    return tuple(filter(None, ends))


@contextmanager
def _started(words: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process; it is killed if the block leaves it running."""
    silent = subprocess.DEVNULL
    with subprocess.Popen(
        words,
        cwd=folder,
        env=environment(folder),
        stdin=silent,
        stdout=silent,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def _end(child: subprocess.Popen[str], deadline: float) -> str:
    """Wait for a process' end; says what was wrong with it, if anything was."""
    try:
        _, stderr = child.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return "stopped: it took more than five times the ideal"
    if child.returncode == 0:
        return ""
    return f"exit {child.returncode}: {(stderr.splitlines() or [''])[-1]}"
