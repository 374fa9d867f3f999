"""The file that keeps a world over restarts: NDJSON, append only, flushed per record."""

from __future__ import annotations

import os
import stat
from typing import IO, TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_OPENING: Final = b'{"type":"simulator","schema":1}\n'


class Journal:
    """An open state file. It is not locked: users must run one simulator a file."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, and cut off a last line that a crash left incomplete.

        Raises:
            ValueError: the file is something else.
        """
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _opened(path)
        try:
            lines = self._complete_lines()
            self._file.truncate(sum(map(len, lines)))
            if not lines:
                self._write(_OPENING)
        except BaseException:
            self._file.close()
            raise
        self._lines = lines[1:]

    def _complete_lines(self) -> list[bytes]:
        self._file.seek(0)
        lines = self._file.readlines()
        if lines and not _OPENING.startswith(lines[0]):
            raise ValueError(f"{self._path}:1: not a simulator's state file; name another or remove it")
        return [line for line in lines if line.endswith(b"\n")]

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record that the file held when it was opened.

        Raises:
            ValueError: a record that cannot be read, with its line.
        """
        for number, line in enumerate(self._lines, start=2):
            record = _decode(line)
            if record is None:
                raise ValueError(f"{self._path}:{number}: not a record of a simulator's state")
            yield record
        self._lines = []

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record and flush it."""
        self._write(orjson.dumps(record) + b"\n")

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _opened(path: Path) -> IO[bytes]:
    """Open a regular file to read and append; opening a pipe would block."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    number = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ValueError(f"{path}: is a pipe or a device, not a file; name another")
    return os.fdopen(number, "a+b")


def _decode(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None
