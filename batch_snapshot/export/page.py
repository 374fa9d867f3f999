"""What changed between two exports, as a page that needs nothing else."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from batch_snapshot.errors import InputError
from batch_snapshot.export.diff import PayloadChange, PayloadDifference, field_of, shown
from batch_snapshot.export.tables import private_file
from batch_snapshot.files import resolved
from batch_snapshot.models import Row
from batch_snapshot.reporting import html

MOST_FIELDS = 500

#: One value that changed: its path, and what it was and is.
Changed = tuple[PayloadChange, str, str, str]


def check(path: Path, sources: Iterable[Path]) -> None:
    """Refuse a path at which the page would replace a folder, or what it is made from."""
    if resolved(path) in map(resolved, sources):
        raise InputError(f"{path}: is what the page is made from; name another file with --html")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it with --html")


def write(found: PayloadDifference, path: Path, made_at: datetime) -> None:
    page = render(found, made_at).encode("utf-8", "replace")
    with private_file(path, "--html") as file:
        file.write(page)


def render(found: PayloadDifference, made_at: datetime) -> str:
    widest = html.LONGEST_MESSAGE
    changed = [
        (change, path, shown(before, widest), shown(after, widest))
        for change in found.changes
        for path, (before, after) in change.fields.items()
    ][: html.MOST_ROWS]
    listed = changed[: html.PLAIN_ROWS]
    first = f"first {len(listed):,} of " if found.values_changed > len(listed) else ""
    section = html.template("payload.html").render(
        found=found,
        both=found.rows_before - found.only_before,
        fields=found.fields.most_common(MOST_FIELDS),
    )
    return html.render_table(
        f"{found.rows_changed:,} rows changed: {found.before} → {found.after}",
        {"payload": Markup(section)},  # noqa: S704 - made by a template
        made_at,
        title="Changes",
        script="changes.js",
        data=_columns(changed),
        shown=len(changed),
        total=found.values_changed,
        command="batch-snapshot diff --payload … --format json",
        choice="Field",
        searched="engagement, resource, value",
        plain_note=f"the {first}{found.values_changed:,} changes",
        plain_head=("Engagement", "Resource", "Field", "Before", "After"),
        plain=[
            ("", (one.row.engagement, one.row.resource, path, before, after))
            for one, path, before, after in listed
        ],
    )


def _columns(changed: list[Changed]) -> dict[str, Any]:
    """The changes column by column, as the report has rows."""
    texts: dict[str, list[str]] = defaultdict(list)
    for change, path, before, after in changed:
        values = {"field": field_of(path), "path": path, "before": before, "after": after}
        for name, value in (change.row._asdict() | values).items():
            texts[name].append(value)
    names = (*Row._fields, "field", "path", "before", "after")
    return {
        "rows": len(changed),
        "texts": {name: html.numbered(texts[name]) for name in names},
        "numbers": {
            name: [getattr(change, name) or 0 for change, *_ in changed]
            for name in ("revision_before", "revision_after")
        },
    }
