"""What `discover` has found, as files: a manifest, pairs by line, or a manifest brought up to date."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
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
def replaced(path: Path, mode: int = 0o666) -> Iterator[TextIO]:
    """Write a file that is there as a whole or not at all, and durable.

    Args:
        path: of the file.
        mode: of a new one, less what the umask takes.

    Raises:
        StorageError: it cannot be written.
    """
    beside = path.with_name(f"{path.name}.tmp")
    try:
        files.make_folder(path.parent)
        beside.unlink(missing_ok=True)
        kept = path.stat().st_mode & 0o777 if path.exists() else None
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(fd)
        if kept is not None:
            beside.chmod(kept)
        beside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); {way_out(error, 'write elsewhere')}"
        ) from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


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
