"""The live page: of the command `watch`, and of a run with `--serve`."""

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from batch_snapshot.cli import terminal
from batch_snapshot.errors import InputError

if TYPE_CHECKING:
    from socket import socket

    from batch_snapshot.jobs.run import Hooks
    from batch_snapshot.reporting.progress import RunView
    from batch_snapshot.reporting.server import Control

T = TypeVar("T")

#: The token of the page's address; if it is not set, addresses beyond loopback get a new one.
TOKEN = "BATCH_SNAPSHOT_SERVE_TOKEN"  # noqa: S105 - a name


def listen(address: tuple[str, int], *, control: bool) -> "socket":
    """A socket for the page, and for commands to the run if the page has buttons.

    Raises:
        InputError: it cannot listen there, or there must be no buttons there.
    """
    from batch_snapshot.reporting import server

    chosen = server.Address(*address)
    if control and not chosen.is_loopback:
        raise InputError(
            f"--control: works on loopback only, not at {chosen.host}: leave it out, or serve at 127.0.0.1 "
            "and reach that from another machine with ssh -L"
        )
    return chosen.listen()


def _controller(state_dir: Path | None) -> "Control":
    """Sends what a button says to the run that writes a ledger, as the command `control` does."""
    from batch_snapshot.jobs import control

    def send(ledger: Path, action: str, value: str | None, account: str | None) -> str:
        return control.send(ledger, state_dir, control.parse(action, value, account))

    return send


@asynccontextmanager
async def serving(
    source: Callable[[], Path | None],
    listening: "socket",
    announce: Callable[[str], None],
    *,
    control: bool,
    state_dir: Path | None,
) -> AsyncIterator[None]:
    """Serve the page while the context is open, and say where.

    With buttons it always has a token: only the run's user may press them.
    """
    import secrets

    from batch_snapshot.reporting import server

    local = server.Address(*listening.getsockname()[:2]).is_loopback
    token = os.environ.get(TOKEN, "") or ("" if local and not control else secrets.token_urlsafe(16))
    async with server.serve(source, listening, token, _controller(state_dir) if control else None):
        announce(f"live at {server.url(listening, token)}")
        yield


class ServedRun:
    """Shows a run live while it goes on; without the flag --serve it does nothing."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Listen, so that an address that cannot be used is an error before the first call."""
        address, self._control, self._state_dir = given["serve"], given["control"], given["state_dir"]
        if self._control and not address:
            raise InputError("--control: adds buttons to the page of --serve; give that too")
        self._listening = listen(address, control=self._control) if address else None
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
            lambda: self._ledger,
            self._listening,
            lambda text: terminal.log(text, event="live"),
            control=self._control,
            state_dir=self._state_dir,
        ):
            return await work
