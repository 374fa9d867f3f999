"""`prune`: remove old ledgers."""

from pathlib import Path

import click

from batch_snapshot.cli import options, params, terminal
from batch_snapshot.clock import utc_now


@options.command(
    """
    Remove old ledgers that fully succeeded.
    $ batch-snapshot prune ledgers --keep 30 --dry-run
    --keep=N   Keep the newest N ledgers of each manifest, whatever is in them.
    --dry-run  Show what would be removed; remove nothing.
    --format
    """,
    keep={"required": True},
)
@click.argument("folder", metavar="LEDGER-FOLDER", type=params.FOLDER)
def prune_command(folder: Path, keep: int, *, dry_run: bool) -> None:
    """Remove old ledgers from LEDGER-FOLDER.

    A ledger in use, or with a row that did not succeed, is kept, however old it is. Files that are no
    ledgers are kept too. Folders inside LEDGER-FOLDER are not searched.
    """
    from batch_snapshot.ledger import prune

    if folder.exists():
        pruned = prune.prune(folder, keep, utc_now(), dry_run=dry_run)
    else:
        terminal.warn([f"{folder}: there is no such folder yet: nothing to prune"])
        pruned = prune.Pruned()
    found = {
        "removed": list(map(str, pruned.removed)),
        "kept": [{"ledger": str(path), "reason": reason} for path, reason in pruned.kept],
        "newest": pruned.newest,
        "dry_run": dry_run,
    }
    removed = "would be removed" if dry_run else "removed"
    lines = [f"{path}: {removed}" for path in pruned.removed]
    lines += [f"{path}: kept: {reason.removeprefix(f'{path}: ')}" for path, reason in pruned.kept]
    sums = f"{len(pruned.removed):,} {removed}, {len(pruned.kept):,} kept for a reason"
    lines.append(f"{sums}, {pruned.newest:,} among the newest")
    terminal.print_result(lambda: found, lambda: "\n".join(lines))
