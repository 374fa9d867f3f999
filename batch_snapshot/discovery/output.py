"""What `discover` has found, as files: a manifest, pairs by line, or a manifest brought up to date."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from batch_snapshot import files
from batch_snapshot.errors import StorageError, way_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from batch_snapshot.discovery.search import FoundPair

#: The endings that mean pairs by line.
BY_LINE = frozenset({".ndjson", ".jsonl"})

#: Behind a pair that AWS's own job takes care of.
JOB_MARK = "# a snapshot job of AWS's takes care of it"


@contextmanager
def replaced(path: Path, mode: int | None = None) -> Iterator[TextIO]:
    """Replace a file atomically; see `files.atomic_write`.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        files.make_folder(path.parent)
        with files.atomic_write_text(path, mode) as file:
            yield file
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); {way_out(error, 'write elsewhere')}"
        ) from None


def as_manifest(
    founds: Iterable[FoundPair], name: str, defaults: Mapping[str, str], about: str
) -> Iterator[str]:
    """The lines of a manifest in which the account and the type of resource are the usual ones.

    Args:
        founds: the pairs.
        name: of the manifest.
        defaults: what a pair need not say.
        about: a line on where the pairs come from.
    """
    yield f"# {about}\n"
    yield f"version: 1\nname: {name}\ndefaults:\n"
    for key in ("catalog", "template"):
        yield f"  {key}: {defaults[key]}\n"
    yield "pairs:\n"
    empty = True
    for found in founds:
        empty = False
        yield f"  - {entry(found, defaults)}\n"
    if empty:
        yield "  []\n"


def entry(found: FoundPair, defaults: Mapping[str, str]) -> str:
    """A pair as an entry of `pairs`, on one line."""
    row = found.row
    own = {
        key: value
        for key in ("account", "catalog", "resource_type", "template")
        if (value := getattr(row, key)) != defaults.get(key)
    }
    fields = {"engagement": row.engagement, "resource": row.resource, **own}
    text = ", ".join(f"{key}: {value}" for key, value in fields.items())
    return f"{{{text}}}  {JOB_MARK}" if found.active_job else f"{{{text}}}"


def by_line(founds: Iterable[FoundPair], *, full: bool) -> Iterator[str]:
    """The pairs as NDJSON; `full` names the account too, else it is left to the manifest that includes it."""
    for found in founds:
        fields = found.row._asdict()
        if not full:
            del fields["account"]
        yield json.dumps(fields, separators=(", ", ": ")) + "\n"
