"""The ledger's file: append only, one line for whatever happened (see `codec` for the lines).

`Ledger` is the only thing that writes a ledger, and only while its lock is held (see `locks`). A
torn last line is skipped by readers and repaired by the writer.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import orjson

from batch_snapshot import files
from batch_snapshot.errors import (
    SAME_COMMAND,
    LedgerError,
    LedgerWriteError,
    StateFolderError,
    StorageError,
    is_of_the_place,
    way_out,
)
from batch_snapshot.ledger.reader import LINE_HEAD, LONGEST_LINE

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


#: How a ledger is continued in another place: under a new name its rows would be sent again.
_COPY = "copy the ledger elsewhere and name the copy with --ledger"


class Ledger:
    """The writing end. Open it only while its lock is held.

    After the first write that fails nothing more is written: a line behind a torn one would be
    lost with it.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file (mode 0600), repair a torn last line, make the name durable.

        Raises:
            PlaceError: it cannot be created or opened there.
            LedgerWriteError: it cannot be created or written.
            LedgerError: its last line is not the beginning of a ledger's line.
        """
        self.path = path
        self._broken: LedgerWriteError | None = None
        self._dirty = False
        self._syncing = threading.Lock()
        try:
            self._fd = _open(path)
            try:
                self._size = _repair(self._fd, path)
                files.sync_folder(path.parent)
            except BaseException:
                os.close(self._fd)
                raise
        except OSError as error:
            raise self._not_opened(error) from None

    def __enter__(self) -> Self:
        """Use as a context manager: closes at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; what was appended and not synced is the kernel's to write."""
        os.close(self._fd)

    @property
    def empty(self) -> bool:
        """Whether no line stands in it yet."""
        return self._size == 0

    def append(self, line: bytes) -> None:
        """Write one whole line, or nothing more for ever.

        Raises:
            LedgerWriteError: it could not be written, now or earlier.
        """
        if self._broken:
            raise self._broken
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError as error:
            self._broken = self._unwritable(error)
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise self._broken from None
        self._size += len(line)
        self._dirty = True

    def sync(self) -> None:
        """Make everything appended so far durable, and see that the file is still the one we wrote.

        May be called from several threads: none returns before what it saw appended is durable.

        Raises:
            LedgerWriteError: it is not durable, or the file was removed, replaced or cut.
        """
        with self._syncing:
            if self._broken:
                raise self._broken
            if not self._dirty:
                return
            self._dirty = False
            # Lines may be appended while this waits: only what stands now must be there then.
            self._flush(self._size)

    def _flush(self, written: int) -> None:
        try:
            os.fsync(self._fd)
            ours = os.fstat(self._fd)
        except OSError as error:
            self._broken = self._unwritable(error)
            raise self._broken from None
        if not self._still_there(ours) or ours.st_size < written:
            self._broken = LedgerWriteError(
                f"{self.path}: was removed, replaced or cut while the run wrote it; "
                "put it back, then run the same command: without it every snapshot would be made again"
            )
            raise self._broken

    def _still_there(self, ours: os.stat_result) -> bool:
        try:
            theirs = self.path.stat()
        except OSError:
            return False
        return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)

    def _not_opened(self, error: OSError) -> StorageError:
        """Nothing was called yet: a path that cannot be used is a wrong argument."""
        if not is_of_the_place(error):
            return self._unwritable(error)
        known = os.path.lexists(self.path)
        what, elsewhere = ("written", _COPY) if known else ("created", "name another place with --ledger")
        return StateFolderError(
            f"{self.path}: cannot be {what} ({error.strerror or error}); {way_out(error, elsewhere)}"
        )

    def _unwritable(self, error: OSError) -> LedgerWriteError:
        return LedgerWriteError(
            f"{self.path}: cannot be written ({error.strerror or error}); "
            f"{way_out(error, _COPY)}, {SAME_COMMAND}"
        )


def _open(path: Path) -> int:
    """Open for appending; a new file is its owner's alone, whatever the umask."""
    flags = os.O_RDWR | os.O_APPEND
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    path.chmod(0o600)
    return fd


def repair_last_line(path: Path) -> None:
    """Repair a torn last line of the ledger at `path`, if there is one. Hold its lock.

    Raises:
        LedgerWriteError: it cannot be written.
        LedgerError: its last line is not the beginning of a ledger's line.
    """
    if files.exists(path):
        with Ledger(path):
            pass


def _repair(fd: int, path: Path) -> int:
    """Settle a torn last line; returns the size.

    A whole object that lacks only its newline is a record and gets it; the beginning of a record,
    or the zeros that a power cut can leave, are cut off. Anything else was not written by us.
    """
    size = os.fstat(fd).st_size
    tail = bytearray()
    start = size
    while start > 0 and b"\n" not in tail and len(tail) <= LONGEST_LINE:
        step = min(start, 64 * 1024)
        start -= step
        tail[:0] = os.pread(fd, step, start)
    torn = bytes(tail[tail.rfind(b"\n") + 1 :])
    if not torn:
        return size
    head = torn.rstrip(b"\0")[: len(LINE_HEAD)]
    # An editor may have left blanks.
    if not torn.isspace() and not LINE_HEAD.startswith(head):
        raise LedgerError(
            f"{path}: its last line is not a ledger's; name a ledger, or a file that is not there"
        )
    try:
        whole = isinstance(orjson.loads(torn), dict)
    except orjson.JSONDecodeError:
        whole = False
    if whole:
        os.write(fd, b"\n")
        size += 1
    else:
        size -= len(torn)
        os.ftruncate(fd, size)
    os.fsync(fd)
    return size
