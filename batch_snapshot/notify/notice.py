"""What others are told when a run is over: for a webhook, a topic, and the exporter of metrics. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from batch_snapshot.reporting import summary as report
from batch_snapshot.reporting.text import states
from batch_snapshot.text import encodable, escaped, truncated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batch_snapshot.errors import BatchSnapshotError
    from batch_snapshot.reporting.summary import Summary

#: Groups of failures that a text names; the rest is a number.
NAMED_GROUPS = 5
#: Characters of a text: some receivers take no more.
LONGEST_TEXT = 3000

#: Prefix of the metrics' names.
PREFIX = "batch_snapshot_"


@dataclass(frozen=True, slots=True)
class Notice:
    """The end of a run, or why it did not begin."""

    #: Of the manifest, or where that is not known the file that was named.
    name: str
    command: str
    #: That of the summary, or `refused`.
    outcome: str
    exit_code: int
    #: For people.
    text: str
    #: What the run came to; None: it did not come so far.
    summary: Summary | None = None
    error: str | None = None


class Metric(NamedTuple):
    """A metric and its values, by its labels' values."""

    name: str
    help: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float] = MappingProxyType({})


def of_summary(summary: Summary) -> Notice:
    """Tell what a run came to."""
    name = summary.name
    head = f"batch-snapshot {summary.command} {name}: {summary.outcome}"
    lines = [f"{head}: {states(summary.counts)}", *summary.reasons, *_groups(summary)]
    lines += [f"ledger: {summary.ledger}", *(f"next: {step}" for step in summary.next_steps)]
    text = _short("\n".join(lines))
    return Notice(name, summary.command, summary.outcome, summary.exit_code, text, summary)


def of_error(error: BatchSnapshotError, command: str, subject: str) -> Notice:
    """Tell why a run did not begin, or could not go on; `subject` is the file that it was about."""
    text = _short(f"batch-snapshot {command} {subject}: ended with exit code {error.exit_code}: {error}")
    return Notice(subject, command, "refused", error.exit_code, text, error=str(error))


def _groups(summary: Summary) -> Iterator[str]:
    groups = report.largest_first(summary.failures)
    for group, number in groups[:NAMED_GROUPS]:
        code = f", {group.code}" if group.code else ""
        yield f"{number:,} {group.status.replace('_', ' ')} ({group.kind}{code})"
    if len(groups) > NAMED_GROUPS:
        yield f"… and {len(groups) - NAMED_GROUPS:,} more kinds of failures"


def _short(text: str) -> str:
    return truncated(escaped(text, keep="\n"), LONGEST_TEXT)


def as_json(notice: Notice) -> dict[str, Any]:
    """What a webhook gets: `text` is what Slack and its like show, the rest is for programs."""
    # Slack reads these three as the beginning of a link, a mention or an entity.
    text = notice.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {
        "text": text,
        "name": notice.name,
        "command": notice.command,
        "outcome": notice.outcome,
        "exit_code": notice.exit_code,
        "error": notice.error,
        "summary": report.as_json(notice.summary) if notice.summary else None,
    }


def gauges(notice: Notice, finished_at: float) -> list[Metric]:
    """The metrics of a run that was over at `finished_at`, in seconds since 1970."""
    name = notice.name
    found = [
        Metric("exit_code", "How the last run ended; 0: every row succeeded.", ("name",)),
        Metric("finished_timestamp_seconds", "When the last run ended.", ("name",)),
    ]
    values: list[dict[tuple[str, ...], float]] = [{(name,): notice.exit_code}, {(name,): finished_at}]
    if summary := notice.summary:
        accounts = summary.accounts.items()
        found += _SUMMED_UP
        values += [
            {(name, state): number for state, number in summary.counts.as_dict().items()},
            {(name, *map(encodable, group)): number for group, number in summary.failures.items()},
            {(name,): summary.elapsed_s},
            {(name, account): one.calls for account, one in accounts},
            {(name, account): one.throttled_calls for account, one in accounts},
            {(name, account): one.learned_rate for account, one in accounts if one.learned_rate},
        ]
    return [gauge._replace(values=one) for gauge, one in zip(found, values, strict=True)]


_SUMMED_UP = [
    Metric("rows", "Rows of the ledger by their state.", ("name", "status")),
    Metric("failures", "Rows that failed or are in doubt.", ("name", "status", "kind", "code")),
    Metric("duration_seconds", "How long the last run took.", ("name",)),
    Metric("calls", "Calls of the last run.", ("name", "account")),
    Metric("throttled_calls", "Calls of the last run that were throttled.", ("name", "account")),
    Metric("learned_rate", "Calls a second that the pace stood at in the end.", ("name", "account")),
]
