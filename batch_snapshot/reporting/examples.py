"""Rows that failed, read again from a ledger: a history keeps only where their lines are."""

from collections import Counter, defaultdict
from collections.abc import Collection
from contextlib import suppress
from itertools import islice
from pathlib import Path

from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger import reader
from batch_snapshot.ledger.history import FailureGroup, History, failure_group
from batch_snapshot.ledger.records import Result, named_rows
from batch_snapshot.reporting.entries import CRASH_MESSAGE
from batch_snapshot.reporting.stats import EXAMPLES
from batch_snapshot.reporting.summary import Example


def find_examples(
    path: Path, history: History, groups: Collection[FailureGroup], without: Collection[bytes] = ()
) -> dict[FailureGroup, list[Example]]:
    """A few rows of each of the groups, but none of those whose keys are in `without`."""
    wanted: dict[int, dict[bytes, FailureGroup]] = defaultdict(dict)
    missing = Counter(dict.fromkeys(groups, EXAMPLES))
    for key, past in history.unfinished.items():
        if past.status and key not in without and missing[group := failure_group(past)] > 0:
            missing[group] -= 1
            wanted[past.offset][key] = group
    found: defaultdict[FailureGroup, list[Example]] = defaultdict(list)
    with suppress(LedgerError):
        for offset, rows in sorted(wanted.items()):
            for line in islice(reader.lines(path, start=offset), 1):
                message = line.record.message or "" if isinstance(line.record, Result) else CRASH_MESSAGE
                for row in named_rows(line.record):
                    if row.key in rows:
                        found[rows[row.key]].append(Example(row, message))
    return found
