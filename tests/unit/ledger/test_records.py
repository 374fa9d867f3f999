"""Lines of a ledger: what each says, and which are refused."""

import os
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger import reader, records
from batch_snapshot.ledger.records import Header, IntendedRow, Intent, Record, Result
from batch_snapshot.models import Account, ErrorKind, Quota, Request, RowError, Status
from batch_snapshot.text import timestamp
from tests.support import strategies
from tests.support.strategies import patient
from tests.unit.ledger.examples import (
    AT,
    END_LINE,
    FAILED,
    FAILED_LINE,
    HEADER,
    INTENT_LINE,
    LINES,
    REQUEST,
    RESULT_LINE,
    ROW,
    RUN_LINE,
    SUCCEEDED,
)


def to_ms(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def decoded(line: bytes) -> Record:
    record = records.decode(line)
    assert record is not None
    return record


def test_a_run_line_has_the_fields_of_the_contract():
    assert RUN_LINE.decode() == (
        '{"type":"run","schema":1,"run_id":"night-1","command":"run","name":"nightly",'
        '"manifest":"/srv/nightly.yaml","manifest_sha256":"ab","rows":2,'
        '"accounts":{"main":{"role_arn":null,"profile":"partner","region":"us-east-1"}},"endpoint":"aws",'
        '"started_at":"2026-03-01T12:00:00.123Z","version":"0.1.0","settings":{"concurrency":32}}\n'
    )


def test_an_intent_line_has_the_fields_of_the_contract():
    line = records.encode_intent(AT, [REQUEST, Request(ROW._replace(resource="O2"), "token-2", 3)])
    assert line.decode() == (
        '{"type":"intent","at":"2026-03-01T12:00:00.123Z","rows":['
        '["token-0","main","Sandbox","eng-0123456789abcd","Opportunity","O1234567","OpportunitySummaryView",0],'
        '["token-2","main","Sandbox","eng-0123456789abcd","Opportunity","O2","OpportunitySummaryView",3]]}\n'
    )


def test_the_result_line_of_a_success_has_the_fields_of_the_contract():
    assert RESULT_LINE.decode() == (
        '{"type":"result","run_id":"night-1","account":"main","catalog":"Sandbox",'
        '"engagement":"eng-0123456789abcd","resource_type":"Opportunity","resource":"O1234567",'
        '"template":"OpportunitySummaryView","client_token":"token-0","generation":0,"status":"succeeded",'
        '"arn":"arn:aws:partnercentral:snapshot/1","revision":1,"attempts":1,"throttles":2,"ambiguous":false,'
        '"request_id":"req-1","error":null,"first_sent_at":"2026-03-01T12:00:00.123Z",'
        '"started_at":"2026-03-01T12:00:00.123Z","finished_at":"2026-03-01T12:00:02.123Z"}\n'
    )


def test_the_result_line_of_a_failure_has_the_fields_of_the_contract():
    assert FAILED_LINE.decode() == (
        '{"type":"result","run_id":"night-1","account":"main","catalog":"Sandbox",'
        '"engagement":"eng-0123456789abcd","resource_type":"Opportunity","resource":"O1234567",'
        '"template":"OpportunitySummaryView","client_token":"token-0","generation":1,"status":"failed",'
        '"arn":null,"revision":null,"attempts":3,"throttles":0,"ambiguous":false,"request_id":null,'
        '"error":{"kind":"invalid","code":"ValidationException","message":"no\\n“such”",'
        '"reason":"REQUEST_VALIDATION_FAILED","http_status":400},"first_sent_at":null,'
        '"started_at":"2026-03-01T12:00:00.123Z","finished_at":"2026-03-01T12:00:02.123Z"}\n'
    )


def test_an_end_line_has_the_fields_of_the_contract():
    assert END_LINE.decode() == (
        '{"type":"end","run_id":"night-1","outcome":"completed",'
        '"counts":{"succeeded":1,"failed":1,"in_doubt":0,"unattempted":0},'
        '"finished_at":"2026-03-01T12:00:02.123Z"}\n'
    )


def test_a_run_line_takes_more_fields_at_its_end():
    line = records.encode_run(HEADER, "0.1.0", vanished=3)
    assert line.endswith(b'"settings":{"concurrency":32},"vanished":3}\n')
    assert records.decode(line) == records.decode(RUN_LINE)


def test_only_a_reconciled_result_says_so():
    line = records.encode_result("night-1", replace(SUCCEEDED, reconciled=True))
    assert line.endswith(b'Z","reconciled":true}\n')
    assert b"reconciled" not in RESULT_LINE


@given(strategies.moments)
@example(datetime(2026, 1, 1, 0, 30, 0, 999_999, tzinfo=UTC))
@patient
def test_times_are_rfc_3339_utc_with_milliseconds_and_never_later_than_the_moment(moment):
    text = timestamp(moment)
    assert len(text) == len("2026-01-01T00:00:00.000Z")
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == to_ms(moment)


def assert_decodes_back(line: bytes, record: Record) -> None:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.startswith(reader.LINE_HEAD)
    assert records.decode(line) == record


@given(strategies.texts, strategies.outcomes())
@patient
def test_every_result_line_decodes_back(run_id, outcome):
    shown = ("status", "ambiguous", "attempts", "throttles", "request_id", "error", "arn", "revision")
    expected = Result(
        **outcome.request.row._asdict(),
        **{name: getattr(outcome, name) for name in (*shown, "reconciled")},
        client_token=outcome.request.client_token,
        generation=outcome.request.generation,
        first_sent_at=to_ms(outcome.first_sent_at) if outcome.first_sent_at else None,
        started_at=to_ms(outcome.started_at),
        finished_at=to_ms(outcome.finished_at),
        run_id=run_id,
    )
    assert_decodes_back(records.encode_result(run_id, outcome), expected)


@given(strategies.headers, strategies.ends, strategies.texts)
@patient
def test_every_run_line_and_end_line_decodes_back(header, end, text):
    opened = structs.replace(header, started_at=to_ms(header.started_at), version=text)
    assert_decodes_back(records.encode_run(header, text), opened)
    closed = structs.replace(end, finished_at=to_ms(end.finished_at), run_id=text)
    assert_decodes_back(records.encode_end(text, end), closed)


@given(strategies.moments, st.lists(strategies.requests, max_size=5))
@patient
def test_every_intent_line_decodes_back(at, requests):
    named = [(one.client_token, *one.row, one.generation) for one in requests]
    rows = tuple(IntendedRow(*row) for row in named)
    assert_decodes_back(records.encode_intent(at, requests), Intent(to_ms(at), rows))


def test_text_that_utf_8_cannot_hold_is_recorded_all_the_same():
    """The service may escape half a surrogate pair; a result that cannot be kept is a lost snapshot."""
    error = RowError(ErrorKind.UNKNOWN, "Odd", "half a pair: \ud83e", None, 400)
    record = decoded(records.encode_result("night-1", replace(FAILED, error=error)))
    assert isinstance(record, Result)
    assert (record.row, record.status) == (ROW, Status.FAILED)


def test_a_manifest_in_a_folder_whose_name_is_no_utf_8_can_be_run():
    name = os.fsdecode(b"/srv/caf\xe9/nightly.yaml")
    record = decoded(records.encode_run(structs.replace(HEADER, manifest=name), "0.1.0"))
    assert isinstance(record, Header)
    assert (record.run_id, record.rows) == ("night-1", 2)


# ---- accounts


@given(strategies.accounts)
@patient
def test_a_run_line_keeps_all_that_retry_needs_of_an_account(account):
    line = records.encode_run(
        structs.replace(HEADER, accounts={"a": records.encode_account(account)}), "0.1.0"
    )
    record = decoded(line)
    assert isinstance(record, Header)
    assert records.decode_account(account.name, record.accounts["a"]) == account


def test_an_account_of_a_later_version_is_read_without_what_is_not_known():
    fields = {"profile": "p", "novel": [1], "quota": {"per_day": 7, "per_moon": 1}}
    assert records.decode_account("a", fields) == Account("a", profile="p", quota=Quota(per_day=7))


@pytest.mark.parametrize(
    "fields", [{"profile": 7}, {"region": ["us-east-1"]}, {"quota": 7}, {"quota": {"per_day": "many"}}]
)
def test_an_account_of_wrong_types_is_refused(fields):
    with pytest.raises((TypeError, ValueError)):
        records.decode_account("a", fields)


# ---- what a reader refuses


def without(line: bytes, field: str) -> bytes:
    fields = orjson.loads(line)
    del fields[field]
    return orjson.dumps(fields)


def changed(line: bytes, **fields: object) -> bytes:
    return orjson.dumps(orjson.loads(line) | fields)


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"engagement,resource", "not JSON"),
        (b'{"type":"end"\xff}', "not JSON"),
        (b"\0\0\0\0", "not JSON"),
        (b"[]", "not an object with a type"),
        (b"null", "not an object with a type"),
        (b'"run"', "not an object with a type"),
        (b"{}", "not an object with a type"),
        (b'{"type":7}', "not an object with a type"),
        (b'{"type":["run"]}', "not an object with a type"),
        (changed(RUN_LINE, schema=2), "schema 2 is not 1.*use the version that wrote it"),
        (changed(RUN_LINE, schema="1"), "schema '1' is not 1"),
        (changed(RUN_LINE, run_id=None), r"run line that is not valid .Expected `str`, got `null`"),
        (changed(RUN_LINE, rows="2"), r"Expected `int`, got `str` - at `\$\.rows`"),
        (changed(RUN_LINE, rows=True), "Expected `int`, got `bool`"),
        (changed(RUN_LINE, rows=-1), "Expected `int` >= 0"),
        (changed(RUN_LINE, rows=1.5), "Expected `int`, got `float`"),
        (changed(RUN_LINE, accounts=[]), "run line that is not valid"),
        (changed(RUN_LINE, accounts={"main": 7}), "run line that is not valid"),
        (changed(RUN_LINE, settings=7), "run line that is not valid"),
        (changed(RUN_LINE, started_at="yesterday"), "Invalid RFC3339 encoded datetime"),
        (changed(RUN_LINE, started_at="2026-03-01T12:00:00"), "`datetime` with a timezone component"),
        (changed(RUN_LINE, started_at=1_772_366_400), "Expected `datetime`, got `int`"),
        (changed(RUN_LINE, manifest=7), "Expected `str | null`, got `int`"),
        (changed(INTENT_LINE, rows=7), "intent line that is not valid"),
        (changed(INTENT_LINE, rows=[[]]), "intent line that is not valid"),
        (changed(INTENT_LINE, rows=[["t", *ROW]]), "intent line that is not valid"),
        (changed(INTENT_LINE, rows=[["t", *ROW[1:], 0]]), "intent line that is not valid"),
        (changed(INTENT_LINE, rows=[[None, *ROW, 0]]), "Expected `str`, got `null`"),
        (changed(INTENT_LINE, rows=[["t", *ROW, "0"]]), "Expected `int`, got `str`"),
        (changed(INTENT_LINE, at=None), "Expected `datetime`, got `null`"),
        (changed(RESULT_LINE, status="done"), "Invalid enum value 'done'"),
        (changed(RESULT_LINE, status=None), "Expected `str`, got `null`"),
        (changed(RESULT_LINE, arn=None), "a succeeded row without arn and revision"),
        (changed(RESULT_LINE, arn=""), "a succeeded row without arn and revision"),
        (changed(RESULT_LINE, revision=0), "a succeeded row without arn and revision"),
        (changed(RESULT_LINE, revision=None), "a succeeded row without arn and revision"),
        (changed(RESULT_LINE, ambiguous=0), "Expected `bool`, got `int`"),
        (changed(RESULT_LINE, generation=-1), "Expected `int` >= 0"),
        (changed(RESULT_LINE, resource=7), "Expected `str`, got `int`"),
        (changed(RESULT_LINE, client_token=None), "Expected `str`, got `null`"),
        (changed(RESULT_LINE, first_sent_at="1969-12-31T00:00:00Z"), "first_sent_at is not a time of a run"),
        (changed(RESULT_LINE, first_sent_at="noon"), "Invalid RFC3339 encoded datetime"),
        (changed(FAILED_LINE, error="denied"), "result line that is not valid"),
        (changed(FAILED_LINE, error={"kind": "bad", "code": "", "message": ""}), "Invalid enum value 'bad'"),
        (
            changed(FAILED_LINE, error={"kind": "denied", "code": 7, "message": ""}),
            "Expected `str`, got `int`",
        ),
        (changed(FAILED_LINE, error={"kind": "denied", "message": ""}), "missing required field `code`"),
        (changed(END_LINE, outcome="crashed"), r"Expected `str` matching regex .* at `\$\.outcome`"),
        (changed(END_LINE, counts=[1]), "end line that is not valid"),
        (changed(END_LINE, counts={"failed": "1"}), "Expected `int`, got `str`"),
    ],
)
def test_a_malformed_record_is_refused_with_what_is_wrong(raw, what):
    with pytest.raises(LedgerError, match=what) as caught:
        records.decode(raw)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", [RESULT_LINE, FAILED_LINE], ids=["succeeded", "failed"])
@pytest.mark.parametrize(
    "field", ["attempts", "throttles", "request_id", "started_at", "finished_at", "reconciled"]
)
@pytest.mark.parametrize("value", [None, -3, 1.5, [7], 2**63, "1969-12-31T00:00:00Z"])
def test_a_result_whose_field_is_only_shown_and_makes_no_sense_is_read_without_the_field(line, field, value):
    record = decoded(changed(line, **{field: value}))
    assert isinstance(record, Result)
    missing = decoded(without(changed(line, **{field: None}), field))
    assert record == missing or getattr(record, field) == value


def test_an_error_is_read_without_what_is_only_shown_and_makes_no_sense():
    error = {"kind": "denied", "code": "C", "message": "m"}
    odd = changed(FAILED_LINE, error={**error, "reason": 7, "http_status": "400"})
    assert decoded(odd) == decoded(changed(FAILED_LINE, error=error))


@pytest.mark.parametrize("fields", [{"settings": None, "version": 7}, {"settings": {}, "version": None}])
def test_a_run_line_without_settings_or_with_an_odd_version_is_read(fields):
    header = decoded(changed(RUN_LINE, **fields))
    assert isinstance(header, Header)
    assert (header.settings, header.version) == ({}, None)


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00Z",
        "2026-03-01T12:00:00+00:00",
        "2026-03-01T14:00:00.000+02",
        "20260301T120000Z",
        "2026-03-01 12:00:00,000Z",
    ],
)
def test_a_time_is_read_in_every_form_of_iso_8601(text):
    record = decoded(changed(RESULT_LINE, first_sent_at=text, finished_at=text))
    assert isinstance(record, Result)
    assert record.first_sent_at == record.finished_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


#: What a reader can do without, by line; everything else must be there.
NOT_READ = {
    "run": {"type", "schema", "manifest", "manifest_sha256", "version", "settings"},
    "intent": {"type"},
    "result": {"type", "attempts", "throttles", "request_id", "started_at", "finished_at"},
    "end": {"type"},
}


@pytest.mark.parametrize(
    ("line", "field"),
    [
        pytest.param(line, field, id=f"{kind}.{field}")
        for kind, line in zip(NOT_READ, [RUN_LINE, INTENT_LINE, RESULT_LINE, END_LINE], strict=True)
        for field in sorted(set(orjson.loads(line)) - NOT_READ[kind])
    ],
)
def test_a_missing_field_is_named(line, field):
    with pytest.raises(LedgerError, match=f"`{field}`|without .*{field}"):
        records.decode(without(line, field))


def test_a_type_of_a_later_version_is_no_record_and_no_error():
    assert records.decode(b'{"type":"beat","rows":"anything"}') is None


@pytest.mark.parametrize("line", LINES)
def test_fields_of_a_later_version_are_ignored(line):
    assert records.decode(changed(line, novel={"a": [1]})) == records.decode(line)
