"""The progress of commands that only read from the service: `discover` and `verify`."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from batch_snapshot.cli import terminal
from batch_snapshot.clock import utc_now

if TYPE_CHECKING:
    from batch_snapshot.discovery.readers import Environment

#: Seconds between two lines in a log, and between two frames on a terminal.
LINES_EVERY, REDRAW_EVERY = 5.0, 0.2


def environment(progress: Callable[[str], None]) -> "Environment":
    """The real clocks and randomness, and where progress goes."""
    from random import Random

    from batch_snapshot.discovery.readers import Environment

    return Environment(now=utc_now, rng=Random(), on_progress=progress, clock=time.monotonic)  # noqa: S311 - jitter


class ProgressLine:
    """Progress on standard error: a line every few seconds, or one that is redrawn in place."""

    def __init__(self, kind: str) -> None:
        if kind == "auto":
            kind = "bar" if sys.stderr is not None and sys.stderr.isatty() else "lines"
        self._kind = kind
        self._last = time.monotonic()
        self._width = shutil.get_terminal_size().columns
        self._drawn = False

    def __call__(self, text: str) -> None:
        """Show the text, unless another was shown just before."""
        every = REDRAW_EVERY if self._kind == "bar" else LINES_EVERY
        now = time.monotonic()
        if self._kind == "none" or now - self._last < every:
            return
        self._last = now
        if self._kind == "lines":
            terminal.log(text)
            return
        self._drawn = True
        terminal.write("\r" + terminal.shown(text)[: self._width - 1].ljust(self._width - 1))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._drawn:
            terminal.write("\r" + " " * (self._width - 1) + "\r")
