"""The second half of a long ledger, read by a process of its own while the first half is folded here.

That process makes no history of it. It hands over, in the order of the lines, the keys of the rows that
plainly succeeded, what intents have named and no success has settled, and every other line as it
stands. What it does not hand over, for whatever reason, is read here.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from batch_snapshot.errors import LedgerError
from batch_snapshot.files import open_regular
from batch_snapshot.ledger import codec
from batch_snapshot.ledger.history import End, Header, Intent, IntentRef, Result
from batch_snapshot.models import KEY_SIZE, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batch_snapshot.ledger.history import History, Named, Record

#: Bytes of a ledger from which on a second process saves more than it costs.
LEAST = 32 * 1024 * 1024

#: Lines that are no plain successes and no intents, past which reading goes on in one process.
MOST_LINES = 10_000

_BUFFER = 256 * 1024
#: Bytes in which a line must have ended for its end to be looked for.
_LONGEST_LINE = 16 * 1024 * 1024

#: Imports from where this process does, and from no folder that happens to be the current one.
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from batch_snapshot.ledger import abridged; abridged.main()"
)


class Raw(NamedTuple):
    """A line as it stands: where it begins, and its number from 1 in the half."""

    offset: int
    number: int
    line: bytes


class AbridgedPart(NamedTuple):
    """Lines of a ledger, abridged."""

    #: Of rows that plainly succeeded, one after the other.
    keys: bytes
    #: What intents have named and no success among these lines has settled.
    named: dict[tuple[str, ...], Named]
    #: Who signed for an account last.
    signers: dict[str, str]
    #: Of the successes, those that no intent of this half named: row and token.
    unnamed: list[tuple[tuple[str, ...], str]]
    #: The line behind them; None: they are the last.
    line: Raw | None

    def each_key(self) -> Iterator[bytes]:
        """One key after the other."""
        return (self.keys[at : at + KEY_SIZE] for at in range(0, len(self.keys), KEY_SIZE))

    def follows(self, past: History) -> bool:
        """Whether these lines follow from those before them (see `History.checked`)."""
        if past.end is not None:
            return not (self.keys or self.named)
        if any(past.named(row) for row in self.named) or len(dict(self.unnamed)) < len(self.unnamed):
            return False
        return all(past.named(row, token) for row, token in self.unnamed)


class Abridged(NamedTuple):
    """A half of a ledger, as far as it was abridged."""

    parts: list[AbridgedPart]
    #: Where reading goes on, and the lines before that.
    offset: int
    lines: int


def abridge(file: IO[bytes], start: int, end: int, run_id: str) -> Abridged:
    """Abridge the whole lines of a ledger that begin from `start` on and before `end`."""
    file.seek(start)
    parts: list[AbridgedPart] = []
    keys, named, signers = bytearray(), dict[tuple[str, ...], "Named"](), dict[str, str]()
    unnamed: list[tuple[tuple[str, ...], str]] = []
    waiting: dict[tuple[str, ...], str] = {}
    offset, number = start, 0
    while offset < end and len(parts) < MOST_LINES:
        raw = file.readline(end - offset)
        try:
            success, record = _parsed(raw)
        except LedgerError:
            # Whoever goes on here meets it, and knows the line's number.
            break
        if success is not None and success[0] == run_id:
            _, row, token = success
            known = waiting.pop(row, None)
            if known is None:
                unnamed.append((row, token))
            elif known != token:
                # As above: what goes on here says so.
                break
            named.pop(row, None)
            keys += key_of(row)
        elif isinstance(record, Intent):
            if any(row in waiting for _, row, _ in record.rows):
                break
            _name(record, offset, named, signers, waiting)
        elif success is not None or record is not None:
            _settle(record, waiting)
            parts.append(AbridgedPart(bytes(keys), named, signers, unnamed, Raw(offset, number + 1, raw)))
            keys, named, signers, unnamed = bytearray(), {}, {}, []
        number += 1
        offset += len(raw)
    parts.append(AbridgedPart(bytes(keys), named, signers, unnamed, None))
    return Abridged(parts, offset, number)


def _parsed(raw: bytes) -> tuple[tuple[str, tuple[str, ...], str] | None, Record | None]:
    """What a line says: of a plain success only what `codec.success_of` finds; of a blank line nothing.

    Raises:
        LedgerError: it makes no sense, or its end is missing.
    """
    if not raw.endswith(b"\n"):
        raise LedgerError("no whole line")
    if raw.isspace():
        return None, None
    fields = codec.fields_of(raw)
    success = codec.success_of(fields)
    return success, codec.record_of(fields) if success is None else None


def _settle(record: Record | None, waiting: dict[tuple[str, ...], str]) -> None:
    if isinstance(record, Result):
        waiting.pop(record.row, None)
    elif isinstance(record, Header | End):
        waiting.clear()


def _name(
    intent: Intent,
    offset: int,
    named: dict[tuple[str, ...], Named],
    signers: dict[str, str],
    waiting: dict[tuple[str, ...], str],
) -> None:
    naming = IntentRef(intent.at, offset, intent.clock_skew)
    for token, row, generation in intent.rows:
        names = tuple(row)
        named[names] = token, generation, naming
        waiting[names] = token
        if intent.signer:
            signers[row.account] = intent.signer


def main() -> None:
    """Abridge the ledger on standard input from one offset to another, for the parent to read."""
    start, end, run_id = sys.argv[2:]
    with open(0, "rb", buffering=_BUFFER, closefd=False) as file:
        found = abridge(file, int(start), int(end), run_id)
    pickle.dump(found, sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)


class Half(Protocol):
    """The second half of a ledger, while it is being abridged."""

    @property
    def start(self) -> int:
        """Where it begins."""

    def read(self) -> Abridged:
        """Wait for it; where nothing came of it, nothing is abridged."""


class _Process:
    """A half that another process is at."""

    def __init__(self, process: subprocess.Popen[bytes], start: int) -> None:
        self._process = process
        self.start = start

    def read(self) -> Abridged:
        told, _ = self._process.communicate()
        # Whatever went wrong there is met here, if it is the ledger's affair.
        with suppress(Exception):
            found = pickle.loads(told)  # noqa: S301 - of a process that this one has begun
            if isinstance(found, Abridged) and self._process.returncode == 0:
                return found
        return Abridged([], self.start, 0)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


@contextmanager
def begun(path: Path, run_id: str | None) -> Iterator[Half | None]:
    """Have the second half of the ledger at `path` abridged meanwhile; None: it is not worth it."""
    half = None
    if run_id is not None and sys.executable and _processors() > 1:
        with suppress(OSError, ValueError):
            half = _half(path, run_id)
    try:
        yield half
    finally:
        if half is not None:
            half.end()


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _half(path: Path, run_id: str) -> _Process | None:
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        if size < LEAST:
            return None
        file.seek(size // 2)
        if not file.readline(_LONGEST_LINE).endswith(b"\n"):
            return None
        start = file.tell()
        words = [sys.executable, "-P", "-c", _CODE, json.dumps(sys.path), str(start), str(size), run_id]
        process = subprocess.Popen(  # noqa: S603 - this program
            words, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    return _Process(process, start)
