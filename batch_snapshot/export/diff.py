"""Compares two exports: what changed in the payloads, field by field. As text, JSON and a page."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from batch_snapshot import sqlite
from batch_snapshot.errors import InputError, StorageError, file_errors
from batch_snapshot.export import tables
from batch_snapshot.export.records import positions
from batch_snapshot.files import atomic_write
from batch_snapshot.models import Row
from batch_snapshot.reporting import html
from batch_snapshot.sqlite import Connection
from batch_snapshot.text import plural, truncated

#: Rows that the text names, and that JSON holds at most; characters of a value in the text.
SHOWN, KEPT, WIDEST = 10, 100_000, 60
#: Fields that are counted on the page.
MOST_FIELDS = 500

_TABLES = ";".join(
    f"CREATE TABLE {name} (key BLOB PRIMARY KEY, revision INTEGER, record TEXT) WITHOUT ROWID"
    for name in ("before", "after")
)


class PayloadChange(NamedTuple):
    row: Row
    revision_before: int | None
    revision_after: int | None
    #: The values before and after by path, such as `Customer.Contacts[0].Email`; None: it was not there.
    fields: dict[str, tuple[Any, Any]]


@dataclass(slots=True)
class PayloadDifference:
    before: str
    after: str
    rows_before: int = 0
    rows_after: int = 0
    rows_changed: int = 0
    #: Rows whose snapshot could not be fetched, from one of the files or both.
    rows_unfetched: int = 0
    values_changed: int = 0
    only_before: int = 0
    only_after: int = 0
    #: Changed rows by field; items of a list count for the list.
    fields: Counter[str] = field(default_factory=Counter)
    changes: list[PayloadChange] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def diff(
    before: Path, after: Path, fields: Sequence[str] = (), unfetched: Collection[Row] = frozenset()
) -> PayloadDifference:
    """Compare the export at `before` with the one at `after`; of a row the highest revision counts.

    Of the payloads only `fields` are compared, which may name whole parts; empty: all. The rows that are
    `unfetched` are left out.
    """
    tables.columns(fields)
    found = PayloadDifference(str(before), str(after), rows_unfetched=len(unfetched))
    with sqlite.temporary_tables(_TABLES) as db:
        found.warnings += _load(db, "before", before, unfetched) + _load(db, "after", after, unfetched)
        for old, new in db.execute("SELECT b.record, a.record FROM before b JOIN after a USING (key)"):
            _compare(json.loads(old), json.loads(new), fields, found)
        sizes = ("before", "after", "before JOIN after USING (key)")
        counts = (db.execute(f"SELECT count(*) FROM {one}").fetchone()[0] for one in sizes)  # noqa: S608 - constants
        found.rows_before, found.rows_after, both = counts
    found.only_before, found.only_after = found.rows_before - both, found.rows_after - both
    found.changes.sort(key=lambda change: change.row)
    return found


def _load(db: Connection, table: str, path: Path, unfetched: Collection[Row]) -> list[str]:
    """Fill a table with the newest record of each row; returns a warning if they are of several runs."""
    runs: set[str] = set()
    insert = (
        f"INSERT INTO {table} VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET record = excluded.record,"  # noqa: S608 - constants of this module
        " revision = excluded.revision WHERE excluded.revision >= revision"
    )
    for record, _ in positions(path):
        row = Row(*(record[name] for name in Row._fields))
        if row not in unfetched:
            runs |= {str(record["run_id"])} if record.get("run_id") else set()  # earlier versions did not say
            revision = record["revision"] if isinstance(record.get("revision"), int) else 0
            db.execute(insert, (row.key, revision, json.dumps(record)))
    several = f"{path}: holds snapshots of {len(runs)} runs; of a row the highest revision counts"
    return [several] if len(runs) > 1 else []


def _compare(
    old: dict[str, Any], new: dict[str, Any], wanted: Sequence[str], found: PayloadDifference
) -> None:
    held = [one.get("fields") or [] for one in (old, new)]
    if held[0] != held[1] and not (wanted and all(tables.hold(parts, wanted) for parts in held)):
        raise InputError(
            f"{found.before} and {found.after}: hold different fields; export both with the same --fields"
        )
    before, after = (dict(_leaves(tables.select(one["payload"], wanted))) for one in (old, new))
    both = {name: (before.get(name), after.get(name)) for name in before | after}
    if fields := {name: values for name, values in both.items() if values[0] != values[1]}:
        found.rows_changed += 1
        found.values_changed += len(fields)
        found.fields.update({field_of(path) for path in fields})
        if len(found.changes) < KEPT:
            row = Row(*(new[name] for name in Row._fields))
            found.changes.append(PayloadChange(row, old.get("revision"), new.get("revision"), fields))


def field_of(path: str) -> str:
    """The field of a path, without the numbers of items."""
    return re.sub(r"\[\d+\]", "", path)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The values within a payload by their path below the view's name: `Customer.Contacts[0].Email`."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path[:-1], f"{path[-1]}[{index}]"))
    else:
        yield ".".join(path[1:]), value


def as_json(found: PayloadDifference) -> dict[str, Any]:
    names = ("before", "after", "rows_before", "rows_after", "rows_changed", "only_before", "only_after")
    return {
        **{name: getattr(found, name) for name in (*names, "rows_unfetched", "warnings")},
        "fields": dict(found.fields.most_common()),
        "changes": [{**one.row._asdict(), **dict(list(one._asdict().items())[1:])} for one in found.changes],
    }


def as_text(found: PayloadDifference) -> str:
    before, after = plural(found.rows_before, "row"), plural(found.rows_after, "row")
    lines = [f"{found.before} ({before}) → {found.after} ({after})"]
    counted = {
        "not compared: could not be fetched": found.rows_unfetched,
        "only in the first": found.only_before,
        "only in the second": found.only_after,
    }
    lines += [f"{number:>7,} {what}" for what, number in counted.items() if number]
    compared = found.rows_before - found.only_before
    lines.append(f"{found.rows_changed:>7,} changed" if compared else "no row is in both: nothing compared")
    lines += [f"{number:>11,} {name}" for name, number in found.fields.most_common()]
    for one in found.changes[:SHOWN]:
        revisions = f"revision {one.revision_before} → {one.revision_after}"
        lines.append(f"{one.row.engagement}/{one.row.resource}, {revisions}")
        lines += [f"    {name}: {shown(old)} → {shown(new)}" for name, (old, new) in one.fields.items()]
    if len(found.changes) > SHOWN:
        lines.append(f"… and {found.rows_changed - SHOWN:,} more: --format json names them")
    return "\n".join(lines)


def shown(value: Any, widest: int = WIDEST) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return truncated(str(value), widest) or "empty"


# -- as a page ------------------------------------------------------------------------------------------


def write_page(found: PayloadDifference, path: Path, made_at: datetime) -> None:
    changed: list[tuple[Any, ...]] = [
        (*one.row, field_of(name), name, *(shown(value, html.LONGEST_MESSAGE) for value in values), one)
        for one in found.changes
        for name, values in one.fields.items()
    ][: html.MOST_ROWS]
    # Column by column, as the report has rows.
    names = (*Row._fields, "field", "path", "before", "after")
    texts = {name: html.numbered([each[at] for each in changed]) for at, name in enumerate(names)}
    revisions = ("revision_before", "revision_after")
    numbers = {name: [getattr(one, name) or 0 for *_, one in changed] for name in revisions}
    page = html.render_table(
        "payload.html",
        made_at,
        {"rows": len(changed), "texts": texts, "numbers": numbers},
        script="changes.js",
        found=found,
        fields=found.fields.most_common(MOST_FIELDS),
        plain=[("", (each[2], each[4], *each[7:10])) for each in changed[: html.PLAIN_ROWS]],
    )
    with file_errors(path, "name another --html", StorageError), atomic_write(path, 0o600) as file:
        file.write(page.encode("utf-8", "replace"))
