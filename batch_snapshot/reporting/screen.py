"""A terminal on which a running run is drawn in place."""

from collections.abc import Callable
from io import StringIO
from math import ceil

from batch_snapshot.reporting import display
from batch_snapshot.reporting.display import Frame

_HIDE_CURSOR, _SHOW_CURSOR, _ERASE_LINE = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"


class Screen:
    """A block on a terminal that is redrawn in place, with lines above it.

    `write` must not fail, even if nobody reads the terminal any more.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        encoding: str = "utf-8",
        size: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        from rich.console import Console  # a run in a pipe draws nothing

        self._write = write
        self._ascii = encoding.replace("-", "").lower() != "utf8"
        self._console = Console(file=StringIO(), force_terminal=True, highlight=False, emoji=False)
        self._size = size or (lambda: self._console.size)
        self._paused = False
        #: What is drawn, and the columns of its lines.
        self._drawn = ""
        self._lengths: list[int] = []

    def close(self) -> None:
        """Erase the block; a later frame draws it again."""
        if self._drawn:
            self._write(_SHOW_CURSOR + self._erasing())
            self._drawn, self._lengths = "", []

    def pause(self) -> None:
        self._paused = True
        self.close()

    def resume(self) -> None:
        self._paused = False

    def show(self, frame: Frame) -> None:
        if self._paused:
            return
        width, height = self._size()
        lines = display.block(frame, width, height, ascii_only=self._ascii)
        with self._console.capture() as captured:
            self._console.print(*lines, sep="\n", end="", soft_wrap=True)
        erasing = self._erasing()
        self._drawn, self._lengths = captured.get(), [line.cell_len for line in lines]
        self._write(_HIDE_CURSOR + erasing + self._drawn)

    def print_above(self, text: str) -> None:
        self._write(f"{self._erasing()}{text}\n{self._drawn}")

    def _erasing(self) -> str:
        """Moves to the start of the block and erases it.

        A terminal that became narrower has wrapped its lines.
        """
        if not self._lengths:
            return ""
        width = self._size()[0]
        rows = sum(max(1, ceil(length / width)) for length in self._lengths)
        # Line by line: tmux keeps a screen that is cleared at once in its history.
        return "\r" + "\x1b[1A".join([_ERASE_LINE] * rows)
