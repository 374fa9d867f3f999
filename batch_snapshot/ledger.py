"""The ledger's file: append only, one line for whatever happened (see `codec` for the lines).

`Ledger` is the only thing that writes a ledger, and only while its lock is held (see `locks`). A
torn last line is skipped by readers and repaired by the writer.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Self

import orjson

from batch_snapshot import abridged, codec, places
from batch_snapshot.errors import (
    SAME_COMMAND,
    LedgerError,
    LedgerWriteError,
    PlaceError,
    StorageError,
    is_of_the_place,
    way_out,
)
from batch_snapshot.history import Header, History, Line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    Halved = Callable[[Path, str | None], AbstractContextManager[abridged.Half | None]]

#: No honest line is longer, in bytes: an intent names a few hundred rows.
LONGEST_LINE = 16 * 1024 * 1024

#: Bytes that are read at a time.
_BUFFER = 256 * 1024

#: Every line begins so.
LINE_HEAD = b'{"type":"'


def read(
    path: Path, *, start: int = 0, after: Line | None = None, whole: bool = False, kind: str = ""
) -> Iterator[Line]:
    """Stream the records of the ledger at `path`, skipping a torn last line.

    Args:
        path: of the ledger.
        start: the offset of a line; those before it are left out, and not counted.
        after: only what follows this line, which was read before.
        whole: results bear all fields of their lines.
        kind: only lines that begin as our own of this type do; no other is looked at.

    Raises:
        LedgerError: it cannot be read, or has a line that is no record; the message says where.
    """
    head = LINE_HEAD + f'{kind}"'.encode() if kind else b""
    for offset, number, raw in _lines(path, start, after):
        if not raw.startswith(head):
            continue
        try:
            record = codec.decode(raw, whole=whole)
        except LedgerError as error:
            raise LedgerError(f"{path}:{number}: {error}") from None
        if record is not None:
            yield Line(offset, number, record)


def head(path: Path) -> Header | None:
    """How the ledger at `path` begins; None: not with a run line.

    Raises:
        LedgerError: it cannot be read, or its first line is no record.
    """
    first = next((line.record for line in read(path)), None)
    return first if isinstance(first, Header) else None


def _lines(
    path: Path, start: int = 0, after: Line | None = None, *, number: int = 0
) -> Iterator[tuple[int, int, bytes]]:
    """The whole lines of the ledger at `path`, each behind its offset and number; see `read`.

    `number` lines stand before `start`.
    """
    try:
        with path.open("rb", buffering=_BUFFER) as file:
            offset = file.seek(start)
            if after is not None:
                file.seek(after.offset)
                offset, number = after.offset + len(file.readline(LONGEST_LINE)), after.number
            while raw := file.readline(LONGEST_LINE):
                number += 1
                if not raw.endswith(b"\n"):
                    if len(raw) == LONGEST_LINE:
                        raise LedgerError(f"{path}:{number}: longer than any line of a ledger")
                    return
                yield offset, number, raw
                offset += len(raw)
    except OSError as error:
        raise LedgerError(
            f"{path}: cannot be read ({error.strerror}); name a ledger that a run has written"
        ) from None


def history_of(path: Path, *, live: bool = False, halved: Halved = abridged.begun) -> History:
    """The history of the ledger at `path`; an empty one where there is none yet.

    Args:
        path: of the ledger.
        live: the last invocation may still be running, so what it has named is not in doubt yet.
        halved: has the second half of a long ledger read meanwhile.

    Raises:
        LedgerError: it is no ledger, or has a line that makes no sense.
    """
    if not live and not places.there(path):
        return History()
    past = _folded(path, halved)
    if not live:
        past.crashed()
    if past.first is None and _has_lines(path):
        raise LedgerError(f"{path}: holds lines, but no run line: it is no ledger, name another file")
    return past


def _folded(path: Path, halved: Halved) -> History:
    """The history after the last line, as `history.fold` has it; half of a long ledger is read beside."""
    past = History()
    head = next(read(path), None)
    run_id = head.record.run_id if head and isinstance(head.record, Header) else None
    with halved(path, run_id) as half:
        if half is None:
            _fold(past, path, _lines(path))
            return past
        number = _fold(past, path, takewhile(lambda line: line[0] < half.start, _lines(path)))
        rest = half.read()
    for part in rest.parts:
        past.join(part.each_key(), part.named, part.signers)
        if part.line is not None:
            _fold(past, path, [(part.line.offset, number + part.line.number, part.line.line)])
    _fold(past, path, _lines(path, rest.offset, number=number + rest.lines))
    return past


def _fold(past: History, path: Path, lines: Iterable[tuple[int, int, bytes]]) -> int:
    """Add lines to a history, and make no record of a plain success; returns the last one's number."""
    number = 0
    for offset, number, raw in lines:
        try:
            fields = codec.fields_of(raw)
            success = codec.success_of(fields)
            if success is not None and past.succeed(*success):
                continue
            record = codec.record_of(fields)
            if record is not None:
                past.add(Line(offset, number, record))
        except LedgerError as error:
            raise LedgerError(f"{path}:{number}: {error}") from None
    return number


def _has_lines(path: Path) -> bool:
    """Whether the file at `path` holds a whole line, of whatever."""
    try:
        with path.open("rb") as file:
            return file.readline(LONGEST_LINE).endswith(b"\n")
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read ({error.strerror}); name another with --ledger") from None


def torn(path: Path) -> bool:
    """Whether the last line of the ledger at `path` lacks its end."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


class Ledger:
    """The writing end. Open it only while its lock is held.

    After the first write that fails nothing more is written: a line behind a torn one would be
    lost with it.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file (mode 0600), repair a torn last line, make the name durable.

        Raises:
            PlaceError: it cannot be created there.
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
                _sync_folder(path.parent)
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
        """A new ledger needs another place, or other permissions; one that exists is to be continued."""
        if is_of_the_place(error) and not os.path.lexists(self.path):
            return PlaceError(
                f"{self.path}: cannot be created ({error.strerror or error}); "
                f"{way_out(error, 'name another with --ledger')}"
            )
        return self._unwritable(error)

    def _unwritable(self, error: OSError) -> LedgerWriteError:
        return LedgerWriteError(
            f"{self.path}: cannot be written ({error.strerror or error}); "
            f"{way_out(error, 'those of its folder')}, {SAME_COMMAND}"
        )


def _open(path: Path) -> int:
    """Open for appending; a new file is its owner's alone, whatever the umask."""
    flags = os.O_RDWR | os.O_APPEND
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)
    path.chmod(0o600)
    return fd


def mend(path: Path) -> None:
    """Repair a torn last line of the ledger at `path`, if there is one. Hold its lock.

    Raises:
        LedgerWriteError: it cannot be written.
        LedgerError: its last line is not the beginning of a ledger's line.
    """
    if places.there(path):
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
    if not LINE_HEAD.startswith(head):
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


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
