"""`watch`: a ledger, or a folder of them, in a browser while it grows; also what `run --serve` needs."""

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import click

from batch_snapshot import interrupts
from batch_snapshot.cli import options, params, terminal
from batch_snapshot.errors import InputError

#: The token of the page's address; if it is not set, addresses beyond loopback get a new one.
TOKEN = "BATCH_SNAPSHOT_SERVE_TOKEN"  # noqa: S105 - a name


@options.command(
    """
    Show a ledger live in a browser.
    $ batch-snapshot watch ledgers/backfill.ndjson
    $ batch-snapshot watch ledgers --serve 127.0.0.1:9000
    $ batch-snapshot watch ledgers/backfill.ndjson --control
    --serve=HOST:PORT  Where the page is served.
    --control --state-dir
    """,
    serve={"default": params.SERVED_AT},
)
@options.LEDGER
def watch_command(ledger: Path, serve: tuple[str, int], *, control: bool, state_dir: Path | None) -> int:
    """Show LEDGER live in a browser, also while a run is writing it. For a folder, show all its ledgers.

    It is the page of the report, kept up to date until Ctrl-C. It only reads, unless --control gives it
    buttons. Everyone on this machine can open it. On other machines, and with --control, it needs a token,
    which $BATCH_SNAPSHOT_SERVE_TOKEN sets.
    """
    import anyio

    from batch_snapshot.ledger import reader

    if not ledger.is_dir():
        reader.last_header(ledger)
    page = live_page(lambda: ledger, serve, click.echo, control=control, state_dir=state_dir)

    async def show() -> None:
        async with page:
            await anyio.sleep_forever()

    try:
        terminal.run(show())
    except KeyboardInterrupt as error:
        terminal.log("stopped watching; runs continue")
        return interrupts.exit_code(error)
    return 0


def live_page(
    source: Callable[[], Path | None],
    address: tuple[str, int],
    announce: Callable[[str], None],
    *,
    control: bool,
    state_dir: Path | None,
) -> AbstractAsyncContextManager[None]:
    """Listen now; the context that is returned serves the page while it is open, and says where.

    With buttons the page always has a token: only the run's user may press them.
    """
    import secrets

    from batch_snapshot.jobs import control as jobs_control
    from batch_snapshot.reporting import server

    def send(ledger: Path, action: str, value: str | None, account: str | None) -> str:
        return jobs_control.send(ledger, state_dir, jobs_control.parse(action, value, account))

    if control and not server.is_loopback(address[0]):
        raise InputError(
            f"--control: works on loopback only, not at {address[0]}: leave it out, or serve at 127.0.0.1 "
            "and reach that from another machine with ssh -L"
        )
    listening = server.listen(*address)
    open_to_all = server.is_loopback(listening.getsockname()[0]) and not control
    token = os.environ.get(TOKEN, "") or ("" if open_to_all else secrets.token_urlsafe(16))
    return server.serve(source, listening, token, send if control else None, announce)
