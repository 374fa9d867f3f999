"""Removes old ledgers: only those that are whole, fully succeeded, and not in use."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from batch_snapshot import paths
from batch_snapshot.errors import InputError, LedgerError, LockedError, StorageError
from batch_snapshot.ledger import locks, reader
from batch_snapshot.ledger.history import History
from batch_snapshot.models import Status
from batch_snapshot.text import timestamp


class OldLedger(NamedTuple):
    path: Path
    #: The manifest's name and the endpoint: a simulated ledger does not count as a newer real one.
    series: tuple[str, str]
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Pruned:
    removed: list[Path] = field(default_factory=list)
    kept: list[tuple[Path, str]] = field(default_factory=list)
    #: How many ledgers are among the newest of their manifest.
    newest: int = 0


def prune(folder: Path, keep: int, now: datetime, *, dry_run: bool = False) -> Pruned:
    """Remove the ledgers in `folder` beyond the newest `keep` of each manifest, and what is beside them."""
    found = list(ledgers_in(folder))
    old = beyond_newest(found, keep)
    pruned = Pruned(newest=len(found) - len(old))
    for one in old:
        if why := _remove_unless_needed(one.path, now, dry_run=dry_run):
            pruned.kept.append((one.path, why))
        else:
            pruned.removed.append(one.path)
    return pruned


def beyond_newest(found: Iterable[OldLedger], keep: int) -> list[OldLedger]:
    seen: dict[tuple[str, str], int] = {}
    old = []
    for one in sorted(found, key=lambda one: (one.started_at, one.path), reverse=True):
        seen[one.series] = seen.get(one.series, 0) + 1
        if seen[one.series] > keep:
            old.append(one)
    return old[::-1]


def why_unfinished(history: History) -> str | None:
    """Why a ledger is still needed; None: every row of it has succeeded."""
    if history.last is None or history.end is None:
        return "its last run did not come to an end"
    counts = history.counts()
    states = (Status.FAILED, Status.IN_DOUBT)
    parts = [f"{counts[state]:,} {state.replace('_', ' ')}" for state in states if counts[state]]
    if left := history.last.rows - counts.total():
        parts.append(f"{left:,} unattempted")
    return f"not fully succeeded: {', '.join(parts)}" if parts else None


def ledgers_in(folder: Path) -> Iterator[OldLedger]:
    """The ledgers in a folder, by path; other files are passed over."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); name a folder with ledgers") from None
    for path in files:
        # The original that a repair keeps is not a run of its own.
        head = None if paths.is_original(path) else reader.head_if_ledger(path)
        if head is not None:
            yield OldLedger(path, (head.name, head.endpoint), head.started_at)


def _remove_unless_needed(path: Path, now: datetime, *, dry_run: bool) -> str | None:
    """Remove the ledger; or return why it is kept."""
    lock = paths.ledger_lock(path)
    if dry_run:
        return "in use by a run" if locks.is_held(lock) else _why_needed(path)
    try:
        with locks.hold(
            lock, what=str(path), since=timestamp(now), elsewhere="prune as a user who may write there"
        ):
            why = _why_needed(path)
            if why is None:
                _remove(path)
                _remove(paths.discovered_file(path))
                # A run that has opened the lock file meanwhile is stopped by the lock on its accounts.
                _remove(lock)
            return why
    except LockedError as error:
        return str(error)


def _why_needed(path: Path) -> str | None:
    try:
        return "its last line is torn" if reader.is_torn(path) else why_unfinished(reader.history_of(path))
    except LedgerError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be removed ({error.strerror}); fix the permissions of its folder"
        ) from None
