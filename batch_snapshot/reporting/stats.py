"""The sums of outcomes or ledger lines: for the live display, `status`, summaries and the report.

`RowCounts.replace` is the one place where rows are counted. `RunStats` feeds it the outcomes of a running
invocation, `LedgerStats` the lines of a ledger. Pure.
"""

from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from batch_snapshot.ledger.history import FailureGroup, History, failure_group
from batch_snapshot.ledger.records import Control, End, Header, Intent, Line, Result
from batch_snapshot.models import ErrorKind, Outcome, Row, RowError, Skip, Status
from batch_snapshot.redaction import redacted
from batch_snapshot.reporting.next_steps import resume_command, run_command
from batch_snapshot.reporting.summary import AccountSummary, Counts, Example, Summary, ThisRun, count
from batch_snapshot.text import plural

if TYPE_CHECKING:
    from batch_snapshot.engine.account import AccountState  # the engine takes long to import

#: The present rate is measured over this time.
RECENT = timedelta(seconds=60)

#: Rows that are shown of each group of failures.
EXAMPLES = 2

#: The result of a row: a success, or the group of a row that failed or is in doubt.
RowResult = Status | FailureGroup


@dataclass(slots=True)
class RowCounts:
    statuses: Counter[Status | Skip] = field(default_factory=Counter)
    failures: Counter[FailureGroup] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return self.statuses[Status.FAILED] + self.statuses[Status.IN_DOUBT]

    def replace(self, before: RowResult | None, after: RowResult | None) -> None:
        for result, step in ((before, -1), (after, 1)):
            if isinstance(result, FailureGroup):
                self.failures[result] += step
                self.statuses[result.status] += step
            elif result is not None:
                self.statuses[result] += step


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
        self._past = past
        self._total = total
        self.todo = todo
        self.rows = RowCounts(past.counts(), past.failures())
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
        key, account = row.key, row.account
        result = _result_of(outcome.status, error)
        self.rows.replace(_result_in(self._past, key), result)
        self.accounts[account].replace(None, result)
        if key in self._past.unfinished:
            self.sent_again.add(key)
        if error and isinstance(result, FailureGroup):
            self.last_error = describe_error(row, error)
            if len(self.examples[result]) < EXAMPLES:
                self.examples[result].append(Example(row, error.message))
        self.settled[account] += 1
        self._looked_up += outcome.reconciled and not outcome.attempts

    def skip(self, reason: Skip, rows: int) -> None:
        self.rows.statuses[reason] += rows
        self._left_out += rows

    @property
    def counts(self) -> Counts:
        return count(self.rows.statuses, self._total)

    @property
    def this_run(self) -> ThisRun:
        done = sum((account.statuses for account in self.accounts.values()), Counter[Status | Skip]())
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
        statuses = self.accounts[account.name].statuses
        counts = {status.value: statuses[status] for status in Status}
        unattempted = self.todo.get(account.name, 0) - sum(counts.values())
        traffic, known = account.traffic, account.pacer.pace.known
        return AccountSummary(
            calls=traffic.calls,
            throttled_calls=traffic.throttled,
            learned_rate=round(known, 3) if known and traffic.calls else None,
            stopped=account.stop.reason if account.stop else None,
            counts={**counts, "unattempted": max(0, unattempted)},
        )


@dataclass(slots=True)
class Invocation:
    """One time that the program was started for a ledger."""

    command: str
    began: datetime
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
    header: Header | None = None


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
        #: Accounts of the rows that the last invocation has named and not settled, by the row's key.
        self._pending: dict[bytes, str] = {}
        self._recent: deque[tuple[datetime, str, int]] = deque()

    def ordered(self, header: Header) -> dict[str, RowCounts]:
        names = [*header.accounts, *self.accounts]
        return {name: self.accounts[name] for name in names if name in self.accounts}

    @property
    def rows(self) -> RowCounts:
        rows = RowCounts()
        for account in self.accounts.values():
            rows.statuses.update(account.statuses)
            rows.failures.update(account.failures)
        rows.statuses.update({reason: len(keys) for reason, keys in self.history.skipped.items()})
        return rows

    @property
    def counts(self) -> Counts:
        return count(self.rows.statuses, self.history.last.rows if self.history.last else 0)

    def add(self, line: Line) -> None:
        """Count the next line, read with all its fields."""
        record = line.record
        key = record.row.key if isinstance(record, Result) else b""
        before = _result_in(self.history, key)
        if isinstance(record, Header):
            self._put_in_doubt(partial(self.history.add, line))
        else:
            self.history.add(line)
        self.line = line
        if isinstance(record, Header):
            begun = Invocation(record.command, record.started_at, record.started_at, header=record)
            self.invocations.append(begun)
            self.paused = False
        elif isinstance(record, Intent):
            self._pending |= {one.row.key: one.account for one in record.rows}
        elif isinstance(record, Result):
            self._count_result(record, key, before, line.offset)
        elif isinstance(record, Control):
            self.paused = record.action == "pause" or (self.paused and record.action != "resume")
            # Another version may write other types.
            known = type(record.value) in {float, int} and isinstance(record.account, str | None)
            rate = record.value if known else 0.0
            # The run line before it may be lost.
            for last in self.invocations[-1:]:
                if record.action == "rate" and 0 < rate < 1e6 and last.header:
                    names = [record.account] if record.account else last.header.accounts
                    last.rates |= dict.fromkeys(names, rate)
        elif isinstance(record, End):
            self.paused = False
            self._pending.clear()
            self.invocations[-1].ended, self.invocations[-1].outcome = record.finished_at, record.outcome
        else:
            self.invocations[-1].ended = max(self.invocations[-1].ended, record.at)

    def mark_crashed(self) -> None:
        """The last invocation has no end and will get none."""
        self._put_in_doubt(self.history.mark_crashed)

    def _put_in_doubt(self, crash: Callable[[], None]) -> None:
        """Count pending rows as a crash leaves them in the history."""
        before = {key: _result_in(self.history, key) for key in self._pending}
        crash()
        for key, result in before.items():
            self.accounts[self._pending[key]].replace(result, _result_in(self.history, key))
        self._pending.clear()

    def _count_result(self, result: Result, key: bytes, before: RowResult | None, offset: int) -> None:
        account = result.account
        if result.status is not Status.SUCCEEDED:
            self.last_error = describe_error(result.row, result.error)
        self._pending.pop(key, None)
        self.accounts[account].replace(before, _result_of(result.status, result.error))
        if before is Status.SUCCEEDED or key in self.repeated:
            self.repeated[key] = offset
        attempts, throttles = result.attempts, result.throttles
        self.attempts[attempts] += 1
        last = self.invocations[-1]
        last.results += 1
        last.calls[account] += attempts + throttles
        last.throttled[account] += throttles
        finished_at = result.finished_at
        if finished_at is None:
            return
        last.ended = max(last.ended, finished_at)
        second = max(0, int((finished_at - last.began).total_seconds()))
        sums = last.seconds.setdefault(second, [0, 0, 0, 0])
        sums[_COLUMNS[result.status]] += 1
        sums[3] += throttles
        minute = int(finished_at.timestamp() // 60)
        self.hours[account][minute // 60] += attempts + throttles
        if result.status is not Status.SUCCEEDED:
            self.failed_minutes[account][minute] += 1
        self._recent.append((finished_at, account, attempts + throttles))
        while finished_at - self._recent[0][0] > RECENT:
            self._recent.popleft()
        sent_at, started_at = result.first_sent_at, result.started_at
        # Of a row's only call, unless an earlier run made the first. A row in doubt may have
        # waited for another.
        answered = result.status is not Status.IN_DOUBT and not result.reconciled
        if attempts == 1 and not throttles and answered and sent_at and started_at and sent_at >= started_at:
            self.latencies.append(max(0.0, (finished_at - sent_at).total_seconds()))

    def rate(self, now: datetime, account: str | None = None) -> float:
        """Calls a second in the last minute before `now`, of one account or of all."""
        if not self.invocations:
            return 0.0
        begins = max(self.invocations[-1].began, now - RECENT)
        seconds = (now - begins).total_seconds()
        calls = sum(number for at, name, number in self._recent if at > begins and account in {None, name})
        return calls / seconds if seconds >= 1 else 0.0

    def summary(self, header: Header, ledger: str, *, running: bool, elapsed_s: float) -> Summary:
        end, last = self.history.end, self.invocations[-1]
        # A completed run of some accounts leaves the others to do.
        kept = () if end and end.outcome == "completed" else ("accounts",)
        accounts = {
            name: AccountSummary(
                calls=last.calls[name],
                throttled_calls=last.throttled[name],
                counts={status.value: number for status, number in rows.statuses.items() if number},
            )
            for name, rows in self.ordered(header).items()
        }
        number = plural(self.history.in_flight, "row")
        named = f"{number} {'is' if number == '1 row' else 'are'} about to be sent or wait for an answer"
        again = run_command(header, ledger, *kept) if header.manifest else None
        if running and not end:
            again = resume_command(ledger) if self.paused else None
        return Summary(
            counts=self.counts,
            failures=+self.rows.failures,
            outcome=end.outcome if end else "running" if running else "crashed",
            ledger=ledger,
            run_id=header.run_id,
            elapsed_s=elapsed_s,
            accounts=accounts,
            reasons=[*(["paused by `control`"] if self.paused else []), named] if running else (),
            run_again=again,
            settings=header.settings,
        )


def describe_error(row: Row, error: RowError | None) -> str:
    what = f"{error.code}: {error.message}" if error else "no error is recorded"
    return redacted(f"{row.engagement}/{row.resource} {what}")


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below or at which `share` of the `ordered` values lie (nearest rank)."""
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]
