"""The ledgers of a folder: outcome, counts and times of each."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger import prune, reader
from batch_snapshot.reporting.status import read_status
from batch_snapshot.reporting.summary import Summary, count_named


class ListedLedger(NamedTuple):
    path: Path
    name: str
    endpoint: str
    #: As `status` has it; damaged: it cannot be read to its end.
    outcome: str
    #: The outcome for people, such as "completed with failures".
    result: str
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
            known = count_named(end.counts)
            summary = Summary(outcome=end.outcome, counts=known, failures={}, ledger=str(path))
            changed_at = end.finished_at
        else:
            summary = read_status(path)
        outcome, result, counts = summary.outcome, summary.result, summary.counts.as_dict()
    except LedgerError:
        outcome, result, counts = "damaged", "damaged", {}
    name, endpoint = found.series
    return ListedLedger(path, name, endpoint, outcome, result, counts, found.started_at, changed_at)
