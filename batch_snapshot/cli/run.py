"""`run`: create the snapshots that a manifest lists, or resume."""

from pathlib import Path
from typing import Any

import click

from batch_snapshot.cli import invocation, notify, options, params, serving
from batch_snapshot.cli.command import command, option, section
from batch_snapshot.cli.params import MANIFEST, duration_text
from batch_snapshot.config.options import RESUME_WITHIN

_LEDGER = option(
    "--ledger",
    metavar="PATH",
    help="The record of what became of each row; may hold {name} and {date}. "
    "Default: ledgers/{name}.ndjson. With --simulate the name gets .simulated before its ending.",
)
_LEDGER_OPTIONS = [
    option(
        "--run-id",
        type=params.run_id,
        metavar="ID",
        help="For a new ledger: the tokens are made from it. Default: random.",
    ),
    options.time(
        "--resume-within",
        default=duration_text(RESUME_WITHIN),
        show_default=True,
        help="With {date}: an unfinished ledger that began within this time is resumed before a new one is "
        "opened; a deferred one always is.",
    ),
    options.switch(
        "--new-ledger",
        help="Start a new ledger although an unfinished one has vanished or is elsewhere: makes its "
        "snapshots again.",
    ),
]
_FILTERS = [
    option(
        "--changed-since",
        type=params.changed_since,
        metavar="last|TIME",
        help="Leave out pairs whose opportunity was not modified since their last snapshot, or since a time "
        "(2026-01-31, 36h).",
    ),
    options.switch("--skip-active-jobs", help="Leave out pairs that a running snapshot job takes care of."),
]


@command(
    "run",
    "Create the snapshots that a manifest lists, or resume.",
    "batch-snapshot run backfill.yaml --limit 10",
    "batch-snapshot run backfill.yaml --max-duration 6h",
    "batch-snapshot run pairs.csv --catalog Sandbox --simulate=rate=500,latency=80ms",
    "batch-snapshot run nightly.yaml --ledger 'ledgers/{name}-{date}.ndjson' --format json",
    interrupt_note=invocation.NOTHING_SENT,
)
@click.argument("manifest", type=MANIFEST)
@section("Common", _LEDGER, *options.FILE_AS_MANIFEST)
@section("Filters", *_FILTERS)
@section("Ledger", *_LEDGER_OPTIONS)
@section("Output", options.ALL_PROBLEMS)
@options.sending
def run_command(manifest: Path, *, dry_run: bool, yes: bool, **given: Any) -> int:
    """Create the snapshots that MANIFEST lists, or resume where an earlier run stopped.

    MANIFEST is YAML, or a CSV or NDJSON file of pairs. Snapshots cannot be deleted, and they notify partners.
    """
    from batch_snapshot.jobs import run

    notifiers = notify.notifiers("run", manifest, given)
    chosen = invocation.options_of(given)
    if dry_run:
        return invocation.print_preview(run.dry_run(manifest, chosen), given["form"])
    page = serving.ServedRun(given)
    hooks = page.hooks(notifiers.hooks(invocation.hooks_of(given, ask=not yes)))
    return invocation.finish(page.during(run.run(manifest, chosen, hooks)), given["form"], notifiers)
