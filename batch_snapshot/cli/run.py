"""`run`: create the snapshots that a manifest lists, or resume."""

from pathlib import Path
from typing import Any

import click

from batch_snapshot.cli import invocation, notify, options, params, terminal
from batch_snapshot.cli.params import FILE, duration_text
from batch_snapshot.config.options import RESUME_WITHIN


@click.command("run", short_help="Create the snapshots that a manifest lists, or resume.")
@click.argument("manifest", type=FILE)
@click.option(
    "--ledger",
    metavar="PATH",
    help="The record of what became of each row; may hold {name} and {date}. "
    "Default: ledgers/{name}.ndjson. With --simulate the name gets .simulated before its ending.",
)
@click.option(
    "--run-id",
    type=params.run_id,
    metavar="ID",
    help="For a new ledger: the tokens are made from it. Default: random.",
)
@options.time(
    "--resume-within",
    default=duration_text(RESUME_WITHIN),
    show_default=True,
    help="With {date}: an unfinished ledger that began within this time is resumed before a new one is "
    "opened; a deferred one always is.",
)
@click.option(
    "--changed-since",
    type=params.changed_since,
    metavar="last|TIME",
    help="Leave out pairs whose opportunity was not modified since their last snapshot, or since a time "
    "(2026-01-31, 36h).",
)
@options.switch("--skip-active-jobs", help="Leave out pairs that a running snapshot job takes care of.")
@options.DRY_RUN
@options.switch(
    "--new-ledger",
    help="Start a new ledger although an unfinished one has vanished or is elsewhere: makes its snapshots "
    "again.",
)
@options.YES
@options.sending
@options.LOG_FORMAT
def run_command(manifest: Path, *, dry_run: bool, yes: bool, **given: Any) -> int:
    """Create the snapshots that MANIFEST lists, or resume where an earlier run stopped.

    \b
    batch-snapshot run backfill.yaml --max-duration 6h
    batch-snapshot run nightly.yaml --ledger 'ledgers/{name}-{date}.ndjson' --format json
    """
    terminal.current_reporter().interrupt_note = invocation.NOTHING_SENT
    from batch_snapshot.jobs import run

    notifiers = notify.notifiers("run", manifest, given)
    chosen = invocation.options_of(given)
    if dry_run:
        return invocation.print_preview(run.dry_run(manifest, chosen), given["form"])
    hooks = invocation.hooks_of(given, ask=not yes)
    return invocation.finish(run.run(manifest, chosen, hooks), given["form"], notifiers)
