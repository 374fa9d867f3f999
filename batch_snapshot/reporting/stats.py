"""What the lines of a ledger add up to, account by account, as they come. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from batch_snapshot.ledger.history import History
from batch_snapshot.ledger.records import End, Header, Intent, Line, Result, Skipped
from batch_snapshot.models import LARGEST, YEARS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_snapshot.models import Status

#: Over so long the present rate is measured.
RECENT = timedelta(seconds=60)


@dataclass(slots=True)
class AccountTally:
    """One account's rows, and its calls in the last invocation as far as results tell of them."""

    statuses: Counter[Status] = field(default_factory=Counter)
    calls: int = 0
    throttled: int = 0


class LedgerTally:
    """The sums of a ledger, to which lines can be added while it grows."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.history = History()
        self.accounts: dict[str, AccountTally] = {}
        #: The line that was added last; reading goes on behind it.
        self.line: Line | None = None
        self.last_at: datetime | None = None
        self._pending: dict[bytes, str] = {}
        self._recent: deque[tuple[datetime, str, int]] = deque()

    def add(self, line: Line) -> None:
        """Take in the next line, read with all its fields.

        Raises:
            LedgerError: as `History.add`.
        """
        record = line.record
        before = self.history.status(record.row.key) if isinstance(record, Result) else None
        doubts = self._statuses() if isinstance(record, Header) else {}
        self.history.add(line)
        self.line = line
        if isinstance(record, Intent):
            self._pending |= {row.key: row.account for _, row, _ in record.rows}
        elif isinstance(record, Result):
            self._settle(record, before)
        elif isinstance(record, Skipped):
            self.last_at = record.at
        else:
            self._turn(record, doubts)

    def _turn(self, record: Header | End, doubts: Mapping[bytes, Status | None]) -> None:
        """An invocation begins or ends; before a beginning without an end, one has crashed."""
        if isinstance(record, Header):
            self._doubt(doubts)
            for account in self.accounts.values():
                account.calls = account.throttled = 0
            self._recent.clear()
        self.last_at = record.started_at if isinstance(record, Header) else record.finished_at
        self._pending.clear()

    def crashed(self) -> None:
        """The last invocation has no end and will get none."""
        before = self._statuses()
        self.history.mark_crashed()
        self._doubt(before)
        self._pending.clear()

    def _statuses(self) -> dict[bytes, Status | None]:
        return {key: self.history.status(key) for key in self._pending}

    def _doubt(self, before: Mapping[bytes, Status | None]) -> None:
        for key, was in before.items():
            self._move(self._pending[key], was, self.history.status(key))

    def _settle(self, result: Result, before: Status | None) -> None:
        self._pending.pop(result.row.key, None)
        account = self._move(result.row.account, before, result.status)
        fields = result.fields or {}
        throttles = count(fields.get("throttles"))
        calls = count(fields.get("attempts")) + throttles
        account.calls += calls
        account.throttled += throttles
        moment = time(fields.get("finished_at"))
        if moment is not None:
            self.last_at = moment
            self._recent.append((moment, result.row.account, calls))
            while moment - self._recent[0][0] > RECENT:
                self._recent.popleft()

    def _move(self, name: str, before: Status | None, after: Status | None) -> AccountTally:
        account = self.accounts.setdefault(name, AccountTally())
        if before:
            account.statuses[before] -= 1
        if after:
            account.statuses[after] += 1
        return account

    def rate(self, now: datetime, account: str | None = None) -> float:
        """Calls a second in the last minute before `now`, of one account or of all."""
        last = self.history.last
        if last is None:
            return 0.0
        begins = max(last.started_at, now - RECENT)
        seconds = (now - begins).total_seconds()
        calls = sum(number for at, name, number in self._recent if at > begins and account in {None, name})
        return calls / seconds if seconds >= 1 else 0.0


def count(value: Any) -> int:
    """A count out of a line; 0 for what is none."""
    sensible = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST
    return value if sensible else 0


def time(value: Any) -> datetime | None:
    """A time out of a line; None for what is none."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo and moment.year in YEARS else None
