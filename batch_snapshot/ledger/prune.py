"""Removes old ledgers: only what is whole, fully succeeded, and held by no run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from batch_snapshot import paths
from batch_snapshot.errors import InputError, LedgerError, LockedError, StorageError
from batch_snapshot.ledger import locks, reader
from batch_snapshot.ledger.records import Header
from batch_snapshot.models import Status
from batch_snapshot.text import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from batch_snapshot.ledger.history import History


class OldLedger(NamedTuple):
    """A ledger, and when its run began."""

    path: Path
    #: The manifest's name and the endpoint: a simulation displaces no real night.
    series: tuple[str, str]
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Pruned:
    """What became of the ledgers of a folder."""

    removed: list[Path] = field(default_factory=list)
    #: Old ones that were kept all the same, and why.
    kept: list[tuple[Path, str]] = field(default_factory=list)
    #: How many are among the newest of their manifest.
    newest: int = 0


def prune(folder: Path, keep: int, now: datetime, *, dry_run: bool = False) -> Pruned:
    """Remove the ledgers in `folder` beyond the newest `keep` of each manifest, with their lock files.

    One that is not fully succeeded, not readable or in use is kept, and so is whatever is no ledger.

    Args:
        folder: looked into itself, not its folders.
        keep: ledgers of each manifest name, the newest by the beginning of their run.
        now: for whoever meets our locks.
        dry_run: remove nothing.

    Raises:
        InputError: the folder cannot be read.
        StorageError: a ledger cannot be locked or removed.
    """
    found = list(_ledgers(folder))
    old = beyond(found, keep)
    pruned = Pruned(newest=len(found) - len(old))
    for one in old:
        why = _why_kept(one.path, now, dry_run=dry_run)
        if why is None:
            pruned.removed.append(one.path)
        else:
            pruned.kept.append((one.path, why))
    return pruned


def beyond(found: Iterable[OldLedger], keep: int) -> list[OldLedger]:
    """Those that are not among the newest `keep` of their series, the oldest first."""
    seen: dict[tuple[str, str], int] = {}
    old = []
    for one in sorted(found, key=lambda one: (one.started_at, one.path), reverse=True):
        seen[one.series] = seen.get(one.series, 0) + 1
        if seen[one.series] > keep:
            old.append(one)
    return old[::-1]


def unfinished(past: History) -> str | None:
    """What speaks against forgetting a ledger; None: every row of it has succeeded."""
    if past.last is None or past.end is None:
        return "its last run did not come to an end"
    counts = past.counts()
    states = (Status.FAILED, Status.IN_DOUBT)
    parts = [f"{counts[state]:,} {state.replace('_', ' ')}" for state in states if counts[state]]
    if left := past.last.rows - counts.total():
        parts.append(f"{left:,} unattempted")
    return f"not fully succeeded: {', '.join(parts)}" if parts else None


def _ledgers(folder: Path) -> Iterator[OldLedger]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); name a folder with ledgers") from None
    for path in files:
        # What a repair has put aside is no ledger of a night of its own.
        head = None if paths.is_original(path) else _head(path)
        if head is not None:
            yield OldLedger(path, (head.name, head.endpoint), head.started_at)


def _head(path: Path) -> Header | None:
    """The run line that the file begins with; None: it is no ledger, or none that can be read."""
    with suppress(LedgerError):
        for line in reader.lines(path):
            return line.record if isinstance(line.record, Header) else None
    return None


def _why_kept(path: Path, now: datetime, *, dry_run: bool) -> str | None:
    """Remove the ledger, unless something speaks against it."""
    lock = paths.ledger_lock(path)
    if dry_run:
        return "in use by a run" if locks.holder_lives(lock) else _judged(path)
    try:
        with locks.held(
            lock, what=str(path), since=timestamp(now), elsewhere="prune as a user who may write there"
        ):
            why = _judged(path)
            if why is None:
                _remove(path)
                # Whoever opened it a moment ago is kept out by the lock of his accounts.
                _remove(lock)
            return why
    except LockedError as error:
        return str(error)


def _judged(path: Path) -> str | None:
    try:
        return "its last line is torn" if reader.is_torn(path) else unfinished(reader.history_of(path))
    except LedgerError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be removed ({error.strerror}); mend the permissions of its folder"
        ) from None
