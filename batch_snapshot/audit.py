"""Proves a ledger whole, or finds the first line that is not. Pure.

Whole means: every invocation is opened by a run line, and the last one closed by an end line (one
before it may have crashed); every result was named by an intent of its invocation, under the same
token; the counts of each end are those of the lines before it and sum to the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_snapshot.errors import LedgerError
from batch_snapshot.history import End, Header, History, Intent, Result
from batch_snapshot.model import Skip, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_snapshot.history import Line


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
            raise LedgerError(f"{source}{number}: {error}") from None
    if auditor.open:
        left = len(auditor.named)
        raise LedgerError(
            f"{source}{number}: the last invocation has no end line and {left:,} rows that are not settled: "
            "it runs still, or it crashed and the same command goes on"
        )
    return auditor.history


class _Auditor:
    """What must hold from line to line."""

    def __init__(self) -> None:
        self.history = History()
        self.open = False
        #: Rows that the open invocation has named and not settled, and under which token.
        self.named: dict[bytes, str] = {}
        self._settled: set[bytes] = set()

    def take(self, line: Line) -> None:
        """Take the next line.

        Raises:
            LedgerError: it does not follow from the lines before it.
        """
        record = line.record
        if not isinstance(record, Header) and self.history.first and not self.open:
            raise LedgerError("follows an end line, but does not open an invocation")
        self.history.add(line)
        if isinstance(record, Header):
            self.open = True
            self.named.clear()
            self._settled.clear()
        elif isinstance(record, Intent):
            self._intended(record)
        elif isinstance(record, Result):
            self._resulted(record)
        elif isinstance(record, End):
            self._ended(record)

    def _intended(self, intent: Intent) -> None:
        for token, row, _ in intent.rows:
            key = row.key
            if key in self.named or key in self._settled:
                raise LedgerError(f"names {row.engagement}/{row.resource} a second time in one invocation")
            self.named[key] = token

    def _resulted(self, result: Result) -> None:
        row = f"{result.row.engagement}/{result.row.resource}"
        token = self.named.pop(result.row.key, None)
        if token is None:
            raise LedgerError(f"a result of {row}, which no intent named before")
        if token != result.client_token:
            raise LedgerError(f"a result of {row} under another token than intended")
        # What went with a worker that was lost is in doubt, and named again for another one.
        if result.status is not Status.IN_DOUBT:
            self._settled.add(result.row.key)

    def _ended(self, end: End) -> None:
        counts = self.history.counts()
        total = self.history.last.rows if self.history.last else 0
        known = {status.value: counts.get(status, 0) for status in Status}
        skipped = {reason.value: counts[reason] for reason in Skip if counts[reason]}
        known["unattempted"] = total - sum(known.values()) - sum(skipped.values())
        known |= skipped
        if dict(end.counts) != known:
            raise LedgerError(f"counts {dict(end.counts)}, but the lines before say {known}")
        self.open = False
        self.named.clear()
