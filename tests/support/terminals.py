"""Pseudo-terminals on which commands run and someone types."""

import asyncio
import os
import pty
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.support.processes import Child, Finished, Place, first, until

#: Makes the terminal on standard error the one that controls the process, as a login does.
CONTROLLED = first("import fcntl, os, termios\nos.setsid()\nfcntl.ioctl(2, termios.TIOCSCTTY, 0)")


class Terminal:
    """Our end of a pseudo-terminal, what was shown there so far, and whether nobody is left to write."""

    def __init__(self, ours: int) -> None:
        self._ours: int | None = ours
        self.shown, self.ended = "", False
        asyncio.get_running_loop().add_reader(ours, self._read)

    def _read(self) -> None:
        assert self._ours is not None
        try:
            self.shown += os.read(self._ours, 65536).decode("utf-8", "replace")
        except OSError:  # Linux: nobody holds the other end any more
            self.ended = True
            asyncio.get_running_loop().remove_reader(self._ours)

    def type(self, text: str) -> None:
        assert self._ours is not None
        os.write(self._ours, text.encode())

    def close(self) -> None:
        """What closing the window does: the kernel sends SIGHUP, and nothing can be written any more."""
        if self._ours is not None:
            asyncio.get_running_loop().remove_reader(self._ours)
            os.close(self._ours)
            self._ours = None


@asynccontextmanager
async def on_terminal(
    place: Place, line: Sequence[str], *, columns: int = 0, script: str | None = CONTROLLED, **streams: Any
) -> AsyncIterator[tuple[Child, Terminal]]:
    """Start a command on a terminal, but for the `streams` that are given."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, columns))
    terminal = Terminal(ours)
    try:
        own = {"stdin": theirs, "stdout": theirs, "stderr": theirs} | streams
        async with place.started(*line, script=script, **own) as child:
            os.close(theirs)
            yield child, terminal
    finally:
        terminal.close()


async def typed(
    place: Place, line: Sequence[str], keys: str, columns: int = 0, *, stdout: bool = False
) -> tuple[Finished, str]:
    """Run a command on a terminal into which someone types; returns what was shown there, too."""
    streams = {} if stdout else {"stdout": asyncio.subprocess.PIPE}
    async with on_terminal(place, line, columns=columns, script=None, **streams) as (child, terminal):
        terminal.type(keys)
        done = await child.finished()
        await until(lambda: terminal.ended, "its last words")
    assert "Traceback" not in terminal.shown
    return done, terminal.shown
