"""`retry`: send failed rows of a ledger again."""

from functools import partial
from pathlib import Path
from typing import Any

from batch_snapshot import paths
from batch_snapshot.cli import options, params, terminal
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options


@options.command(
    """
    Try failed rows again, from the ledger alone.
    $ batch-snapshot retry ledgers/backfill.ndjson
    $ batch-snapshot retry ledgers/backfill.ndjson --only denied
    $ batch-snapshot retry 'ledgers/nightly-{date}.ndjson'
    --only=WORD,…     Only rows with these error kinds (transient, conflict, quota, denied, not_found,
                      invalid, unknown) or error codes, or in_doubt.
    --all everything  All rows that failed or are in doubt.
    [Ledger]
    --run-id=ID       The run id of the ledger; any other is refused.
    """,
    options.sending,
    interrupt_note=options.NOTHING_SENT,
    only={"type": str, "shell_complete": params.complete_failures},
)
@options.LEDGER
def retry_command(ledger: Path, *, only: str | None, everything: bool, **given: Any) -> int:
    """Try failed rows of LEDGER again; no manifest is needed.

    By default it takes the rows that another try can fix: kinds transient, conflict and quota, and rows in
    doubt.

    With {date} in the name it takes the newest such ledger. It does nothing, and exits with 0, if there is
    none yet, or if run will resume that ledger: one that was deferred, or one that is unfinished and began
    less than 20 hours ago.
    """
    from batch_snapshot.cli import invocation, notify
    from batch_snapshot.jobs import plan, run
    from batch_snapshot.reporting.summary import Counts, Summary

    chosen = invocation.options_of(given)
    notifiers = notify.Notifiers("retry", ledger, given)
    path, nothing = _ledger(ledger, chosen)
    if nothing:
        done: dict[str, Any] = {"outcome": "completed", "counts": Counts(), "failures": {}}
        ended = Summary(**done, ledger=str(path), command="retry", warnings=[nothing])
        return invocation.print_summary(ended)
    selection = partial(plan.select, only=only, everything=everything)
    start, show = partial(run.retry, path, selection, chosen), partial(run.dry_retry, path, selection, chosen)
    return invocation.carry_out(given, notifiers, start, show)


def _ledger(given: Path, options: Options) -> tuple[Path, str | None]:
    """The ledger that is meant, and why there is nothing to retry, if so."""
    from batch_snapshot.jobs import resume

    if given.exists():
        return given, None
    if "{" in str(given):
        newest, warnings = resume.newest_ledger(str(given), options)
        terminal.warn(warnings)
        if newest is None:
            return given, f"{given}: there is no such ledger yet: nothing to retry"
        if resume.resumable(newest, utc_now()):
            why = f"{newest}: is not finished, and run resumes it, whatever its age if it was deferred"
            return newest, f"{why}: nothing to retry before that"
        return newest, None
    simulated = Path(paths.simulated_name(str(given)))
    return simulated if options.simulate and simulated.exists() else given, None
