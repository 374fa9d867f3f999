"""What a ledger says by itself, also while a run is writing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_snapshot import audit, ledger, locks, places, report
from batch_snapshot.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path


def of(path: Path) -> report.Summary:
    """Sum up the ledger at `path`: its outcome is that of its last invocation, or running, or crashed.

    Raises:
        LedgerError: it is no ledger, or has a line that makes no sense.
    """
    running = locks.holder_lives(places.ledger_lock(path))
    past = ledger.history_of(path, live=running)
    if past.last is None:
        raise LedgerError(f"{path}: no run has begun in it; name a ledger that a run has written")
    header, end = past.last, past.end
    counts = report.count(past.counts(), header.rows)
    failures = past.failures()
    settings = header.settings
    # A selection of accounts that is through leaves the others.
    kept = () if end and end.outcome == "completed" else ("accounts",)
    command = (
        report.run_command(header.manifest, str(path), header.endpoint, settings, *kept)
        if header.manifest
        else None
    )
    elapsed = (end.finished_at - header.started_at).total_seconds() if end else 0.0
    return report.Summary(
        outcome=end.outcome if end else "running" if running else "crashed",
        exit_code=0,
        counts=counts,
        failures=failures,
        ledger=str(path),
        run_id=header.run_id,
        elapsed_s=elapsed,
        reasons=[f"{past.in_flight:,} rows are named and not settled yet"] if running else (),
        next_steps=[]
        if running
        else report.next_steps(counts, failures, run=command, ledger=str(path), settings=settings),
    )


def check(path: Path) -> int:
    """Prove the ledger at `path` whole; returns the number of its rows.

    Raises:
        LedgerError: names the first line that is not whole, and why.
    """
    past = audit.check(ledger.read(path), f"{path}:")
    if past.last is None:
        raise LedgerError(f"{path}: no run has begun in it; name a ledger that a run has written")
    if ledger.torn(path):
        raise LedgerError(f"{path}: its last line is torn; run the same command to repair it and go on")
    return past.last.rows
