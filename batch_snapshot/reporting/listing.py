"""The ledgers of a folder: outcome, counts and times of each."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger import prune, reader
from batch_snapshot.reporting.status import LedgerWatch


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


def list_ledgers(folder: Path) -> list[ListedLedger]:
    """The ledgers in a folder, the latest first; only of those without an end line every line is read.

    Raises:
        InputError: the folder cannot be read.
    """
    found = [_listed(one) for one in prune.ledgers_in(folder)]
    return sorted(found, key=lambda one: one.changed_at, reverse=True)


def _listed(found: prune.OldLedger) -> ListedLedger:
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
