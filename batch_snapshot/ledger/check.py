"""Checks that a ledger is whole, or finds the first line that is wrong. Pure.

Whole means: a run line opens every invocation, and an end line closes the last one (earlier ones may have
crashed). An intent of the same invocation names every result, under the same token. The counts of each end
line are those of the lines before it, and sum to the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_snapshot.errors import DamagedError, LedgerError
from batch_snapshot.ledger.history import History
from batch_snapshot.ledger.records import End, Header, Intent, Result
from batch_snapshot.models import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_snapshot.ledger.records import Line


def check(lines: Iterable[Line], source: str) -> History:
    """The history of `lines`, which must be whole.

    Args:
        lines: of one ledger, in its order.
        source: put before a line's number in messages, such as the file's name and a colon.

    Raises:
        LedgerError: names the first wrong line, and why.
    """
    auditor = _Auditor()
    number = 0
    for line in lines:
        number = line.number
        try:
            auditor.add(line)
        except LedgerError as error:
            raise type(error)(f"{source}{number}: {error}") from None
    if auditor.open:
        left = auditor.history.in_flight
        raise LedgerError(
            f"{source}{number}: the last invocation has no end line and {left:,} rows that are not settled: "
            "it still runs, or it crashed and the same command resumes it"
        )
    return auditor.history


class _Auditor:
    """What `History.checked` does not check, because a resume need not pay for it."""

    def __init__(self) -> None:
        self.history = History(checked=True)
        self.open = False
        self._settled: set[bytes] = set()

    def add(self, line: Line) -> None:
        """Check the next line.

        Raises:
            LedgerError: it does not follow from the lines before it.
        """
        record = line.record
        if isinstance(record, End) and self.history.first:
            self._check_end(record)
        self.history.add(line)
        if isinstance(record, Header):
            self.open = True
            self._settled.clear()
        elif isinstance(record, Intent):
            self._check_intent(record)
        elif isinstance(record, Result) and record.status is not Status.IN_DOUBT:
            # A row of a lost worker is in doubt, and is named again for another worker.
            self._settled.add(record.row.key)
        elif isinstance(record, End):
            self.open = False

    def _check_intent(self, intent: Intent) -> None:
        for _, row, _ in intent.rows:
            if row.key in self._settled:
                raise DamagedError(f"names {row.engagement}/{row.resource} a second time in one invocation")

    def _check_end(self, end: End) -> None:
        # No count may be missing, not even one that is zero.
        known = self.history.expected_counts()
        if self.open and dict(end.counts) != known:
            raise DamagedError(f"counts {dict(end.counts)}, but the lines before say {known}")
