"""The rows of the HTML page, and its table column by column. Pure.

Each different text is kept once, in its natural order, and a row has the number of its text: sorting by a
column sorts numbers, and a search looks at every different text once.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.models import ErrorKind, Skip, Status
from batch_snapshot.reporting.entries import UNATTEMPTED, ReportEntry

#: Different messages that a group of failures quotes, and the characters of each.
QUOTED, QUOTED_LENGTH = 5, 600
#: The page's table has at most so many rows; those that did not succeed come first.
MOST_ROWS = 100_000
#: Characters of a message in the table; once all messages have so many together, of further ones.
LONGEST_MESSAGE, MANY_CHARACTERS, SHORT_MESSAGE = 400, 6_000_000, 60

#: In the order in which people want to see the rows.
STATUSES = (
    Status.FAILED.value,
    Status.IN_DOUBT.value,
    UNATTEMPTED,
    Status.SUCCEEDED.value,
    *(reason.value for reason in Skip),
)


@dataclass(slots=True)
class FailureMessages:
    """The messages of rows that failed, or are in doubt, alike."""

    rows: int = 0
    accounts: Counter[str] = field(default_factory=Counter)
    #: The first different messages, and how many rows have each.
    messages: Counter[str] = field(default_factory=Counter)
    #: Rows with another message.
    others: int = 0

    def add(self, entry: ReportEntry) -> None:
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


class PageRows:
    """The rows of a page: counts of all, and as many for the table as it holds."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        self.total = 0
        self.groups: dict[FailureGroup, FailureMessages] = {}
        self.accounts: dict[str, Counter[str]] = {}
        self._most = most
        self._kept: dict[str, list[ReportEntry]] = {status: [] for status in STATUSES}

    def add(self, entry: ReportEntry) -> None:
        self.total += 1
        self.accounts.setdefault(entry.row.account, Counter())[entry.status] += 1
        if entry.status in {Status.FAILED, Status.IN_DOUBT}:
            group = FailureGroup(Status(entry.status), entry.kind or ErrorKind.UNKNOWN, entry.code)
            self.groups.setdefault(group, FailureMessages()).add(entry)
        if len(self._kept[entry.status]) < self._most:
            self._kept[entry.status].append(entry)

    @property
    def kept(self) -> list[ReportEntry]:
        return [entry for status in STATUSES for entry in self._kept[status]][: self._most]


def natural_order(text: str) -> tuple[str, str]:
    """A sort key by which O9 comes before O10."""
    return re.sub(r"[0-9]+", lambda digits: digits[0].zfill(20), text), text


def columns(entries: Sequence[ReportEntry]) -> dict[str, Any]:
    rows = [entry.row for entry in entries]
    since = min((entry.finished_at for entry in entries if entry.finished_at), default=None)
    errors = _errors(entries)
    texts = {
        "account": [row.account for row in rows],
        "catalog": [row.catalog for row in rows],
        "engagement": [row.engagement for row in rows],
        "type": [row.resource_type for row in rows],
        "resource": [row.resource for row in rows],
        "template": [row.template for row in rows],
        "error": errors,
        "request": [
            (entry.request_id or "") if error else "" for entry, error in zip(entries, errors, strict=True)
        ],
        "arn": [_arn_pattern(entry) for entry in entries],
    }
    spans = [entry.seconds for entry in entries]
    return {
        "rows": len(entries),
        "statuses": STATUSES,
        "since": round(since.timestamp() * 1000) if since else 0,
        "texts": {name: _numbered(column) for name, column in texts.items()},
        "numbers": {
            "status": [STATUSES.index(entry.status) for entry in entries],
            "revision": [entry.revision or 0 for entry in entries],
            "attempts": [entry.attempts for entry in entries],
            "throttles": [entry.throttles for entry in entries],
            "took": [-1 if span is None else round(span * 1000) for span in spans],
            "finished": [_milliseconds(since, entry.finished_at) for entry in entries],
            "looked": [int(entry.reconciled) for entry in entries],
        },
    }


def _numbered(column: Sequence[str]) -> dict[str, Any]:
    texts = sorted(set(column), key=natural_order)
    number = {text: at for at, text in enumerate(texts)}
    return {"of": texts, "at": [number[text] for text in column]}


def _errors(entries: Sequence[ReportEntry]) -> list[str]:
    """Code and message of each row's error, cut so that the page does not get too large."""
    found = []
    spent = 0
    for entry in entries:
        reason = f" ({entry.reason})" if entry.reason else ""
        words = f"{entry.code}: {entry.message}{reason}" if entry.code or entry.message else ""
        longest = LONGEST_MESSAGE if spent < MANY_CHARACTERS else SHORT_MESSAGE
        found.append(words if len(words) <= longest else f"{words[:longest]}…")
        spent += len(found[-1])
    return found


#: Stand for a row's engagement, resource and revision in the ARNs of all rows.
_PLACEHOLDERS = ("\x01", "\x02", "\x03")
#: Stands before an ARN without placeholders.
_WHOLE = "\x04"


def _arn_pattern(entry: ReportEntry) -> str:
    """The ARN with placeholders for the row's own values: most rows share one pattern. Lossless."""
    arn, row, revision = entry.arn or "", entry.row, f"/{entry.revision or 0}"
    pattern = f"{arn.removesuffix(revision)}\x03" if arn.endswith(revision) else arn
    if row.engagement and row.resource:
        pattern = pattern.replace(row.engagement, "\x01").replace(row.resource, "\x02")
    return pattern if fill_arn(pattern, (row.engagement, row.resource, revision)) == arn else _WHOLE + arn


def fill_arn(pattern: str, values: Sequence[str]) -> str:
    """The ARN of a pattern, as the page's script makes it."""
    if pattern.startswith(_WHOLE):
        return pattern[1:]
    for placeholder, value in zip(_PLACEHOLDERS, values, strict=True):
        pattern = pattern.replace(placeholder, value)
    return pattern


def _milliseconds(since: datetime | None, moment: datetime | None) -> int:
    return -1 if moment is None or since is None else round((moment - since).total_seconds() * 1000)
