"""Which ledger a run goes on with, and what that says by now: found out while the manifest is read."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from batch_snapshot import ledger, locks, manifest, places
from batch_snapshot.errors import InputError, LedgerError
from batch_snapshot.model import Status
from batch_snapshot.options import RESUME_WITHIN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from batch_snapshot.history import History
    from batch_snapshot.manifest import Manifest
    from batch_snapshot.model import Row
    from batch_snapshot.options import Options


def ledger_to_write(name: str, options: Options, now: datetime) -> tuple[Path, list[str]]:
    """Today's ledger, or with {date} in its name a young one of another day that is not finished.

    What is no ledger is passed over.

    Args:
        name: of the manifest.
        options: name the ledger.
        now: the wall clock.

    Returns:
        The ledger's path, and warnings about what was passed over.

    Raises:
        InputError: the ledger's name makes no sense, or nobody can tell what is there.
    """
    pattern = places.ledger_pattern(options.ledger, simulated=options.simulate)
    today = places.ledger_path(pattern, name, now)
    warnings: list[str] = []
    if places.there(today):
        return today, warnings
    for path in places.dated_ledgers(pattern, name):
        try:
            head = ledger.head(path)
        except LedgerError as error:
            warnings.append(f"passed over: {error}")
            continue
        if head is None or head.name != name:
            continue
        if resumable(path, now, options.resume_within):
            return path, warnings
    return today, warnings


def resumable(path: Path, now: datetime, within: float = RESUME_WITHIN) -> bool:
    """Whether a dated ledger is not finished and so young that `run` goes on with it.

    Args:
        path: of the ledger.
        now: the wall clock.
        within: seconds since its run began.

    Raises:
        LedgerError: it is no ledger.
    """
    head = ledger.head(path)
    if head is None:
        return False
    age = (now - head.started_at).total_seconds()
    return age <= within and not ledger.history_of(path).finished


class Recalled(NamedTuple):
    """What a ledger said before its lock was held; it holds while the file is the same."""

    past: History
    #: Of the file that was read.
    stamp: tuple[int, ...]

    def done(self, key: bytes) -> bytes | None:
        """The key as the history keeps it, if a run has nothing to do for its row."""
        held = self.past.succeeded.get(key)
        if held is None and (self.past.status(key) is Status.FAILED or self.past.left_out(key)):
            return key
        return held


def load(
    path: Path, options: Options, now: datetime, *, touch: bool = True
) -> tuple[Manifest, Recalled | None]:
    """Validate the manifest at `path`; where most of it is done, find at once what is left.

    Raises:
        ManifestError: it is not valid.
    """
    recalled = _recall(path, options, now) if touch else None
    return manifest.load(path, done=recalled.done if recalled else None), recalled


def _recall(path: Path, options: Options, now: datetime) -> Recalled | None:
    """What the ledger of a run of the manifest says by now; None: there is none, or it is not found."""
    name = manifest.name_of(path)
    if name is None:
        return None
    # Whatever is wrong with the ledger is told once it is locked.
    with suppress(InputError, OSError):
        book, _ = ledger_to_write(name, options, now)
        stamp = _stamp(book)
        past = ledger.history_of(book, checked=True)
        return Recalled(past, stamp) if past.first else None
    return None


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def looked_up(
    path: Path, recalled: Recalled | None, listed: Manifest, *, live: bool
) -> tuple[History, Sequence[Row] | None]:
    """The ledger's history, and the rows left to do if that was known when the manifest was loaded.

    Args:
        path: of the ledger.
        recalled: what it said when the manifest was loaded.
        listed: the manifest.
        live: a run may be writing it, whose rows are not in doubt.

    Raises:
        LedgerError: it is no ledger.
    """
    if recalled is not None and places.there(path) and _stamp(path) == recalled.stamp:
        return recalled.past, listed.left
    live = live and places.there(path) and locks.holder_lives(places.ledger_lock(path))
    return ledger.history_of(path, live=live, checked=True), None
