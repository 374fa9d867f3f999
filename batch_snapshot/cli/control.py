"""`control`: pause, resume, slow down or end a run while it goes on."""

from pathlib import Path

import click

from batch_snapshot.cli import options, terminal


@options.command("""
    Pause, resume, slow down or end a run while it goes on.
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
    """Have the run that writes LEDGER do something; it takes effect within a second.

    pause: no new call begins, and calls in flight end. The run keeps its locks, and --max-duration goes on.
    resume: calls begin again. rate N: so many calls a second and account, as with --rate. concurrency N: so
    many calls in flight. drain: calls in flight end, then the run ends with exit code 4, and the same command
    continues it.

    Only the run's own user can do this, on the same machine. The ledger records it.
    """
    from batch_snapshot.jobs import control

    chosen = control.parse(action, value, account)
    done = control.send(ledger, state_dir, chosen)
    terminal.print_result(lambda: {**chosen._asdict(), "done": done}, lambda: done)
