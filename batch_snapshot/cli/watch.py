"""`watch`: a ledger, or a folder of them, in a browser while it grows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import interrupts
from batch_snapshot.cli import options, params, serving, terminal
from batch_snapshot.cli.command import command
from batch_snapshot.errors import LedgerError

if TYPE_CHECKING:
    from socket import socket


@command(
    "watch",
    "Show a ledger live in a browser.",
    "batch-snapshot watch ledgers/backfill.ndjson",
    "batch-snapshot watch ledgers --serve 127.0.0.1:9000",
    "batch-snapshot watch ledgers/backfill.ndjson --control",
)
@click.argument("ledger", type=params.LEDGER)
@options.with_default(
    "--serve",
    type=params.address,
    default=params.SERVED_AT,
    metavar="HOST:PORT",
    help="Where the page is served.",
)
@options.CONTROL
@options.STATE_DIR
def watch_command(ledger: Path, serve: tuple[str, int], *, control: bool, state_dir: Path | None) -> int:
    """Show LEDGER live in a browser, also while a run is writing it. For a folder, show all its ledgers.

    It is the page of the report, kept up to date until Ctrl-C. It only reads, unless --control gives it
    buttons. Everyone on this machine can open it. On other machines, and with --control, it needs a token,
    which $BATCH_SNAPSHOT_SERVE_TOKEN sets.
    """
    from batch_snapshot.ledger import reader

    if not ledger.is_dir() and reader.head(ledger) is None:
        raise LedgerError(f"{ledger}: no run has begun in it; name a ledger that a run has written")
    listening = serving.listen(serve, control=control)
    try:
        terminal.run(_show(ledger, listening, control=control, state_dir=state_dir))
    except KeyboardInterrupt as error:
        terminal.log("stopped watching; runs continue")
        return interrupts.exit_code(error)
    return 0


async def _show(ledger: Path, listening: "socket", **control: Any) -> None:
    import anyio

    async with serving.serving(lambda: ledger, listening, click.echo, **control):
        await anyio.sleep_forever()
