"""The sums of outcomes or ledger lines: for the live display, `status`, summaries and the report.

`RunStats` sums up the outcomes of a running invocation, `LedgerStats` the lines of a ledger. Pure.
"""

from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from batch_snapshot.ledger.history import FailureGroup, History, failure_group
from batch_snapshot.ledger.records import Control, End, Header, Line, Result, Skipped
from batch_snapshot.models import ErrorKind, Outcome, Row, RowError, Skip, Status
from batch_snapshot.redaction import redacted
from batch_snapshot.reporting.summary import AccountSummary, Counts, Example, ThisRun, count

if TYPE_CHECKING:
    from batch_snapshot.engine.account import AccountState  # the engine takes long to import

#: The present rate is measured over this time.
RECENT = timedelta(seconds=60)

#: Rows that are shown of each group of failures.
EXAMPLES = 2

#: The result of a row: a success, why it was left out, or the group of a row that failed or is in doubt.
RowResult = Status | Skip | FailureGroup


class RowCounts(Counter[RowResult]):
    """Rows by their result."""

    @classmethod
    def of(cls, history: History) -> "RowCounts":
        found = cls({Status.SUCCEEDED: len(history.succeeded)})
        found.update(history.failures())
        found.update({reason: len(keys) for reason, keys in history.skipped.items()})
        return found

    @property
    def statuses(self) -> Counter[Status | Skip]:
        found: Counter[Status | Skip] = Counter()
        for result, number in self.items():
            found[result.status if isinstance(result, FailureGroup) else result] += number
        return found

    @property
    def failures(self) -> dict[FailureGroup, int]:
        return {group: rows for group, rows in self.items() if isinstance(group, FailureGroup) and rows}

    def replace(self, before: RowResult | None, after: RowResult | None) -> None:
        for result, step in ((before, -1), (after, 1)):
            if result is not None:
                self[result] += step


def _result_in(history: History, key: bytes) -> RowResult | None:
    if key in history.succeeded:
        return Status.SUCCEEDED
    past = history.unfinished.get(key)
    return failure_group(past) if past and past.status else None


def _result_of(status: Status, error: RowError | None) -> RowResult:
    if status is Status.SUCCEEDED:
        return status
    return FailureGroup(status, *((error.kind, error.code) if error else (ErrorKind.UNKNOWN, "")))


class RunStats:
    """A run so far: counts and failures of the whole ledger, and of each account what this invocation did."""

    def __init__(self, past: History, total: int, todo: Mapping[str, int]) -> None:
        self._past, self._total, self.todo = past, total, todo
        self.rows = RowCounts.of(past)
        #: By account: results of this invocation, those of rows that are sent again included.
        self.accounts: defaultdict[str, RowCounts] = defaultdict(RowCounts)
        #: Rows of this invocation that will not be sent again, by account.
        self.settled: Counter[str] = Counter()
        self._left_out = self._looked_up = 0
        #: Keys of rows that the ledger had as failed or in doubt, and that have a new result.
        self.sent_again: set[bytes] = set()
        self.examples: defaultdict[FailureGroup, list[Example]] = defaultdict(list)
        #: The row that failed last, and why.
        self.last_error: str | None = None

    def add(self, outcome: Outcome) -> None:
        row, error = outcome.request.row, outcome.error
        key, result = row.key, _result_of(outcome.status, error)
        self.rows.replace(_result_in(self._past, key), result)
        self.accounts[row.account].replace(None, result)
        if key in self._past.unfinished:
            self.sent_again.add(key)
        if error and isinstance(result, FailureGroup):
            self.last_error = describe_error(row, error)
            if len(self.examples[result]) < EXAMPLES:
                self.examples[result].append(Example(row, error.message))
        self.settled[row.account] += 1
        self._looked_up += outcome.reconciled and not outcome.attempts

    def skip(self, reason: Skip, rows: int) -> None:
        self.rows[reason] += rows
        self._left_out += rows

    @property
    def counts(self) -> Counts:
        return count(self.rows.statuses, self._total)

    @property
    def this_run(self) -> ThisRun:
        done = sum((rows.statuses for rows in self.accounts.values()), Counter[Status | Skip]())
        todo = sum(self.todo.values())
        return ThisRun(
            rows=todo + self._left_out,
            sent=done.total() - self._looked_up,
            looked_up=self._looked_up,
            **{status.value: done[status] for status in Status},
            left_out=self._left_out,
            unattempted=max(0, todo - done.total()),
        )

    def account_summary(self, account: "AccountState") -> AccountSummary:
        counts = count(self.accounts[account.name].statuses, self.todo.get(account.name, 0))
        traffic, known = account.traffic, account.pacer.pace.known
        return AccountSummary(
            calls=traffic.calls,
            throttled_calls=traffic.throttled,
            learned_rate=round(known / account.sharing, 3) if known and traffic.calls else None,
            stopped=account.stop.reason if account.stop else None,
            counts=counts.as_dict(),
        )


@dataclass(slots=True)
class Invocation:
    """One time that the program was started for a ledger."""

    header: Header
    #: Its end, or the time of its last line.
    ended: datetime
    outcome: str = "crashed"
    results: int = 0
    #: Calls by account, of rows that have a result.
    calls: Counter[str] = field(default_factory=Counter)
    throttled: Counter[str] = field(default_factory=Counter)
    #: By account: calls a second that `control` has allowed since.
    rates: dict[str, float] = field(default_factory=dict)
    #: By second since it began: rows that succeeded, failed, are in doubt, and throttles.
    seconds: dict[int, list[int]] = field(default_factory=dict)

    @property
    def began(self) -> datetime:
        return self.header.started_at


_COLUMNS = {status: column for column, status in enumerate(Status)}


class LedgerStats:
    """The sums of a ledger, to which lines can be added while it grows."""

    def __init__(self) -> None:
        self.history = History()
        self.accounts: defaultdict[str, RowCounts] = defaultdict(RowCounts)
        self.invocations: list[Invocation] = []
        #: The line that was added last; reading continues after it.
        self.line: Line | None = None
        #: Seconds of each call that was a row's only one and was answered.
        self.latencies = array("d")
        self.attempts: Counter[int] = Counter()
        #: The offset of the last result of rows that succeeded and have another result since.
        self.repeated: dict[bytes, int] = {}
        #: The row that failed last, and why.
        self.last_error: str | None = None
        #: Whether `control` has paused the last invocation.
        self.paused = False
        #: By account: calls in each hour, and results that failed or are in doubt in each minute, since 1970.
        self.hours: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.failed_minutes: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._recent: deque[tuple[datetime, str, int]] = deque()

    @property
    def rows(self) -> RowCounts:
        rows = RowCounts({reason: len(keys) for reason, keys in self.history.skipped.items()})
        for account in self.accounts.values():
            rows.update(account)
        return rows

    @property
    def counts(self) -> Counts:
        return count(self.rows.statuses, self.history.last.rows if self.history.last else 0)

    def add(self, line: Line) -> None:
        """Count the next line, read with all its fields."""
        record = line.record
        if isinstance(record, Header):
            self._put_in_doubt(partial(self.history.add, line))
            self.invocations.append(Invocation(record, record.started_at))
            self.paused = False
        elif isinstance(record, Result):
            before = _result_in(self.history, key := record.row.key)
            self.history.add(line)
            self._count_result(record, key, before, line.offset)
        else:
            self.history.add(line)
        self.line = line
        if isinstance(record, Control):
            self.paused = record.action == "pause" or (self.paused and record.action != "resume")
            # Another version may write other types.
            known = type(record.value) in {float, int} and isinstance(record.account, str | None)
            # The run line before it may be lost.
            if record.action == "rate" and known and 0 < record.value < 1e6 and self.invocations:
                last = self.invocations[-1]
                names = [record.account] if record.account else last.header.accounts
                last.rates |= dict.fromkeys(names, record.value)
        elif isinstance(record, End):
            self.paused = False
            self.invocations[-1].ended, self.invocations[-1].outcome = record.finished_at, record.outcome
        elif isinstance(record, Skipped):
            self.invocations[-1].ended = max(self.invocations[-1].ended, record.at)

    def mark_crashed(self) -> None:
        """The last invocation has no end and will get none."""
        self._put_in_doubt(self.history.mark_crashed)

    def _put_in_doubt(self, crash: Callable[[], None]) -> None:
        """Count pending rows as a crash leaves them in the history."""
        before = {row: _result_in(self.history, row.key) for row in self.history.pending}
        crash()
        for row, result in before.items():
            self.accounts[row.account].replace(result, _result_in(self.history, row.key))

    def _count_result(self, result: Result, key: bytes, before: RowResult | None, offset: int) -> None:
        account, last, finished_at = result.account, self.invocations[-1], result.finished_at
        attempts, calls = result.attempts, result.attempts + result.throttles
        failed = result.status is not Status.SUCCEEDED
        if failed:
            self.last_error = describe_error(result.row, result.error)
        self.accounts[account].replace(before, _result_of(result.status, result.error))
        if before is Status.SUCCEEDED or key in self.repeated:
            self.repeated[key] = offset
        self.attempts[attempts] += 1
        last.results += 1
        last.calls[account] += calls
        last.throttled[account] += result.throttles
        if finished_at is None:
            return
        last.ended = max(last.ended, finished_at)
        second = max(0, int((finished_at - last.began).total_seconds()))
        sums = last.seconds.setdefault(second, [0, 0, 0, 0])
        sums[_COLUMNS[result.status]] += 1
        sums[3] += result.throttles
        minute = int(finished_at.timestamp() // 60)
        self.hours[account][minute // 60] += calls
        if failed:
            self.failed_minutes[account][minute] += 1
        self._recent.append((finished_at, account, calls))
        while finished_at - self._recent[0][0] > RECENT:
            self._recent.popleft()
        sent_at, started_at = result.first_sent_at, result.started_at
        # Of a row's only call, unless an earlier run made the first. A row in doubt may have
        # waited for another.
        answered = result.status is not Status.IN_DOUBT and not result.reconciled
        if attempts == calls == 1 and answered and sent_at and started_at and sent_at >= started_at:
            self.latencies.append(max(0.0, (finished_at - sent_at).total_seconds()))

    def rate(self, now: datetime, account: str | None = None) -> float:
        """Calls a second in the last minute before `now`, of one account or of all."""
        if not self.invocations:
            return 0.0
        begins = max(self.invocations[-1].began, now - RECENT)
        seconds = (now - begins).total_seconds()
        calls = sum(number for at, name, number in self._recent if at > begins and account in {None, name})
        return calls / seconds if seconds >= 1 else 0.0


def describe_error(row: Row, error: RowError | None) -> str:
    what = f"{error.code}: {error.message}" if error else "no error is recorded"
    return redacted(f"{row.engagement}/{row.resource} {what}")


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below or at which `share` of the `ordered` values lie (nearest rank)."""
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]
