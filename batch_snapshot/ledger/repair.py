"""Repairs a damaged ledger: every whole record is kept, and what cannot be proven is put in doubt.

A place where lines are lost is written as a crash: a run line without an end before it. So every version that
reads ledgers takes the rows that were named before it, and have no result, as in doubt. Rows that only the
lost lines can have named are covered by `unrecorded_since` in that run line: `run` and `retry` look at the
service before they send such a row.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from batch_snapshot import __version__, files, paths
from batch_snapshot.errors import DamagedError, InputError, LedgerError, StorageError
from batch_snapshot.ledger import check, codec, locks, writer
from batch_snapshot.ledger.history import End, Header, History, Intent, Line, Result, Skipped
from batch_snapshot.models import Request, Status, client_token
from batch_snapshot.text import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from batch_snapshot.ledger.history import Record


@dataclass(slots=True)
class Repaired:
    """What a repair has done."""

    #: Lines that stand in the repaired ledger as they stood before.
    kept: int = 0
    #: Damaged or doubled lines that are left out.
    dropped: int = 0
    #: Lines that were written anew.
    added: int = 0
    #: Rows that were put in doubt.
    doubtful: int = 0
    #: When lost lines can first have named rows that no other line names; None: they cannot.
    unrecorded_since: datetime | None = None
    #: The ledger as it was; None: nothing was changed.
    original: Path | None = None


def repair(path: Path, now: datetime) -> Repaired:
    """Repair the ledger at `path`, and keep the original beside it. One that is whole is left as it is.

    Raises:
        InputError: it is no ledger, or no run line is left in it.
        StorageError: a run holds it, or it cannot be written.
    """
    if not files.exists(path) or not path.is_file():
        raise InputError(f"{path}: is no file; name a ledger that a run has written")
    path = path.resolve()
    with locks.held(paths.ledger_lock(path), what=str(path), since=timestamp(now)):
        if (lines := _whole(path)) is not None:
            return Repaired(kept=lines)
        try:
            with files.atomic_write(path, 0o600) as file:
                done = _rewrite(path, file, now)
                done.original = _put_aside(path)
        except OSError as error:
            why = error.strerror or error
            raise StorageError(
                f"{path}: cannot be repaired ({why}); make room or fix the permissions"
            ) from None
        return done


def _whole(path: Path) -> int | None:
    """The lines of a ledger that needs no repair; None: it needs one."""
    lines = 0

    def counted() -> Iterator[Line]:
        nonlocal lines
        for line in writer.read(path):
            lines += 1
            yield line

    try:
        check.check(counted(), "")
    except LedgerError:
        return None
    return None if lines == 0 or writer.torn(path) else lines


def _rewrite(path: Path, file: IO[bytes], now: datetime) -> Repaired:
    """Write the repaired ledger into `file`, and check it."""
    rebuilt = _Rebuilt(_first_header(path), file.write)
    for piece in _pieces(path):
        rebuilt.take(piece)
    rebuilt.close(now)
    file.flush()
    try:
        check.check(writer.read(Path(file.name)), "")
    except LedgerError as error:
        raise LedgerError(f"{path}: cannot be repaired ({error}); restore it from a backup") from None
    return rebuilt.done


def _put_aside(path: Path) -> Path:
    """Give the damaged ledger a second name that nothing has yet."""
    number = 0
    while True:
        aside = paths.original(path, number)
        try:
            os.link(path, aside)
        except FileExistsError:
            number += 1
        except OSError:
            # A file system without hard links, or a file of somebody else's.
            if not aside.exists():
                _copy(path, aside)
                return aside
            number += 1
        else:
            aside.chmod(0o600)
            return aside


def _copy(path: Path, aside: Path) -> None:
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with path.open("rb") as source, os.fdopen(fd, "wb") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(fd)


# -- the pieces of a damaged file ----------------------------------------------------------------------


class _Piece(NamedTuple):
    """A line of the file, or what is left of one."""

    #: A whole line, with its end; empty: what stood here is lost.
    raw: bytes
    #: What it says; None: it is of a type that this version does not know.
    record: Record | None


_LOST = _Piece(b"", None)


def _pieces(path: Path) -> Iterator[_Piece]:
    """Every whole record of the file, in its order, and where something else stood.

    Raises:
        LedgerError: a record is of a later schema.
    """
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(writer.LONGEST_LINE):
            number += 1
            raw = raw if number > 1 else raw.removeprefix(writer.BOM)
            try:
                yield from _salvaged(raw)
            except LedgerError as error:
                raise writer.placed(path, number, error) from None


def _salvaged(raw: bytes) -> Iterator[_Piece]:
    """The whole records in what stands between two line ends."""
    if raw.isspace():
        return
    with suppress(DamagedError):
        yield _Piece(raw if raw.endswith(b"\n") else raw + b"\n", codec.decode(raw))
        return
    text = raw.decode("utf-8", "surrogateescape")
    head = writer.LINE_HEAD.decode()
    at = end = lost = 0
    while (at := text.find(head, at)) >= 0:
        found, after = _record_at(text, at)
        if found is None:
            at += 1
            continue
        lost += bool(text[end:at].strip())
        if lost:
            yield _LOST
            lost = 0
        yield found
        at = end = after
    rest = text[end:].strip()
    # The beginning of a last line is what a crash leaves, and was never acted upon.
    torn = not raw.endswith(b"\n") and head.startswith(rest[: len(head)]) and "\0" not in rest
    if rest and not torn:
        yield _LOST


def _record_at(text: str, at: int) -> tuple[_Piece | None, int]:
    """The whole record that begins there, and where it ends."""
    try:
        _, end = json.JSONDecoder().raw_decode(text, at)
        raw = text[at:end].encode("utf-8", "surrogateescape")
        return _Piece(raw + b"\n", codec.decode(raw)), end
    except (ValueError, RecursionError, DamagedError):
        return None, at


def _first_header(path: Path) -> Header:
    """The first run line that is left of the run that most lines are of: its own id can be what was damaged.

    Raises:
        LedgerError: there is none.
    """
    ids: Counter[str] = Counter()
    headers: dict[str, Header] = {}
    for piece in _pieces(path):
        if run_id := getattr(piece.record, "run_id", None):
            ids[run_id] += 1
        if isinstance(piece.record, Header):
            headers.setdefault(piece.record.run_id, piece.record)
    if not headers:
        raise LedgerError(
            f"{path}: no run line is left in it, and only that says which run and accounts the rows are of: "
            "restore it from a backup, or name the ledger's file if this is none"
        )
    run_id = ids.most_common(1)[0][0]
    return headers.get(run_id) or next(iter(headers.values()))._replace(run_id=run_id)


# -- the ledger that they make --------------------------------------------------------------------------


class _Rebuilt:
    """The repaired ledger, while it is written."""

    def __init__(self, header: Header, write: Callable[[bytes], object]) -> None:
        self.done = Repaired()
        self._write = write
        #: The one that opened the present invocation, or is to open the first.
        self._header = header
        self._history = History(checked=True)
        #: Rows that have a definite result in the present invocation.
        self._settled: set[bytes] = set()
        #: Rows that were put in doubt, whatever became of them later.
        self._doubted: set[bytes] = set()
        #: When the invocation began in which lines were lost; None: none were, or that was dealt with.
        self._lost_since: datetime | None = None

    def take(self, piece: _Piece) -> None:
        """Take the next piece of the damaged ledger."""
        record = piece.record
        if piece == _LOST or self._foreign(record):
            self._lose()
            self.done.dropped += 1
            return
        if record is None:
            self._keep(piece)
            return
        if self._history.first is None and not isinstance(record, Header):
            self._lost_since = min(self._header.started_at, _time_of(record) or self._header.started_at)
            self._reopen()
        if isinstance(record, Header):
            self._begin(piece, record)
        elif isinstance(record, Intent):
            self._intend(piece, record)
        elif isinstance(record, Result):
            self._settle(piece, record)
        elif isinstance(record, Skipped):
            self._skip(piece, record)
        else:
            self._end(piece, record)

    def close(self, now: datetime) -> None:
        """Close the last invocation, if it has no end or something behind that was lost."""
        self._close(now)
        self.done.doubtful = len(self._doubted & self._in_doubt())

    def _close(self, now: datetime) -> None:
        past = self._history
        before = past.end
        doubt = self._lost_since is not None and not self._proven(None)
        if before and not doubt:
            return
        if before is not None or past.in_flight or doubt:
            self._reopen(self._lost_since if doubt else None)
        outcome, at = (before.outcome, before.finished_at) if before else ("interrupted", now)
        self._finish(End(outcome, {}, at))

    def _foreign(self, record: Record | None) -> bool:
        """Whether a record bears the mark of another run."""
        run_id = getattr(record, "run_id", None)
        return run_id is not None and run_id != self._header.run_id

    def _lose(self) -> None:
        self._lost_since = self._lost_since or self._header.started_at

    def _keep(self, piece: _Piece) -> None:
        if piece.record is not None:
            self._history.add(Line(0, 0, piece.record))
        self._write(piece.raw)
        self.done.kept += 1

    def _add(self, raw: bytes) -> None:
        record = codec.decode(raw)
        if record is not None:
            self._history.add(Line(0, 0, record))
        self._write(raw)
        self.done.added += 1

    def _reopen(self, since: datetime | None = None) -> None:
        """Write a run line, so that the invocation before it counts as crashed.

        Args:
            since: when lost lines can first have named rows that no other line names.
        """
        before = self._in_doubt()
        rows = max(self._header.rows, self._known())
        header = self._header._replace(rows=rows, unrecorded_since=since)
        self._add(codec.encode_run(header, __version__, repaired=True))
        self._doubted |= self._in_doubt() - before
        self.done.unrecorded_since = self.done.unrecorded_since or since
        self._header = header._replace(unrecorded_since=None)
        self._settled.clear()

    def _in_doubt(self) -> set[bytes]:
        return {key for key, past in self._history.unfinished.items() if past.status is Status.IN_DOUBT}

    def _known(self) -> int:
        """How many rows have a state, or are in doubt if the present invocation has crashed."""
        past = self._history
        return past.counts().total() + len(past.fresh())

    def _begin(self, piece: _Piece, header: Header) -> None:
        self._keep(piece)
        self._header = header._replace(unrecorded_since=None)
        self._settled.clear()

    def _intend(self, piece: _Piece, intent: Intent) -> None:
        past = self._history
        again = (past.named(row) or row.key in self._settled for _, row, _ in intent.rows)
        if past.end is not None or any(again):
            # The line that opened another invocation is lost.
            self._lose()
            self._reopen()
        self._keep(piece)

    def _settle(self, piece: _Piece, result: Result) -> None:
        past, row = self._history, result.row
        named = past.named(row, result.client_token)
        # A row that has succeeded is never sent again: such a line is doubled or stands elsewhere.
        if not self._trusted(result) or (not named and past.status(row.key) is Status.SUCCEEDED):
            self.done.dropped += 1
            self._lose()
            return
        if not named:
            self._name(result)
        self._keep(piece)
        if result.status is not Status.IN_DOUBT:
            self._settled.add(row.key)

    def _trusted(self, result: Result) -> bool:
        """Whether a result can be what was written: two lines that were cut and joined can look like one.

        A success names a snapshot, which is there whatever else is wrong; any other result has to bear the
        token that its row and generation have.
        """
        return result.status is Status.SUCCEEDED or result.client_token == client_token(
            self._header.run_id, result.row, result.generation
        )

    def _name(self, result: Result) -> None:
        """Write the intent that a result lacks."""
        past, row = self._history, result.row
        self._lose()
        if past.end is not None or past.named(row) or row.key in self._settled:
            self._reopen()
        request = Request(row, result.client_token, result.generation)
        at = result.first_sent_at or self._header.started_at
        self._add(codec.encode_intent(at, [request], result.clock_skew))

    def _skip(self, piece: _Piece, skipped: Skipped) -> None:
        past = self._history
        if any(past.named(row) or past.knows(row.key) for row in skipped.rows):
            self._lose()
            self.done.dropped += 1
            return
        if past.end is not None:
            self._lose()
            self._reopen()
        self._keep(piece)

    def _end(self, piece: _Piece, end: End) -> None:
        past = self._history
        if past.end is not None:
            self._lose()
            self.done.dropped += 1
            return
        stated = past.stated()
        if not self._explained(end, stated):
            self._lose()
        doubt = self._lost_since is not None and not self._proven(end)
        if doubt or stated["unattempted"] < 0 or (self._lost_since and past.in_flight):
            self._reopen(self._lost_since if doubt else None)
        self._lost_since = None
        if dict(end.counts) == past.stated():
            self._keep(piece)
        else:
            self._finish(end)

    def _finish(self, end: End) -> None:
        """Write an end line that counts what stands before it."""
        counts = self._history.stated()
        self._add(codec.encode_end(self._header.run_id, end._replace(counts=counts)))
        self._lost_since = None

    def _explained(self, end: End, stated: dict[str, int]) -> bool:
        """Whether an end counts what stands before it, but for rows that were put in doubt here."""
        more = {name: end.counts.get(name, 0) - stated.get(name, 0) for name in stated.keys() | end.counts}
        moved = -more.pop(Status.IN_DOUBT.value, 0)
        doubted = len(self._doubted & self._in_doubt()) if moved else 0
        return 0 <= moved <= doubted and min(more.values(), default=0) >= 0 and sum(more.values()) == moved

    def _proven(self, end: End | None) -> bool:
        """Whether no row can have been sent that the lines which are left do not name as sent.

        Its counts prove it if they are those of the lines that are left; else every row has to be named, and
        none be one that a retry can have sent again.
        """
        past = self._history
        if end is not None and end.counts and self._explained(end, past.stated()):
            return True
        return self._known() >= self._header.rows and not past.counts()[Status.FAILED]


def _time_of(record: Record) -> datetime | None:
    """When a record was written, or the earlier time that it tells."""
    if isinstance(record, Result):
        return record.first_sent_at
    return getattr(record, "at", None)
