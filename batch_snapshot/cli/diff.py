"""`diff`: compare the ledgers of two nights."""

from pathlib import Path

import click

from batch_snapshot.cli import params, terminal
from batch_snapshot.cli.command import command
from batch_snapshot.cli.options import FORMAT, option


@command(
    "Compare the ledgers of two nights, or what their snapshots say.",
    "batch-snapshot diff ledgers/nightly-2026-01-30.ndjson ledgers/nightly-2026-01-31.ndjson",
    "batch-snapshot diff --payload exports/nightly-2026-01-30.ndjson exports/nightly-2026-01-31.ndjson",
)
@click.argument("before", type=params.FILE)
@click.argument("after", type=params.FILE)
@option("--payload", "BEFORE and AFTER are files of the command export: compare field by field.")
@FORMAT
def diff_command(before: Path, after: Path, *, payload: bool) -> int:
    """Show what differs between two nights: the ledgers BEFORE and AFTER. Nothing is called.

    Exit code 1 if rows fail, or are in doubt, that did not before. With --payload it is 0.
    """
    from batch_snapshot.export import diff as payloads
    from batch_snapshot.ledger import diff

    if payload:
        return terminal.print_outcome(payloads.as_json, payloads.as_text, payloads.diff(before, after))
    found = diff.diff(*(params.LEDGER.convert(one, None, None) for one in (before, after)))
    return terminal.print_outcome(diff.as_json, diff.as_text, found, exit_code=found.exit_code)
