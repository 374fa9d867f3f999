"""Lock files that name the process which holds them.

The kernel releases a lock (flock through filelock) when its process ends, so the file of a dead process is no
obstacle. A file system that cannot lock is an error: there is no fallback to a weaker lock.
"""

import errno
import fcntl
import json
import os
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from batch_snapshot import files
from batch_snapshot.errors import LockedError, StorageError, is_disk_full, is_path_error, storage_error

#: Files that a run has open in addition to its locks: connections, logs, libraries.
OTHER_FILES = 256

#: How to choose another folder for locks that are not in the folder of a ledger.
ELSEWHERE = "name another folder with --state-dir"

#: Seconds to wait for a lock: a process that only looks whether it is held holds it for a moment.
TIMEOUT = 0.2


@contextmanager
def hold(path: Path, *, what: str, since: str, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Hold the lock file `path` (mode 0600), which is never removed.

    For messages: `what` the lock guards, when this run began, and how to choose another folder.
    """
    lock = FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)
    holder = {"pid": os.getpid(), "host": platform.node(), "since": since}
    try:
        try:
            files.make_folder(path.parent)
            files.refuse_special(path)
            lock.acquire(timeout=TIMEOUT)
            path.write_text(json.dumps(holder), "utf-8")
        except Timeout:
            if not path.exists():
                # filelock reports a file that it cannot create as contention.
                raise _lock_error(path, OSError(errno.EACCES, "no file can be made"), elsewhere) from None
            raise LockedError(
                f"locked: {what} is in use by {_describe_holder(path)}; wait until that run ends, or stop it"
            ) from None
        except OSError as error:
            raise _lock_error(path, error, elsewhere) from None
        yield
    finally:
        if lock.is_locked:
            # A later process with our pid must not seem to hold it.
            with suppress(OSError):
                os.truncate(path, 0)
            # A lock that cannot be released ends with this process.
            with suppress(OSError):
                lock.release()


def hold_itself(number: int, path: Path) -> None:
    """Lock the open ledger itself until it is closed: it may have two names, or have lost its lock file."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(
            f"locked: {path} is in use by another run, under another name or after its lock file was "
            "removed; wait until that run ends, or stop it"
        ) from None


def raise_file_limit(locks: int) -> None:
    """Let this process open a file for each of so many locks, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = locks + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _lock_error(path: Path, error: OSError, elsewhere: str) -> StorageError:
    if error.errno == errno.EMFILE:
        return StorageError(
            f"{path}: a lock is a file, and this process may hold no more of them open: raise that limit "
            "(ulimit -n), or choose fewer --accounts at a time"
        )
    if is_path_error(error) or is_disk_full(error) or error.errno == errno.EFBIG:
        return storage_error(path, "cannot lock here", error, elsewhere)
    return StorageError(
        f"{path}: cannot lock here ({error.strerror or error}); use a folder on a file system with file "
        f"locks: {elsewhere}"
    )


def is_held(path: Path) -> bool:
    """Whether a process holds the lock. The kernel is asked, not the file's content."""
    try:
        with files.open_regular(path) as file:
            # A shared lock: two processes that look at once do not take each other for the holder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _describe_holder(path: Path) -> str:
    try:
        holder = json.loads(files.read_regular(path, 10_000))
        return f"another run (pid {int(holder['pid'])} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another run"
