"""The lines of a ledger: values to bytes and back. Pure; the fields are the contract's."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from datetime import datetime
from math import floor
from typing import Any

import orjson

from batch_snapshot.errors import DamagedError, LedgerError
from batch_snapshot.ledger.records import Control, End, Header, Intent, Record, Result, Skipped
from batch_snapshot.models import (
    LARGEST_COUNT,
    LARGEST_SKEW,
    YEARS,
    Account,
    ErrorKind,
    Outcome,
    Quota,
    Request,
    Row,
    Skip,
    Status,
)
from batch_snapshot.text import timestamp

SCHEMA = 1

OUTCOMES = frozenset({"completed", "stopped", "deferred", "interrupted"})


def encode_run(header: Header, version: str, **more: object) -> bytes:
    """A run line; `more` are further fields, which readers may ignore."""
    if header.discovered_sha256:
        more["discovered_sha256"] = header.discovered_sha256
    if header.unrecorded_since:
        more["unrecorded_since"] = timestamp(header.unrecorded_since)
    fields = header._asdict()
    later = ("settings", "discovered_sha256", "unrecorded_since", "version")
    settings, *_ = (fields.pop(name) for name in later)
    fields["started_at"] = timestamp(header.started_at)
    begin = {"type": "run", "schema": SCHEMA}
    return _line({**begin, **fields, "version": version, "settings": settings, **more})


def encode_intent(
    at: datetime, requests: Sequence[Request], clock_skew: float | None = None, signer: str | None = None
) -> bytes:
    rows = [[r.client_token, *r.row, r.generation] for r in requests]
    known: dict[str, Any] = {} if clock_skew is None else {"clock_skew_s": floor(clock_skew)}
    if signer is not None:
        known["signer"] = signer
    return _line({"type": "intent", "at": timestamp(at), **known, "rows": rows})


def encode_result(run_id: str, outcome: Outcome) -> bytes:
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
        "error": asdict(error) if error else None,
        "first_sent_at": timestamp(outcome.first_sent_at) if outcome.first_sent_at else None,
        "started_at": timestamp(outcome.started_at),
        "finished_at": timestamp(outcome.finished_at),
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
    return _line({**fields, "rows": [list(row) for row in rows]})


def encode_end(run_id: str, end: End) -> bytes:
    fields = {"type": "end", "run_id": run_id, "outcome": end.outcome, "counts": end.counts}
    return _line({**fields, "finished_at": timestamp(end.finished_at)})


def encode_control(run_id: str, at: datetime, action: str, **more: object) -> bytes:
    """A control line; `more` is what else the action has, such as its value. Readers may skip the line."""
    return _line({"type": "control", "run_id": run_id, "at": timestamp(at), "action": action, **more})


#: Fields of an account in a run line, besides quota and tags: all that `retry` needs to send for it.
_OTHER_FIELDS = {"name", "quota", "tags"}
_ACCOUNT_TEXTS = [one.name for one in dataclass_fields(Account) if one.name not in _OTHER_FIELDS]
_QUOTA_COUNTS = [field.name for field in dataclass_fields(Quota) if field.name != "per_second"]


def encode_account(account: Account) -> dict[str, Any]:
    quota = {key: value for key, value in asdict(account.quota).items() if value}
    texts = {key: getattr(account, key) for key in _ACCOUNT_TEXTS}
    # The first three are always written, the others only with a value.
    kept = {key: text for key, text in texts.items() if text is not None or key in _ACCOUNT_TEXTS[:3]}
    more = {"quota": quota, "tags": list(account.tags)}
    return {**kept, **{key: value for key, value in more.items() if value}}


def decode_account(name: str, account: Mapping[str, Any]) -> Account:
    texts = {key: text for key in _ACCOUNT_TEXTS if (text := account.get(key)) is not None}
    given: dict[str, Any] = {key: _text(text) for key, text in texts.items()}
    quota = dict(account.get("quota") or {})
    counts = {key: _count(quota[key]) for key in _QUOTA_COUNTS if quota.get(key) is not None}
    rate = quota.get("per_second")
    if rate is not None and not (isinstance(rate, float | int) and rate > 0):
        raise ValueError(f"{rate!r} is not a rate")
    tags = tuple(map(_text, account.get("tags") or ()))
    return Account(name, **given, quota=Quota(per_second=rate, **counts), tags=tags)


def _line(fields: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # A path can hold bytes that are no text: they are recorded as question marks.
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace") + b"\n"


def decode(raw: bytes, *, whole: bool = False) -> Record | None:
    """The record of one line; None for an unknown type. `whole` keeps all fields of a result for reports."""
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise DamagedError(f"not JSON ({error.msg})") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise DamagedError("not an object with a type")
    decoder = _DECODERS.get(fields["type"])
    if decoder is None:
        return None
    try:
        record = decoder(fields)
        return record._replace(fields=fields) if whole and isinstance(record, Result) else record
    except KeyError as error:
        raise DamagedError(f"a {fields['type']} line without {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"a {fields['type']} line that makes no sense ({error})") from None


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
        discovered_sha256=_text_or_none(fields.get("discovered_sha256")),
        unrecorded_since=_time(since) if (since := fields.get("unrecorded_since")) is not None else None,
        version=fields["version"] if isinstance(fields.get("version"), str) else None,
    )


def _decode_intent(fields: dict[str, Any]) -> Intent:
    rows = tuple([_decode_intended(row) for row in fields["rows"]])
    return Intent(_time(fields["at"]), rows, _skew(fields), _text_or_none(fields.get("signer")))


def _decode_intended(fields: Sequence[Any]) -> tuple[str, Row, int]:
    token, *names, generation = fields
    return _text(token), Row(*map(_text, names)), _count(generation)


def _decode_result(fields: dict[str, Any]) -> Result:
    status, error = Status(fields["status"]), fields["error"]
    if status is Status.SUCCEEDED and not (fields["arn"] and _count(fields["revision"]) >= 1):
        raise DamagedError("a succeeded row without arn and revision")
    first_sent_at, revision = fields["first_sent_at"], fields.get("revision")
    return Result(
        Row(*[_text(fields[name]) for name in Row._fields]),
        _text(fields["client_token"]),
        _count(fields["generation"]),
        status,
        _flag(fields["ambiguous"]),
        None if first_sent_at is None else _time(first_sent_at),
        ErrorKind(error["kind"]) if error else None,
        _text(error["code"]) if error else None,
        _text(error["message"]) if error else None,
        _text(fields["run_id"]),
        arn=_text_or_none(fields.get("arn")),
        revision=None if revision is None else _count(revision),
        clock_skew=_skew(fields),
    )


def _decode_skip(fields: dict[str, Any]) -> Skipped:
    rows = tuple(Row(*map(_text, names)) for names in fields["rows"])
    return Skipped(_time(fields["at"]), Skip(fields["reason"]), rows, _text(fields["run_id"]))


def _decode_end(fields: dict[str, Any]) -> End:
    if fields["outcome"] not in OUTCOMES:
        raise ValueError(f"outcome {fields['outcome']!r}")
    counts = {name: _count(count) for name, count in fields["counts"].items()}
    return End(fields["outcome"], counts, _time(fields["finished_at"]), _text(fields["run_id"]))


def _decode_control(fields: dict[str, Any]) -> Control:
    value, account = fields.get("value"), fields.get("account")
    known = type(value) in {int, float} and isinstance(account, str | None)
    return Control(_time(fields["at"]), _text(fields["action"]), *((value, account) if known else ()))


_DECODERS: dict[str, Callable[[dict[str, Any]], Record]] = {
    "run": _decode_run,
    "intent": _decode_intent,
    "result": _decode_result,
    "skip": _decode_skip,
    "end": _decode_end,
    "control": _decode_control,
}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_COUNT:
        raise TypeError(f"{value!r} is not a count")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _skew(fields: Mapping[str, Any]) -> float | None:
    skew = fields.get("clock_skew_s")
    if skew is None:
        return None
    if isinstance(skew, bool) or not isinstance(skew, float | int) or not abs(skew) <= LARGEST_SKEW:
        raise ValueError(f"{skew!r} is not a clock skew")
    return float(skew)


def _time(value: object) -> datetime:
    moment = datetime.fromisoformat(value if isinstance(value, str) else _text(value))
    if moment.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    if moment.year not in YEARS:
        raise ValueError(f"{value!r} is not a time of a run")
    return moment
