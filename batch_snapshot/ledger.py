"""The ledger: NDJSON, append only, one line for whatever happened.

Encoding and decoding are pure; `Ledger` is the only thing that writes a ledger, and only while
its lock is held (see `locks`). A torn last line is skipped by readers and repaired by the writer.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import orjson

from batch_snapshot.errors import LedgerError, LedgerWriteError
from batch_snapshot.history import End, Header, Intent, Line, Record, Result
from batch_snapshot.model import Account, ErrorKind, Quota, Row, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from batch_snapshot.model import Outcome, Request

SCHEMA = 1

#: No honest line is longer, in bytes: an intent names a few hundred rows.
LONGEST_LINE = 16 * 1024 * 1024

#: Every line begins so.
LINE_HEAD = b'{"type":"'

OUTCOMES = frozenset({"completed", "stopped", "deferred", "interrupted"})


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode_run(header: Header, version: str, **more: object) -> bytes:
    """A run line; `more` are fields that readers may ignore."""
    return _line(
        {
            "type": "run",
            "schema": SCHEMA,
            "run_id": header.run_id,
            "command": header.command,
            "name": header.name,
            "manifest": header.manifest,
            "manifest_sha256": header.manifest_sha256,
            "rows": header.rows,
            "accounts": header.accounts,
            "endpoint": header.endpoint,
            "started_at": timestamp(header.started_at),
            "version": version,
            "settings": header.settings,
            **more,
        }
    )


def encode_intent(at: datetime, requests: Sequence[Request]) -> bytes:
    """An intent line: what is about to be handed to the workers."""
    rows = [[r.client_token, *r.row, r.generation] for r in requests]
    return _line({"type": "intent", "at": timestamp(at), "rows": rows})


def encode_result(run_id: str, outcome: Outcome) -> bytes:
    """A result line: what became of a row."""
    request, error = outcome.request, outcome.error
    fields: dict[str, Any] = {
        "type": "result",
        "run_id": run_id,
        **request.row._asdict(),
        "client_token": request.client_token,
        "generation": request.generation,
        "status": outcome.status,
        "arn": outcome.arn,
        "revision": outcome.revision,
        "attempts": outcome.attempts,
        "throttles": outcome.throttles,
        "ambiguous": outcome.ambiguous,
        "request_id": outcome.request_id,
        "error": None,
        "first_sent_at": timestamp(outcome.first_sent_at) if outcome.first_sent_at else None,
        "started_at": timestamp(outcome.started_at),
        "finished_at": timestamp(outcome.finished_at),
    }
    if error:
        fields["error"] = {
            "kind": error.kind,
            "code": error.code,
            "message": error.message,
            "reason": error.reason,
            "http_status": error.http_status,
        }
    if outcome.reconciled:
        fields["reconciled"] = True
    return _line(fields)


def encode_end(run_id: str, end: End) -> bytes:
    """An end line: closes an invocation."""
    return _line(
        {
            "type": "end",
            "run_id": run_id,
            "outcome": end.outcome,
            "counts": end.counts,
            "finished_at": timestamp(end.finished_at),
        }
    )


#: What a run line keeps of an account: all that `retry` needs to call for it again.
_ACCOUNT_TEXTS = ("role_arn", "profile", "region", "external_id", "session_name", "endpoint_url")


def encode_account(account: Account) -> dict[str, Any]:
    """An account as the run line keeps it."""
    quota = {key: value for key, value in asdict(account.quota).items() if value}
    texts = {key: getattr(account, key) for key in _ACCOUNT_TEXTS}
    # The first three are always there, the others only when they say something.
    kept = {key: text for key, text in texts.items() if text is not None or key in _ACCOUNT_TEXTS[:3]}
    return {**kept, "quota": quota} if quota else kept


def decode_account(name: str, fields: Mapping[str, Any]) -> Account:
    """An account out of a run line.

    Raises:
        ValueError: values of the wrong types.
        TypeError: likewise.
    """
    given: dict[str, Any] = {key: _text(fields[key]) for key in _ACCOUNT_TEXTS if fields.get(key) is not None}
    quota = dict(fields.get("quota") or {})
    counts = {key: _count(quota[key]) for key in _QUOTA_COUNTS if quota.get(key) is not None}
    rate = quota.get("per_second")
    if rate is not None and not (isinstance(rate, float | int) and rate > 0):
        raise ValueError(f"{rate!r} is no rate")
    return Account(name, **given, quota=Quota(per_second=rate, **counts))


_QUOTA_COUNTS = ("per_minute", "per_hour", "per_day", "reserve")


def _line(fields: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # A path can hold bytes that are no text: they are recorded as question marks.
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace") + b"\n"


def decode(raw: bytes) -> Record | None:
    """The record of one line; None for a type that this version does not know.

    Raises:
        LedgerError: for a line that is no record.
    """
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise LedgerError(f"not JSON ({error})") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise LedgerError("not an object with a type")
    decoder = _DECODERS.get(fields["type"])
    if decoder is None:
        return None
    try:
        return decoder(fields)
    except KeyError as error:
        raise LedgerError(f"a {fields['type']} line without {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise LedgerError(f"a {fields['type']} line that makes no sense ({error})") from None


def _decode_run(fields: dict[str, Any]) -> Header:
    if fields["schema"] != SCHEMA:
        raise LedgerError(
            f"schema {fields['schema']!r} is not {SCHEMA}, the one this version reads; "
            "use the version that wrote it"
        )
    return Header(
        run_id=_text(fields["run_id"]),
        command=_text(fields["command"]),
        name=_text(fields["name"]),
        manifest=_text_or_none(fields.get("manifest")),
        manifest_sha256=_text_or_none(fields.get("manifest_sha256")),
        rows=_count(fields["rows"]),
        accounts={_text(name): dict(account) for name, account in fields["accounts"].items()},
        endpoint=_text(fields["endpoint"]),
        started_at=_time(fields["started_at"]),
        settings=dict(fields.get("settings") or {}),
    )


def _decode_intent(fields: dict[str, Any]) -> Intent:
    rows = []
    for token, *names, generation in fields["rows"]:
        rows.append((_text(token), Row(*map(_text, names)), _count(generation)))
    return Intent(_time(fields["at"]), tuple(rows))


def _decode_result(fields: dict[str, Any]) -> Result:
    error = fields["error"]
    status = Status(fields["status"])
    if status is Status.SUCCEEDED and not (fields["arn"] and _count(fields["revision"]) >= 1):
        raise LedgerError("a succeeded row without arn and revision")
    first_sent_at = fields["first_sent_at"]
    return Result(
        row=Row(
            _text(fields["account"]),
            _text(fields["catalog"]),
            _text(fields["engagement"]),
            _text(fields["resource_type"]),
            _text(fields["resource"]),
            _text(fields["template"]),
        ),
        client_token=_text(fields["client_token"]),
        generation=_count(fields["generation"]),
        status=status,
        ambiguous=_flag(fields["ambiguous"]),
        first_sent_at=None if first_sent_at is None else _time(first_sent_at),
        kind=ErrorKind(error["kind"]) if error else None,
        code=_text(error["code"]) if error else None,
        message=_text(error["message"]) if error else None,
        run_id=_text(fields["run_id"]),
    )


def _decode_end(fields: dict[str, Any]) -> End:
    if fields["outcome"] not in OUTCOMES:
        raise ValueError(f"outcome {fields['outcome']!r}")
    counts = {name: _count(count) for name, count in fields["counts"].items()}
    return End(fields["outcome"], counts, _time(fields["finished_at"]), _text(fields["run_id"]))


_DECODERS: dict[str, Callable[[dict[str, Any]], Record]] = {
    "run": _decode_run,
    "intent": _decode_intent,
    "result": _decode_result,
    "end": _decode_end,
}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is no count")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _time(value: object) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return moment


def read(path: Path) -> Iterator[Line]:
    """Stream the records of the ledger at `path`, skipping a torn last line.

    Raises:
        LedgerError: it cannot be read, or has a line that is no record; the message says where.
    """
    try:
        with path.open("rb") as file:
            offset = 0
            number = 0
            while raw := file.readline(LONGEST_LINE):
                number += 1
                if not raw.endswith(b"\n"):
                    if len(raw) == LONGEST_LINE:
                        raise LedgerError(f"{path}:{number}: longer than any line of a ledger")
                    return
                try:
                    record = decode(raw)
                except LedgerError as error:
                    raise LedgerError(f"{path}:{number}: {error}") from None
                if record is not None:
                    yield Line(offset, number, record)
                offset += len(raw)
    except OSError as error:
        raise LedgerError(
            f"{path}: cannot be read ({error.strerror}); name a ledger that a run has written"
        ) from None


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
            raise self._unwritable(error) from None

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
            ours, theirs = os.fstat(self._fd), self.path.stat()
        except OSError as error:
            self._broken = self._unwritable(error)
            raise self._broken from None
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) or ours.st_size < written:
            self._broken = LedgerWriteError(
                f"{self.path}: was removed, replaced or cut while the run wrote it; "
                "put it back if you can, then run the same command"
            )
            raise self._broken

    def _unwritable(self, error: OSError) -> LedgerWriteError:
        return LedgerWriteError(
            f"{self.path}: cannot be written ({error.strerror or error}); "
            "make room or mend the permissions, then run the same command"
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
    if path.exists():
        Ledger(path).__exit__(None, None, None)


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
