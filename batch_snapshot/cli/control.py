"""`control`: pause, resume, slow down or end an active run."""

from pathlib import Path

import click

from batch_snapshot.cli import options, terminal


@options.command("""
    Pause, resume, slow down or end an active run.
    $ batch-snapshot control ledgers/backfill.ndjson pause
    $ batch-snapshot control ledgers/backfill.ndjson resume
    $ batch-snapshot control ledgers/backfill.ndjson rate 2.5 --account main
    $ batch-snapshot control ledgers/backfill.ndjson drain
    --account=NAME  With rate: only this account. Default: all accounts of the run.
    --state-dir --format --log-format
""")
@options.LEDGER
@click.argument("action", metavar="pause|resume|rate|concurrency|drain")
@click.argument("value", required=False)
def control_command(
    ledger: Path, action: str, value: str | None, account: str | None, state_dir: Path | None
) -> None:
    """Pause, resume, slow down or end the run that writes LEDGER, within a second.

    pause: calls in flight finish, and no new call begins. The run keeps its locks, and --max-duration keeps
    counting.

    resume: calls begin again.

    rate N: N calls a second for each account, as with --rate.

    concurrency N: at most N calls in flight.

    drain: calls in flight finish, then the run ends with exit code 4, and the same command continues it.

    Only the user who started the run can do this, on the same machine. The ledger records it.
    """
    from batch_snapshot.jobs import control

    chosen = control.parse(action, value, account)
    done = control.send(ledger, state_dir, chosen)
    terminal.print_result(lambda: {**chosen._asdict(), "done": done}, lambda: done)
