"""Repairs a damaged ledger: every whole record is kept, and what cannot be proven is put in doubt.

A place where lines are lost is written as a crash: a run line without an end before it. So every version that
reads ledgers takes the rows that were named before it, and have no result, as in doubt. Rows that only the
lost lines can have named are covered by `unrecorded_since` in that run line: `run` and `retry` look at the
service before they send such a row.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO, NamedTuple

from msgspec.structs import replace

from batch_snapshot import __version__, files, paths
from batch_snapshot.errors import DamagedError, InputError, LedgerError, StorageError, file_errors
from batch_snapshot.ledger import locks, reader, records
from batch_snapshot.ledger.history import History
from batch_snapshot.ledger.records import (
    Control,
    End,
    Header,
    Intent,
    Line,
    Record,
    Result,
    Skipped,
    named_rows,
)
from batch_snapshot.models import LONG_AGO, Request, Row, Status, client_token
from batch_snapshot.text import timestamp

TORN = "torn"


class Fragment(NamedTuple):
    #: A whole line, with its end; empty: the bytes here are lost.
    raw: bytes
    #: What it says; None: it is of a type that this version does not know.
    record: Record | None
    #: What became of lost bytes: damaged, zeros, or torn (a last line, which was never acted upon).
    lost: str = ""


def fragments(path: Path) -> Iterator[Fragment]:
    """Every whole record of the file and what is lost; `LedgerError` for a record of a later schema."""
    for _, number, raw in reader.raw_lines(path):
        try:
            yield from _fragments_of(raw)
        except LedgerError as error:
            raise reader.with_place(path, number, error) from None


def _fragments_of(raw: bytes) -> Iterator[Fragment]:
    if raw.isspace():
        return
    with suppress(DamagedError):
        yield Fragment(raw if raw.endswith(b"\n") else raw + b"\n", records.decode(raw))
        return
    text = raw.decode("utf-8", "surrogateescape")
    head = reader.LINE_HEAD.decode()
    at = end = 0
    while (at := text.find(head, at)) >= 0:
        found, after = _record_at(text, at)
        if found is None:
            at += 1
            continue
        if lost := text[end:at].strip():
            yield _gap(lost)
        yield found
        at = end = after
    if rest := text[end:].strip():
        torn = not raw.endswith(b"\n") and head.startswith(rest[: len(head)]) and "\0" not in rest
        yield Fragment(b"", None, TORN) if torn else _gap(rest)


def _gap(lost: str) -> Fragment:
    return Fragment(b"", None, "zeros" if "\0" in lost else "damaged")


def _record_at(text: str, at: int) -> tuple[Fragment | None, int]:
    """The whole record that begins there, and where it ends."""
    try:
        _, end = json.JSONDecoder().raw_decode(text, at)
        raw = text[at:end].encode("utf-8", "surrogateescape")
        return Fragment(raw + b"\n", records.decode(raw)), end
    except (ValueError, RecursionError, DamagedError):
        return None, at


def first_header(path: Path) -> Header:
    """The first run line that is left of the run that most lines belong to: a run id can be damaged too."""
    ids: Counter[str] = Counter()
    headers: dict[str, Header] = {}
    for fragment in fragments(path):
        if run_id := getattr(fragment.record, "run_id", None):
            ids[run_id] += 1
        if isinstance(fragment.record, Header):
            headers.setdefault(fragment.record.run_id, fragment.record)
    if not headers:
        raise LedgerError(
            f"{path}: no run line is left in it, and only that says which run and accounts its rows belong "
            "to: restore it from a backup; if this file is not a ledger, name one that a run has written"
        )
    run_id = ids.most_common(1)[0][0]
    return headers.get(run_id) or replace(next(iter(headers.values())), run_id=run_id)


@dataclass(slots=True)
class Repaired:
    #: Lines that are unchanged in the repaired ledger.
    kept: int = 0
    #: Lines that are left out, and how many of them are damaged, zeros, torn, or out of place (repeated).
    dropped: int = 0
    dropped_as: dict[str, int] = field(default_factory=dict)
    added: int = 0
    #: Rows that are in doubt in the repaired ledger. Whether the damage or a crash made them so is not known.
    in_doubt: int = 0
    #: When lost lines can first have named rows that no other line names; None: they cannot.
    unrecorded_since: datetime | None = None
    #: The ledger as it was; None: nothing was changed.
    original: Path | None = None


def repair(path: Path, now: datetime) -> Repaired:
    """Repair the ledger at `path`, and keep the original beside it. One that is whole is left as it is.

    What is not a ledger, or has no run line left, is an `InputError`; one that a run holds, or that cannot be
    written, a `StorageError`.
    """
    if not files.exists(path) or not path.is_file():
        raise InputError(f"{path}: is no file; name a ledger that a run has written")
    path = path.resolve()
    with locks.hold(paths.ledger_lock(path), what=str(path), since=timestamp(now)), path.open("rb") as ledger:
        locks.hold_itself(ledger.fileno(), path)
        with suppress(LedgerError):
            if (whole := reader.whole_history_of(path)).first:
                lines = sum(1 for _ in reader.lines(path))
                return Repaired(kept=lines, in_doubt=whole.counts()[Status.IN_DOUBT])
        elsewhere = "copy the ledger elsewhere and repair the copy"
        failed = file_errors(path, elsewhere, StorageError, "cannot be repaired")
        with failed, files.atomic_write(path, 0o600) as file:
            done = _rewrite(path, file)
            done.original = _keep_original(path)
        return done


def _rewrite(path: Path, file: IO[bytes]) -> Repaired:
    rebuild = _Rebuild(first_header(path), file.write)
    for fragment in fragments(path):
        rebuild.add(fragment)
    rebuild.close()
    file.flush()
    try:
        whole = reader.whole_history_of(Path(file.name))
    except LedgerError as error:
        raise LedgerError(f"{path}: cannot be repaired ({error}); restore it from a backup") from None
    rebuild.done.in_doubt = whole.counts()[Status.IN_DOUBT]
    return rebuild.done


def _keep_original(path: Path) -> Path:
    names = (paths.original_file(path, number) for number in count())
    original = next(name for name in names if not name.exists())
    try:
        os.link(path, original)
        original.chmod(0o600)
    except OSError:
        # A file system without hard links, or a file of another user.
        with path.open("rb") as source, files.atomic_write(original, 0o600) as target:
            shutil.copyfileobj(source, target)
    return original


class _Rebuild:
    def __init__(self, header: Header, write: Callable[[bytes], object]) -> None:
        self.done = Repaired()
        self._write = write
        #: Of the present invocation; before the first one, the header that opens it.
        self._header = header
        self._history = History(checked=True, settled=set())
        #: Rows that were put in doubt, whatever became of them later.
        self._doubted: set[bytes] = set()
        #: The latest time in the lines that were kept.
        self._latest = header.started_at
        #: When the invocation with the first unhandled gap began; None: every gap was handled.
        self._gap_since: datetime | None = None

    def add(self, fragment: Fragment) -> None:
        record, history = fragment.record, self._history
        if fragment.lost or not self._is_possible(record):
            if fragment.lost != TORN:
                self._note_gap()
            self.done.dropped += 1
            what, kinds = fragment.lost or "out of place", self.done.dropped_as
            kinds[what] = kinds.get(what, 0) + 1
            return
        headless = record.resumes if isinstance(record, Header) else not isinstance(record, Control | None)
        if history.first is None and headless:
            self._gap_since = LONG_AGO
            self._reopen()
        if isinstance(record, End):
            self._end(fragment, record)
            return
        if isinstance(record, Intent | Skipped):
            self._make_room(named_rows(record))
        elif isinstance(record, Result) and not history.is_pending(record.row, record.client_token):
            self._name(record)
        self._keep(fragment)
        if isinstance(record, Header):
            self._header = replace(record, unrecorded_since=None)

    def _is_possible(self, record: Record | None) -> bool:
        """Whether a record can be what was written here: lines can have been copied, moved, or joined."""
        history = self._history
        if getattr(record, "run_id", None) not in {None, self._header.run_id}:
            return False
        if isinstance(record, Skipped):
            return not any(history.is_named(row) or history.has_state(row.key) for row in record.rows)
        if isinstance(record, End):
            return history.end is None
        if not isinstance(record, Result):
            return True
        named = history.is_pending(record.row, record.client_token)
        if not named and history.status(record.row.key) is Status.SUCCEEDED:
            # Such a row is never sent again.
            return False
        # A success names a snapshot, which exists whatever else is wrong. Two lines that were cut and joined
        # can look like any other result.
        token = client_token(self._header.run_id, record.row, record.generation)
        return record.status is Status.SUCCEEDED or record.client_token == token

    def _make_room(self, rows: Iterable[Row]) -> None:
        """Open another invocation if this one is over, or has named one of the rows: its line is lost."""
        if self._history.end is not None or any(map(self._history.is_named, rows)):
            self._note_gap()
            self._reopen()

    def _name(self, result: Result) -> None:
        self._note_gap()
        self._make_room([result.row])
        request = Request(result.row, result.client_token, result.generation)
        at = result.first_sent_at or self._header.started_at
        self._add(records.encode_intent(at, [request], result.clock_skew_s))

    def close(self) -> None:
        """Close the last invocation if it has no end, or if lines were lost after its end.

        It ended at the latest time that a line of it names: the repair may come days later.
        """
        history = self._history
        before = history.end
        doubt = self._gap_since is not None and not self._every_sent_row_is_named(None)
        if before and not doubt:
            return
        if before is not None or history.pending or doubt or history.expected_counts()["unattempted"] < 0:
            self._reopen(self._gap_since if doubt else None)
        outcome, at = (before.outcome, before.finished_at) if before else ("interrupted", self._latest)
        self._finish(End(outcome, {}, at))

    def _note_gap(self) -> None:
        began = self._header.started_at if self._history.first else LONG_AGO
        self._gap_since = self._gap_since or began

    def _keep(self, fragment: Fragment) -> None:
        ended = ["started_at"] if isinstance(fragment.record, Header) else ["finished_at", "at"]
        times = (getattr(fragment.record, name, None) for name in ended)
        self._latest = max(self._latest, next(filter(None, times), self._latest))
        self._write_line(fragment.raw, fragment.record)
        self.done.kept += 1

    def _add(self, raw: bytes) -> None:
        self._write_line(raw, records.decode(raw))
        self.done.added += 1

    def _write_line(self, raw: bytes, record: Record | None) -> None:
        if record is not None:
            self._history.add(Line(0, 0, record))
        self._write(raw)

    def _reopen(self, since: datetime | None = None) -> None:
        """Write a run line, so that the invocation before it counts as crashed; for `since` see `Header`."""
        before = self._in_doubt()
        rows = max(self._header.rows, self._known_rows())
        header = replace(self._header, rows=rows, unrecorded_since=since, resumes=self._known_rows() > 0)
        self._add(records.encode_run(header, __version__, repaired=True))
        self._doubted |= self._in_doubt() - before
        self.done.unrecorded_since = self.done.unrecorded_since or since
        self._header = replace(header, unrecorded_since=None)

    def _in_doubt(self) -> set[bytes]:
        return {key for key, state in self._history.unfinished.items() if state.status is Status.IN_DOUBT}

    def _known_rows(self) -> int:
        """How many rows have a state, or are in doubt if the present invocation has crashed."""
        history = self._history
        return history.counts().total() + len(history.pending_without_state())

    def _end(self, fragment: Fragment, end: End) -> None:
        history = self._history
        expected = history.expected_counts()
        if not self._explains(end, expected):
            self._note_gap()
        doubt = self._gap_since is not None and not self._every_sent_row_is_named(end)
        if doubt or expected["unattempted"] < 0 or (self._gap_since and history.pending):
            self._reopen(self._gap_since if doubt else None)
        self._gap_since = None
        if dict(end.counts) == history.expected_counts():
            self._keep(fragment)
        else:
            self._finish(end)

    def _finish(self, end: End) -> None:
        counts = self._history.expected_counts()
        self._add(records.encode_end(self._header.run_id, replace(end, counts=counts)))
        self._gap_since = None

    def _explains(self, end: End, expected: dict[str, int]) -> bool:
        """Whether an end counts the lines before it, except for rows that were put in doubt here."""
        more = {
            name: end.counts.get(name, 0) - expected.get(name, 0) for name in expected.keys() | end.counts
        }
        moved = -more.pop(Status.IN_DOUBT.value, 0)
        doubted = len(self._doubted & self._in_doubt()) if moved else 0
        return 0 <= moved <= doubted and min(more.values(), default=0) >= 0 and sum(more.values()) == moved

    def _every_sent_row_is_named(self, end: End | None) -> bool:
        """Whether the lines that are left name every row that can have been sent.

        The counts of the end line prove it if they are those of the lines that are left. Else every row must
        be named, and none may have failed: a retry can have sent a failed row again.
        """
        history = self._history
        if end is not None and end.counts and self._explains(end, history.expected_counts()):
            return True
        return self._known_rows() >= self._header.rows and not history.counts()[Status.FAILED]
