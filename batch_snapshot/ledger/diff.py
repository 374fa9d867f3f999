"""Compares two ledgers: rows that are new, gone, newly failing or recovered, and jumps of revisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from batch_snapshot.ledger import reader
from batch_snapshot.ledger.row_table import row_tables
from batch_snapshot.models import SIMULATOR, Row
from batch_snapshot.text import plural

#: Rows of each kind that the text names, and that JSON holds at most.
SHOWN, KEPT = 10, 100_000

_BAD, _GOOD = "status IN ('failed', 'in_doubt')", "status NOT IN ('failed', 'in_doubt')"

_JUMPED = (
    "not the revision after that of the first: others made snapshots in between, or the second ledger is not "
    "the later one"
)

#: Kinds of changes: the SQL that finds them (`b` is the row before, `a` after), and what they mean.
KINDS: Mapping[str, tuple[str, str]] = {
    "new": ("b.engagement IS NULL", "not in the first"),
    "gone": ("a.engagement IS NULL", "not in the second"),
    "newly_failing": (f"a.{_BAD} AND b.{_GOOD}", "failed or in doubt, and did not before"),
    "recovered": (f"b.{_BAD} AND a.{_GOOD}", "failed or in doubt before, and no longer"),
    "still_failing": (f"a.{_BAD} AND b.{_BAD}", "failed or in doubt in both"),
    "revision_jumps": (
        "a.status = 'succeeded' AND b.status = 'succeeded' AND a.revision <> b.revision + 1",
        _JUMPED,
    ),
}

#: Where the simulator's world was not kept.
_BEGUN_ANEW = "expected, because a simulated run without --state starts again at revision 1"


class Change(NamedTuple):
    row: Row
    before: str | None
    after: str | None
    revision_before: int | None
    revision_after: int | None
    #: The error's code, where the row failed after, or before.
    code: str | None


@dataclass(slots=True)
class Difference:
    before: str
    after: str
    rows_before: int = 0
    rows_after: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    changes: dict[str, list[Change]] = field(default_factory=dict)
    #: What the kinds mean.
    texts: dict[str, str] = field(default_factory=lambda: {kind: text for kind, (_, text) in KINDS.items()})

    @property
    def exit_code(self) -> int:
        return 1 if self.counts.get("newly_failing") else 0


def diff(before: Path, after: Path) -> Difference:
    """Compare the ledger at `before` with the one at `after`."""
    found = Difference(str(before), str(after))
    with row_tables(before=before, after=after) as db:
        header = reader.last_header(after)
        if header.endpoint == SIMULATOR and not header.settings.get("simulator_state"):
            found.texts["revision_jumps"] = _BEGUN_ANEW
        count = "SELECT (SELECT count(*) FROM before), (SELECT count(*) FROM after)"
        found.rows_before, found.rows_after = db.execute(count).fetchone()
        for kind, (condition, _) in KINDS.items():
            rows = db.execute(_query(kind, condition))
            found.changes[kind] = [Change(Row(*one[:6]), *one[6:]) for one in rows.fetchmany(KEPT)]
            found.counts[kind] = len(found.changes[kind]) + sum(1 for _ in rows)
    return found


def _query(kind: str, condition: str) -> str:
    key = ", ".join(f"{'b' if kind == 'gone' else 'a'}.{name}" for name in Row._fields)
    left, right = ("before b", "after a") if kind == "gone" else ("after a", "before b")
    same = " AND ".join(f"a.{name} = b.{name}" for name in Row._fields)
    values = "b.status, a.status, b.revision, a.revision, coalesce(a.code, b.code)"
    return f"SELECT {key}, {values} FROM {left} LEFT JOIN {right} ON {same} WHERE {condition} ORDER BY {key}"  # noqa: S608 - constants of this module


def as_json(found: Difference) -> dict[str, Any]:
    return {
        "before": found.before,
        "after": found.after,
        "rows_before": found.rows_before,
        "rows_after": found.rows_after,
        "counts": found.counts,
        **{
            kind: [one.row._asdict() | dict(zip(Change._fields[1:], one[1:], strict=True)) for one in changes]
            for kind, changes in found.changes.items()
        },
    }


def as_text(found: Difference) -> str:
    before, after = plural(found.rows_before, "row"), plural(found.rows_after, "row")
    lines = [f"{found.before} ({before}) → {found.after} ({after})"]
    for kind, number in found.counts.items():
        if not number:
            continue
        lines.append(f"{number:>7,} {kind.replace('_', ' ')}: {found.texts[kind]}")
        lines += [f"        {change_text(one)}" for one in found.changes[kind][:SHOWN]]
        if number > SHOWN:
            lines.append(f"        … and {number - SHOWN:,} more: --format json names them")
    return "\n".join(lines if len(lines) > 1 else [*lines, "no difference"])


def change_text(one: Change) -> str:
    states = [
        f"{status.replace('_', ' ')}{f' revision {revision}' if revision else ''}" if status else "not there"
        for status, revision in ((one.before, one.revision_before), (one.after, one.revision_after))
    ]
    code = f" ({one.code})" if one.code else ""
    return f"{one.row.engagement}/{one.row.resource}: {states[0]} → {states[1]}{code}"
