"""The rows of the HTML page, and its table column by column. Pure.

Each different text is kept once, in its natural order, and a row has the number of its text: sorting by a
column sorts numbers, and a search looks at every different text once.
"""

import base64
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.models import ErrorKind, Row, Skip, Status
from batch_snapshot.reporting.entries import UNATTEMPTED, ReportEntry
from batch_snapshot.text import truncated

#: Different messages that a group of failures quotes, and the characters of each.
QUOTED, QUOTED_LENGTH = 5, 600
#: The page's table has at most so many rows; those that did not succeed come first.
MOST_ROWS = 100_000
#: Rows that did not succeed and that can be read without JavaScript.
PLAIN_ROWS = 1_000
#: Characters of a message in the table.
LONGEST_MESSAGE = 400

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

    @property
    def plain(self) -> list[tuple[ReportEntry, str]]:
        """Rows that did not succeed, and their errors, for readers without JavaScript."""
        shown = [entry for status in STATUSES[:3] for entry in self._kept[status]][:PLAIN_ROWS]
        return [(entry, _error(entry)) for entry in shown]


def natural_order(text: str) -> tuple[str, str]:
    """A sort key by which O9 comes before O10."""
    return re.sub(r"[0-9]+", lambda digits: digits[0].zfill(20), text), text


def columns(entries: Sequence[ReportEntry]) -> dict[str, Any]:
    since = min((entry.finished_at for entry in entries if entry.finished_at), default=None)
    texts = {
        **{name: [getattr(entry.row, name) for entry in entries] for name in Row._fields},
        "error": [_error(entry) for entry in entries],
        "request": [(entry.request_id or "") if entry.code or entry.message else "" for entry in entries],
        "arn": [entry.arn or "" for entry in entries],
    }
    return {
        "rows": len(entries),
        "statuses": STATUSES,
        "since": round(since.timestamp() * 1000) if since else 0,
        "texts": {name: numbered(column) for name, column in texts.items()},
        "numbers": {
            "status": [STATUSES.index(entry.status) for entry in entries],
            "revision": [entry.revision or 0 for entry in entries],
            "attempts": [entry.attempts for entry in entries],
            "throttles": [entry.throttles for entry in entries],
            "waited": [_milliseconds(entry.started_at, _first_call(entry)) for entry in entries],
            "called": [
                _milliseconds(_first_call(entry) or entry.started_at, entry.finished_at) for entry in entries
            ],
            "finished": [_milliseconds(since, entry.finished_at) for entry in entries],
            "looked": [int(entry.reconciled) for entry in entries],
        },
    }


def packed(columns: Mapping[str, Any]) -> str:
    """The columns as the page holds them: JSON, deflated, in base64, which is safe in a script element."""
    return base64.b64encode(zlib.compress(orjson.dumps(columns), 6)).decode()


def numbered(column: Sequence[str]) -> dict[str, Any]:
    texts = sorted(set(column), key=natural_order)
    number = {text: at for at, text in enumerate(texts)}
    return {"of": texts, "at": [number[text] for text in column]}


def _error(entry: ReportEntry) -> str:
    reason = f" ({entry.reason})" if entry.reason else ""
    words = f"{entry.code}: {entry.message}{reason}" if entry.code or entry.message else ""
    return truncated(words, LONGEST_MESSAGE)


def _first_call(entry: ReportEntry) -> datetime | None:
    """When the row's first call left; None: not known, or in an earlier invocation."""
    sent, started = entry.first_sent_at, entry.started_at
    return sent if sent and started and sent >= started else None


def _milliseconds(since: datetime | None, moment: datetime | None) -> int:
    """From `since` to `moment`; -1: not known."""
    return -1 if moment is None or since is None else max(0, round((moment - since).total_seconds() * 1000))
