"""What `discover`, `verify` and `export` share, which only read from the service."""

import shutil
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from batch_snapshot.cli import options, terminal
from batch_snapshot.cli.invocation import note_simulator
from batch_snapshot.config.options import Options

if TYPE_CHECKING:
    from batch_snapshot.discovery.readers import Environment

T = TypeVar("T")

#: Seconds between two lines in a log, and between two frames on a terminal.
LINES_EVERY, REDRAW_EVERY = 5.0, 0.2


def carry_out(given: dict[str, Any], work: Callable[[Options, "Environment"], Coroutine[Any, Any, T]]) -> T:
    from batch_snapshot.discovery.readers import Environment

    note_simulator(given["simulate"] if given["progress"] != "none" else None)
    with _progress(given["progress"]) as show:
        environment = Environment(on_progress=show, warn=lambda text: terminal.warn([text]))
        return terminal.run(work(options.options_of(given), environment))


@contextmanager
def _progress(kind: str) -> Iterator[Callable[[str], None]]:
    """Shows texts on standard error: as a line every few seconds, or as one that is redrawn in place."""
    as_bar = kind == "bar" or (kind == "auto" and terminal.can_draw())
    every = REDRAW_EVERY if as_bar else LINES_EVERY
    width = shutil.get_terminal_size().columns - 1
    last, drawn = time.monotonic(), False

    def show(text: str) -> None:
        nonlocal last, drawn
        if kind == "none" or time.monotonic() - last < every:
            return
        last, drawn = time.monotonic(), as_bar
        if as_bar:
            terminal.write("\r" + terminal.shown(text)[:width].ljust(width))
        else:
            terminal.log(text)

    try:
        yield show
    finally:
        if drawn:
            terminal.write("\r" + " " * width + "\r")
