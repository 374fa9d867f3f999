"""`diff`: compare the ledgers of two nights."""

from pathlib import Path

import click

from batch_snapshot.cli import options, terminal
from batch_snapshot.cli.params import FILE


@click.command("diff", short_help="Compare the ledgers of two nights.")
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
@options.FORMAT
def diff_command(before: Path, after: Path, form: str) -> int:
    """Show what differs between two nights: the ledgers BEFORE and AFTER. Nothing is called.

    Exit code 1 if rows fail, or are in doubt, that did not before.

    \b
    batch-snapshot diff ledgers/nightly-2026-01-30.ndjson ledgers/nightly-2026-01-31.ndjson
    """
    from batch_snapshot.ledger import diff

    found = diff.diff(before, after)
    terminal.print_outcome(form, lambda: diff.as_json(found), lambda: diff.as_text(found))
    return found.exit_code
