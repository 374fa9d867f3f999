"""`ls`: the ledgers of a folder."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from batch_snapshot.cli import options, terminal
from batch_snapshot.cli.command import command
from batch_snapshot.cli.params import FOLDER
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import LedgerError
from batch_snapshot.text import UNITS, timestamp

if TYPE_CHECKING:
    from batch_snapshot.ledger.prune import OldLedger

_HEAD = ("AGE", "OUTCOME", "ROWS", "SUCCEEDED", "FAILED", "IN DOUBT", "LEFT", "NAME", "LEDGER")
_STATES = ("succeeded", "failed", "in_doubt", "unattempted")
_RIGHT = range(2, 7)


class ListedLedger(NamedTuple):
    path: Path
    name: str
    endpoint: str
    #: As `status` has it; damaged: it cannot be read to its end.
    outcome: str
    counts: dict[str, int]
    started_at: datetime
    #: When it was last written.
    changed_at: datetime


@command(
    "ls",
    "List ledgers: outcome, counts and age.",
    "batch-snapshot ls",
    "batch-snapshot ls /srv/ledgers --format json | jq '.ledgers[] | select(.counts.failed > 0) | .ledger'",
)
@click.argument("folder", type=FOLDER, default=Path("ledgers"))
@options.FORMAT
def ls_command(folder: Path, form: str) -> int:
    """List the ledgers in FOLDER (default: ledgers), the latest first."""
    from batch_snapshot.ledger import prune

    if not folder.exists():
        terminal.warn([f"{folder}: there is no such folder yet; runs make it, or name another one"])
    ledgers = [_listed(one) for one in prune.ledgers_in(folder)] if folder.exists() else []
    ledgers.sort(key=lambda one: one.changed_at, reverse=True)
    now = utc_now()
    return terminal.print_outcome(
        form,
        lambda: {"folder": str(folder), "ledgers": [_as_json(one, now) for one in ledgers]},
        lambda: _as_text(ledgers, now) if ledgers else f"{folder}: no ledgers",
    )


def _listed(found: "OldLedger") -> ListedLedger:
    """Read a ledger; only of one that has no end line every line is read."""
    from batch_snapshot.ledger import reader
    from batch_snapshot.reporting.status import LedgerWatch

    path = found.path
    changed_at = datetime.fromtimestamp(path.stat().st_mtime, found.started_at.tzinfo)
    try:
        end = reader.last_end(path)
        if end and end.counts:
            outcome, counts, changed_at = end.outcome, dict(end.counts), end.finished_at
        else:
            watch = LedgerWatch(path)
            watch.refresh()
            summary = watch.summary()
            outcome, counts = summary.outcome, summary.counts.as_dict()
    except LedgerError:
        outcome, counts = "damaged", {}
    name, endpoint = found.series
    return ListedLedger(path, name, endpoint, outcome, counts, found.started_at, changed_at)


def _as_json(one: ListedLedger, now: datetime) -> dict[str, Any]:
    return {
        "ledger": str(one.path),
        "name": one.name,
        "endpoint": one.endpoint,
        "outcome": one.outcome,
        "counts": one.counts,
        "started_at": timestamp(one.started_at),
        "changed_at": timestamp(one.changed_at),
        "age_s": round(max(0.0, (now - one.changed_at).total_seconds())),
    }


def _as_text(ledgers: list[ListedLedger], now: datetime) -> str:
    table = [_HEAD, *(_cells(one, now) for one in ledgers)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in _RIGHT else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def _cells(one: ListedLedger, now: datetime) -> tuple[str, ...]:
    numbers = [f"{one.counts.get(state, 0):,}" for state in _STATES] if one.counts else ["?"] * len(_STATES)
    rows = f"{sum(one.counts.values()):,}" if one.counts else "?"
    return (
        _age((now - one.changed_at).total_seconds()),
        one.outcome,
        rows,
        *numbers,
        one.name,
        str(one.path),
    )


def _age(seconds: float) -> str:
    """In its largest unit, such as 3h."""
    whole = max(0, int(seconds))
    unit = next((name for name in ("d", "h", "m") if whole >= UNITS[name]), "s")
    return f"{whole // UNITS[unit]:,}{unit}"
