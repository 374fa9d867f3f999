"""Appends lines to a ledger (see `records` for the lines).

Only `Ledger` writes a ledger, and only while its lock is held (see `locks`). It repairs a torn last line.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

from batch_snapshot import files
from batch_snapshot.errors import (
    SAME_COMMAND,
    LedgerError,
    LedgerWriteError,
    StorageError,
    file_error,
    is_path_error,
    storage_error,
)
from batch_snapshot.ledger import locks
from batch_snapshot.ledger.reader import LINE_HEAD, LONGEST_LINE, after_hole, head_if_ledger, not_begun

#: How to continue a ledger in another folder. A new ledger would send all rows again.
_COPY = "copy the ledger elsewhere and name the copy with --ledger"


class Ledger:
    """A ledger that is open for writing. Open it only while its lock is held.

    After a failed write nothing more is written: a line after a torn one would be lost with it.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file (mode 0600), repair a torn last line, and make its name durable."""
        self.path = path
        self._disk = files.DISK.get()
        self._failed: LedgerWriteError | None = None
        self._dirty = False
        #: Bytes that an fsync of ours has made durable.
        self._durable = 0
        self._syncing = threading.Lock()
        try:
            self._fd = _open(path)
            try:
                locks.hold_itself(self._fd, path)
                self._size = _repair_tail(self._fd, path)
                files.sync_folder(path.parent)
            except BaseException:
                os.close(self._fd)
                raise
        except OSError as error:
            raise self._not_opened(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def empty(self) -> bool:
        return self._size == 0

    def append(self, line: bytes) -> None:
        """Write one whole line. After a failure, each call raises the same `LedgerWriteError`."""
        if self._failed:
            raise self._failed
        try:
            self._disk.append(self._fd, line, self._size)
        except OSError as error:
            self._failed = self._unwritable(error)
            raise self._failed from None
        self._size += len(line)
        self._dirty = True

    def sync(self) -> None:
        """Make everything appended so far durable, and check that the file was not removed, replaced or cut.

        Several threads may call it: it returns when all lines appended before the call are durable.
        """
        with self._syncing:
            if self._failed:
                raise self._failed
            if not self._dirty:
                return
            self._dirty = False
            # Lines may be appended meanwhile: only the present size is certain to be durable.
            self._flush(self._size)

    def _flush(self, written: int) -> None:
        try:
            self._disk.sync(self._fd)
            ours = os.fstat(self._fd)
        except OSError as error:
            self._failed = self._unwritable(error)
            with suppress(OSError):
                self._disk.write_again(self.path, self._durable)
            raise self._failed from None
        self._durable = written
        try:
            same = os.path.samestat(ours, self.path.stat())
        except OSError:
            same = False
        if not same or ours.st_size < written:
            self._failed = LedgerWriteError(
                f"{self.path}: was removed, replaced or cut while the run wrote it; "
                "put it back, then run the same command: without it every snapshot would be made again"
            )
            raise self._failed

    def _not_opened(self, error: OSError) -> StorageError:
        # Nothing was called yet: a path that cannot be used is a wrong argument.
        if not is_path_error(error):
            return self._unwritable(error)
        known = os.path.lexists(self.path)
        what, elsewhere = ("written", _COPY) if known else ("created", "name another place with --ledger")
        return storage_error(self.path, f"cannot be {what}", error, elsewhere)

    def _unwritable(self, error: OSError) -> LedgerWriteError:
        return LedgerWriteError(f"{file_error(self.path, error, _COPY)}, {SAME_COMMAND}")


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags | os.O_NONBLOCK)
    path.chmod(0o600)  # whatever the umask
    return fd


def repair_last_line(path: Path) -> None:
    """Repair a torn last line of the ledger at `path`, if there is one. Hold its lock."""
    if files.exists(path):
        with Ledger(path):
            pass


def _repair_tail(fd: int, path: Path) -> int:
    """Repair a torn last line; returns the size.

    A whole object that lacks only its newline is a record and gets it. The beginning of a record, and
    what is around the zeros that a power cut can leave, are cut off. Anything else was not written by this
    program.
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
    # Zeros can begin in the middle of the head. A file that begins with them may be another program's.
    begins, _, _ = torn.partition(b"\0")
    head = (begins or torn.rstrip(b"\0"))[: len(LINE_HEAD)]
    hole = b"\0" in torn and head_if_ledger(path) is not None
    # Editors can leave blanks.
    if not (hole or torn.isspace() or LINE_HEAD.startswith(head)):
        if torn.startswith(b"\0"):
            raise not_begun(path)
        raise LedgerError(
            f"{path}: its last line is not a ledger's; name a ledger, or a file that does not exist"
        )
    try:
        whole = isinstance(msgspec.json.decode(after_hole(torn)), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        whole = False
    disk = files.DISK.get()
    if whole:
        disk.write(fd, b"\n")
        size += 1
    else:
        size -= len(torn)
        disk.truncate(fd, size)
    try:
        disk.sync(fd)
    except OSError:
        with suppress(OSError):
            disk.write_again(path, 0)
        raise
    return size
