"""What the lines and rows of a ledger add up to, for a page. Pure."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_snapshot.ledger.history import FailureGroup, History
from batch_snapshot.ledger.records import Header, Line, Result
from batch_snapshot.models import ErrorKind, Status
from batch_snapshot.reporting.entries import UNATTEMPTED
from batch_snapshot.reporting.stats import count, time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from batch_snapshot.reporting.entries import ReportEntry

#: Different messages that a group of failures quotes, and the characters of each.
QUOTED, QUOTED_LENGTH = 5, 600


@dataclass(slots=True)
class Invocation:
    """One time that the program was started for this ledger."""

    command: str
    began: datetime
    #: Its end, or what was heard of it last.
    ended: datetime
    outcome: str = "crashed"
    results: int = 0
    #: By second since it began: rows that succeeded, failed, are in doubt, and throttles.
    seconds: dict[int, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class AccountFacts:
    """One account's rows and calls."""

    statuses: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    throttled: int = 0


@dataclass(slots=True)
class Group:
    """Rows that failed, or are in doubt, alike."""

    rows: int = 0
    accounts: Counter[str] = field(default_factory=Counter)
    #: The first different messages, and how many rows bear each.
    messages: Counter[str] = field(default_factory=Counter)
    #: Rows whose message is not among them.
    others: int = 0

    def add(self, entry: ReportEntry) -> None:
        """Count one more."""
        self.rows += 1
        self.accounts[entry.row.account] += 1
        # Messages that differ in the row's own names alone are one.
        text = entry.message[:QUOTED_LENGTH]
        for name, value in (("engagement", entry.row.engagement), ("resource", entry.row.resource)):
            text = text.replace(value, f"‹{name}›") if value else text
        if text in self.messages or len(self.messages) < QUOTED:
            self.messages[text] += 1
        else:
            self.others += 1


_COLUMNS = {Status.SUCCEEDED: 0, Status.FAILED: 1, Status.IN_DOUBT: 2}


@dataclass(slots=True)
class Facts:
    """The sums; lines are added first, then the rows that they amount to."""

    history: History = field(default_factory=History)
    invocations: list[Invocation] = field(default_factory=list)
    #: Seconds of each call that was a row's only one and was answered.
    latencies: array[float] = field(default_factory=lambda: array("d"))
    #: Results by their number of tries.
    attempts: Counter[int] = field(default_factory=Counter)
    accounts: dict[str, AccountFacts] = field(default_factory=dict)
    groups: dict[FailureGroup, Group] = field(default_factory=dict)
    #: The offset of the last result of rows that succeeded and bear another one since.
    again: dict[bytes, int] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """Of all invocations, as far as results tell of them."""
        return sum(account.calls for account in self.accounts.values())

    @property
    def throttled(self) -> int:
        """Those of them that were throttled."""
        return sum(account.throttled for account in self.accounts.values())

    def add(self, line: Line) -> None:
        """Take in the next line, read with all its fields.

        Raises:
            LedgerError: as `History.add`.
        """
        record = line.record
        before = len(self.history.succeeded)
        self.history.add(line)
        if isinstance(record, Header):
            self.invocations.append(Invocation(record.command, record.started_at, record.started_at))
        elif isinstance(record, Result):
            self._settle(record)
            self._count_again(record, line.offset, len(self.history.succeeded) - before)
        elif self.history.end is not None:
            last = self.invocations[-1]
            last.ended, last.outcome = self.history.end.finished_at, self.history.end.outcome

    def _count_again(self, result: Result, offset: int, more: int) -> None:
        """Note a row that succeeds a second time, or succeeded and has failed since."""
        if result.status is not Status.SUCCEEDED:
            if more < 0:
                self.again[result.row.key] = offset
        elif more == 0 or (self.again and result.row.key in self.again):
            self.again[result.row.key] = offset

    def _settle(self, result: Result) -> None:
        fields = result.fields or {}
        attempts, throttles = count(fields.get("attempts")), count(fields.get("throttles"))
        account = self.accounts.setdefault(result.row.account, AccountFacts())
        account.calls += attempts + throttles
        account.throttled += throttles
        self.attempts[attempts] += 1
        last = self.invocations[-1]
        last.results += 1
        finished_at = time(fields.get("finished_at"))
        if finished_at is None:
            return
        last.ended = max(last.ended, finished_at)
        sums = last.seconds.setdefault(max(0, int((finished_at - last.began).total_seconds())), [0, 0, 0, 0])
        sums[_COLUMNS[result.status]] += 1
        sums[3] += throttles
        if attempts == 1 and not throttles and not fields.get("reconciled"):
            self._measure(result.first_sent_at, time(fields.get("started_at")), finished_at)

    def _measure(self, sent_at: datetime | None, started_at: datetime | None, finished_at: datetime) -> None:
        """The time of a call that was a row's only one, unless an earlier run made the first."""
        if sent_at and started_at and sent_at >= started_at:
            self.latencies.append(max(0.0, (finished_at - sent_at).total_seconds()))

    def row(self, entry: ReportEntry) -> None:
        """Take in what became of one row."""
        self.accounts.setdefault(entry.row.account, AccountFacts()).statuses[entry.status] += 1
        if entry.status not in {Status.SUCCEEDED, UNATTEMPTED}:
            group = FailureGroup(Status(entry.status), entry.kind or ErrorKind.UNKNOWN, entry.code)
            self.groups.setdefault(group, Group()).add(entry)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below or at which `share` of the `ordered` values lie (nearest rank)."""
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]
