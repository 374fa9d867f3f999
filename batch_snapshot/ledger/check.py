"""Checks that a ledger is whole, or finds the first line that is wrong. Pure.

Whole means: a run line opens every invocation, and an end line closes the last one (earlier ones may have
crashed). An intent of the same invocation names every result, under the same token. The counts of each end
line are those of the lines before it, and sum to the rows.
"""

from collections.abc import Iterable

from batch_snapshot.errors import DamagedError, LedgerError
from batch_snapshot.ledger.history import History
from batch_snapshot.ledger.records import End, Header, Intent, Line, Record, Result
from batch_snapshot.models import Status
from batch_snapshot.text import plural


def check(lines: Iterable[Line], source: str) -> History:
    """The history of `lines`; `LedgerError` names the first wrong line after `source`."""
    history = History(checked=True)
    settled: set[bytes] = set()
    number = 0
    for line in lines:
        number = line.number
        try:
            _check_all_counts(line.record, history)
            history.add(line)
            _check_named_once(line.record, settled)
        except LedgerError as error:
            raise type(error)(f"{source}{number}: {error}") from None
    if history.first and history.end is None:
        raise LedgerError(
            f"{source}{number}: the last invocation has no end line, and {plural(history.in_flight, 'row')} "
            "without a result: it still runs, or it crashed and the same command resumes it"
        )
    return history


# What follows is not part of `History.checked`: a resume need not pay for it.


def _check_all_counts(record: Record, history: History) -> None:
    """No count of an end line may be missing, not even one that is zero."""
    if isinstance(record, End) and history.first and history.end is None:
        known = history.expected_counts()
        if dict(record.counts) != known:
            raise DamagedError(f"counts {dict(record.counts)}, but the lines before say {known}")


def _check_named_once(record: Record, settled: set[bytes]) -> None:
    """No invocation names a row again after its result; `settled` are the rows of the present one."""
    if isinstance(record, Header):
        settled.clear()
    elif isinstance(record, Intent):
        for _, row, _ in record.rows:
            if row.key in settled:
                raise DamagedError(f"names {row.engagement}/{row.resource} a second time in one invocation")
    elif isinstance(record, Result) and record.status is not Status.IN_DOUBT:
        # A row of a lost worker is in doubt, and is named again for another worker.
        settled.add(record.row.key)
