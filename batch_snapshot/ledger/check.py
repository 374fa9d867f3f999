"""Proves a ledger whole, or finds the first line that is not. Pure.

Whole means: every invocation is opened by a run line, and the last one closed by an end line (one
before it may have crashed); every result was named by an intent of its invocation, under the same
token; the counts of each end are those of the lines before it and sum to the rows.
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
    """Follow all `lines`; returns their history.

    Args:
        lines: of one ledger, in its order.
        source: what a line's number is put behind in messages, such as the file's name and a colon.

    Raises:
        LedgerError: names the first line that is not whole, and why.
    """
    auditor = _Auditor()
    number = 0
    for line in lines:
        number = line.number
        try:
            auditor.take(line)
        except LedgerError as error:
            raise type(error)(f"{source}{number}: {error}") from None
    if auditor.open:
        left = auditor.history.in_flight
        raise LedgerError(
            f"{source}{number}: the last invocation has no end line and {left:,} rows that are not settled: "
            "it runs still, or it crashed and the same command goes on"
        )
    return auditor.history


class _Auditor:
    """What must hold from line to line, and a history that is checked does not see for free."""

    def __init__(self) -> None:
        self.history = History(checked=True)
        self.open = False
        self._settled: set[bytes] = set()

    def take(self, line: Line) -> None:
        """Take the next line.

        Raises:
            LedgerError: it does not follow from the lines before it.
        """
        record = line.record
        if isinstance(record, End) and self.history.first:
            self._ended(record)
        self.history.add(line)
        if isinstance(record, Header):
            self.open = True
            self._settled.clear()
        elif isinstance(record, Intent):
            self._intended(record)
        elif isinstance(record, Result) and record.status is not Status.IN_DOUBT:
            # A row that went with a lost worker is in doubt, and named again for another one.
            self._settled.add(record.row.key)
        elif isinstance(record, End):
            self.open = False

    def _intended(self, intent: Intent) -> None:
        for _, row, _ in intent.rows:
            if row.key in self._settled:
                raise DamagedError(f"names {row.engagement}/{row.resource} a second time in one invocation")

    def _ended(self, end: End) -> None:
        """No count may be missing here, not even one that is zero."""
        known = self.history.expected_counts()
        if self.open and dict(end.counts) != known:
            raise DamagedError(f"counts {dict(end.counts)}, but the lines before say {known}")
