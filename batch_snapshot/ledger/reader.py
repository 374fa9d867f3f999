"""Reads ledgers: their lines, how they begin and end, and the history that the lines come to.

A torn last line is what a crash leaves: readers skip it, the writer repairs it. Zeros are what a power cut
leaves: readers skip them, and what they have torn.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from batch_snapshot import files
from batch_snapshot.errors import SAME_COMMAND, DamagedError, LedgerError
from batch_snapshot.ledger import records
from batch_snapshot.ledger.history import History, fold
from batch_snapshot.ledger.records import End, Header, Intent, Line, Result, named_rows
from batch_snapshot.text import plural, shell_argument

#: Bytes that no line of a ledger exceeds: an intent names a few hundred rows.
LONGEST_LINE = 16 * 1024 * 1024

LINE_HEAD = b'{"type":"'

#: Bytes at the end of a ledger in which its last line is looked for.
_TAIL = 64 * 1024

_BUFFER = 256 * 1024

#: The byte order mark that some editors put before the first line.
_BOM = b"\xef\xbb\xbf"

#: Bytes at the beginning of a file in which a line of a ledger is looked for.
_RECOGNISED = 64 * 1024


class RawLine(NamedTuple):
    offset: int
    number: int
    raw: bytes


def raw_lines(path: Path, *, start: int = 0, after: Line | None = None) -> Iterator[RawLine]:
    """Each line, the last one perhaps without its end; one longer than `LONGEST_LINE` comes in pieces."""
    with files.open_regular(path, _BUFFER) as file:
        offset, number = (after.offset, after.number - 1) if after else (start, 0)
        file.seek(offset)
        while raw := file.readline(LONGEST_LINE):
            number += 1
            if after is None or offset > after.offset:
                yield RawLine(offset, number, raw if offset else raw.removeprefix(_BOM))
            offset += len(raw)


def lines(
    path: Path, *, start: int = 0, after: Line | None = None, kinds: Sequence[str] = ()
) -> Iterator[Line]:
    """Stream the records of the ledger at `path`. A torn last line and blank lines are skipped.

    `start` is the offset of a line: earlier ones are left out, and not counted. `after` is a line that was
    read before: only what follows it is read. `kinds`: only lines of these types, as the writer begins them.
    A `LedgerError` says where a line is no record.
    """
    # Another program may have written the line again, with a blank.
    heads = tuple(head + f'{kind}"'.encode() for kind in kinds for head in (LINE_HEAD, b'{"type": "')) or b""
    for offset, number, raw in _ended_lines(path, start, after):
        if not raw.startswith(heads):
            continue
        try:
            record = records.decode(raw)
        except LedgerError as error:
            raise with_place(path, number, error) from None
        if record is not None:
            yield Line(offset, number, record)


def _ended_lines(path: Path, start: int = 0, after: Line | None = None) -> Iterator[RawLine]:
    with _readable(path, "name a ledger that a run has written"):
        for line in raw_lines(path, start=start, after=after):
            if not line.raw.endswith(b"\n"):
                if len(line.raw) == LONGEST_LINE:
                    raise with_place(path, line.number, DamagedError("longer than any line of a ledger"))
                return
            if b"\0" in line.raw:
                whole = after_hole(line.raw)
                if not whole.startswith(LINE_HEAD):
                    continue
                yield RawLine(line.offset + len(line.raw) - len(whole), line.number, whole)
            elif not line.raw.isspace():
                yield line


def after_hole(raw: bytes) -> bytes:
    """What follows the zeros in a line.

    A power cut can leave zeros in place of what was written since the last fsync, newlines included. Lines
    that name rows are synced before the rows are sent, so only results are lost: their rows are in doubt.
    """
    return raw[raw.rfind(b"\0") + 1 :]


@contextmanager
def _readable(path: Path, advice: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        out = "fix its permissions" if isinstance(error, PermissionError) else advice
        if path.is_dir():
            out = f"`batch-snapshot ls {shell_argument(path)}` lists the ledgers in it"
        raise LedgerError(f"{path}: cannot be read ({error.strerror}); {out}") from None


def with_place(path: Path, number: int, error: LedgerError) -> LedgerError:
    """The error with its place, and for a damaged ledger the command that repairs it."""
    if number == 1 and isinstance(error, DamagedError) and not _has_ledger_line(path):
        return LedgerError(f"{path}: is not a ledger: no line in it is a line of a ledger; name another file")
    repair = f"batch-snapshot status {shell_argument(path)} --repair"
    more = f"; repair it (the original is kept): {repair}" if isinstance(error, DamagedError) else ""
    return LedgerError(f"{path}:{number}: {error}{more}")


def _has_ledger_line(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return re.search(rb'{\s*"type"\s*:', file.read(_RECOGNISED)) is not None
    return True


def not_begun(path: Path, then: str = SAME_COMMAND) -> LedgerError:
    """The error for zeros at the beginning: the first line of a ledger is synced before any row is sent."""
    move = f"mv {shell_argument(path)} {shell_argument(f'{path}.original')}"
    return LedgerError(
        f"{path}: its first line holds zeros; if the power was cut as it was begun, nothing was sent: move "
        f"it away with `{move}`, {then}"
    )


def missing(path: Path) -> LedgerError:
    if path.is_symlink():
        file = files.resolved(path)
        out = "put that file back (is its disk mounted?), or name another ledger"
        return LedgerError(f"{path}: is a link to {file}, which does not exist; {out}")
    near = files.nearest(path, "*.ndjson")
    out = f"did you mean {near}?" if near else "name a ledger that a run has written"
    return LedgerError(f"{path}: there is no such file; {out}")


def head(path: Path) -> Header | None:
    """The run line that the ledger at `path` begins with; None: it begins otherwise."""
    first = next((line.record for line in lines(path)), None)
    return first if isinstance(first, Header) else None


def run_line(path: Path) -> Header:
    """The run line that the ledger at `path` must begin with."""
    found = head(path)
    if found is None:
        raise LedgerError(f"{path}: is not a ledger: it does not begin with a run line; name another file")
    return found


def head_if_ledger(path: Path) -> Header | None:
    """The run line that the file at `path` begins with; None: it is not a ledger, or cannot be read."""
    with suppress(LedgerError):
        return head(path)
    return None


def last_header(path: Path) -> Header:
    """The run line of the last invocation."""
    last = None
    for line in lines(path, kinds=["run"]):
        last = line.record
    if isinstance(last, Header):
        return last
    raise LedgerError(f"{path}: no run has begun in it; name a ledger that a run has written")


def names_rows(path: Path, account: str | None = None) -> bool:
    """Whether the ledger names any row, or any of an account: before that, nothing was sent."""
    return any(
        account in {None, row.account}
        for _, _, record in lines(path)
        if isinstance(record, Result | Intent)
        for row in named_rows(record)
    )


def history_of(path: Path, *, live: bool = False, **how: Any) -> History:
    """The history of the ledger at `path`, empty where there is none yet; see `fold`."""
    if not live and not files.exists(path):
        return History()
    locate = partial(with_place, path)
    history = fold(lines(path), live=live, locate=locate, **how)
    with _readable(path, "name another ledger with --ledger"):
        first = next(raw_lines(path), None) if history.first is None else None
        if first and b"\0" in first.raw:
            raise not_begun(path)
        if first and first.raw.endswith(b"\n"):
            raise LedgerError(f"{path}: holds lines, but no run line: it is not a ledger; name another file")
    return history


def whole_history_of(path: Path) -> History:
    """The history of the ledger at `path`, of which every line follows from those before it.

    A run line opens every invocation, and an end line closes the last one (earlier ones may have crashed). An
    intent of the same invocation names every result, under the same token. The counts of each end line are
    those of the lines before it, and sum to the rows.
    """
    history = history_of(path, live=True, complete=True)
    if history.first and history.end is None:
        raise LedgerError(
            f"{path}:{history.number}: the last invocation has no end line, and "
            f"{plural(len(history.pending), 'row')} without a result: it still runs, or it crashed and the "
            "same command resumes it"
        )
    if is_torn(path):
        raise LedgerError(f"{path}: its last line is torn; run the same command to repair it and resume")
    return history


class LedgerEnd(NamedTuple):
    #: Of the last invocation; None: it still runs, or it crashed.
    end: End | None
    #: Whether the rest was put off until a quota window opens or the command is run again.
    deferred: bool
    #: How the rest was left, which a retry that completes does not change; None: the run crashed.
    outcome: str | None


def ending(path: Path) -> LedgerEnd:
    """How the ledger at `path` ends. Where its last line says it, no other is read."""
    last = last_end(path)
    if last and (last.settled or last.outcome in {"deferred", "stopped"}):
        return LedgerEnd(last, not last.settled and last.outcome == "deferred", last.outcome)
    end, header, deferred, outcome = None, None, None, None
    for line in lines(path, kinds=["run", "end"]):
        if isinstance(line.record, Header):
            end, header = None, line.record
            outcome = outcome if header.command == "retry" else None
        elif isinstance(line.record, End):
            end, deferred = line.record, _deferred_accounts(line.record, header, deferred)
            if end.outcome != "completed" or (header and header.command == "run"):
                outcome = end.outcome
    return LedgerEnd(end, deferred is not None, outcome)


def _deferred_accounts(
    end: End, header: Header | None, before: frozenset[str] | None
) -> frozenset[str] | None:
    """The accounts whose rest is deferred; an empty set: all of them; None: nothing is."""
    chosen = header.settings.get("accounts") if header else None
    selected = frozenset(map(str, chosen if isinstance(chosen, list) else ()))
    if end.settled or end.outcome == "stopped":
        return None
    if end.outcome == "deferred":
        return selected | before if before and selected else frozenset() if before is not None else selected
    through = end.outcome == "completed" and header is not None and header.command == "run"
    covered = not selected or (before and before <= selected)
    return None if through and covered else before


def last_end(path: Path) -> End | None:
    """The end line that the ledger at `path` ends with; None: it ends otherwise."""
    with _readable(path, "name another ledger with --ledger"), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        found = file.read().rstrip().splitlines()
    with suppress(LedgerError):
        record = records.decode(found[-1]) if found else None
        return record if isinstance(record, End) else None
    return None


def is_torn(path: Path) -> bool:
    with files.open_regular(path) as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def line_begins_at(path: Path, offset: int) -> bool:
    """Whether a line begins there; a repair moves lines."""
    with _readable(path, "name another ledger with --ledger"), path.open("rb") as file:
        file.seek(max(0, offset - 1))
        return (offset == 0 or file.read(1) in b"\n\0") and bool(file.read(1))
