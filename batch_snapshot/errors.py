"""What can go wrong with a run as a whole, and the exit code each carries.

What goes wrong with one row is no exception but an `Outcome` (see `model`).

::

    BatchSnapshotError
    ├── InputError                2   usage, manifest or ledger; nothing was called
    │   ├── ManifestError         2   every problem, each with its file and line
    │   └── LedgerError           2   not a ledger, or not this run's
    │       └── DamagedError      2   lines are lost or damaged: it can be repaired
    ├── ServiceError              3   the service refused what all of the work depends on
    │   └── DeferredError         4   not now: the same command goes on another time
    └── StorageError              5   cannot be locked or written
        ├── PlaceError            2   a path that cannot be used as it is; nothing was called
        ├── LockedError           5   another run holds it
        └── LedgerWriteError      5   the ledger cannot be written

`str(error)` is for people: one line (a `ManifestError`: one a problem) that says what, where and
the way out. The library raises; only the command line prints.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

from batch_snapshot import text

if TYPE_CHECKING:
    from collections.abc import Sequence


_IN_THE_WAY = "move away the file that stands in the place of a folder"
#: What fixes a path that stays unusable however much room there is, by error number.
_FIXES = {
    errno.EACCES: "fix its permissions",
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: "move away the folder that stands in the place of the file",
    errno.ELOOP: "fix its symbolic links",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "create its folder",
    errno.ENOTDIR: _IN_THE_WAY,
    errno.ENXIO: "remove the pipe, the socket or the device that stands in the place of the file",
    errno.EPERM: "fix its permissions",
    errno.EROFS: "make its file system writable",
}
#: Error numbers of a disk, or a user's share of it, that is full.
_OF_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

#: How a message ends after which the same command goes on; the command line appends that command.
SAME_COMMAND = "then run the same command"


def is_of_the_place(error: OSError) -> bool:
    """Whether another path or other permissions are the way out, not more room."""
    return error.errno in _FIXES


def is_of_room(error: OSError) -> bool:
    """Whether the disk is full, or this user's share of it."""
    return error.errno in _OF_ROOM


def way_out(error: OSError, elsewhere: str) -> str:
    """What a person can do about a file that cannot be written.

    Args:
        error: says why.
        elsewhere: how another place is named, such as "name another folder with --state-dir".
    """
    if is_of_room(error):
        return "the disk is full: make room"
    if error.errno == errno.EFBIG:
        return "raise the limit on the size of files (ulimit -f)"
    if error.errno in _FIXES:
        return f"{_FIXES[error.errno]}, or {elsewhere}"
    return "check the disk"


class BatchSnapshotError(Exception):
    """Root of the tree: whatever this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class InputError(BatchSnapshotError):
    """Usage, manifest or ledger is not valid, or they don't fit together; nothing was called."""

    exit_code = 2


class ManifestError(InputError):
    """A manifest that cannot be run.

    Attributes:
        problems: the first problems in the order of the files, one line each.
        total: how many there are in all.
    """

    def __init__(self, problems: Sequence[str], total: int | None = None) -> None:
        """Take the problems to show and how many there are in all."""
        self.problems = list(problems)
        self.total = len(self.problems) if total is None else total
        hidden = self.total - len(self.problems)
        lines = [*self.problems, f"… and {hidden:,} more"] if hidden else self.problems
        super().__init__("\n".join(lines))


class LedgerError(InputError):
    """The file is no ledger this version can read, or belongs to another run."""

    #: What is quoted of a ledger can be anything, of any length.
    LONGEST = 900

    def __init__(self, message: str) -> None:
        """Take the message, as one line that can be shown."""
        super().__init__(text.shortened(text.line(message), self.LONGEST))


class DamagedError(LedgerError):
    """A line is not what was written, or does not follow from the lines before it; a repair can help."""


class ServiceError(BatchSnapshotError):
    """A read that all of the work depends on was refused; the message names it."""

    exit_code = 3


class DeferredError(ServiceError):
    """The quota of reads is spent, or nothing can be reached: the same command goes on another time."""

    exit_code = 4


class StorageError(BatchSnapshotError):
    """A lock is held by another run, or the ledger cannot be written."""

    exit_code = 5


class StateFolderError(StorageError):
    """A path cannot be used for want of permissions, or since something else is there; nothing was called.

    Whoever meets it once calls were made has lost storage: then the exit code is that of `StorageError`.
    """

    exit_code = 2


class LockedError(StorageError):
    """Another run holds the lock; the message names it."""


class LedgerWriteError(StorageError):
    """A line could not be made durable, so no further call was made."""
