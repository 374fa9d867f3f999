"""The errors that end a command, and the exit code of each.

What goes wrong with one row is not an exception but an `Outcome` (see `models`).

::

    BatchSnapshotError
    ├── InputError                2   usage, manifest or ledger; nothing was called
    │   ├── ManifestError         2   every problem, each with its file and line
    │   └── LedgerError           2   not a ledger, or not this run's
    │       └── DamagedError      2   lines are lost or damaged; repair may help
    ├── ServiceError              3   the service refused a read that all of the work depends on
    │   └── DeferredError         4   not now: run the same command later
    └── StorageError              5   cannot be locked or written
        ├── StateFolderError      2   a path cannot be used; nothing was called
        ├── LockedError           5   another run holds it
        └── LedgerWriteError      5   the ledger cannot be written

`str(error)` is one line (in a `ManifestError` one for each problem) that says what, where and the way out.
The library raises; only the command line prints.
"""

import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from batch_snapshot import text

_FILE_INSTEAD_OF_FOLDER = "move the file that is where a folder must be"
#: What fixes a path that cannot be used, by error number.
_FIXES = {
    errno.EACCES: "fix its permissions",
    errno.EEXIST: _FILE_INSTEAD_OF_FOLDER,
    errno.EISDIR: "move the folder that has the name of the file",
    errno.ELOOP: "fix its symbolic links",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "create its folder",
    errno.ENOTDIR: _FILE_INSTEAD_OF_FOLDER,
    errno.ENXIO: "move away what has this name",
    errno.EPERM: "fix its permissions",
    errno.EROFS: "make its file system writable",
}
#: What fixes a full disk.
DISK_FULL = "the disk is full: free some space"

#: Where this package is installed from.
SOURCE = "git+https://github.com/batch-snapshot/batch-snapshot"

#: The end of a message after which the same command resumes; the command line appends that command.
SAME_COMMAND = "then run the same command"


def is_path_error(error: OSError) -> bool:
    """Whether another path or other permissions help, rather than disk space."""
    return error.errno in _FIXES


def is_disk_full(error: OSError) -> bool:
    """Whether the disk, or the user's quota on it, is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def way_out(error: OSError, elsewhere: str) -> str:
    """What to do about a file that cannot be written; `elsewhere` says how to use another path."""
    if is_disk_full(error):
        return DISK_FULL
    if error.errno in _FIXES:
        return f"{_FIXES[error.errno]}, or {elsewhere}"
    limits = {errno.EFBIG: "the size of files (ulimit -f)", errno.EMFILE: "open files (ulimit -n)"}
    return f"raise the limit on {limits[error.errno]}" if error.errno in limits else "check the disk"


def install_command(extra: str) -> str:
    """The command that adds an extra of this package, in the way in which it was installed."""
    ways = {"uv-receipt.toml": "uv tool install", "pipx_metadata.json": "pipx install --force"}
    way = next((ways[name] for name in ways if Path(sys.prefix, name).exists()), "pip install")
    return f"{way} 'batch-snapshot[{extra}] @ {SOURCE}'"


class BatchSnapshotError(Exception):
    """Root of the tree: every error that this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class InputError(BatchSnapshotError):
    """Usage, manifest or ledger is not valid, or they don't fit together; nothing was called."""

    exit_code = 2


class ManifestError(InputError):
    """A manifest that cannot be run: its first problems, in the order of the files, of `total` in all."""

    def __init__(self, problems: Sequence[str], total: int | None = None) -> None:
        self.problems = list(problems)
        self.total = len(self.problems) if total is None else total
        hidden = self.total - len(self.problems)
        more = [f"… and {hidden:,} more (validate --all-problems)"] if hidden else []
        super().__init__("\n".join([*self.problems, *more]))


class LedgerError(InputError):
    """The file is not a ledger that this version can read, or belongs to another run."""

    #: Characters of a message, which may quote any text of a ledger.
    LONGEST = 900

    def __init__(self, message: str) -> None:
        super().__init__(text.shortened(text.line(message), self.LONGEST))


class DamagedError(LedgerError):
    """A line is damaged, or does not follow from the lines before it; repair may help."""


class ServiceError(BatchSnapshotError):
    """A read that all of the work depends on was refused; the message names it."""

    exit_code = 3


class DeferredError(ServiceError):
    """The quota of reads is spent, or the service cannot be reached: run the same command later."""

    exit_code = 4


class StorageError(BatchSnapshotError):
    """A lock is held by another run, or the ledger cannot be written."""

    exit_code = 5


class StateFolderError(StorageError):
    """A path cannot be used: permissions are missing, or something else exists there; nothing was called.

    After the first call the same failure is a `StorageError`.
    """

    exit_code = 2


class LockedError(StorageError):
    """Another run holds the lock; the message names it."""


class LedgerWriteError(StorageError):
    """A line could not be made durable, so no further call was made."""


def file_error(path: object, error: OSError, elsewhere: str, what: str = "cannot be written") -> str:
    """One line: what failed, why, and the way out; for `elsewhere` see `way_out`."""
    return f"{path}: {what} ({error.strerror or error}); {way_out(error, elsewhere)}"


@contextmanager
def file_errors(
    path: object, elsewhere: str, kind: type[BatchSnapshotError], what: str = "cannot be written"
) -> Iterator[None]:
    """Raise an OSError of the block as that kind of error; see `file_error`."""
    try:
        yield
    except OSError as error:
        raise kind(file_error(path, error, elsewhere, what)) from None


def storage_error(path: object, what: str, error: OSError, elsewhere: str) -> StorageError:
    """The error for a file of the state folder or a ledger."""
    line = file_error(path, error, elsewhere, what)
    return StateFolderError(line) if is_path_error(error) else StorageError(f"{line}, {SAME_COMMAND}")
