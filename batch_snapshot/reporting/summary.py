"""The summary of a run or ledger: counts, failures, exit code; the same as JSON, and as text. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from batch_snapshot.failures.retry import CLOCKS_DISAGREE, FIRST_TRY_LOST
from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.models import AWS, CURABLE, ErrorKind, Row, Skip, Status
from batch_snapshot.operations import SNAPSHOT, iam_action
from batch_snapshot.reporting.next_steps import remedy, report_command, retry_command
from batch_snapshot.text import escaped, plural, truncated


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
    return Counts(**{name: numbers[name] for name in (*Counts._fields, *Skip) if name in numbers})


class AccountSummary(NamedTuple):
    calls: int
    throttled_calls: int
    #: Calls a second at the end; None: nothing was called.
    learned_rate: float | None = None
    stopped: str | None = None
    #: Its rows by status; of a run, only those that the run was to send.
    counts: Mapping[str, int] = {}

    @property
    def has_failures(self) -> bool:
        return bool(self.stopped) or any({**self.counts, "succeeded": 0}.values())


class Example(NamedTuple):
    row: Row
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ThisRun:
    """What one command did with the rows that it was to send."""

    rows: int
    #: Rows for which a create call was made.
    sent: int
    #: Rows that an earlier try had made, and that were only looked up.
    looked_up: int
    succeeded: int
    failed: int
    in_doubt: int
    left_out: int
    unattempted: int


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

    def remedy(self, group: FailureGroup) -> str | None:
        """The command that retries a group of failures; None while a run has the ledger."""
        return None if self.outcome == "running" else remedy(group, self.ledger, self.settings)

    @property
    def calls(self) -> int:
        return sum(account.calls for account in self.accounts.values())

    @property
    def throttled_calls(self) -> int:
        return sum(account.throttled_calls for account in self.accounts.values())

    @property
    def learned_rate(self) -> float | None:
        rates = [account.learned_rate for account in self.accounts.values() if account.learned_rate]
        return round(sum(rates), 3) if rates else None


def exit_code(outcome: str, counts: Counts, signum: int | None = None) -> int:
    """The exit code of a run that made calls or had nothing to do; the most serious reason wins."""
    if outcome == "interrupted":
        return 128 + (signum or 2)
    return {"stopped": 3, "deferred": 4}.get(outcome, 0 if counts.settled else 1)


def as_json(summary: Summary) -> dict[str, Any]:
    """The one object that `--format json` prints."""
    return {
        "outcome": summary.outcome,
        "counts": summary.counts.as_dict(),
        "failures": [
            {
                **as_group(group, number),
                "next": summary.remedy(group),
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
        "accounts": {name: account._asdict() for name, account in summary.accounts.items()},
        "reasons": list(summary.reasons),
        "vanished": summary.vanished,
        "vanished_rows": list(summary.vanished_rows),
        "warnings": list(summary.warnings),
        "next_steps": summary.next_steps,
        "report": report_command(summary.ledger),
        "this_run": asdict(summary.this_run) if summary.this_run else None,
        "ledger_totals": {"rows": summary.counts.total, **summary.counts.as_dict()},
        **({"reads": dict(summary.reads)} if summary.reads else {}),
    }


def as_group(group: FailureGroup, number: int) -> dict[str, Any]:
    return {**group._asdict(), "count": number}


def largest_first(failures: Mapping[FailureGroup, int]) -> list[tuple[FailureGroup, int]]:
    return sorted(failures.items(), key=lambda item: (-item[1], item[0]))


# -- for people ---------------------------------------------------------------------------------------

#: What a person can do, by the kind of an error.
ADVICE: Mapping[ErrorKind, str] = {
    ErrorKind.TRANSIENT: "a temporary error: retry",
    ErrorKind.CONFLICT: "another change was in progress, or the token was used with other values: retry "
    "later",
    ErrorKind.QUOTA: "a service quota is exceeded: retry another day, or have it raised",
    ErrorKind.DENIED: f"fix the IAM policy ({iam_action(SNAPSHOT.name)} on the engagement, "
    "GetOpportunity and GetAwsOpportunitySummary on the opportunity), then retry",
    ErrorKind.NOT_FOUND: "it does not exist, or these credentials cannot see it: check ids and catalog, "
    "then retry",
    ErrorKind.INVALID: "the service refuses these values: fix the manifest and run it, or fix the "
    "opportunity and retry",
    ErrorKind.UNKNOWN: "not known to this version: read the message in the ledger, then retry",
}
DOUBT_ADVICE = "may have a snapshot: run or retry settles this, under the same token"
#: The same, where a retry finds out no more than the look-up before it.
UNDECIDED = frozenset({CLOCKS_DISAGREE.code, FIRST_TRY_LOST.code})
UNDECIDED_ADVICE = "find out whose the snapshot is: if it is another run's, retry with --resend-in-doubt"

LONGEST_MESSAGE = 160

#: Accounts and reasons that the text names.
SHOWN_ACCOUNTS = 20


def advice(group: FailureGroup) -> str:
    if group.status is Status.IN_DOUBT and group.code in UNDECIDED:
        return UNDECIDED_ADVICE
    return DOUBT_ADVICE if group.status is Status.IN_DOUBT else ADVICE[group.kind]


def as_text(summary: Summary) -> str:
    lines = [f"{summary.result}: {states(summary.counts)}"]
    if summary.this_run:
        lines = [_this_run(summary.this_run), f"Ledger: {lines[0]}"]
    lines += [f"  {reason}" for reason in summary.reasons[:SHOWN_ACCOUNTS]]
    if (hidden := len(summary.reasons) - SHOWN_ACCOUNTS) > 0:
        lines.append(f"  … and {hidden:,} more: --format json names them")
    if summary.failures:
        lines += ["", *_failure_lines(summary)]
    if summary.vanished:
        shown = ", ".join(summary.vanished_rows)
        more = " …" if summary.vanished > len(summary.vanished_rows) else ""
        lines += ["", f"no longer in the manifest: {plural(summary.vanished, 'row')} ({shown}{more})"]
    lines += _account_lines(summary.accounts)
    lines += ["", f"ledger  {summary.ledger}"]
    lines += [f"run id  {summary.run_id}"] if summary.run_id else []
    if summary.calls:
        share = f"{summary.throttled_calls / summary.calls:.1%}"
        rate = f"; pace at the end {summary.learned_rate:,.3g}/s" if summary.learned_rate else ""
        throttled = f"{summary.throttled_calls:,} throttled ({share})"
        lines.append(f"calls   {summary.calls:,} in {summary.elapsed_s:,.1f} s, {throttled}{rate}")
    if summary.reads:
        each = ", ".join(f"{name} {number:,}" for name, number in summary.reads.items())
        lines.append(f"reads   {sum(summary.reads.values()):,}: {each}")
    lines += [f"next    {step}" for step in summary.next_steps]
    if summary.counts.total:
        lines.append(f"report  {report_command(summary.ledger)}")
    return "\n".join(lines)


def _this_run(run: ThisRun) -> str:
    parts = {
        "succeeded": run.succeeded,
        "of them found by a look-up": run.looked_up,
        "failed": run.failed,
        "in doubt": run.in_doubt,
        "left out": run.left_out,
        "not sent": run.unattempted,
    }
    words = [f"{run.sent:,} sent", *(f"{number:,} {name}" for name, number in parts.items() if number)]
    return f"This command: {', '.join(words)}"


def states(counts: Counts) -> str:
    """The total, and the counts that are not zero, in words."""
    parts = [
        f"{number:,} {name.replace('_', ' ')}"
        for name, number in counts.as_dict().items()
        if number or name == "succeeded"
    ]
    return f"{plural(counts.total, 'row')}: {', '.join(parts)}"


def _failure_lines(summary: Summary) -> list[str]:
    by_advice: dict[tuple[str, str | None], list[str]] = {}
    for group, number in largest_first(summary.failures):
        label = f"{group.status.replace('_', ' ')}, {group.kind}" + (f", {group.code}" if group.code else "")
        lines = by_advice.setdefault((advice(group), summary.remedy(group)), [])
        lines.append(f"{number:>7,} {label}")
        for row, message in summary.examples.get(group, ()):
            lines.append(
                f"        {row.engagement}/{row.resource}  {truncated(escaped(message), LONGEST_MESSAGE)}"
            )
    return [
        line
        for (words, command), lines in by_advice.items()
        for line in (*lines, f"        {words}", *([f"        $ {command}"] if command else []))
    ]


def _account_lines(accounts: Mapping[str, AccountSummary]) -> list[str]:
    if len(accounts) < 2:
        return []
    ordered = list(accounts.items())
    if len(ordered) > SHOWN_ACCOUNTS:
        ordered.sort(key=lambda item: not item[1].has_failures)
    shown, rest = dict(ordered[:SHOWN_ACCOUNTS]), [account for _, account in ordered[SHOWN_ACCOUNTS:]]
    width = min(24, max(map(len, shown)))
    lines = ["", *(f"account {name:<{width}}  {_account(account)}" for name, account in shown.items())]
    if rest:
        calls, throttled = (sum(numbers) for numbers in zip(*(one[:2] for one in rest), strict=True))
        counts = sum((Counter(one.counts) for one in rest), Counter[str]())
        total = _account(AccountSummary(calls, throttled, counts=counts))
        lines.append(f"{plural(len(rest), 'more account')}: {total}")
    return lines


def _account(account: AccountSummary) -> str:
    parts = [f"{number:,} {status.replace('_', ' ')}" for status, number in account.counts.items() if number]
    parts.append(f"{plural(account.calls, 'call')}, {account.throttled_calls:,} throttled")
    if account.learned_rate:
        parts.append(f"pace at the end {account.learned_rate:,.3g}/s")
    if account.stopped:
        parts.append("stopped early")
    return ", ".join(parts)
