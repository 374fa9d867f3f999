"""The page's table, a column at a time: small, and sorted by the numbers that stand in it. Pure.

Texts are kept once each, in their natural order, and a row bears the number of its text: sorting by a
column is sorting numbers, and searching looks at every different text once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from batch_snapshot.models import Status
from batch_snapshot.reporting.entries import UNATTEMPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from batch_snapshot.reporting.entries import ReportEntry

#: Rows that the page's table holds at most; those that did not succeed come first.
MOST_ROWS = 100_000
#: Characters of a message in the table; and once all messages together are so long, of the others.
LONGEST_MESSAGE, MANY_CHARACTERS, SHORT_MESSAGE = 400, 6_000_000, 60

#: In the order in which a person wants to read them.
STATUSES = (Status.FAILED.value, Status.IN_DOUBT.value, UNATTEMPTED, Status.SUCCEEDED.value)


def chosen(entries: Iterable[ReportEntry], most: int = MOST_ROWS) -> tuple[list[ReportEntry], int]:
    """The rows that the table holds, those that did not succeed first; and how many there are in all."""
    rest: dict[str, list[ReportEntry]] = {status: [] for status in STATUSES}
    total = 0
    for entry in entries:
        total += 1
        if len(rest[entry.status]) < most:
            rest[entry.status].append(entry)
    return [entry for status in STATUSES for entry in rest[status]][:most], total


def natural(text: str) -> tuple[str, str]:
    """An order in which O9 comes before O10."""
    return re.sub(r"[0-9]+", lambda digits: digits[0].zfill(20), text), text


def columns(entries: Sequence[ReportEntry]) -> dict[str, Any]:
    """The table of `entries` as values for JSON."""
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
        "arn": [_shape(entry) for entry in entries],
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
            "finished": [_since(entry.finished_at, since) for entry in entries],
            "looked": [int(entry.reconciled) for entry in entries],
        },
    }


def _numbered(column: Sequence[str]) -> dict[str, Any]:
    """The different texts in their order, and the number of each row's."""
    texts = sorted(set(column), key=natural)
    number = {text: at for at, text in enumerate(texts)}
    return {"of": texts, "at": [number[text] for text in column]}


def _errors(entries: Sequence[ReportEntry]) -> list[str]:
    """Code and message of each row's error, cut where they would make the page too large."""
    found = []
    spent = 0
    for entry in entries:
        words = ""
        if entry.code or entry.message:
            words = f"{entry.code}: {entry.message}" + (f" ({entry.reason})" if entry.reason else "")
            longest = LONGEST_MESSAGE if spent < MANY_CHARACTERS else SHORT_MESSAGE
            if len(words) > longest:
                words = f"{words[:longest]}…"
            spent += len(words)
        found.append(words)
    return found


#: Where a row's own values stand in the arns that are alike.
_HOLES = ("\x01", "\x02", "\x03")
#: Before an arn that is like no other.
_AS_IT_IS = "\x04"


def _shape(entry: ReportEntry) -> str:
    """The arn with marks for the row's own values, so that arns alike are kept once; lossless."""
    arn = entry.arn or ""
    values = (entry.row.engagement, entry.row.resource, f"/{entry.revision or 0}")
    shape = arn
    if shape.endswith(values[2]):
        shape = shape[: -len(values[2])] + _HOLES[2]
    if all(values):
        shape = shape.replace(values[0], _HOLES[0]).replace(values[1], _HOLES[1])
    return shape if filled(shape, values) == arn else _AS_IT_IS + arn


def filled(shape: str, values: Sequence[str]) -> str:
    """The arn of a shape; the page does the same."""
    if shape.startswith(_AS_IT_IS):
        return shape[1:]
    for hole, value in zip(_HOLES, values, strict=True):
        shape = shape.replace(hole, value)
    return shape


def _since(moment: datetime | None, since: datetime | None) -> int:
    """Milliseconds between them; -1 where there is no time."""
    return -1 if moment is None or since is None else round((moment - since).total_seconds() * 1000)
