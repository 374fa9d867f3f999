"""A terminal on which a running run is drawn in place."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Self, cast

from batch_snapshot.reporting import display

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from batch_snapshot.reporting.display import Frame


class Screen:
    """A block on a terminal that is redrawn in place, with lines above it. Leaving it erases the block.

    `write` must not fail, even if nobody reads the terminal any more.
    """

    def __init__(
        self, write: Callable[[str], None], *, width: int | None = None, encoding: str = "utf-8"
    ) -> None:
        """Draw with `write`.

        Args:
            write: takes text with control sequences.
            width: of the terminal, in columns; None: its present width at each frame.
            encoding: of the terminal; without UTF-8 the bar is drawn in ASCII.
        """
        from rich.console import Console  # noqa: PLC0415 - a run in a pipe draws nothing
        from rich.live import Live  # noqa: PLC0415

        self._paused = False
        self._ascii = encoding.replace("-", "").lower() != "utf8"
        self._console = Console(
            file=cast("IO[str]", _TerminalStream(write)),
            force_terminal=True,
            width=width,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        """Begin; nothing is drawn before the first frame."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Erase the block."""
        self.close()

    def close(self) -> None:
        """Erase the block; a later frame draws it again."""
        self._live.stop()

    def pause(self) -> None:
        """Erase the block, and draw none until `resume`."""
        self._paused = True
        self.close()

    def resume(self) -> None:
        """Draw the next frame again."""
        self._paused = False

    def show(self, frame: Frame) -> None:
        """Draw a frame in place of the one before."""
        if self._paused:
            return
        self._live.start()
        drawn = display.block(frame, self._console.width, ascii_only=self._ascii)
        self._live.update(drawn, refresh=True)

    def print_above(self, text: str) -> None:
        """Write a line above the block."""
        from rich.text import Text  # noqa: PLC0415

        self._console.print(Text(text), soft_wrap=True)


class _TerminalStream:
    """The part of a text file that rich uses."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def write(self, text: str) -> int:
        self._write(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""
