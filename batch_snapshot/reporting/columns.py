"""The page's table, a column at a time: small, and sorted by the numbers that stand in it. Pure.

Texts are kept once each, in their natural order, and a row bears the number of its text: sorting by a
column is sorting numbers, and searching looks at every different text once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from batch_snapshot.model import Status
from batch_snapshot.reporting.entries import UNATTEMPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from batch_snapshot.reporting.entries import Entry

#: Rows that the page's table holds at most; those that did not succeed come first.
MOST_ROWS = 100_000
#: Characters of a message in the table; and once all messages together are so long, of the others.
LONGEST_MESSAGE, MANY_CHARACTERS, SHORT_MESSAGE = 400, 6_000_000, 60

#: In the order in which a person wants to read them.
STATUSES = (Status.FAILED.value, Status.IN_DOUBT.value, UNATTEMPTED, Status.SUCCEEDED.value)


def chosen(entries: Iterable[Entry], most: int = MOST_ROWS) -> tuple[list[Entry], int]:
    """The rows that the table holds, those that did not succeed first; and how many there are in all."""
    rest: dict[str, list[Entry]] = {status: [] for status in STATUSES}
    total = 0
    for entry in entries:
        total += 1
        if len(rest[entry.status]) < most:
            rest[entry.status].append(entry)
    return [entry for status in STATUSES for entry in rest[status]][:most], total


class _Texts:
    """A column of texts."""

    def __init__(self) -> None:
        self._at: list[str] = []

    def add(self, text: str) -> None:
        self._at.append(text)

    def column(self) -> dict[str, Any]:
        texts = sorted(set(self._at), key=natural)
        number = {text: at for at, text in enumerate(texts)}
        return {"of": texts, "at": [number[text] for text in self._at]}


def natural(text: str) -> tuple[str, str]:
    """An order in which O9 comes before O10."""
    return re.sub(r"[0-9]+", lambda digits: digits[0].zfill(20), text), text


def columns(entries: Sequence[Entry]) -> dict[str, Any]:
    """The table of `entries` as values for JSON."""
    texts: defaultdict[str, _Texts] = defaultdict(_Texts)
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    since = min((entry.finished_at for entry in entries if entry.finished_at), default=None)
    spent = 0
    for entry in entries:
        message, spent = _message(entry, spent)
        row = entry.row
        for name, text in (
            ("account", row.account),
            ("catalog", row.catalog),
            ("engagement", row.engagement),
            ("type", row.resource_type),
            ("resource", row.resource),
            ("template", row.template),
            ("error", message),
            ("request", (entry.request_id or "") if message else ""),
            ("arn", _shape(entry)),
        ):
            texts[name].add(text)
        for name, number in (
            ("status", STATUSES.index(entry.status)),
            ("revision", entry.revision or 0),
            ("attempts", entry.attempts),
            ("throttles", entry.throttles),
            ("took", -1 if entry.seconds is None else round(entry.seconds * 1000)),
            ("finished", _since(entry.finished_at, since)),
            ("looked", int(entry.reconciled)),
        ):
            numbers[name].append(number)
    return {
        "rows": len(entries),
        "statuses": STATUSES,
        "since": round(since.timestamp() * 1000) if since else 0,
        "texts": {name: column.column() for name, column in texts.items()},
        "numbers": numbers,
    }


def _message(entry: Entry, spent: int) -> tuple[str, int]:
    """Code and message of an error, and how many characters messages have taken by now."""
    if not (entry.code or entry.message):
        return "", spent
    words = f"{entry.code}: {entry.message}" + (f" ({entry.reason})" if entry.reason else "")
    longest = LONGEST_MESSAGE if spent < MANY_CHARACTERS else SHORT_MESSAGE
    cut = words if len(words) <= longest else f"{words[:longest]}…"
    return cut, spent + len(cut)


#: Where a row's own values stand in the arns that are alike.
_HOLES = ("\x01", "\x02", "\x03")


def _shape(entry: Entry) -> str:
    """The arn with marks for the row's own values, so that arns alike are kept once; lossless."""
    arn = entry.arn or ""
    values = (entry.row.engagement, entry.row.resource, f"/{entry.revision or 0}")
    if not all(values) or any(hole in arn for hole in _HOLES):
        return arn
    shape = arn
    if shape.endswith(values[2]):
        shape = shape[: -len(values[2])] + _HOLES[2]
    shape = shape.replace(values[0], _HOLES[0]).replace(values[1], _HOLES[1])
    return shape if filled(shape, values) == arn else arn


def filled(shape: str, values: Sequence[str]) -> str:
    """The arn of a shape; the page does the same."""
    for hole, value in zip(_HOLES, values, strict=True):
        shape = shape.replace(hole, value)
    return shape


def _since(moment: datetime | None, since: datetime | None) -> int:
    """Milliseconds between them; -1 where there is no time."""
    return -1 if moment is None or since is None else round((moment - since).total_seconds() * 1000)
