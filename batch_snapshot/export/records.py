"""The file of an export: NDJSON, a snapshot a line, append only, mode 0600."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from batch_snapshot import files, paths
from batch_snapshot.errors import (
    SAME_COMMAND,
    InputError,
    StateFolderError,
    StorageError,
    file_error,
    file_errors,
)
from batch_snapshot.ledger import locks
from batch_snapshot.models import Row
from batch_snapshot.text import shell_argument, timestamp

HEAD = b'{"type":"snapshot",'

#: Seconds between two calls of fsync.
SYNC_EVERY = 1.0


@contextmanager
def open_export(
    path: Path, fields: Sequence[str], run_id: str | None, clock: Callable[[], float], now: datetime
) -> Iterator["ExportFile"]:
    """Open an export for appending, and make what was appended durable at the end.

    `run_id`: of the only run whose snapshots it may hold; None: it may hold those of several.
    """
    elsewhere = "name another --output"
    with ExitStack() as stack:
        lock = paths.ledger_lock(path)
        stack.enter_context(locks.hold(lock, what=str(path), since=timestamp(now), elsewhere=elsewhere))
        with file_errors(path, elsewhere, StateFolderError):
            fd = files.open_descriptor(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            stack.callback(os.close, fd)
            os.fchmod(fd, 0o600)
            files.sync_folder(path.parent)
        file = ExportFile(path, fd, fields, run_id, clock)
        stack.callback(file.sync)
        yield file


class ExportFile:
    """An export that is open for appending, with the snapshots that it holds already.

    Lines that a crash has torn are cut off; their snapshots are fetched again. After a failed write nothing
    more is written: a line behind a torn one would be lost with it.
    """

    def __init__(
        self, path: Path, fd: int, fields: Sequence[str], run_id: str | None, clock: Callable[[], float]
    ) -> None:
        self.path, self._fd, self._fields, self._clock = path, fd, list(fields), clock
        self._known: set[bytes] = set()
        self._synced = clock()
        self._disk = files.DISK.get()
        self._size = 0
        self._failed: StorageError | None = None
        for record, end in positions(path):
            _check_record(path, fields, run_id, record)
            self._size = end
            self._known.add(_digest(record["arn"]))
        self._disk.truncate(fd, self._size)

    def __contains__(self, arn: str) -> bool:
        return _digest(arn) in self._known

    def __len__(self) -> int:
        return len(self._known)

    def append(self, run_id: str, row: Row, answer: Mapping[str, Any], payload: Mapping[str, Any]) -> None:
        record = {
            "type": "snapshot",
            **row._asdict(),
            **{name: answer.get(member) for name, member in _MEMBERS.items()},
            "run_id": run_id,
            **({"fields": self._fields} if self._fields else {}),
            "payload": payload,
        }
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=_plain)
        # Half of a surrogate pair, which is not UTF-8, becomes its JSON escape.
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        with self._writing():
            self._disk.append(self._fd, line, self._size)
        self._size += len(line)
        self._known.add(_digest(str(answer["Arn"])))
        if self._clock() - self._synced >= SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        self._synced = self._clock()
        with self._writing():
            self._disk.sync(self._fd)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self._failed:
            raise self._failed
        try:
            yield
        except OSError as error:
            what = file_error(self.path, error, "name another --output")
            self._failed = StorageError(f"{what}, {SAME_COMMAND}")
            raise self._failed from None


def check(path: Path, fields: Sequence[str], run_id: str | None) -> None:
    """Refuse a file to append to that is no export, or has other fields or another run, by its first line."""
    if files.exists(path) and (first := next(positions(path), None)):
        _check_record(path, fields, run_id, first[0])


def _check_record(path: Path, fields: Sequence[str], run_id: str | None, record: Mapping[str, Any]) -> None:
    if run_id and (other := record.get("run_id", run_id)) != run_id:
        raise InputError(
            f"{path}: holds snapshots of the run {other}, but the ledger is of the run {run_id}; name "
            "another folder (--output, or --exports of diff), or remove this file to fetch all again"
        )
    held = record.get("fields") or []
    if held != list(fields):
        given = f"--fields {','.join(map(str, held))}" if held else "all fields"
        raise InputError(
            f"{path}: holds snapshots with {given}; ask for the same fields, or name another --output"
        )


#: The members of answers by the keys of records.
_MEMBERS = {"revision": "Revision", "arn": "Arn", "created_at": "CreatedAt", "created_by": "CreatedBy"}


def _plain(value: object) -> str:
    return timestamp(value) if isinstance(value, datetime) else str(value)


def _digest(arn: str) -> bytes:
    return blake2b(arn.encode("utf-8", "replace"), digest_size=16).digest()


def positions(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """The records of the export at `path`, and the offset behind each.

    What a crash has torn, and all behind it, is left out.
    """
    end = 0
    try:
        with files.open_regular(path) as file:
            for number, raw in enumerate(file, 1):
                record = _decoded(raw) if raw.endswith(b"\n") else None
                if record is None:
                    _refuse_unless_torn(path, number, raw)
                    return
                end += len(raw)
                yield record, end
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); name a file that export wrote"
        ) from None


def _decoded(raw: bytes) -> dict[str, Any] | None:
    record: dict[str, Any] = {}
    with suppress(ValueError, RecursionError):
        record = json.loads(raw) if raw.startswith(HEAD) else {}
    texts = all(isinstance(record.get(name), str) for name in (*Row._fields, "arn"))
    return record if texts and isinstance(record.get("payload"), dict) else None


def _refuse_unless_torn(path: Path, number: int, raw: bytes) -> None:
    torn = not raw.endswith(b"\n") and (raw.startswith(HEAD) or HEAD.startswith(raw))
    # A power cut can leave zeros in place of what was written since the last fsync.
    if torn or (number > 1 and b"\0" in raw):
        return
    if raw.startswith(b'{"type":"run"'):
        raise InputError(
            f"{path}: is a ledger, not an export; name another file, such as one that "
            f"`batch-snapshot export {shell_argument(path)} --output snapshots.ndjson` writes"
        )
    raise InputError(
        f"{path}:{number}: is not a line of an NDJSON export; name another file, or remove this one to fetch "
        "all again"
    )
