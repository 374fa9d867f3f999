"""The summary of a run or ledger: counts, failures, exit code; and the same as JSON. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.models import AWS, CURABLE, Row, Skip, Status
from batch_snapshot.reporting.next_steps import remedy, report_command, retry_command


class _States(NamedTuple):
    succeeded: int = 0
    failed: int = 0
    in_doubt: int = 0
    unattempted: int = 0


class Counts(_States):
    """How many rows are in each state. As a tuple: the four states that every ledger has.

    Rows that were left out are apart: `unchanged` had not changed, `active_job` AWS's own jobs cover.
    """

    unchanged: int
    active_job: int

    def __new__(cls, *states: int, unchanged: int = 0, active_job: int = 0, **named: int) -> Self:
        self = super().__new__(cls, *states, **named)
        self.unchanged, self.active_job = unchanged, active_job
        return self

    @property
    def skipped(self) -> dict[Skip, int]:
        """The rows that were left out, by reason; without zeros."""
        both = {Skip.UNCHANGED: self.unchanged, Skip.ACTIVE_JOB: self.active_job}
        return {reason: number for reason, number in both.items() if number}

    @property
    def total(self) -> int:
        return sum(self) + self.unchanged + self.active_job

    @property
    def settled(self) -> bool:
        """Whether every row succeeded or was left out."""
        return not (self.failed or self.in_doubt or self.unattempted)

    def as_dict(self) -> dict[str, int]:
        """By name: the four states always, the others where they are not zero."""
        return {**self._asdict(), **{reason.value: number for reason, number in self.skipped.items()}}


def count(statuses: Mapping[Any, int], total: int) -> Counts:
    """The counts of `statuses`, by `Status` and `Skip`; the rest of `total` rows are unattempted."""
    known = {key.value: statuses.get(key, 0) for key in (*Status, *Skip)}
    return Counts(**known, unattempted=max(0, total - sum(known.values())))


def count_named(numbers: Mapping[str, int]) -> Counts:
    """The counts of an end line; states that this version does not know are left out."""
    known = (*Counts._fields, *Skip)
    return Counts(**{name: numbers[name] for name in known if name in numbers})


@dataclass(frozen=True, slots=True)
class AccountSummary:
    calls: int
    throttled_calls: int
    #: Calls a second at the end; None: nothing was called.
    learned_rate: float | None = None
    #: Why it stopped early, if it did.
    stopped: str | None = None
    #: Its rows by status, if known; of a run, only those that the run was to send.
    counts: Mapping[str, int] | None = None

    @property
    def has_failures(self) -> bool:
        """Whether it stopped early, or rows of it did not succeed."""
        return bool(self.stopped) or any(
            number for status, number in (self.counts or {}).items() if status != Status.SUCCEEDED
        )


class Example(NamedTuple):
    """A row that failed or is in doubt, and the message of its error."""

    row: Row
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ThisRun:
    """What one command did with the rows that it was to send."""

    rows: int
    #: Rows that were called for.
    sent: int
    #: Rows that an earlier try had made, and that were only looked up.
    looked_up: int
    succeeded: int
    failed: int
    in_doubt: int
    left_out: int

    @property
    def unattempted(self) -> int:
        settled = self.succeeded + self.failed + self.in_doubt
        return max(0, self.rows - settled - self.left_out)

    def as_dict(self) -> dict[str, int]:
        return {**asdict(self), "unattempted": self.unattempted}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The result of a run, or of a ledger. Counts and failures describe the whole ledger."""

    #: completed, stopped, deferred or interrupted
    outcome: str
    exit_code: int = 0
    counts: Counts
    failures: Mapping[FailureGroup, int]
    ledger: str
    run_id: str = ""
    #: Of the manifest.
    name: str = ""
    command: str = "run"
    #: Where the calls went: aws, simulator, or a URL.
    endpoint: str = AWS
    elapsed_s: float = 0.0
    #: Empty: there was nothing to do.
    accounts: Mapping[str, AccountSummary] = field(default_factory=dict)
    #: Why it ended early.
    reasons: Sequence[str] = ()
    #: Rows of the ledger that the manifest no longer lists: how many, and the first of them.
    vanished: int = 0
    vanished_rows: Sequence[str] = ()
    warnings: Sequence[str] = ()
    #: The command that sends the rows that are left, or resumes a paused run; None: it is not known.
    run_again: str | None = None
    #: The command for today's ledger, if this one is of another day and finished.
    todays_command: str | None = None
    #: Of the run line: the commands that continue repeat some of them.
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Reads that it took to choose the rows, by operation.
    reads: Mapping[str, int] = field(default_factory=dict)
    #: None: what the last command did is not known.
    this_run: ThisRun | None = None
    #: Of each group of failures, a few rows.
    examples: Mapping[FailureGroup, Sequence[Example]] = field(default_factory=dict)

    @property
    def result(self) -> str:
        """The outcome for people: a run is completed only if no row is left."""
        counts = self.counts
        if self.outcome != "completed" or counts.settled:
            return self.outcome
        if counts.unattempted:
            return "incomplete"
        return "completed with failures" if counts.failed else "completed with rows in doubt"

    @property
    def next_steps(self) -> list[str]:
        """The commands that continue; of an active run only one that resumes it."""
        run = self.run_again if self.counts.unattempted else None
        # `run` settles rows in doubt too.
        curable = any(
            run is None if group.status is Status.IN_DOUBT else group.kind in CURABLE
            for group in self.failures
        )
        retry = retry_command(self.ledger, self.settings) if curable else None
        steps = [run] if self.outcome == "running" else [self.todays_command, run, retry]
        return [step for step in steps if step]

    @property
    def calls(self) -> int:
        return sum(account.calls for account in self.accounts.values())

    @property
    def throttled_calls(self) -> int:
        return sum(account.throttled_calls for account in self.accounts.values())

    @property
    def learned_rate(self) -> float | None:
        """Calls a second over all accounts; None: nothing was called."""
        rates = [account.learned_rate for account in self.accounts.values() if account.learned_rate]
        return round(sum(rates), 3) if rates else None


def exit_code(outcome: str, counts: Counts, signum: int | None = None) -> int:
    """The exit code of a run that made calls or had nothing to do; the most serious reason wins."""
    if outcome == "interrupted":
        return 128 + (signum or 2)
    rest = 0 if counts.settled else 1
    return {"stopped": 3, "deferred": 4}.get(outcome, rest)


def as_json(summary: Summary) -> dict[str, Any]:
    """The one object that `--format json` prints."""
    return {
        "outcome": summary.outcome,
        "counts": summary.counts.as_dict(),
        "failures": [
            {
                **as_group(group, number),
                "next": remedy(group, summary.ledger, summary.settings),
                "examples": [
                    {**one.row._asdict(), "message": one.message} for one in summary.examples.get(group, ())
                ],
            }
            for group, number in largest_first(summary.failures)
        ],
        "ledger": summary.ledger,
        "run_id": summary.run_id,
        "elapsed_s": round(summary.elapsed_s, 3),
        "calls": summary.calls,
        "throttled_calls": summary.throttled_calls,
        "learned_rate": summary.learned_rate,
        "accounts": {
            name: {
                "calls": account.calls,
                "throttled_calls": account.throttled_calls,
                "learned_rate": account.learned_rate,
                "stopped": account.stopped,
                **({} if account.counts is None else {"counts": dict(account.counts)}),
            }
            for name, account in summary.accounts.items()
        },
        "reasons": list(summary.reasons),
        "vanished": summary.vanished,
        "vanished_rows": list(summary.vanished_rows),
        "warnings": list(summary.warnings),
        "next_steps": summary.next_steps,
        "report": report_command(summary.ledger),
        "this_run": summary.this_run.as_dict() if summary.this_run else None,
        "ledger_totals": {"rows": summary.counts.total, **summary.counts.as_dict()},
        **({"reads": dict(summary.reads)} if summary.reads else {}),
    }


def as_group(group: FailureGroup, number: int) -> dict[str, Any]:
    return {**group._asdict(), "count": number}


def largest_first(failures: Mapping[FailureGroup, int]) -> list[tuple[FailureGroup, int]]:
    return sorted(failures.items(), key=lambda item: (-item[1], item[0]))
