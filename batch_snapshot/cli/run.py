"""`run`: create the snapshots that a manifest lists, or resume."""

from functools import partial
from pathlib import Path
from typing import Any

from batch_snapshot.cli import options, params
from batch_snapshot.config.options import RESUME_WITHIN


@options.command(
    """
    Create the snapshots that a manifest lists, or resume.
    $ batch-snapshot run backfill.yaml --limit 10
    $ batch-snapshot run backfill.yaml --max-duration 6h
    $ batch-snapshot run pairs.csv --catalog Sandbox --simulate=rate=500,latency=80ms
    $ batch-snapshot run nightly.yaml --ledger 'ledgers/{name}-{date}.ndjson' --format json
    --ledger=PATH           The record of what became of each row; may hold {name} and {date}. Default:
                            ledgers/{name}.ndjson. With --simulate the name gets .simulated before its
                            ending.
    --name --catalog
    [Filters]
    --changed-since=last|TIME  Leave out pairs whose opportunity was not modified since their last snapshot,
                            or since a time (2026-01-31, 36h).
    --skip-active-jobs
    [Ledger]
    --run-id=ID             For a new ledger: the tokens are made from it. Default: random.
    --resume-within=TIME    With {date}: an unfinished ledger that began within this time is resumed before a
                            new one is opened; a deferred one always is.
    --new-ledger            Start a new ledger although an unfinished one has vanished or is elsewhere. This
                            makes its snapshots again.
    [Output] --all-problems
    """,
    options.sending,
    interrupt_note=options.NOTHING_SENT,
    resume_within={"default": params.duration_text(RESUME_WITHIN)},
)
@options.MANIFEST
def run_command(manifest: Path, **given: Any) -> int:
    """Create the snapshots that MANIFEST lists, or resume where an earlier run stopped.

    MANIFEST is YAML, or a CSV or NDJSON file of pairs. Snapshots cannot be deleted, and they notify partners.
    """
    from batch_snapshot.cli import invocation, notify
    from batch_snapshot.jobs import run

    notifiers = notify.Notifiers("run", manifest, given)
    chosen = invocation.options_of(given)
    start, plan = partial(run.run, manifest, chosen), partial(run.dry_run, manifest, chosen)
    return invocation.carry_out(given, notifiers, start, plan)
