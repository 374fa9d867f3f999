"""What a run or a ledger comes to: outcomes → summary → text, JSON. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from batch_snapshot.model import AWS, CURABLE, SIMULATOR, ErrorKind, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_snapshot.history import FailureGroup

#: What a person can do about rows that failed so.
ADVICE: Mapping[ErrorKind, str] = {
    ErrorKind.TRANSIENT: "passing trouble: retry",
    ErrorKind.CONFLICT: "another change was under way, or the token was used otherwise: retry later",
    ErrorKind.QUOTA: "a service quota is exceeded: retry another day, or have it raised",
    ErrorKind.DENIED: "mend the IAM policy (partnercentral:CreateResourceSnapshot), then retry --only denied",
    ErrorKind.NOT_FOUND: "not there, or not visible to these credentials: check ids and catalog, "
    "then retry --only not_found",
    ErrorKind.INVALID: "the service refuses these values: mend the manifest",
    ErrorKind.UNKNOWN: "not known to this version: read the message in the ledger",
}
DOUBT_ADVICE = "may have been carried out: run or retry settles it under the same token"


class Counts(NamedTuple):
    """The states of all rows; they sum to the rows."""

    succeeded: int = 0
    failed: int = 0
    in_doubt: int = 0
    unattempted: int = 0

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self)


def count(statuses: Mapping[Status, int], total: int) -> Counts:
    """Complete the counts of `statuses` to `total` rows."""
    succeeded, failed, in_doubt = (
        statuses.get(status, 0) for status in (Status.SUCCEEDED, Status.FAILED, Status.IN_DOUBT)
    )
    return Counts(succeeded, failed, in_doubt, max(0, total - succeeded - failed - in_doubt))


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """One account's part in a run."""

    calls: int
    throttled_calls: int
    #: Calls a second that the pace stood at in the end; None: nothing was called.
    learned_rate: float | None
    #: Why it stopped early, if it did.
    stopped: str | None


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
    elapsed_s: float = 0.0
    accounts: Mapping[str, AccountSummary] = field(default_factory=dict)
    #: Why it ended early.
    reasons: Sequence[str] = ()
    #: Rows of the ledger that the manifest no longer lists: how many, and the first of them.
    vanished: int = 0
    vanished_rows: Sequence[str] = ()
    warnings: Sequence[str] = ()
    #: The commands that go on from here.
    next_steps: Sequence[str] = ()

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
    return 0 if counts.succeeded == counts.total else 1


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
        steps.append(f"batch-snapshot retry {shlex.quote(ledger)}{flags_of(settings, 'state_dir')}")
    return steps


def as_json(summary: Summary) -> dict[str, Any]:
    """The one object that `--format json` prints."""
    return {
        "outcome": summary.outcome,
        "counts": summary.counts._asdict(),
        "failures": [
            {"status": group.status, "kind": group.kind, "code": group.code, "count": number}
            for group, number in _largest_first(summary.failures)
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
            }
            for name, account in summary.accounts.items()
        },
        "reasons": list(summary.reasons),
        "vanished": summary.vanished,
        "vanished_rows": list(summary.vanished_rows),
        "warnings": list(summary.warnings),
        "next_steps": list(summary.next_steps),
    }


def as_text(summary: Summary) -> str:
    """The same for people."""
    counts = summary.counts
    lines = [f"{summary.outcome}: {states(counts)}"]
    lines += [f"  {reason}" for reason in summary.reasons]
    if summary.failures:
        lines += ["", *_failure_lines(summary.failures)]
    if summary.vanished:
        shown = ", ".join(summary.vanished_rows)
        more = " …" if summary.vanished > len(summary.vanished_rows) else ""
        lines += ["", f"no longer in the manifest: {summary.vanished:,} rows ({shown}{more})"]
    lines += ["", f"ledger  {summary.ledger}", f"run id  {summary.run_id}"]
    if summary.calls:
        share = f"{summary.throttled_calls / summary.calls:.1%}"
        rate = f"; pace at the end {summary.learned_rate:,.3g}/s" if summary.learned_rate else ""
        throttled = f"{summary.throttled_calls:,} throttled ({share})"
        lines.append(f"calls   {summary.calls:,} in {summary.elapsed_s:,.1f} s, {throttled}{rate}")
    lines += [f"next    {step}" for step in summary.next_steps]
    return "\n".join(lines)


def states(counts: Counts) -> str:
    """The counts in words: those that are not zero, and the total."""
    parts = [
        f"{number:,} {name.replace('_', ' ')}"
        for name, number in counts._asdict().items()
        if number or name == "succeeded"
    ]
    return f"{counts.total:,} rows: {', '.join(parts)}"


def _failure_lines(failures: Mapping[FailureGroup, int]) -> list[str]:
    lines = []
    for group, number in _largest_first(failures):
        doubtful = group.status is Status.IN_DOUBT
        advice = DOUBT_ADVICE if doubtful else ADVICE[group.kind]
        label = f"{group.status.replace('_', ' ')}, {group.kind}" + (f", {group.code}" if group.code else "")
        lines += [f"{number:>7,} {label}", f"        {advice}"]
    return lines


def _largest_first(failures: Mapping[FailureGroup, int]) -> list[tuple[FailureGroup, int]]:
    return sorted(failures.items(), key=lambda item: (-item[1], item[0]))


#: The flags that say by whom and under which quotas, by the names of a run line's settings.
_KEPT_FLAGS = ("profile", "region", "rate", "daily_quota", "state_dir")


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
    kept = flags_of(settings, *_KEPT_FLAGS, *names)
    return f"batch-snapshot run {shlex.quote(path)} --ledger {shlex.quote(ledger)}{where}{kept}"
