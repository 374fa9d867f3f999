"""The live page: of the command `watch`, and of a run with `--serve`."""

import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from batch_snapshot.cli import terminal

if TYPE_CHECKING:
    from socket import socket

    from batch_snapshot.jobs.run import Hooks
    from batch_snapshot.reporting.progress import RunView

T = TypeVar("T")

#: The token of the page's address; if it is not set, addresses beyond loopback get a new one.
TOKEN = "BATCH_SNAPSHOT_SERVE_TOKEN"  # noqa: S105 - a name


def listen(address: tuple[str, int]) -> "socket":
    from batch_snapshot.reporting import server

    return server.Address(*address).listen()


@asynccontextmanager
async def serving(
    source: Callable[[], Path | None], listening: "socket", announce: Callable[[str], None]
) -> AsyncIterator[None]:
    """Serve the page while the context is open, and say where."""
    import secrets

    from batch_snapshot.reporting import server

    local = server.Address(*listening.getsockname()[:2]).is_loopback
    token = os.environ.get(TOKEN, "") or ("" if local else secrets.token_urlsafe(16))
    async with server.serve(source, listening, token):
        announce(f"live at {server.url(listening, token)}")
        yield


class ServedRun:
    """Shows a run live while it goes on; without an address it does nothing."""

    def __init__(self, address: tuple[str, int] | None) -> None:
        """Listen, so that an address that cannot be used is an error before the first call."""
        self._listening = listen(address) if address else None
        self._ledger: Path | None = None

    def hooks(self, hooks: "Hooks") -> "Hooks":
        """The hooks, which also find out the ledger."""
        inner = hooks.watch

        async def watch(view: "RunView") -> None:
            self._ledger = view.ledger
            if inner is not None:
                await inner(view)

        return replace(hooks, watch=watch) if self._listening else hooks

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        if self._listening is None:
            return await work
        async with serving(
            lambda: self._ledger, self._listening, lambda text: terminal.log(text, event="live")
        ):
            return await work
