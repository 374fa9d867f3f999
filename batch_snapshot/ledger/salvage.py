"""Finds the whole records in a damaged ledger, and the places where something else stood."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from batch_snapshot.errors import DamagedError, LedgerError
from batch_snapshot.ledger import codec, reader
from batch_snapshot.ledger.records import Header, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Fragment(NamedTuple):
    #: A whole line, with its end; empty: the bytes here are lost.
    raw: bytes
    #: What it says; None: it is of a type that this version does not know.
    record: Record | None


GAP = Fragment(b"", None)


def fragments(path: Path) -> Iterator[Fragment]:
    """Every whole record of the file and every gap; `LedgerError` for a record of a later schema."""
    for _, number, raw in reader.raw_lines(path):
        try:
            yield from _fragments_of(raw)
        except LedgerError as error:
            raise reader.with_place(path, number, error) from None


def _fragments_of(raw: bytes) -> Iterator[Fragment]:
    if raw.isspace():
        return
    with suppress(DamagedError):
        yield Fragment(raw if raw.endswith(b"\n") else raw + b"\n", codec.decode(raw))
        return
    text = raw.decode("utf-8", "surrogateescape")
    head = reader.LINE_HEAD.decode()
    at = end = 0
    while (at := text.find(head, at)) >= 0:
        found, after = _record_at(text, at)
        if found is None:
            at += 1
            continue
        if text[end:at].strip():
            yield GAP
        yield found
        at = end = after
    rest = text[end:].strip()
    # A crash leaves the beginning of a last line, which was never acted upon.
    torn = not raw.endswith(b"\n") and head.startswith(rest[: len(head)]) and "\0" not in rest
    if rest and not torn:
        yield GAP


def _record_at(text: str, at: int) -> tuple[Fragment | None, int]:
    """The whole record that begins there, and where it ends."""
    try:
        _, end = json.JSONDecoder().raw_decode(text, at)
        raw = text[at:end].encode("utf-8", "surrogateescape")
        return Fragment(raw + b"\n", codec.decode(raw)), end
    except (ValueError, RecursionError, DamagedError):
        return None, at


def first_header(path: Path) -> Header:
    """The first run line that is left of the run that most lines belong to: a run id can be damaged too."""
    ids: Counter[str] = Counter()
    headers: dict[str, Header] = {}
    for fragment in fragments(path):
        if run_id := getattr(fragment.record, "run_id", None):
            ids[run_id] += 1
        if isinstance(fragment.record, Header):
            headers.setdefault(fragment.record.run_id, fragment.record)
    if not headers:
        raise LedgerError(
            f"{path}: no run line is left in it, and only that says which run and accounts the rows are of: "
            "restore it from a backup, or name the ledger's file if this is none"
        )
    run_id = ids.most_common(1)[0][0]
    return headers.get(run_id) or next(iter(headers.values()))._replace(run_id=run_id)
