"""What a run or a ledger comes to: outcomes → summary → text, JSON. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from batch_snapshot.models import AWS, CURABLE, SIMULATOR, ErrorKind, Skip, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_snapshot.ledger.history import FailureGroup

#: What a person can do about rows that failed so.
ADVICE: Mapping[ErrorKind, str] = {
    ErrorKind.TRANSIENT: "passing trouble: retry",
    ErrorKind.CONFLICT: "another change was under way, or the token was used otherwise: retry later",
    ErrorKind.QUOTA: "a service quota is exceeded: retry another day, or have it raised",
    ErrorKind.DENIED: "fix the IAM policy (partnercentral:CreateResourceSnapshot on the engagement, "
    "GetOpportunity and GetAwsOpportunitySummary on the opportunity), then retry",
    ErrorKind.NOT_FOUND: "not there, or not visible to these credentials: check ids and catalog, then retry",
    ErrorKind.INVALID: "the service refuses these values: mend the manifest and run it, or the opportunity "
    "and retry",
    ErrorKind.UNKNOWN: "not known to this version: read the message in the ledger, then retry",
}
DOUBT_ADVICE = "may have been carried out: run or retry settles it under the same token"


#: Accounts that a summary for people names; the rest are summed up in a line.
SHOWN_ACCOUNTS = 20


class _CountFields(NamedTuple):
    """The states that every ledger knows."""

    succeeded: int = 0
    failed: int = 0
    in_doubt: int = 0
    unattempted: int = 0


class Counts(_CountFields):
    """The states of all rows; with those left out they sum to the rows.

    As a tuple these are the four states that every ledger knows.

    Attributes:
        unchanged: rows that were left out as they had not changed.
        active_job: rows that were left out as a job of AWS's takes care of them.
    """

    unchanged: int
    active_job: int

    def __new__(
        cls,
        succeeded: int = 0,
        failed: int = 0,
        in_doubt: int = 0,
        unattempted: int = 0,
        *,
        unchanged: int = 0,
        active_job: int = 0,
    ) -> Self:
        """Count the rows in each state."""
        self = super().__new__(cls, succeeded, failed, in_doubt, unattempted)
        self.unchanged, self.active_job = unchanged, active_job
        return self

    @property
    def skipped(self) -> dict[Skip, int]:
        """The rows that were left out, by reason; none of those that are zero."""
        both = {Skip.UNCHANGED: self.unchanged, Skip.ACTIVE_JOB: self.active_job}
        return {reason: number for reason, number in both.items() if number}

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self) + self.unchanged + self.active_job

    @property
    def settled(self) -> bool:
        """Whether every row succeeded, or was to be left out."""
        return not (self.failed or self.in_doubt or self.unattempted)

    def as_dict(self) -> dict[str, int]:
        """By name: the four that are always told, and the others where they are not zero."""
        return {**self._asdict(), **{reason.value: number for reason, number in self.skipped.items()}}


def count(statuses: Mapping[Any, int], total: int) -> Counts:
    """Complete the counts of `statuses`, by `Status` and `Skip`, to `total` rows."""
    succeeded, failed, in_doubt = (
        statuses.get(status, 0) for status in (Status.SUCCEEDED, Status.FAILED, Status.IN_DOUBT)
    )
    skipped = {reason.value: statuses.get(reason, 0) for reason in Skip}
    known = succeeded + failed + in_doubt + sum(skipped.values())
    return Counts(succeeded, failed, in_doubt, max(0, total - known), **skipped)


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """One account's part in a run."""

    calls: int
    throttled_calls: int
    #: Calls a second that the pace stood at in the end; None: nothing was called.
    learned_rate: float | None
    #: Why it stopped early, if it did.
    stopped: str | None
    #: Its rows by status, where they are known; in a run those that it was to send, and what became of them.
    counts: Mapping[str, int] | None = None

    @property
    def troubled(self) -> bool:
        """Whether there is more to say about it than that all is well."""
        return bool(self.stopped) or any(
            number for status, number in (self.counts or {}).items() if status != Status.SUCCEEDED
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run came to. Counts and failures describe the whole ledger."""

    #: completed, stopped, deferred or interrupted
    outcome: str
    exit_code: int
    counts: Counts
    failures: Mapping[FailureGroup, int]
    ledger: str
    run_id: str
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
    #: The commands that go on from here.
    next_steps: Sequence[str] = ()
    #: As the run line has them: what the commands that go on need of them.
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: By operation: the reads that it took to choose the rows.
    reads: Mapping[str, int] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """Calls made in this invocation."""
        return sum(account.calls for account in self.accounts.values())

    @property
    def throttled_calls(self) -> int:
        """Calls that were throttled."""
        return sum(account.throttled_calls for account in self.accounts.values())

    @property
    def learned_rate(self) -> float | None:
        """Calls a second over all accounts; None: nothing was called."""
        rates = [account.learned_rate for account in self.accounts.values() if account.learned_rate]
        return round(sum(rates), 3) if rates else None


def exit_code(outcome: str, counts: Counts, signum: int | None = None) -> int:
    """The exit code of a run that was carried out; the gravest wins."""
    if outcome == "interrupted":
        return 128 + (signum or 2)
    if outcome == "stopped":
        return 3
    if outcome == "deferred":
        return 4
    return 0 if counts.settled else 1


def next_steps(
    counts: Counts,
    failures: Mapping[FailureGroup, int],
    *,
    run: str | None,
    ledger: str,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> list[str]:
    """The commands that go on: `run` continues what is left, `retry` takes up what failed.

    The ledger itself tells `retry` the accounts and their quotas.
    """
    steps = []
    if run and counts.unattempted:
        steps.append(run)
    if any(group.kind in CURABLE or group.status is Status.IN_DOUBT for group in failures):
        steps.append(f"batch-snapshot retry {_argument(ledger)}{_retry_flags(settings)}")
    return steps


def advice(group: FailureGroup) -> str:
    """What a person can do about rows that failed so."""
    return DOUBT_ADVICE if group.status is Status.IN_DOUBT else ADVICE[group.kind]


def remedy(group: FailureGroup, ledger: str, settings: Mapping[str, Any] = MappingProxyType({})) -> str:
    """The command that tries the rows of a group again, once its cause is mended."""
    doubtful = group.status is Status.IN_DOUBT
    # A word of `--only` ends at a comma and is trimmed: a code that would not survive goes by its kind.
    code = group.code if group.code == group.code.strip() and "," not in group.code else ""
    word = Status.IN_DOUBT.value if doubtful else code or group.kind.value
    return f"batch-snapshot retry {_argument(ledger)} --only {shlex.quote(word)}{_retry_flags(settings)}"


def as_json(summary: Summary) -> dict[str, Any]:
    """The one object that `--format json` prints."""
    return {
        "outcome": summary.outcome,
        "counts": summary.counts.as_dict(),
        "failures": [
            {
                "status": group.status,
                "kind": group.kind,
                "code": group.code,
                "count": number,
                "next": remedy(group, summary.ledger, summary.settings),
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
        "next_steps": list(summary.next_steps),
        **({"reads": dict(summary.reads)} if summary.reads else {}),
    }


def as_text(summary: Summary) -> str:
    """The same for people."""
    counts = summary.counts
    lines = [f"{summary.outcome}: {states(counts)}"]
    lines += [f"  {reason}" for reason in summary.reasons[:SHOWN_ACCOUNTS]]
    if hidden := len(summary.reasons) - SHOWN_ACCOUNTS:
        lines += [f"  … and {hidden:,} more: --format json names them"] if hidden > 0 else []
    if summary.failures:
        lines += ["", *_failure_lines(summary)]
    if summary.vanished:
        shown = ", ".join(summary.vanished_rows)
        more = " …" if summary.vanished > len(summary.vanished_rows) else ""
        lines += ["", f"no longer in the manifest: {summary.vanished:,} rows ({shown}{more})"]
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
    return "\n".join(lines)


def states(counts: Counts) -> str:
    """The counts in words: those that are not zero, and the total."""
    parts = [
        f"{number:,} {name.replace('_', ' ')}"
        for name, number in counts.as_dict().items()
        if number or name == "succeeded"
    ]
    return f"{counts.total:,} rows: {', '.join(parts)}"


def _failure_lines(summary: Summary) -> list[str]:
    """The groups, and behind those for which the same is to be done what that is."""
    told: dict[tuple[str, str], list[str]] = {}
    for group, number in largest_first(summary.failures):
        label = f"{group.status.replace('_', ' ')}, {group.kind}" + (f", {group.code}" if group.code else "")
        command = remedy(group, summary.ledger, summary.settings)
        told.setdefault((advice(group), command), []).append(f"{number:>7,} {label}")
    return [
        line
        for (words, command), labels in told.items()
        for line in (*labels, f"        {words}", f"        $ {command}")
    ]


def _account_lines(accounts: Mapping[str, AccountSummary]) -> list[str]:
    """A line an account, where there are several."""
    if len(accounts) < 2:
        return []
    # A sort is stable: among many, those with trouble are shown first.
    ordered = list(accounts.items())
    if len(ordered) > SHOWN_ACCOUNTS:
        ordered.sort(key=lambda item: not item[1].troubled)
    shown, rest = dict(ordered[:SHOWN_ACCOUNTS]), [account for _, account in ordered[SHOWN_ACCOUNTS:]]
    width = min(24, max(map(len, shown)))
    lines = [f"account {name:<{width}}  {_account(account)}" for name, account in shown.items()]
    return ["", *lines, *([f"{len(rest):,} more accounts: {_account(_sum(rest))}"] if rest else [])]


def _sum(accounts: Sequence[AccountSummary]) -> AccountSummary:
    counts: Counter[str] = Counter()
    for account in accounts:
        counts.update(account.counts or {})
    calls, throttled = (
        sum(each) for each in zip(*((a.calls, a.throttled_calls) for a in accounts), strict=True)
    )
    return AccountSummary(calls, throttled, None, None, counts)


def _account(account: AccountSummary) -> str:
    counts = account.counts or {}
    parts = [f"{number:,} {status.replace('_', ' ')}" for status, number in counts.items() if number]
    calls = "call" if account.calls == 1 else "calls"
    parts.append(f"{account.calls:,} {calls}, {account.throttled_calls:,} throttled")
    if account.learned_rate:
        parts.append(f"pace at the end {account.learned_rate:,.3g}/s")
    if account.stopped:
        parts.append("stopped early")
    return ", ".join(parts)


def largest_first(failures: Mapping[FailureGroup, int]) -> list[tuple[FailureGroup, int]]:
    """The groups in the order in which they matter."""
    return sorted(failures.items(), key=lambda item: (-item[1], item[0]))


#: The flags that say by whom and under which quotas, by the names of a run line's settings.
_KEPT_FLAGS = ("profile", "region", "rate", "daily_quota", "state_dir", "engine", "scheduler")


def flags_of(settings: Mapping[str, Any], *names: str) -> str:
    """The flags out of a run line's settings, each after a blank."""
    given = {name: settings.get(name) for name in names}
    if isinstance(accounts := given.get("accounts"), list):
        given["accounts"] = ",".join(map(str, accounts))
    return "".join(
        f" --{name.replace('_', '-')} {shlex.quote(_plain(value))}" for name, value in given.items() if value
    )


def _plain(value: object) -> str:
    return f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def run_command(
    path: str, ledger: str, endpoint: str, settings: Mapping[str, Any] = MappingProxyType({}), *names: str
) -> str:
    """The command line that runs the manifest at `path` into that ledger, under the quotas it was run.

    Args:
        path: of the manifest.
        ledger: its path.
        endpoint: as the run line has it.
        settings: of the run line.
        names: more settings to keep than those that hold for every run.
    """
    where = {AWS: "", SIMULATOR: " --simulate"}.get(endpoint, f" --endpoint-url {shlex.quote(endpoint)}")
    world = _world(settings) if endpoint == SIMULATOR else ""
    kept = flags_of(settings, *_KEPT_FLAGS, *names)
    return f"batch-snapshot run {_argument(path)} --ledger {shlex.quote(ledger)}{where}{world}{kept}"


def _world(settings: Mapping[str, Any]) -> str:
    """The flag for the file that keeps a simulated world, after a blank."""
    state = settings.get("simulator_state")
    return f" --state {shlex.quote(str(state))}" if state else ""


def _retry_flags(settings: Mapping[str, Any]) -> str:
    """The flags of `retry` that a ledger itself does not tell, each after a blank."""
    world = f" --simulate{_world(settings)}" if settings.get("simulator_state") else ""
    return world + flags_of(settings, "state_dir", "engine", "scheduler")


def _argument(path: str) -> str:
    """A path as a word of a command line that cannot be taken for a flag."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def pinned(command: str | None, ledger: str) -> str | None:
    """A command line with `ledger` in the place of a pattern with {date}: tomorrow that means another."""
    if command is None:
        return None
    words = shlex.split(command)
    for number, word in enumerate(words[1:], 1):
        if words[number - 1] == "--ledger" and "{date}" in word:
            words[number] = ledger
        elif word.startswith("--ledger=") and "{date}" in word:
            words[number] = f"--ledger={ledger}"
    return shlex.join(words)
