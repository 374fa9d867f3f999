"""`diff`: compare the ledgers of two nights."""

from pathlib import Path

import click

from batch_snapshot.cli import options, terminal
from batch_snapshot.cli.command import command
from batch_snapshot.cli.params import FILE, LEDGER


@command(
    "diff",
    "Compare the ledgers of two nights, or what their snapshots say.",
    "batch-snapshot diff ledgers/nightly-2026-01-30.ndjson ledgers/nightly-2026-01-31.ndjson",
    "batch-snapshot diff --payload exports/nightly-2026-01-30.ndjson exports/nightly-2026-01-31.ndjson",
)
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
@options.switch("--payload", help="BEFORE and AFTER are files of the command export: compare field by field.")
@options.FORMAT
def diff_command(before: Path, after: Path, form: str, *, payload: bool) -> int:
    """Show what differs between two nights: the ledgers BEFORE and AFTER. Nothing is called.

    Exit code 1 if rows fail, or are in doubt, that did not before. With --payload it is 0.
    """
    from batch_snapshot.export import diff as payloads
    from batch_snapshot.ledger import diff

    if payload:
        changed = payloads.diff(before, after)
        return terminal.print_outcome(
            form, lambda: payloads.as_json(changed), lambda: payloads.as_text(changed)
        )
    found = diff.diff(LEDGER.convert(before, None, None), LEDGER.convert(after, None, None))
    terminal.print_outcome(form, lambda: diff.as_json(found), lambda: diff.as_text(found))
    return found.exit_code
