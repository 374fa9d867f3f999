"""What `discover`, `verify` and `export` share, which only read from the service."""

import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from batch_snapshot.cli import options, terminal
from batch_snapshot.cli.invocation import note_simulator
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options

if TYPE_CHECKING:
    from batch_snapshot.discovery.readers import Environment

T = TypeVar("T")

#: Seconds between two lines in a log, and between two frames on a terminal.
LINES_EVERY, REDRAW_EVERY = 5.0, 0.2


def carry_out(given: dict[str, Any], work: Callable[[Options, "Environment"], Coroutine[Any, Any, T]]) -> T:
    """Carry out work with the options that are given, and show its progress."""
    from batch_snapshot.discovery.readers import Environment

    note_simulator(given["simulate"] if given["progress"] != "none" else None)
    with _progress(given["progress"]) as show:
        rng = Random()  # noqa: S311 - jitter
        environment = Environment(
            now=utc_now,
            rng=rng,
            on_progress=show,
            warn=lambda text: terminal.warn([text]),
            clock=time.monotonic,
        )
        return terminal.run(work(options.options_of(given), environment))


@contextmanager
def _progress(kind: str) -> Iterator[Callable[[str], None]]:
    """Shows texts on standard error: as a line every few seconds, or as one that is redrawn in place."""
    if kind == "auto":
        kind = "bar" if sys.stderr is not None and sys.stderr.isatty() else "lines"
    every = REDRAW_EVERY if kind == "bar" else LINES_EVERY
    width = shutil.get_terminal_size().columns - 1
    last, drawn = time.monotonic(), False

    def show(text: str) -> None:
        nonlocal last, drawn
        now = time.monotonic()
        if kind == "none" or now - last < every:
            return
        last = now
        if kind == "lines":
            terminal.log(text)
        else:
            drawn = True
            terminal.write("\r" + terminal.shown(text)[:width].ljust(width))

    try:
        yield show
    finally:
        if drawn:
            terminal.write("\r" + " " * width + "\r")
