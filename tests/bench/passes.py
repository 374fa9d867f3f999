"""One pass over a file, in a process of its own: `python -m tests.bench.passes NAME FILE [LINES]`.

It prints how many seconds it took, without those that the interpreter and its imports take.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from tests.bench.processes import python, run

#: Outcomes that are appended again and again: making them is not what is measured.
_OUTCOMES = 1_000

#: Seconds between two fsyncs, as a run makes them.
_SYNC_EVERY = 1.0


class Pass(NamedTuple):
    """What one took."""

    seconds: float
    #: MB.
    peak: float


def measure(name: str, path: Path, *words: object) -> Pass:
    """Make a pass in a process of its own, in the file's folder."""
    ended = run(python("tests.bench.passes", name, path, *words), path.parent)
    return Pass(ended.json["seconds"], ended.peak)


# -- the passes: each returns the seconds it took ----------------------------------------------------


def _load(path: Path) -> float:
    from batch_snapshot import manifest

    begin = time.perf_counter()
    manifest.load(path)
    return time.perf_counter() - begin


def _events(path: Path) -> float:
    import yaml

    begin = time.perf_counter()
    with path.open("rb") as stream:
        for _ in yaml.parse(stream, Loader=yaml.CSafeLoader):
            pass
    return time.perf_counter() - begin


def _append(path: Path, lines: str) -> float:
    from batch_snapshot.ledger.records import encode_result
    from batch_snapshot.ledger.writer import Ledger
    from tests.bench.material import outcomes

    made = [*outcomes(_OUTCOMES)]
    begin = synced = time.perf_counter()
    with Ledger(path) as ledger:
        for outcome in islice(cycle(made), int(lines)):
            ledger.append(encode_result("00000000-0000-4000-8000-000000000000", outcome))
            if time.perf_counter() - synced >= _SYNC_EVERY:
                ledger.sync()
                synced = time.perf_counter()
        ledger.sync()
    return time.perf_counter() - begin


def _history(path: Path) -> float:
    from batch_snapshot.ledger.reader import history_of

    begin = time.perf_counter()
    history_of(path)
    return time.perf_counter() - begin


def _parse(path: Path) -> float:
    import orjson

    begin = time.perf_counter()
    with path.open("rb") as stream:
        for line in stream:
            orjson.loads(line)
    return time.perf_counter() - begin


#: By name: they get the file, and what follows it on the command line.
PASSES: Mapping[str, Callable[..., float]] = {
    "load": _load,
    "events": _events,
    "append": _append,
    "history": _history,
    "parse": _parse,
}


def main(name: str, path: str, *words: str) -> None:
    """Make a pass and print its figures."""
    print(json.dumps({"seconds": PASSES[name](Path(path), *words)}))  # noqa: T201 - it is asked for


if __name__ == "__main__":
    main(*sys.argv[1:])
