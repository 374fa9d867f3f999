"""The records: what the lines of a ledger say, and their bytes. Pure; the fields are the contract's.

Each is a value whose types are what a line may hold, and lines are read by these types. Fields that a type
does not name are ignored; those with a default may be missing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple
from datetime import datetime
from math import floor
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

from msgspec import DecodeError, Meta, Struct, ValidationError, convert, structs
from msgspec.json import Decoder, encode
from msgspec.json import decode as decode_json

from batch_snapshot.errors import DamagedError, LedgerError
from batch_snapshot.models import (
    LARGEST_COUNT,
    LARGEST_SKEW,
    YEARS,
    Account,
    Outcome,
    Request,
    Row,
    RowError,
    Skip,
    Status,
)
from batch_snapshot.text import timestamp

OUTCOMES = ("completed", "stopped", "deferred", "interrupted")

Time = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0, le=LARGEST_COUNT)]
#: The service's clock less ours, in seconds; None: not known.
Skew = Annotated[float, Meta(ge=-LARGEST_SKEW, le=LARGEST_SKEW)] | None
#: None where the record was not read from a line; a line without it is refused.
RunId = str | None


class Header(Struct, frozen=True, kw_only=True, tag="run"):
    run_id: str
    command: str
    name: str
    manifest: str | None = None
    manifest_sha256: str | None = None
    #: Rows of the whole ledger: those in the manifest, and those that vanished from it.
    rows: Count
    accounts: Mapping[str, Mapping[str, Any]]
    endpoint: str
    started_at: Time
    #: The version of batch-snapshot that wrote the line; None: not read from a line.
    version: str | None = None
    settings: Mapping[str, Any] = {}
    #: Digest of the file of pairs that the run has found at the service; None: it looked for none.
    discovered_sha256: str | None = None
    #: Since then, lost lines can have named rows that no other line names (see `repair`).
    unrecorded_since: Time | None = None
    #: The ledger has rows of earlier invocations. Earlier versions never said so.
    resumes: bool = False


class IntendedRow(NamedTuple):
    client_token: str
    account: str
    catalog: str
    engagement: str
    resource_type: str
    resource: str
    template: str
    generation: Count

    @property
    def row(self) -> Row:
        return Row(*self[1:7])


class Intent(Struct, frozen=True, tag="intent"):
    """A batch of rows, durable before any of them may be sent."""

    at: Time
    rows: tuple[IntendedRow, ...]
    clock_skew_s: Skew = None
    signer: str | None = None


class Result(Struct, frozen=True, kw_only=True, tag="result"):
    run_id: RunId = None
    account: str
    catalog: str
    engagement: str
    resource_type: str
    resource: str
    template: str
    client_token: str
    generation: Count
    status: Status
    arn: str | None = None
    revision: Count | None = None
    attempts: Count = 0
    throttles: Count = 0
    ambiguous: bool
    request_id: str | None = None
    error: RowError | None
    first_sent_at: Time | None
    started_at: Time | None = None
    finished_at: Time | None = None
    reconciled: bool = False
    #: At `first_sent_at`.
    clock_skew_s: Skew = None

    def __post_init__(self) -> None:
        if self.status is Status.SUCCEEDED and not (self.arn and self.revision):
            raise ValueError("a succeeded row without arn and revision")

    @property
    def row(self) -> Row:
        return Row(
            self.account, self.catalog, self.engagement, self.resource_type, self.resource, self.template
        )


class Skipped(Struct, frozen=True, tag="skip"):
    at: Time
    reason: Skip
    rows: tuple[Row, ...]
    run_id: RunId = None


class End(Struct, frozen=True, tag="end"):
    """Closes an invocation: a row that an intent named and that has no result was not sent."""

    outcome: Annotated[str, Meta(pattern=f"^({'|'.join(OUTCOMES)})$")]
    counts: Mapping[str, Count]
    finished_at: Time
    run_id: RunId = None

    @property
    def settled(self) -> bool:
        """Whether `run` has nothing left to do."""
        return not (self.counts.get("unattempted") or self.counts.get("in_doubt"))


class Control(Struct, frozen=True, tag="control"):
    """A command that the run got (see `jobs.control`); it says nothing about rows."""

    at: Time
    action: str
    #: A later version may write other types here.
    value: Any = None
    account: Any = None


Record = Header | Intent | Result | Skipped | End | Control


def named_rows(record: Record) -> Iterable[Row]:
    if isinstance(record, Result):
        return (record.row,)
    if isinstance(record, Intent):
        return (one.row for one in record.rows)
    return record.rows if isinstance(record, Skipped) else ()


class Line(NamedTuple):
    """A record, its byte offset, and its line number from 1."""

    offset: int
    number: int
    record: Record


SCHEMA = 1


def encode_run(header: Header, version: str, **more: object) -> bytes:
    """A run line; `more` are further fields, which readers may ignore."""
    if header.discovered_sha256:
        more["discovered_sha256"] = header.discovered_sha256
    if header.unrecorded_since:
        more["unrecorded_since"] = timestamp(header.unrecorded_since)
    if header.resumes:
        more["resumes"] = True
    fields = structs.asdict(header) | {"started_at": timestamp(header.started_at), "version": version}
    del fields["discovered_sha256"], fields["unrecorded_since"], fields["resumes"]
    return _line({"type": "run", "schema": SCHEMA, **fields, **more})


def encode_intent(
    at: datetime, requests: Sequence[Request], clock_skew: float | None = None, signer: str | None = None
) -> bytes:
    rows = [[r.client_token, *r.row, r.generation] for r in requests]
    known: dict[str, Any] = {} if clock_skew is None else {"clock_skew_s": floor(clock_skew)}
    if signer is not None:
        known["signer"] = signer
    return _line({"type": "intent", "at": timestamp(at), **known, "rows": rows})


#: What a result line says as an outcome has it, and its times.
_OUTCOME = ("status", "arn", "revision", "attempts", "throttles", "ambiguous", "request_id", "error")
_OUTCOME_TIMES = ("first_sent_at", "started_at", "finished_at")


def encode_result(run_id: str, outcome: Outcome) -> bytes:
    request = outcome.request
    times = {name: getattr(outcome, name) for name in _OUTCOME_TIMES}
    fields: dict[str, Any] = {
        "type": "result",
        "run_id": run_id,
        **request.row._asdict(),
        "client_token": request.client_token,
        "generation": request.generation,
        **{name: getattr(outcome, name) for name in _OUTCOME},
        **{name: moment and timestamp(moment) for name, moment in times.items()},
    }
    if outcome.reconciled:
        fields["reconciled"] = True
    if outcome.status is not Status.SUCCEEDED and outcome.clock_skew is not None:
        fields["clock_skew_s"] = floor(outcome.clock_skew)
    return _line(fields)


def encode_skip(run_id: str, at: datetime, reason: Skip, rows: Sequence[Row]) -> bytes:
    """A skip line: rows that are left out, and why.

    Readers that do not know it take the rows for unattempted; they could not read a result of a new status.
    """
    fields = {"type": "skip", "run_id": run_id, "at": timestamp(at), "reason": reason}
    return _line({**fields, "rows": rows})


def encode_end(run_id: str, end: End) -> bytes:
    fields = {"type": "end", "run_id": run_id, "outcome": end.outcome, "counts": end.counts}
    return _line({**fields, "finished_at": timestamp(end.finished_at)})


def encode_control(run_id: str, at: datetime, action: str, **more: object) -> bytes:
    """A control line; `more` is what else the action has, such as its value. Readers may skip the line."""
    return _line({"type": "control", "run_id": run_id, "at": timestamp(at), "action": action, **more})


#: Fields of an account that a run line always has; the others have a value there.
_ALWAYS = ("role_arn", "profile", "region")


def encode_account(account: Account) -> dict[str, Any]:
    """All that `retry` needs to send for an account, in the order of its fields."""
    quota = {key: value for key, value in asdict(account.quota).items() if value}
    fields = {**asdict(account), "quota": quota or None, "tags": list(account.tags) or None}
    del fields["name"]
    return {key: value for key, value in fields.items() if value is not None or key in _ALWAYS}


def decode_account(name: str, fields: Mapping[str, Any]) -> Account:
    given = {key: value for key, value in fields.items() if value is not None}
    account = convert({**given, "name": name}, Account)
    rate, *counts = astuple(account.quota)
    if not (rate is None or rate > 0) or not all(0 <= (count or 0) <= LARGEST_COUNT for count in counts):
        raise ValueError(f"{account.quota} is not a quota")
    return account


def _line(fields: Mapping[str, Any]) -> bytes:
    try:
        return encode(fields) + b"\n"
    except UnicodeEncodeError:
        # A path can hold bytes that are no text: they are recorded as question marks.
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=asdict)
        return text.encode("utf-8", "replace") + b"\n"


class _Head(Struct):
    type: str
    schema: Any = SCHEMA


_HEADS, _RECORDS = Decoder(_Head), Decoder[Record](Record)
_TYPES = {kind.__struct_config__.tag for kind in get_args(Record)}

#: Fields of all records that hold a time.
_TIMES = ("at", "started_at", "finished_at", "first_sent_at", "unrecorded_since")

#: Fields that are only shown, with their types, by the type of the line. A wrong value is ignored: the line
#: says what became of its row without it.
_SHOWN = {
    "run": {"version": Header.__annotations__["version"]},
    "result": {
        name: Result.__annotations__[name]
        for name in ("attempts", "throttles", "request_id", "started_at", "finished_at", "reconciled")
    },
}
#: The same of an error.
_SHOWN_ERROR = {name: RowError.__annotations__[name] for name in ("reason", "http_status")}

T = TypeVar("T")


def decode(raw: bytes) -> Record | None:
    """The record of one line; None for an unknown type."""
    head = _decoded(_HEADS, raw, "not an object with a type")
    if head.type not in _TYPES:
        return None
    if head.type == "run" and head.schema != SCHEMA:
        raise LedgerError(
            f"schema {head.schema!r} is not {SCHEMA}, the one this version reads; "
            "use the version that wrote it"
        )
    try:
        record = _decoded(_RECORDS, raw, f"{head.type} line that is not valid")
    except DamagedError:
        if (tolerated := _tolerated(raw)) is None:
            raise
        record = tolerated
    if getattr(record, "run_id", "") is None:
        raise DamagedError(f"a {head.type} line without run_id")
    for name in _TIMES:
        moment = getattr(record, name, None)
        if moment is not None and moment.year not in YEARS:
            if name in _SHOWN.get(head.type, {}):
                record = structs.replace(record, **{name: None})
                continue
            raise DamagedError(f"a {head.type} line whose {name} is not a time of a run ({moment})")
    return record


def _tolerated(raw: bytes) -> Record | None:
    """The record of a line that the types refuse but earlier versions read; None: it is damaged."""
    try:
        fields = decode_json(raw)
        for name in _TIMES:
            with suppress(KeyError, TypeError, ValueError):
                fields[name] = datetime.fromisoformat(fields[name])
        fields = _sensible(fields, _SHOWN.get(fields["type"], {}))
        if isinstance(fields.get("error"), dict):
            fields["error"] = _sensible(fields["error"], _SHOWN_ERROR)
        if fields.get("settings", {}) is None:
            del fields["settings"]
        record: Record = convert(fields, Record)
    except (DecodeError, RecursionError):
        return None
    return record


def _sensible(fields: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those of `types` that are not of their type."""

    def is_sensible(name: str, value: object) -> bool:
        try:
            convert(value, types.get(name, Any))
        except ValidationError:
            return False
        return True

    return {name: value for name, value in fields.items() if is_sensible(name, value)}


def _decoded(decoder: Decoder[T], raw: bytes, wrong: str) -> T:
    try:
        # As text: bytes of fields that are ignored would not have to be UTF-8.
        return decoder.decode(raw.decode())
    except ValidationError as error:
        raise DamagedError(f"{wrong} ({error})") from None
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(f"not JSON ({error})") from None
