"""`status`: what became of the rows of a ledger; check, watch and repair it."""

import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_snapshot import interrupts
from batch_snapshot.cli import options, terminal
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError
from batch_snapshot.models import LONG_AGO
from batch_snapshot.text import plural, timestamp

if TYPE_CHECKING:
    from batch_snapshot.reporting.status import LedgerWatch

#: Seconds between two looks at a ledger.
LOOK_EVERY = 0.5


@options.command("""
    Show what became of the rows, also while a run is active.
    $ batch-snapshot status ledgers/backfill.ndjson --watch
    $ batch-snapshot status ledgers/backfill.ndjson --format json | jq .counts
    $ batch-snapshot status ledgers/backfill.ndjson --repair
    --check   Check that the ledger is whole; name the first line that is not.
    --watch   Show the progress until the run is over; Ctrl-C stops watching, not the run.
    --repair  Rewrite a damaged ledger: keep every whole line, put in doubt what cannot be proven, and keep
              the original beside it.
    --progress-interval --format --log-format
""")
@options.LEDGER
def status_command(
    ledger: Path, *, check: bool, watch: bool, repair: bool, progress_interval: float | None
) -> int:
    """Show what became of the rows of LEDGER, also while a run is writing it.

    With --check the exit code is 0 if every line follows from those before it, every intent is settled
    and the sums are right. Else it is 2, and the first wrong line is named.

    With --repair a ledger with lost or damaged lines (edited by hand, or after a power cut) becomes one
    that run and retry can resume. A ledger that is whole is not changed.
    """
    from batch_snapshot.reporting import status, summary

    if repair and watch:
        raise InputError("--repair and --watch cannot be used together: repair a ledger after its run")
    repaired = _repair(ledger) if repair else {}
    if check and watch:
        raise InputError("--check and --watch cannot be used together: check a ledger after its run")
    if check:
        rows = status.check_ledger(ledger)
        if terminal.current_reporter().form == "text":
            terminal.say(f"{ledger}: whole: {plural(rows, 'row')}, each in one state")
    watched = status.LedgerWatch(ledger)
    watched.refresh()
    if watch and watched.running:
        try:
            _watch(watched, progress_interval)
        except KeyboardInterrupt as error:
            terminal.log("stopped watching; the run continues")
            return interrupts.exit_code(error)
    result = watched.summary()
    terminal.print_result(lambda: {**summary.as_json(result), **repaired}, lambda: summary.as_text(result))
    return 0


def _repair(ledger: Path) -> dict[str, Any]:
    from batch_snapshot.ledger.repair import repair

    done = repair(ledger, utc_now())
    since = timestamp(done.unrecorded_since) if done.unrecorded_since else None
    if terminal.current_reporter().form == "json":
        original = str(done.original) if done.original else None
        return {"repair": {**asdict(done), "unrecorded_since": since, "original": original}}
    if done.original is None:
        terminal.say(f"{ledger}: is whole ({plural(done.kept, 'line')}): there is nothing to repair")
        return {}
    kinds = ", ".join(f"{number:,} {what}" for what, number in sorted(done.dropped_as.items()))
    dropped = f"{done.dropped:,} dropped{f' ({kinds})' if kinds else ''}"
    counts = f"{plural(done.kept, 'line')} kept, {dropped}, {done.added:,} added"
    terminal.say(f"{ledger}: repaired: {counts}, {plural(done.in_doubt, 'row')} in doubt")
    if since:
        what = f"look for a snapshot since {since} before they send such a row"
        if done.unrecorded_since == LONG_AGO:
            what = "send such a row if it has no snapshot, and else leave it in doubt"
        terminal.say(f"  the lost lines may have named rows that no other line names: run and retry {what}")
    terminal.say(f"  the ledger as it was: {done.original}")
    return {}


def _watch(watched: "LedgerWatch", interval: float | None) -> None:
    from batch_snapshot.reporting.progress import line_gap

    drawn = terminal.current_reporter().log_format == "text" and terminal.can_draw()
    with terminal.screen() if drawn else nullcontext() as screen:
        while watched.running:
            frame = watched.frame()
            (screen.show if screen else terminal.log_frame)(frame)
            until = time.monotonic() + (LOOK_EVERY if drawn else line_gap(frame.elapsed, interval))
            while watched.running and (left := until - time.monotonic()) > 0:
                time.sleep(min(left, LOOK_EVERY))
                watched.refresh()
