"""The ledger's file: append only, one line for whatever happened (see `codec` for the lines).

`Ledger` is the only thing that writes a ledger, and only while its lock is held (see `locks`). A
torn last line is skipped by readers and repaired by the writer.
"""

from __future__ import annotations

import os
import shlex
import threading
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Self

import orjson

from batch_snapshot import files
from batch_snapshot.errors import (
    SAME_COMMAND,
    DamagedError,
    LedgerError,
    LedgerWriteError,
    StateFolderError,
    StorageError,
    is_of_the_place,
    way_out,
)
from batch_snapshot.ledger import codec
from batch_snapshot.ledger.history import End, Header, History, Intent, Line, Result, fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from batch_snapshot.models import Row

#: No honest line is longer, in bytes: an intent names a few hundred rows.
LONGEST_LINE = 16 * 1024 * 1024

#: Bytes in which the last line of a ledger that came to an end stands.
_TAIL = 64 * 1024

#: Bytes that are read at a time.
_BUFFER = 256 * 1024

#: What some editors put before the first line.
BOM = b"\xef\xbb\xbf"
#: Names that a ledger's is compared with, where it does not exist.
_COMPARED = 1_000

#: Every line begins so.
LINE_HEAD = b'{"type":"'

#: How a ledger is continued in another place: under a new name its rows would be sent again.
_COPY = "copy the ledger elsewhere and name the copy with --ledger"


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
            raise placed(path, number, error) from None
        if record is not None:
            yield Line(offset, number, record)


def placed(path: Path, number: int | None, error: LedgerError) -> LedgerError:
    """The error with its place, and with the command that repairs a damaged ledger.

    Args:
        path: of the ledger.
        number: of the line; None: the error already names its place.
        error: what is wrong there.
    """
    place = "" if number is None else f"{path}:{number}: "
    more = f"; repair it (the original is kept): {repair_command(path)}"
    return LedgerError(f"{place}{error}{more if isinstance(error, DamagedError) else ''}")


def repair_command(path: Path) -> str:
    """The command that repairs the ledger at `path`."""
    return f"batch-snapshot status {shlex.quote(str(path))} --repair"


def head(path: Path) -> Header | None:
    """How the ledger at `path` begins; None: not with a run line.

    Raises:
        LedgerError: it cannot be read, or its first line is no record.
    """
    first = next((line.record for line in read(path)), None)
    return first if isinstance(first, Header) else None


def names_rows(path: Path, account: str | None = None) -> bool:
    """Whether the ledger at `path` names any row, or any of an account: before that, nothing was sent.

    Raises:
        LedgerError: it cannot be read, or has a line that is no record.
    """
    for _, _, record in read(path):
        if isinstance(record, Result):
            rows: Iterable[Row] = [record.row]
        else:
            rows = (row for _, row, _ in record.rows) if isinstance(record, Intent) else ()
        if any(account in {None, row.account} for row in rows):
            return True
    return False


class LedgerEnd(NamedTuple):
    """How a ledger ends."""

    #: Of the last invocation; None: it runs still, or it crashed.
    end: End | None
    #: Whether the rest was put off until a quota window opens or the command is run again.
    deferred: bool


def ending(path: Path) -> LedgerEnd:
    """How the ledger at `path` ends; of one that came to an end its last line alone is read.

    Raises:
        LedgerError: it cannot be read, or one of its lines that say so is damaged.
    """
    last = _last_end(path)
    if last and (last.settled or last.outcome in {"deferred", "stopped"}):
        return LedgerEnd(last, not last.settled and last.outcome == "deferred")
    end, header, put_off = None, None, None
    for _, number, raw in _lines(path):
        if not any(word in raw[:20] for word in (b'"end"', b'"run"')):
            continue
        try:
            record = codec.decode(raw)
        except LedgerError as error:
            raise placed(path, number, error) from None
        if isinstance(record, Header):
            end, header = None, record
        elif isinstance(record, End):
            end, put_off = record, _put_off(record, header, put_off)
    return LedgerEnd(end, deferred=put_off is not None)


def _put_off(end: End, header: Header | None, before: frozenset[str] | None) -> frozenset[str] | None:
    """The accounts whose rest is put off after an invocation, and none for all of them; None: nothing is.

    Args:
        end: of the invocation.
        header: of the same.
        before: what was put off until then.
    """
    chosen = header.settings.get("accounts") if header else None
    selected = frozenset(map(str, chosen if isinstance(chosen, list) else ()))
    if end.settled or end.outcome == "stopped":
        return None
    if end.outcome == "deferred":
        return selected | before if before and selected else frozenset() if before is not None else selected
    through = end.outcome == "completed" and header is not None and header.command == "run"
    covered = not selected or (before and before <= selected)
    return None if through and covered else before


def _last_end(path: Path) -> End | None:
    """The end line that the ledger at `path` ends with."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().rstrip().splitlines()
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read ({error.strerror}); name another with --ledger") from None
    with suppress(LedgerError):
        record = codec.decode(lines[-1]) if lines else None
        return record if isinstance(record, End) else None
    return None


def _lines(path: Path, start: int = 0, after: Line | None = None) -> Iterator[tuple[int, int, bytes]]:
    """The whole lines of the ledger at `path`, each behind its offset and number; see `read`.

    Blank lines and a byte order mark, which an editor can leave, are passed over.
    """
    number = 0
    try:
        with files.open_regular(path, _BUFFER) as file:
            offset = file.seek(start)
            if after is not None:
                file.seek(after.offset)
                offset, number = after.offset + len(file.readline(LONGEST_LINE)), after.number
            while raw := file.readline(LONGEST_LINE):
                number += 1
                if not raw.endswith(b"\n"):
                    if len(raw) == LONGEST_LINE:
                        raise placed(path, number, DamagedError("longer than any line of a ledger"))
                    return
                if not raw.isspace():
                    yield offset, number, raw if offset else raw.removeprefix(BOM)
                offset += len(raw)
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        raise LedgerError(
            f"{path}: cannot be read ({error.strerror}); name a ledger that a run has written"
        ) from None


def missing(path: Path) -> LedgerError:
    """The error of a ledger that does not exist, with the nearest name in its folder, if one is near."""
    from difflib import get_close_matches  # noqa: PLC0415 - nearly always it exists

    with suppress(OSError):
        known = {one.stem: one for one in islice(path.parent.glob("*.ndjson"), _COMPARED)}
        if near := get_close_matches(path.stem, known, n=1):
            return LedgerError(f"{path}: there is no such file; did you mean {known[near[0]]}?")
    return LedgerError(f"{path}: there is no such file; name a ledger that a run has written")


def history_of(path: Path, *, live: bool = False, checked: bool = False) -> History:
    """The history of the ledger at `path`; an empty one where there is none yet.

    Args:
        path: of the ledger.
        live: the last invocation may still be running, so what it has named is not in doubt yet.
        checked: refuse a ledger of which lines are lost or were edited, as far as reading shows it.

    Raises:
        LedgerError: it is no ledger, or has a line that makes no sense.
    """
    if not live and not files.exists(path):
        return History()
    past = fold(read(path), live=live, checked=checked, locate=partial(placed, path))
    if past.first is None and _has_lines(path):
        raise LedgerError(f"{path}: holds lines, but no run line: it is no ledger, name another file")
    return past


def _has_lines(path: Path) -> bool:
    """Whether the file at `path` holds a whole line, of whatever."""
    try:
        with files.open_regular(path) as file:
            return file.readline(LONGEST_LINE).endswith(b"\n")
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read ({error.strerror}); name another with --ledger") from None


def torn(path: Path) -> bool:
    """Whether the last line of the ledger at `path` lacks its end."""
    with files.open_regular(path) as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def line_at(path: Path, offset: int) -> bool:
    """Whether a line of the ledger at `path` begins there; in a repaired one others do than before.

    Raises:
        LedgerError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, offset - 1))
            return (offset == 0 or file.read(1) == b"\n") and bool(file.read(1))
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read ({error.strerror}); name another with --ledger") from None


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


def mend(path: Path) -> None:
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
