"""`diff`: compare the ledgers of two nights."""

from pathlib import Path

import click

from batch_snapshot.cli import options, terminal
from batch_snapshot.cli.command import command
from batch_snapshot.cli.params import LEDGER


@command(
    "diff",
    "Compare the ledgers of two nights.",
    "batch-snapshot diff ledgers/nightly-2026-01-30.ndjson ledgers/nightly-2026-01-31.ndjson",
)
@click.argument("before", type=LEDGER)
@click.argument("after", type=LEDGER)
@options.FORMAT
def diff_command(before: Path, after: Path, form: str) -> int:
    """Show what differs between two nights: the ledgers BEFORE and AFTER. Nothing is called.

    Exit code 1 if rows fail, or are in doubt, that did not before.
    """
    from batch_snapshot.ledger import diff

    found = diff.diff(before, after)
    terminal.print_outcome(form, lambda: diff.as_json(found), lambda: diff.as_text(found))
    return found.exit_code
