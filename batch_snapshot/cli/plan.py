"""`plan`: show what a run would do."""

from pathlib import Path
from typing import Any

from batch_snapshot.cli import options, terminal


@options.command(
    """
    Show what a run would do without calling AWS.
    $ batch-snapshot plan backfill.yaml --daily-quota 10000 --rate 1
    --ledger=PATH  Plan what is left of this ledger. Default: the ledger that run would write, if it exists.
    --name --catalog
    [Output] --all-problems
    """,
    options.planning,
)
@options.MANIFEST
def plan_command(manifest: Path, **given: Any) -> None:
    """Show what a run of MANIFEST would do: rows, calls, quota windows, and when it would end.

    It calls nothing. For quota windows it knows only the calls that runs on this machine have logged.
    """
    from batch_snapshot.cli import invocation
    from batch_snapshot.jobs import preview, run

    found = run.dry_run(manifest, invocation.options_of(given))
    terminal.print_result(preview.as_json, preview.as_text, found)
