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
        ├── LockedError           5   another run holds it
        └── LedgerWriteError      5   the ledger cannot be written

`str(error)` is for people: one line (a `ManifestError`: one a problem) that says what, where and
the way out. The library raises; only the command line prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from batch_snapshot import text

if TYPE_CHECKING:
    from collections.abc import Sequence


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


class LockedError(StorageError):
    """Another run holds the lock; the message names it."""


class LedgerWriteError(StorageError):
    """A line could not be made durable, so no further call was made."""
