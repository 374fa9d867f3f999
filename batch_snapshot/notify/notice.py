"""The notice of a run's progress or end, as text, JSON and metrics. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from batch_snapshot.errors import BatchSnapshotError
from batch_snapshot.redaction import redacted
from batch_snapshot.reporting import display, summary
from batch_snapshot.reporting.display import Frame
from batch_snapshot.reporting.summary import Summary, states
from batch_snapshot.text import encodable, escaped, plural, truncated

NAMED_GROUPS = 5
#: Characters of the text: some receivers accept no more.
LONGEST_TEXT = 3000

PREFIX = "batch_snapshot_"


@dataclass(frozen=True, slots=True)
class Notice:
    #: Of the manifest; if not known, the file that was named.
    name: str
    command: str
    #: As in the summary, or `refused`, or `running`.
    outcome: str
    #: None: the run goes on.
    exit_code: int | None
    text: str
    #: None: the run did not begin, or goes on.
    summary: Summary | None = None
    error: str | None = None
    frame: Frame | None = None


#: A metric's values by its labels.
Labelled = Mapping[tuple[str, ...], float]


class Metric(NamedTuple):
    name: str
    help: str
    labels: tuple[str, ...]
    values: Labelled


def of_summary(ended: Summary) -> Notice:
    head = f"batch-snapshot {ended.command} {ended.name}: {ended.result}"
    groups = [
        f"{number:,} {status.replace('_', ' ')} ({kind}{code and f', {code}'})"
        for (status, kind, code), number in summary.largest_first(ended.failures)
    ]
    rest = plural(len(groups) - NAMED_GROUPS, "more kind")
    more = [f"… and {rest} of failures"] if groups[NAMED_GROUPS:] else []
    text = _text(
        f"{head}: {states(ended.counts)}",
        *ended.reasons,
        *groups[:NAMED_GROUPS],
        *more,
        f"ledger: {ended.ledger}",
        *(f"next: {step}" for step in ended.next_steps),
    )
    return Notice(ended.name, ended.command, ended.outcome, ended.exit_code, text, ended)


def of_progress(frame: Frame, command: str, ledger: str) -> Notice:
    error = [f"last error: {frame.last_error}"] if frame.last_error else []
    head = f"batch-snapshot {command} {frame.name}: running: {display.line(frame)}"
    return Notice(frame.name, command, "running", None, _text(head, *error, f"ledger: {ledger}"), frame=frame)


def of_error(error: BatchSnapshotError, command: str, subject: str) -> Notice:
    text = _text(f"batch-snapshot {command} {subject}: ended with exit code {error.exit_code}: {error}")
    return Notice(subject, command, "refused", error.exit_code, text, error=str(error))


def _text(*lines: str) -> str:
    return truncated(escaped("\n".join(lines), keep="\n"), LONGEST_TEXT)


def as_json(notice: Notice) -> dict[str, Any]:
    """The body for a webhook: chat programs such as Slack show `text`, the rest is for programs."""
    # In Slack these begin a link, a mention or an entity.
    text = notice.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {
        "text": text,
        "name": notice.name,
        "command": notice.command,
        "outcome": notice.outcome,
        "exit_code": notice.exit_code,
        "error": notice.error,
        "summary": summary.as_json(notice.summary) if notice.summary else None,
        **({"progress": display.as_json(notice.frame)} if notice.frame else {}),
    }


def gauges(notice: Notice, finished_at: float) -> list[Metric]:
    """The metrics of a run that was over at `finished_at`, in seconds since 1970."""
    one, each, run = ("name",), ("name", "account"), (redacted(notice.name),)
    code: Labelled = {} if notice.exit_code is None else {run: notice.exit_code}
    found = [
        Metric("exit_code", "How the last run ended; 0: every row succeeded.", one, code),
        Metric("finished_timestamp_seconds", "When the last run ended.", one, {run: finished_at}),
    ]
    if (ended := notice.summary) is None:
        return found
    states: Labelled = {(*run, state): number for state, number in ended.counts.as_dict().items()}
    failures: Labelled = {
        (*run, *map(redacted, map(encodable, group))): number for group, number in ended.failures.items()
    }
    accounts = [((*run, redacted(name)), account) for name, account in ended.accounts.items()]
    calls: Labelled = {labels: account.calls for labels, account in accounts}
    throttled: Labelled = {labels: account.throttled_calls for labels, account in accounts}
    rates: Labelled = {labels: account.learned_rate for labels, account in accounts if account.learned_rate}
    return [
        *found,
        Metric("rows", "Rows of the ledger by their state.", ("name", "status"), states),
        Metric("failures", "Rows that failed or are in doubt.", ("name", "status", "kind", "code"), failures),
        Metric("duration_seconds", "How long the last run took.", one, {run: ended.elapsed_s}),
        Metric("calls", "Calls of the last run.", each, calls),
        Metric("throttled_calls", "Calls of the last run that were throttled.", each, throttled),
        Metric("learned_rate", "Calls a second that the pace stood at in the end.", each, rates),
    ]
