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
            end = self._good_end()
            self._file.truncate(end)
            if end == 0:
                self._file.write(_OPENING)
                self._file.flush()
        except BaseException:
            self._file.close()
            raise

    def _good_end(self) -> int:
        end = 0
        self._file.seek(0)
        for line in self._file:
            if end == 0 and not _OPENING.startswith(line):
                raise ValueError(f"{self._path}:1: not a simulator's state file; name another or remove it")
            if line.endswith(b"\n"):
                end += len(line)
        self._file.seek(end)
        return end

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record after the opening one.

        Raises:
            ValueError: a record that cannot be read, with its line.
        """
        self._file.seek(0)
        for number, line in enumerate(self._file, start=1):
            record = _decode(line)
            if record is None:
                raise ValueError(f"{self._path}:{number}: not a record of a simulator's state")
            if number > 1:
                yield record

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record and flush it."""
        self._file.write(orjson.dumps(record) + b"\n")
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
