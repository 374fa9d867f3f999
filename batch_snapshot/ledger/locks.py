"""Locks that name their holder and die with its process.

The kernel holds them (flock through filelock), so a stale file of a dead process is no obstacle.
A file system that cannot lock is an error, never a softer kind of lock.
"""

from __future__ import annotations

import errno
import json
import os
import platform
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from batch_snapshot import files
from batch_snapshot.errors import (
    SAME_COMMAND,
    LockedError,
    StateFolderError,
    StorageError,
    is_of_room,
    is_of_the_place,
    way_out,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


#: Files that a run has open beside its locks: connections, logs, libraries.
OTHER_FILES = 256

#: How another place is chosen for what is not beside a ledger.
ELSEWHERE = "name another folder with --state-dir"

#: Seconds to wait for a lock: who only looks whether it is held, holds it for a moment.
PATIENCE = 0.2


@contextmanager
def held(path: Path, *, what: str, since: str, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Hold the lock file `path` (mode 0600) for as long as the block lasts.

    Args:
        path: the lock file; it stays behind, empty of meaning.
        what: the thing the lock guards, for the message.
        since: when this run began, for the next one's message.
        elsewhere: how another place is chosen, for the message.

    Raises:
        LockedError: another process holds it; the message names that process.
        PlaceError: the folder cannot be used.
        StorageError: the lock file cannot be made, or its file system cannot lock.
    """
    lock = FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)
    try:
        files.make_folder(path.parent)
        files.refuse_special(path)
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        if not path.exists():
            # A file that cannot come to be, where its folder is, counts as contention too.
            raise _unlockable(path, OSError(errno.EACCES, "no file can be made"), elsewhere) from None
        raise LockedError(
            f"{what} is in use by {_holder(path)}; wait until that run has ended, or stop it"
        ) from None
    except OSError as error:
        raise _unlockable(path, error, elsewhere) from None
    try:
        _sign(path, since, elsewhere)
        yield
    finally:
        # Nobody holds it now: a process that gets our pid one day must not seem to.
        with suppress(OSError):
            os.truncate(path, 0)
        # One that cannot be given back goes with this process.
        with suppress(OSError):
            lock.release()


def make_room(locks: int) -> None:
    """Let this process hold so many locks, a file each, beside all else, as far as the system allows it."""
    try:
        import resource  # noqa: PLC0415 - POSIX alone has it
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = locks + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _unlockable(path: Path, error: OSError, elsewhere: str) -> StorageError:
    why = error.strerror or str(error)
    if error.errno == errno.EMFILE:
        return StorageError(
            f"{path}: a lock is a file, and this process may hold no more of them open: raise that limit "
            "(ulimit -n), or choose fewer --accounts at a time"
        )
    if is_of_the_place(error):
        return StateFolderError(f"{path}: cannot lock here ({why}); {way_out(error, elsewhere)}")
    if is_of_room(error):
        return StorageError(f"{path}: cannot lock here ({why}); {way_out(error, elsewhere)}, {SAME_COMMAND}")
    return StorageError(
        f"{path}: cannot lock here ({why}); use a folder on a file system with file locks: {elsewhere}"
    )


def _sign(path: Path, since: str, elsewhere: str) -> None:
    try:
        path.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}), "utf-8")
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise _unlockable(path, error, elsewhere) from None
        kind = StateFolderError if is_of_the_place(error) else StorageError
        raise kind(
            f"{path}: cannot be written ({error.strerror or error}); "
            f"{way_out(error, elsewhere)}, {SAME_COMMAND}"
        ) from None


def holder_lives(path: Path) -> bool:
    """Whether a process holds the lock: the kernel knows, whatever the file says."""
    try:
        with files.open_regular(path) as file:
            return _is_held(file, path)
    except OSError:
        return False


def _is_held(file: IO[bytes], path: Path) -> bool:
    """Those who look share the lock where they can: none takes another one for a holder."""
    try:
        import fcntl  # noqa: PLC0415 - POSIX alone has it
    except ImportError:
        try:
            with FileLock(path, timeout=PATIENCE, thread_local=False, fallback_to_soft=False):
                return False
        except Timeout:
            return True
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _holder(path: Path) -> str:
    holder = _read(path)
    if holder is None:
        return "another run"
    return f"another run (pid {holder['pid']} on {holder['host']}, since {holder['since']})"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        holder = json.loads(files.read_regular(path, 10_000))
        return {"pid": int(holder["pid"]), "host": str(holder["host"]), "since": str(holder["since"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
