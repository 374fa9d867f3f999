"""A summary as text for people. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence

from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.models import ErrorKind, Status
from batch_snapshot.operations import SNAPSHOT, iam_action
from batch_snapshot.reporting.next_steps import remedy, report_command
from batch_snapshot.reporting.summary import AccountSummary, Counts, Summary, ThisRun, largest_first
from batch_snapshot.text import escaped, plural, truncated

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

#: Characters of an error's message in an example.
LONGEST_MESSAGE = 160

#: Accounts and reasons that the text names.
SHOWN_ACCOUNTS = 20


def advice(group: FailureGroup) -> str:
    return DOUBT_ADVICE if group.status is Status.IN_DOUBT else ADVICE[group.kind]


def as_text(summary: Summary) -> str:
    lines = [f"{summary.result}: {states(summary.counts)}"]
    if summary.this_run:
        lines = [_this_run(summary.this_run), f"Ledger: {lines[0]}"]
    lines += [f"  {reason}" for reason in summary.reasons[:SHOWN_ACCOUNTS]]
    if hidden := len(summary.reasons) - SHOWN_ACCOUNTS:
        lines += [f"  … and {hidden:,} more: --format json names them"] if hidden > 0 else []
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
    by_advice: dict[tuple[str, str], list[str]] = {}
    for group, number in largest_first(summary.failures):
        label = f"{group.status.replace('_', ' ')}, {group.kind}" + (f", {group.code}" if group.code else "")
        lines = by_advice.setdefault((advice(group), remedy(group, summary.ledger, summary.settings)), [])
        lines.append(f"{number:>7,} {label}")
        for row, message in summary.examples.get(group, ()):
            lines.append(
                f"        {row.engagement}/{row.resource}  {truncated(escaped(message), LONGEST_MESSAGE)}"
            )
    return [
        line
        for (words, command), lines in by_advice.items()
        for line in (*lines, f"        {words}", f"        $ {command}")
    ]


def _account_lines(accounts: Mapping[str, AccountSummary]) -> list[str]:
    """One line per account, if there are several."""
    if len(accounts) < 2:
        return []
    ordered = list(accounts.items())
    if len(ordered) > SHOWN_ACCOUNTS:
        ordered.sort(key=lambda item: not item[1].has_failures)
    shown, rest = dict(ordered[:SHOWN_ACCOUNTS]), [account for _, account in ordered[SHOWN_ACCOUNTS:]]
    width = min(24, max(map(len, shown)))
    lines = [f"account {name:<{width}}  {_account(account)}" for name, account in shown.items()]
    return ["", *lines, *([f"{plural(len(rest), 'more account')}: {_account(_total(rest))}"] if rest else [])]


def _total(accounts: Sequence[AccountSummary]) -> AccountSummary:
    counts: Counter[str] = Counter()
    for account in accounts:
        counts.update(account.counts or {})
    calls = sum(account.calls for account in accounts)
    throttled = sum(account.throttled_calls for account in accounts)
    return AccountSummary(calls, throttled, counts=counts)


def _account(account: AccountSummary) -> str:
    counts = account.counts or {}
    parts = [f"{number:,} {status.replace('_', ' ')}" for status, number in counts.items() if number]
    parts.append(f"{plural(account.calls, 'call')}, {account.throttled_calls:,} throttled")
    if account.learned_rate:
        parts.append(f"pace at the end {account.learned_rate:,.3g}/s")
    if account.stopped:
        parts.append("stopped early")
    return ", ".join(parts)
