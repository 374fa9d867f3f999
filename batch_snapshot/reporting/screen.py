"""A terminal on which a running run is drawn in place."""

from collections.abc import Callable
from typing import IO, cast

from batch_snapshot.reporting import display
from batch_snapshot.reporting.display import Frame


class Screen:
    """A block on a terminal that is redrawn in place, with lines above it.

    `write` must not fail, even if nobody reads the terminal any more.
    """

    def __init__(
        self, write: Callable[[str], None], encoding: str = "utf-8", width: int | None = None
    ) -> None:
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

    def close(self) -> None:
        """Erase the block; a later frame draws it again."""
        self._live.stop()

    def pause(self) -> None:
        self._paused = True
        self.close()

    def resume(self) -> None:
        self._paused = False

    def show(self, frame: Frame) -> None:
        if self._paused:
            return
        self._live.start()
        drawn = display.block(frame, self._console.width, ascii_only=self._ascii)
        self._live.update(drawn, refresh=True)

    def print_above(self, text: str) -> None:
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
        pass
