"""The ledger: what its lines say, what a reader refuses, and that no crash can tear it."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PosixPath

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch_snapshot import manifest
from batch_snapshot.config.options import Options
from batch_snapshot.errors import LedgerError, LedgerWriteError, StateFolderError
from batch_snapshot.ledger import codec, history, reader, writer
from batch_snapshot.ledger.records import End, Header, Intent, Line, Record, Result
from batch_snapshot.ledger.writer import Ledger
from batch_snapshot.models import Account, ErrorKind, Outcome, Quota, Request, Row, RowError, Status
from batch_snapshot.text import timestamp
from tests.support import rewriting, strategies
from tests.support.planned_jobs import run_job
from tests.support.strategies import patient

ROW = Row("main", "Sandbox", "eng-0123456789abcd", "Opportunity", "O1234567", "OpportunitySummaryView")
AT = datetime(2026, 3, 1, 12, 0, 0, 123_999, tzinfo=UTC)
LATER = AT.astimezone(UTC) + timedelta(seconds=2)

HEADER = Header(
    run_id="night-1",
    command="run",
    name="nightly",
    manifest="/srv/nightly.yaml",
    manifest_sha256="ab",
    rows=2,
    accounts={"main": {"role_arn": None, "profile": "partner", "region": "us-east-1"}},
    endpoint="aws",
    started_at=AT,
    settings={"concurrency": 32},
)
REQUEST = Request(ROW, "token-0", 0)
SUCCEEDED = Outcome(
    request=REQUEST,
    status=Status.SUCCEEDED,
    attempts=1,
    throttles=2,
    ambiguous=False,
    first_sent_at=AT,
    started_at=AT,
    finished_at=LATER,
    arn="arn:aws:partnercentral:snapshot/1",
    revision=1,
    request_id="req-1",
)
FAILED = Outcome(
    request=replace(REQUEST, generation=1),
    status=Status.FAILED,
    attempts=3,
    throttles=0,
    ambiguous=False,
    first_sent_at=None,
    started_at=AT,
    finished_at=LATER,
    error=RowError(ErrorKind.INVALID, "ValidationException", "no\n“such”", "REQUEST_VALIDATION_FAILED", 400),
)
END = End("completed", {"succeeded": 1, "failed": 1, "in_doubt": 0, "unattempted": 0}, LATER)

RUN_LINE = codec.encode_run(HEADER, "0.1.0")
INTENT_LINE = codec.encode_intent(AT, [REQUEST])
RESULT_LINE = codec.encode_result("night-1", SUCCEEDED)
FAILED_LINE = codec.encode_result("night-1", FAILED)
END_LINE = codec.encode_end("night-1", END)
LINES = [RUN_LINE, INTENT_LINE, RESULT_LINE, FAILED_LINE, END_LINE]
WHOLE = b"".join(LINES)


def to_ms(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "nightly.ndjson"


def decoded(line: bytes) -> Record:
    record = codec.decode(line)
    assert record is not None
    return record


def written(path: Path, content: bytes = WHOLE) -> Path:
    rewriting.write(path, content)
    return path


def records(path: Path) -> list[Record]:
    return [line.record for line in reader.lines(path)]


@contextmanager
def file_size_limit(size: int):
    """A disk that is full at `size` bytes of any one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@contextmanager
def umask(mask: int):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# ---- the lines


def test_the_run_line_is_the_contracts():
    assert RUN_LINE.decode() == (
        '{"type":"run","schema":1,"run_id":"night-1","command":"run","name":"nightly",'
        '"manifest":"/srv/nightly.yaml","manifest_sha256":"ab","rows":2,'
        '"accounts":{"main":{"role_arn":null,"profile":"partner","region":"us-east-1"}},"endpoint":"aws",'
        '"started_at":"2026-03-01T12:00:00.123Z","version":"0.1.0","settings":{"concurrency":32}}\n'
    )


def test_a_run_line_takes_more_fields_at_its_end():
    line = codec.encode_run(HEADER, "0.1.0", vanished=3)
    assert line.endswith(b'"settings":{"concurrency":32},"vanished":3}\n')
    assert codec.decode(line) == codec.decode(RUN_LINE)


def test_the_intent_line_is_the_contracts():
    line = codec.encode_intent(AT, [REQUEST, Request(ROW._replace(resource="O2"), "token-2", 3)])
    assert line.decode() == (
        '{"type":"intent","at":"2026-03-01T12:00:00.123Z","rows":['
        '["token-0","main","Sandbox","eng-0123456789abcd","Opportunity","O1234567","OpportunitySummaryView",0],'
        '["token-2","main","Sandbox","eng-0123456789abcd","Opportunity","O2","OpportunitySummaryView",3]]}\n'
    )


def test_the_result_line_of_a_success_is_the_contracts():
    assert RESULT_LINE.decode() == (
        '{"type":"result","run_id":"night-1","account":"main","catalog":"Sandbox",'
        '"engagement":"eng-0123456789abcd","resource_type":"Opportunity","resource":"O1234567",'
        '"template":"OpportunitySummaryView","client_token":"token-0","generation":0,"status":"succeeded",'
        '"arn":"arn:aws:partnercentral:snapshot/1","revision":1,"attempts":1,"throttles":2,"ambiguous":false,'
        '"request_id":"req-1","error":null,"first_sent_at":"2026-03-01T12:00:00.123Z",'
        '"started_at":"2026-03-01T12:00:00.123Z","finished_at":"2026-03-01T12:00:02.123Z"}\n'
    )


def test_the_result_line_of_a_failure_is_the_contracts():
    assert FAILED_LINE.decode() == (
        '{"type":"result","run_id":"night-1","account":"main","catalog":"Sandbox",'
        '"engagement":"eng-0123456789abcd","resource_type":"Opportunity","resource":"O1234567",'
        '"template":"OpportunitySummaryView","client_token":"token-0","generation":1,"status":"failed",'
        '"arn":null,"revision":null,"attempts":3,"throttles":0,"ambiguous":false,"request_id":null,'
        '"error":{"kind":"invalid","code":"ValidationException","message":"no\\n“such”",'
        '"reason":"REQUEST_VALIDATION_FAILED","http_status":400},"first_sent_at":null,'
        '"started_at":"2026-03-01T12:00:00.123Z","finished_at":"2026-03-01T12:00:02.123Z"}\n'
    )


def test_only_a_reconciled_result_says_so():
    line = codec.encode_result("night-1", replace(SUCCEEDED, reconciled=True))
    assert line.endswith(b'Z","reconciled":true}\n')
    assert b"reconciled" not in RESULT_LINE


def test_the_end_line_is_the_contracts():
    assert END_LINE.decode() == (
        '{"type":"end","run_id":"night-1","outcome":"completed",'
        '"counts":{"succeeded":1,"failed":1,"in_doubt":0,"unattempted":0},'
        '"finished_at":"2026-03-01T12:00:02.123Z"}\n'
    )


@given(strategies.moments)
@example(datetime(2026, 1, 1, 0, 30, 0, 999_999, tzinfo=UTC))
@patient
def test_times_are_rfc_3339_utc_with_milliseconds_and_never_later_than_the_moment(moment):
    text = timestamp(moment)
    assert len(text) == len("2026-01-01T00:00:00.000Z")
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == to_ms(moment)


@given(strategies.texts, strategies.outcomes())
@patient
def test_every_result_line_decodes_back(run_id, outcome):
    line = codec.encode_result(run_id, outcome)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.startswith(reader.LINE_HEAD)
    assert codec.decode(line) == Result(
        row=outcome.request.row,
        client_token=outcome.request.client_token,
        generation=outcome.request.generation,
        status=outcome.status,
        ambiguous=outcome.ambiguous,
        first_sent_at=to_ms(outcome.first_sent_at) if outcome.first_sent_at else None,
        kind=outcome.error.kind if outcome.error else None,
        code=outcome.error.code if outcome.error else None,
        message=outcome.error.message if outcome.error else None,
        run_id=run_id,
        arn=outcome.arn,
        revision=outcome.revision,
    )
    fields = orjson.loads(line)
    told = [fields[name] for name in ("run_id", "arn", "revision", "attempts", "throttles", "request_id")]
    assert told == [
        run_id,
        outcome.arn,
        outcome.revision,
        outcome.attempts,
        outcome.throttles,
        outcome.request_id,
    ]
    assert fields.get("reconciled", False) is outcome.reconciled
    if outcome.error:
        assert (fields["error"]["reason"], fields["error"]["http_status"]) == (
            outcome.error.reason,
            outcome.error.http_status,
        )


@given(strategies.headers, strategies.texts)
@patient
def test_every_run_line_decodes_back(header, version):
    line = codec.encode_run(header, version)
    assert line.count(b"\n") == 1
    assert line.startswith(reader.LINE_HEAD)
    assert codec.decode(line) == header._replace(started_at=to_ms(header.started_at))


@given(strategies.moments, st.lists(strategies.requests, max_size=5))
@patient
def test_every_intent_line_decodes_back(at, requests):
    line = codec.encode_intent(at, requests)
    assert line.count(b"\n") == 1
    assert line.startswith(reader.LINE_HEAD)
    assert codec.decode(line) == Intent(
        to_ms(at), tuple((request.client_token, request.row, request.generation) for request in requests)
    )


@given(strategies.texts, strategies.ends)
@patient
def test_every_end_line_decodes_back(run_id, end):
    line = codec.encode_end(run_id, end)
    assert line.count(b"\n") == 1
    assert line.startswith(reader.LINE_HEAD)
    assert codec.decode(line) == end._replace(finished_at=to_ms(end.finished_at), run_id=run_id)


def test_text_that_utf_8_cannot_hold_is_recorded_all_the_same():
    """The service may escape half a surrogate pair; a result that cannot be kept is a lost snapshot."""
    error = RowError(ErrorKind.UNKNOWN, "Odd", "half a pair: \ud83e", None, 400)
    record = decoded(codec.encode_result("night-1", replace(FAILED, error=error)))
    assert isinstance(record, Result)
    assert (record.row, record.status, record.code) == (ROW, Status.FAILED, "Odd")


def test_a_manifest_in_a_folder_whose_name_is_no_utf_8_can_be_run():
    name = os.fsdecode(b"/srv/caf\xe9/nightly.yaml")
    record = decoded(codec.encode_run(HEADER._replace(manifest=name), "0.1.0"))
    assert isinstance(record, Header)
    assert (record.run_id, record.rows) == ("night-1", 2)


# ---- accounts


@given(strategies.accounts)
@patient
def test_a_run_line_keeps_all_that_retry_needs_of_an_account(account):
    line = codec.encode_run(HEADER._replace(accounts={"a": codec.encode_account(account)}), "0.1.0")
    record = decoded(line)
    assert isinstance(record, Header)
    assert codec.decode_account(account.name, record.accounts["a"]) == account


def test_an_account_that_says_nothing_has_the_contracts_three_fields():
    assert codec.encode_account(Account("a")) == {"role_arn": None, "profile": None, "region": None}


def test_an_account_of_a_later_version_is_read_without_what_is_not_known():
    fields = {"profile": "p", "novel": [1], "quota": {"per_day": 7, "per_moon": 1}}
    assert codec.decode_account("a", fields) == Account("a", profile="p", quota=Quota(per_day=7))


@pytest.mark.parametrize(
    "fields",
    [{"profile": 7}, {"region": ["us-east-1"]}, {"quota": 7}, {"quota": {"per_day": "many"}}],
)
def test_an_account_of_wrong_types_is_refused(fields):
    with pytest.raises((TypeError, ValueError)):
        codec.decode_account("a", fields)


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
        (changed(RUN_LINE, run_id=None), "a run line that makes no sense .None is no text"),
        (changed(RUN_LINE, rows="2"), "'2' is no count"),
        (changed(RUN_LINE, rows=True), "True is no count"),
        (changed(RUN_LINE, rows=-1), "-1 is no count"),
        (changed(RUN_LINE, rows=1.5), "1.5 is no count"),
        (changed(RUN_LINE, accounts=[]), "a run line that makes no sense"),
        (changed(RUN_LINE, accounts={"main": 7}), "a run line that makes no sense"),
        (changed(RUN_LINE, settings=7), "a run line that makes no sense"),
        (changed(RUN_LINE, started_at="yesterday"), "yesterday"),
        (changed(RUN_LINE, started_at="2026-03-01T12:00:00"), "has no time zone"),
        (changed(RUN_LINE, started_at=1_772_366_400), "1772366400 is no text"),
        (changed(RUN_LINE, manifest=7), "7 is no text"),
        (changed(INTENT_LINE, rows=7), "an? intent line that makes no sense"),
        (changed(INTENT_LINE, rows=[[]]), "an? intent line that makes no sense"),
        (changed(INTENT_LINE, rows=[["t", *ROW]]), "an? intent line that makes no sense"),
        (changed(INTENT_LINE, rows=[["t", *ROW[1:], 0]]), "an? intent line that makes no sense"),
        (changed(INTENT_LINE, rows=[[None, *ROW, 0]]), "None is no text"),
        (changed(INTENT_LINE, rows=[["t", *ROW, "0"]]), "'0' is no count"),
        (changed(INTENT_LINE, at=None), "None is no text"),
        (changed(RESULT_LINE, status="done"), "'done' is not a valid Status"),
        (changed(RESULT_LINE, status=None), "None is not a valid Status"),
        (changed(RESULT_LINE, arn=None), "a succeeded row without arn and revision"),
        (changed(RESULT_LINE, arn=""), "a succeeded row without arn and revision"),
        (changed(RESULT_LINE, revision=0), "a succeeded row without arn and revision"),
        (changed(RESULT_LINE, revision=None), "None is no count"),
        (changed(RESULT_LINE, ambiguous=0), "0 is neither true nor false"),
        (changed(RESULT_LINE, generation=-1), "-1 is no count"),
        (changed(RESULT_LINE, resource=7), "7 is no text"),
        (changed(RESULT_LINE, client_token=None), "None is no text"),
        (changed(RESULT_LINE, first_sent_at="noon"), "noon"),
        (changed(FAILED_LINE, error="denied"), "a result line that makes no sense"),
        (changed(FAILED_LINE, error={"kind": "bad", "code": "", "message": ""}), "not a valid ErrorKind"),
        (changed(FAILED_LINE, error={"kind": "denied", "code": 7, "message": ""}), "7 is no text"),
        (changed(FAILED_LINE, error={"kind": "denied", "message": ""}), "a result line without 'code'"),
        (changed(END_LINE, outcome="crashed"), "outcome 'crashed'"),
        (changed(END_LINE, counts=[1]), "an? end line that makes no sense"),
        (changed(END_LINE, counts={"failed": "1"}), "'1' is no count"),
    ],
)
def test_a_malformed_record_is_refused_with_what_is_wrong(raw, what):
    with pytest.raises(LedgerError, match=what) as caught:
        codec.decode(raw)
    assert "\n" not in str(caught.value)


#: What a reader can do without, by line; everything else must be there.
NOT_READ = {
    "run": {"type", "manifest", "manifest_sha256", "version", "settings"},
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
    with pytest.raises(LedgerError, match=f"without '{field}'"):
        codec.decode(without(line, field))


def test_a_type_of_a_later_version_is_no_record_and_no_error():
    assert codec.decode(b'{"type":"beat","rows":"anything"}') is None


@pytest.mark.parametrize("line", LINES)
def test_fields_of_a_later_version_are_ignored(line):
    assert codec.decode(changed(line, novel={"a": [1]})) == codec.decode(line)


# ---- reading


def test_a_ledger_is_read_with_the_place_of_every_line(path):
    lines = list(reader.lines(written(path)))
    assert [line.number for line in lines] == [1, 2, 3, 4, 5]
    assert [line.offset for line in lines] == [0, *itertools.accumulate(map(len, LINES[:-1]))]
    assert [line.record for line in lines] == [codec.decode(line) for line in LINES]


def test_lines_of_a_later_version_are_skipped_but_counted(path):
    novel = b'{"type":"novel"}\n'
    first, second = reader.lines(written(path, RUN_LINE + novel + END_LINE))
    assert first == Line(0, 1, decoded(RUN_LINE))
    assert second == Line(len(RUN_LINE) + len(novel), 3, decoded(END_LINE))


def test_reading_streams(path):
    """The first records are there although a later line is bad: no line is read before it is due."""
    lines = reader.lines(written(path, RUN_LINE + INTENT_LINE + b"bad\n"))
    assert isinstance(next(lines).record, Header)
    assert isinstance(next(lines).record, Intent)
    with pytest.raises(LedgerError):
        next(lines)


@pytest.mark.parametrize("torn", [b"{", RESULT_LINE[:-2], b"\0\0\0", b"not ours"])
def test_a_torn_last_line_is_skipped(path, torn):
    assert records(written(path, RUN_LINE + torn)) == [codec.decode(RUN_LINE)]


def test_an_empty_file_has_no_records(path):
    assert records(written(path, b"")) == []


@pytest.mark.parametrize("bad", [b"{\n", b"\0\0\n", RESULT_LINE[:-2] + b"\n", b"a,b\n"])
def test_a_bad_line_in_the_middle_is_named_with_file_and_line(path, bad):
    with pytest.raises(LedgerError) as caught:
        records(written(path, RUN_LINE + INTENT_LINE + bad + END_LINE))
    assert str(caught.value).startswith(f"{path}:3: not JSON")


def test_a_line_longer_than_any_is_refused_before_it_is_held_in_memory(path):
    written(path, RUN_LINE)
    os.truncate(path, len(RUN_LINE) + reader.LONGEST_LINE + 1)
    with pytest.raises(LedgerError, match=r"nightly.ndjson:2: longer than any line"):
        records(path)


def test_the_longest_line_is_read(path):
    frame = b'{"type":"novel","pad":"%b"}\n'
    longest = frame % (b"x" * (reader.LONGEST_LINE - len(frame % b"")))
    assert len(longest) == reader.LONGEST_LINE
    assert len(records(written(path, RUN_LINE + longest + END_LINE))) == 2


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path)])
def test_what_cannot_be_read_is_named_with_the_way_out(path, make):
    make(path)
    with pytest.raises(LedgerError) as caught:
        records(path)
    assert str(caught.value).startswith(f"{path}: cannot be read (")
    assert str(caught.value).endswith("name a ledger that a run has written")


# ---- writing


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077, 0o177, 0o777])
def test_a_ledger_is_its_owners_alone_under_any_umask(path, mask):
    with umask(mask), Ledger(path):
        pass
    assert path.stat().st_mode & 0o7777 == 0o600


def test_a_ledger_needs_its_folder(tmp_path):
    path = tmp_path / "none" / "nightly.ndjson"
    with pytest.raises(StateFolderError) as caught:
        Ledger(path)
    assert str(caught.value) == (
        f"{path}: cannot be created (No such file or directory); "
        "create its folder, or name another place with --ledger"
    )
    assert caught.value.exit_code == 2


def test_a_folder_is_no_ledger(tmp_path):
    with pytest.raises(StateFolderError, match="cannot be written"):
        Ledger(tmp_path)


def test_whole_lines_are_appended(path):
    with Ledger(path) as book:
        assert book.empty
        book.append(RUN_LINE)
        assert not book.empty
        assert path.read_bytes() == RUN_LINE
        book.append(INTENT_LINE)
        assert path.read_bytes() == RUN_LINE + INTENT_LINE
        book.sync()
    with Ledger(path) as book:
        assert not book.empty
        book.append(RESULT_LINE)
        book.sync()
    assert path.read_bytes() == RUN_LINE + INTENT_LINE + RESULT_LINE


def test_opening_a_sound_ledger_alters_nothing(path):
    with Ledger(written(path)):
        pass
    assert path.read_bytes() == WHOLE


def test_a_ledger_closes_its_file(path):
    before = open_files()
    with Ledger(path) as book:
        book.append(RUN_LINE)
    with pytest.raises(LedgerError):
        Ledger(written(path, b"not ours"))
    assert open_files() == before


# ---- torn tails


def assert_recovered(path: Path, before: bytes) -> None:
    """What a writer makes of a ledger that was cut: whole lines, none altered, and it goes on."""
    originals = [codec.decode(line) for line in WHOLE.splitlines(keepends=True)]
    with Ledger(path) as book:
        repaired = path.read_bytes()
        assert repaired == b"" or repaired.endswith(b"\n")
        assert WHOLE.startswith(repaired)
        kept = records(path)
        assert kept == originals[: len(kept)]
        # At most the line that was torn is gone.
        assert len(kept) >= before.count(b"\n")
        assert repaired.startswith(before[: before.rfind(b"\n") + 1])
        book.append(END_LINE)
        book.sync()
    assert path.read_bytes() == repaired + END_LINE
    assert records(path) == [*kept, codec.decode(END_LINE)]


def test_a_ledger_cut_at_any_byte_is_repaired(path):
    borders = {at + near for at, byte in enumerate(WHOLE) if byte == ord("\n") for near in (-1, 0, 1, 2)}
    for cut in sorted({*range(0, len(WHOLE), 11), *borders, len(WHOLE)}):
        assert_recovered(written(path, WHOLE[:cut]), WHOLE[:cut])


@given(st.lists(strategies.outcomes(), max_size=3), st.data())
@settings(patient, max_examples=40)
def test_a_ledger_of_any_content_cut_at_any_byte_is_repaired(tmp_path_factory, outcomes, data):
    lines = [RUN_LINE, *(codec.encode_result("night-1", outcome) for outcome in outcomes), END_LINE]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    path = written(tmp_path_factory.getbasetemp() / "any.ndjson", whole[:cut])
    with Ledger(path) as book:
        book.append(RUN_LINE)
    kept = records(path)
    originals = [codec.decode(line) for line in lines]
    assert kept[:-1] == originals[: len(kept) - 1]
    assert len(kept) - 1 >= whole[:cut].count(b"\n")
    assert kept[-1] == codec.decode(RUN_LINE)


@pytest.mark.parametrize("index", range(len(LINES)))
def test_a_whole_record_that_lacks_only_its_newline_is_kept(path, index):
    lines = b"".join(LINES[: index + 1])
    with Ledger(written(path, lines[:-1])):
        pass
    assert path.read_bytes() == lines


@pytest.mark.parametrize(
    "torn", [b"\0", b"\0" * 5000, RESULT_LINE[:40] + b"\0" * 100, RESULT_LINE[:-1] + b"\0"]
)
def test_the_zeros_of_a_power_cut_are_cut_off(path, torn):
    with Ledger(written(path, RUN_LINE + torn)) as book:
        assert path.read_bytes() == RUN_LINE
        book.append(END_LINE)
    assert path.read_bytes() == RUN_LINE + END_LINE


def test_a_torn_line_longer_than_one_look_is_repaired(path):
    outcome = replace(FAILED, error=RowError(ErrorKind.UNKNOWN, "Long", "x" * 300_000))
    torn = codec.encode_result("night-1", outcome)[:-3]
    with Ledger(written(path, RUN_LINE + torn)):
        pass
    assert path.read_bytes() == RUN_LINE


@pytest.mark.parametrize(
    "content",
    [
        b"engagement,resource",
        b"version: 1\nname: nightly\npairs: []",
        b'{"engagement": "eng-0123456789abcd"}',
        b"[1, 2]",
        b"x",
        RUN_LINE + b"a note at the end",
        RUN_LINE + b"\0\0note",
    ],
)
def test_a_file_that_is_no_ledger_is_refused_and_not_altered(path, content):
    with pytest.raises(LedgerError, match="its last line is not a ledger's") as caught:
        Ledger(written(path, content))
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2
    assert path.read_bytes() == content


MANIFEST = (
    "version: 1\nname: nightly\ndefaults: {catalog: Sandbox, account: main}\naccounts: {main: }\n"
    "pairs: [{engagement: eng-0123456789abcd, resource: O1234567}]\n"
)
HEAD = HEADER._replace(accounts={"main": codec.encode_account(Account("main"))})
HEAD_LINE = codec.encode_run(HEAD, "0.1.0")


def test_a_line_can_be_told_torn_without_mending_it(path):
    assert not reader.is_torn(written(path, b""))
    assert not reader.is_torn(written(path, RUN_LINE))
    assert reader.is_torn(written(path, RUN_LINE[:-1]))
    assert reader.is_torn(written(path, RUN_LINE + b"{"))
    assert path.read_bytes() == RUN_LINE + b"{"


def test_mending_repairs_a_ledger_and_makes_none(path):
    writer.repair_last_line(path)
    assert not path.exists()
    writer.repair_last_line(written(path, RUN_LINE + END_LINE[:9]))
    assert path.read_bytes() == RUN_LINE
    with pytest.raises(LedgerError, match="is not a ledger's"):
        writer.repair_last_line(written(path, b"engagement,resource"))
    assert path.read_bytes() == b"engagement,resource"


def nightly(folder: Path, content: bytes) -> tuple[manifest.Manifest, Path]:
    """A manifest and its ledger."""
    listed = folder / "nightly.yaml"
    listed.write_text(MANIFEST)
    return manifest.load(listed), written(folder / "nightly.ndjson", content)


NOT_SENT = codec.encode_end("night-1", END._replace(counts={"unattempted": HEAD.rows}))
OPTIONS = Options(ledger="nightly.ndjson", state_dir=Path("state"))


def test_looking_at_what_a_run_would_do_mends_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed, path = nightly(tmp_path, HEAD_LINE + b'{"type":"int')
    with run_job(listed, OPTIONS, AT, read_only=True) as made:
        assert made.run_id == "night-1"
    assert path.read_bytes() == HEAD_LINE + b'{"type":"int'


@pytest.mark.parametrize("cut", [0, 1, 2, 40])
def test_a_resume_reads_the_ledger_that_the_repair_leaves(tmp_path, monkeypatch, cut):
    """Whatever is torn, the run id that the resume goes on with is that of the ledger it writes."""
    monkeypatch.chdir(tmp_path)
    listed, path = nightly(tmp_path, HEAD_LINE[: len(HEAD_LINE) - cut])
    with run_job(listed, OPTIONS, AT) as made, Ledger(path) as book:
        book.append(codec.encode_run(HEAD._replace(run_id=made.run_id), "0.1.0"))
    folded = history.fold(reader.lines(path))
    assert folded.first is not None
    assert folded.first.run_id == made.run_id


# ---- what cannot be written


@pytest.mark.parametrize("room", [0, 1, len(INTENT_LINE) // 2, len(INTENT_LINE) - 1])
def test_a_full_disk_leaves_no_torn_line_and_ends_the_writing(path, room):
    with Ledger(path) as book:
        book.append(RUN_LINE)
        with file_size_limit(len(RUN_LINE) + room), pytest.raises(LedgerWriteError) as caught:
            book.append(INTENT_LINE)
        assert path.read_bytes() == RUN_LINE
        # There is room again, but a line behind a torn one would be lost with it.
        for again in (lambda: book.append(RESULT_LINE), book.sync):
            with pytest.raises(LedgerWriteError) as later:
                again()
            assert str(later.value) == str(caught.value)
        assert path.read_bytes() == RUN_LINE
    assert caught.value.exit_code == 5
    assert str(caught.value) == (
        f"{path}: cannot be written (File too large); raise the limit on the size of files (ulimit -f), "
        "then run the same command"
    )
    with Ledger(path) as book:
        book.append(INTENT_LINE)
    assert records(path) == [codec.decode(RUN_LINE), codec.decode(INTENT_LINE)]


def test_a_device_without_room_is_a_write_error():
    with Ledger(Path("/dev/full")) as book:
        for _ in range(2):
            with pytest.raises(LedgerWriteError, match=r"/dev/full: cannot be written .No space left"):
                book.append(RUN_LINE)


def test_a_repair_that_cannot_be_written_is_a_write_error(path):
    written(path, RUN_LINE + END_LINE[:-1])
    with file_size_limit(len(RUN_LINE)), pytest.raises(LedgerWriteError, match="cannot be written"):
        Ledger(path)
    assert path.read_bytes() == RUN_LINE + END_LINE[:-1]


def replaced(path: Path) -> None:
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    copy.replace(path)


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, replaced, lambda path: os.truncate(path, 0), lambda path: os.truncate(path, 10)],
    ids=["removed", "replaced", "emptied", "cut"],
)
def test_a_ledger_that_others_remove_replace_or_cut_ends_the_run(path, damage):
    with Ledger(path) as book:
        book.append(RUN_LINE)
        book.sync()
        damage(path)
        book.append(INTENT_LINE)
        with pytest.raises(LedgerWriteError, match=r"nightly.ndjson") as caught:
            book.sync()
        assert "then run the same command" in str(caught.value)
        with pytest.raises(LedgerWriteError):
            book.append(RESULT_LINE)
        with pytest.raises(LedgerWriteError):
            book.sync()


def test_a_ledger_that_is_whole_is_synced_again_and_again(path):
    with Ledger(path) as book:
        for line in LINES:
            book.append(line)
            book.sync()
            book.sync()
    assert path.read_bytes() == WHOLE


class _Watched(PosixPath):
    """A path that holds up its first look at the file until it is let go."""

    looked: threading.Event
    go: threading.Event

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        if not self.looked.is_set():
            self.looked.set()
            self.go.wait(10)
        return super().stat(follow_symlinks=follow_symlinks)


def test_a_sync_returns_only_when_what_was_appended_before_it_is_durable(path):
    """Also while another sync is under way: an intent must not pass for durable on its account."""
    watched = _Watched(path)
    watched.looked, watched.go = threading.Event(), threading.Event()
    told: dict[str, Exception] = {}

    def sync(who: str) -> None:
        try:
            book.sync()
        except LedgerWriteError as error:
            told[who] = error

    with Ledger(watched) as book:
        book.append(INTENT_LINE)
        path.unlink()
        regular = threading.Thread(target=sync, args=("regular",))
        regular.start()
        assert watched.looked.wait(10)
        intent = threading.Thread(target=sync, args=("intent",))
        intent.start()
        # It may wait for the other, or see for itself; it may not say that all is well.
        intent.join(0.2)
        watched.go.set()
        regular.join()
        intent.join()
    assert set(told) == {"regular", "intent"}
