"""`plan`: show what a run would do."""

from pathlib import Path
from typing import Any

from batch_snapshot.cli import invocation, options


@options.command("""
    Show what a run would do without calling AWS.
    $ batch-snapshot plan backfill.yaml --daily-quota 10000 --rate 1
    --ledger=PATH  Plan what is left of this ledger. Default: the ledger that run would write, if it exists.
    --name --catalog
    [Output] --all-problems
""")
@options.MANIFEST
@options.planning
def plan_command(manifest: Path, **given: Any) -> None:
    """Show what a run of MANIFEST would do: rows, calls, quota windows, and when it would end.

    It calls nothing. For quota windows it knows only the calls that runs on this machine have logged.
    """
    from batch_snapshot.jobs.run import dry_run

    invocation.print_preview(dry_run(manifest, options.options_of(given)))
