"""How fast the program itself is, where no service limits it, and what memory it takes: a table a bench.

Calls a second are counted from the first call that the endpoint received to the last. On a machine that does
other work too, ratios of processor time say more than those of calls a second.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import nan
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.bench import material, passes, stub
from tests.bench.clients import AWS, FAST, OURS, aws, aws_executable, ours, script
from tests.bench.figures import Bound, Figure, Line, Table, interleaved, ratios
from tests.bench.processes import Ended, folder, python, run

_MEMORY = Bound(300)


class Run(NamedTuple):
    """A run through so many rows against the endpoint."""

    rows: int
    #: Calls a second, and seconds until the first; no numbers where there was trouble.
    rate: float
    first_call: float
    ended: Ended
    #: What was wrong with it; empty where nothing was.
    trouble: str

    @property
    def cpu_a_row(self) -> float:
        """In microseconds."""
        return self.ended.cpu / self.rows * 1e6


def sent(words: Sequence[str], rows: int, url: str, place: Path, **more: object) -> Run:
    """Run a client that sends so many rows; the rest is for `processes.run`."""
    stub.take(url)
    ended = run(words, place, **more)  # type: ignore[arg-type]
    seen = stub.take(url)
    trouble = ended.trouble
    if not trouble and not rows == seen.creates == seen.tokens:
        trouble = f"{rows} rows, {seen.creates} calls, {seen.tokens} tokens"
    rate, first = (nan, nan) if trouble else (seen.rate, seen.first - ended.begun)
    return Run(rows, rate, first, ended, trouble)


def through(name: str, rows: int, url: str, accounts: int = 0, **more: object) -> Run:
    """One client's run, in a folder of its own."""
    with folder() as place:
        if name == AWS:
            lines = place / "arguments.txt"
            return sent(aws(url, rows, lines), rows, url, place, stdin=lines, **more)
        if name != OURS:
            return sent(script(name, url, rows), rows, url, place, **more)
        manifest = material.manifest(place / "bench.yaml", rows, accounts)
        return sent(ours(manifest, url, place), rows, url, place, **more)


class _Troubled(Protocol):
    @property
    def trouble(self) -> str: ...


def troubles(runs: Mapping[str, Iterable[_Troubled]]) -> list[str]:
    return sorted({f"{name}: {one.trouble}" for name, own in runs.items() for one in own if one.trouble})


# -- throughput --------------------------------------------------------------------------------------

#: Of our calls a second over theirs, and of their processor time a row over ours.
_TARGETS = {"boto3": Bound(2.0, at_least=True), "aioboto3": Bound(1.1, at_least=True)}

#: A run of few rows, which shows what the start costs, has one for so many of the other's.
_MANY = 20

#: The AWS CLI starts an interpreter a row: more of them would show nothing else.
_AWS_ROWS = 20


class Pair(NamedTuple):
    """A run of few rows, and one of many that followed it: start-up counts for neither rate nor cost."""

    few: Run
    many: Run

    @property
    def cpu_a_row(self) -> float:
        """In microseconds."""
        rows = max(1, self.many.rows - self.few.rows)
        return (self.many.ended.cpu - self.few.ended.cpu) / rows * 1e6

    @property
    def startup(self) -> float:
        """Seconds of processor time."""
        return max(0.0, self.few.ended.cpu - self.few.rows * self.cpu_a_row / 1e6)


def throughput(rows: int, repeat: int, clients: Iterable[str] = FAST) -> Table:
    """Measure all clients in turn."""
    present = [name for name in clients if name != AWS or aws_executable()]

    def pair(name: str) -> Pair:
        size = min(rows, _AWS_ROWS) if name == AWS else rows
        return Pair(through(name, max(1, size // _MANY), url), through(name, size, url))

    with folder() as place, stub.serve(place) as url:
        runs = interleaved("throughput", {name: partial(pair, name) for name in present}, repeat)
    notes = [f"{FAST[name]}: not installed" for name in clients if name not in present]
    notes += troubles({FAST[name]: [run for pair in runs[name] for run in pair] for name in present})
    lines = {FAST[name]: _throughput(name, runs) for name in present}
    return Table("throughput", f"Throughput, {rows:,} rows", "client", lines, notes)


def _throughput(name: str, runs: Mapping[str, Sequence[Pair]]) -> Line:
    own, many = runs[name], [pair.many for pair in runs[name]]
    bases = runs.get(OURS, ()) if name != OURS else ()
    rates = ratios([pair.many.rate for pair in bases], [one.rate for one in many]) if bases else []
    spent = ratios([one.cpu_a_row for one in own], [one.cpu_a_row for one in bases]) if bases else []
    return {
        "rows": Figure([many[0].rows]),
        "calls/s": Figure([one.rate for one in many]),
        "ours ÷ it": Figure(rates, ".2f", _TARGETS.get(name)) if bases else None,
        "CPU µs a row": Figure([pair.cpu_a_row for pair in own]),
        "CPU, it ÷ ours": Figure(spent, ".2f", _TARGETS.get(name)) if bases else None,
        "start-up CPU s": Figure([pair.startup for pair in own], ".2f"),
        "whole process s": Figure([one.ended.seconds for one in many], ".2f"),
        "peak MB": Figure([one.ended.peak for one in many]),
    }


# -- what one process carries ------------------------------------------------------------------------

#: A row at many rows over one at few.
_COST = Bound(1.15)

#: Seconds for a million rows, were a machine to make a hundred calls a second.
_PATIENCE = 10_000.0


def accounts(rows: int, sizes: Sequence[int], repeat: int) -> Table:
    """The same rows, spread over few accounts and over many."""
    with folder() as place, stub.serve(place) as url:
        measured = {f"{size:,}": partial(through, OURS, rows, url, size) for size in sizes}
        runs = interleaved("accounts", measured, repeat)
    lines: dict[str, Line] = {
        name: {
            "rows": Figure([rows]),
            "calls/s": Figure([one.rate for one in own]),
            "CPU µs a row": Figure([one.cpu_a_row for one in own]),
            "whole process s": Figure([one.ended.seconds for one in own], ".1f"),
            "peak MB": Figure([one.ended.peak for one in own], bound=_MEMORY),
        }
        for name, own in runs.items()
    }
    return Table("accounts", f"Accounts of one run, {rows:,} rows", "accounts", lines, troubles(runs))


def million(sizes: Sequence[int], repeat: int) -> Table:
    """What a row costs and what memory a run takes, at few rows and at many; the fewest come first."""
    with folder() as place, stub.serve(place) as url:
        measured = {f"{rows:,}": partial(through, OURS, rows, url, patience=_PATIENCE) for rows in sizes}
        runs = interleaved("million", measured, repeat)
    least, *_ = runs.values()
    lines = {name: _million(own, None if own is least else least) for name, own in runs.items()}
    return Table("million", "Cost of a row, and memory", "rows", lines, troubles(runs))


def _million(own: Sequence[Run], least: Sequence[Run] | None) -> Line:
    def costs(runs: Sequence[Run]) -> list[float]:
        return [one.ended.seconds / one.rows * 1e6 for one in runs]

    def against(value: Callable[[Sequence[Run]], list[float]], bound: Bound | None = _COST) -> Figure | None:
        return Figure(ratios(value(own), value(least)), ".2f", bound) if least else None

    return {
        "whole process µs a row": Figure(costs(own)),
        "÷ that at the fewest": against(costs),
        "calls/s": Figure([one.rate for one in own]),
        "calls/s, fewest ÷ these": against(lambda runs: [1 / one.rate for one in runs]),
        "CPU µs a row": Figure([one.cpu_a_row for one in own]),
        "CPU, ÷ fewest": against(lambda runs: [one.cpu_a_row for one in runs], None),
        "peak MB": Figure([one.ended.peak for one in own], bound=_MEMORY),
    }


#: Rows that are left to do when a run is resumed, and seconds to its first call.
LEFT, _SOON = 1_000, Bound(60)


def resume(sizes: Sequence[int], repeat: int) -> Table:
    """Going on with a run of which almost everything is done: how long until the first call."""
    runs: dict[str, list[Run]] = {}
    with folder() as place, stub.serve(place) as url:
        for rows in sizes:
            manifest = material.manifest(place / f"{rows}.yaml", rows + LEFT)
            ledger = material.ledger(manifest.with_suffix(".ndjson"), rows, left=LEFT, endpoint=url)
            once = partial(_resumed, ours(manifest, url, place), url, ledger, ledger.stat().st_size)
            runs |= interleaved("resume", {f"{rows:,}": once}, repeat)
    lines: dict[str, Line] = {
        name: {
            "s to the first call": Figure([one.first_call for one in own], ".2f", _SOON),
            "CPU s in all": Figure([one.ended.cpu for one in own], ".2f"),
            "s in all": Figure([one.ended.seconds for one in own], ".2f"),
            "peak MB": Figure([one.ended.peak for one in own], bound=_MEMORY),
        }
        for name, own in runs.items()
    }
    title = f"Resume, with {LEFT:,} rows left"
    return Table("resume", title, "results in the ledger", lines, troubles(runs))


def _resumed(words: Sequence[str], url: str, ledger: Path, size: int) -> Run:
    # What the run before this one has appended.
    os.truncate(ledger, size)
    return sent(words, LEFT, url, ledger.parent)


# -- without an endpoint -----------------------------------------------------------------------------

#: Of validation over a bare pass, and the rows from which on it is to be reached.
_RATIO, _MILLION = Bound(3.5), 1_000_000


def manifests(sizes: Sequence[int], repeat: int) -> Table:
    """Validating a manifest, against the least that reading its YAML takes."""
    with folder() as place:
        lines = {f"{rows:,}": _manifest(rows, repeat, place / f"{rows}.yaml") for rows in sizes}
    return Table("manifest", "Validating a manifest", "rows", lines)


def _manifest(rows: int, repeat: int, path: Path) -> Line:
    material.manifest(path, rows)
    measured = {name: partial(passes.measure, name, path) for name in ("load", "events")}
    load, bare = interleaved(f"manifest of {rows:,} rows", measured, repeat).values()
    times = ratios([one.seconds for one in load], [one.seconds for one in bare])
    return {
        "validated rows/s": Figure([rows / one.seconds for one in load]),
        "bare YAML events rows/s": Figure([rows / one.seconds for one in bare]),
        "time ÷ bare": Figure(times, ".2f", _RATIO if rows >= _MILLION else None),
        "peak MB": Figure([one.peak for one in load]),
        "bare peak MB": Figure([one.peak for one in bare]),
    }


def ledgers(sizes: Sequence[int], repeat: int) -> Table:
    """Appending to a ledger, and reading its history, against the least that parsing its lines takes."""
    lines: dict[str, Line] = {}
    with folder() as place:
        for rows in sizes:
            lines |= _ledger(rows, repeat, place)
    return Table("ledger", "The ledger: appending, and reading its history", "what, results", lines)


def _ledger(rows: int, repeat: int, place: Path) -> dict[str, Line]:
    path, written = material.ledger(place / f"{rows}.ndjson", rows), place / "appended.ndjson"

    def append() -> passes.Pass:
        written.unlink(missing_ok=True)
        return passes.measure("append", written, rows)

    names = {"append": "append, with an fsync a second", "history": "history", "parse": "bare orjson.loads"}
    measured = {name: append if name == "append" else partial(passes.measure, name, path) for name in names}
    taken = interleaved(f"ledger of {rows:,} results", measured, repeat)
    sizes = dict.fromkeys(names, path.stat().st_size) | {"append": written.stat().st_size}
    times = ratios(*([one.seconds for one in taken[name]] for name in ("history", "parse")))
    return {
        f"{names[name]}, {rows:,}": {
            "results/s": Figure([rows / one.seconds for one in own]),
            "MB/s": Figure([sizes[name] / 1e6 / one.seconds for one in own]),
            "time ÷ bare": Figure(times, ".2f") if name == "history" else None,
            "peak MB": Figure([one.peak for one in own]),
        }
        for name, own in taken.items()
    }


_START, _ROWS = Bound(0.25), 10


def startup(repeat: int) -> Table:
    """How long the commands take that call nothing: from the start of a process to its end."""
    with folder() as place:
        manifest = material.manifest(place / "bench.yaml", _ROWS)
        ledger = material.ledger(place / "bench.ndjson", _ROWS)
        commands = {
            "the interpreter alone": [sys.executable, "-c", ""],
            "--help": python("batch_snapshot", "--help"),
            f"validate ({_ROWS} rows)": python("batch_snapshot", "validate", manifest),
            f"status ({_ROWS} results)": python("batch_snapshot", "status", ledger),
        }
        # The first start of all writes what Python compiles, which no later one does.
        run(commands["--help"], place)
        measured = {what: partial(run, words, place) for what, words in commands.items()}
        taken = interleaved("startup", measured, repeat)
    bare = next(iter(commands))
    lines: dict[str, Line] = {
        what: {
            "s": Figure([one.seconds for one in own], ".3f", None if what == bare else _START),
            "CPU s": Figure([one.cpu for one in own], ".3f"),
            "peak MB": Figure([one.peak for one in own]),
        }
        for what, own in taken.items()
    }
    return Table("startup", "Start-up", "command", lines, troubles(taken))
