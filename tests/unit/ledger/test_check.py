"""`check` accepts whole ledgers and names the first wrong line of others; any error is one line."""

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch_snapshot import cli
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options
from batch_snapshot.errors import InputError, LedgerError
from batch_snapshot.jobs import plan, run
from batch_snapshot.ledger import diff, prune, reader
from batch_snapshot.reporting import page as report_page
from batch_snapshot.reporting import report, status
from batch_snapshot.simulator import serve
from tests import ROOT
from tests.support import rewriting
from tests.support.fuzz.mutations import change_lines
from tests.support.processes import Json, Place, pairs

REFUSED = {"engagement": "eng-invalid0000001", "resource": "O9"}

#: What the ledger of the fixture holds, line by line.
LINES = ["run", "intent", "result", "result", "result", "result", "end", "run", "intent", "result", "end"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, trap):
    made = Place(tmp_path_factory.mktemp("audit"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.env.items():
            patch.setenv(name, value)
        # Whatever endpoint a damaged ledger names, nothing is called.
        for name in ("AWS_ENDPOINT_URL", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, trap)
        patch.delenv("NO_PROXY")
        patch.chdir(made.folder)
        yield made


@pytest.fixture(scope="module")
def whole(place):
    """The lines of a real ledger: a run with a row that is refused, and a retry of that row."""

    async def write() -> None:
        manifest = place.manifest([*pairs(3), REFUSED])
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_ENDPOINT_URL", "HTTP_PROXY", "HTTPS_PROXY"):
                patch.delenv(name)
            async with serve() as (url, _):
                options = Options(ledger=str(place.folder / "whole.ndjson"), endpoint_url=url)
                await run.run(manifest, options)
                await run.retry(place.folder / "whole.ndjson", lambda _: plan.all_unfinished(), options)

    asyncio.run(write())
    lines = (place.folder / "whole.ndjson").read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["type"] for line in lines] == LINES
    return lines


Lines = list[bytes]


def altered(number: int, change: Callable[[Json], object]) -> Callable[[Lines], None]:
    """Change the record of a line, counted from 1."""

    def alter(lines: Lines) -> None:
        record = json.loads(lines[number - 1])
        change(record)
        lines[number - 1] = json.dumps(record, separators=(",", ":")).encode() + b"\n"

    return alter


def removed(number: int) -> Callable[[Lines], None]:
    return lambda lines: lines.__delitem__(number - 1)


def doubled(number: int) -> Callable[[Lines], None]:
    return lambda lines: lines.insert(number, lines[number - 1])


def swapped(number: int) -> Callable[[Lines], None]:
    """Swap a line with the next."""

    def swap(lines: Lines) -> None:
        lines[number - 1 : number + 1] = reversed(lines[number - 1 : number + 1])

    return swap


def put(number: int, line: bytes) -> Callable[[Lines], None]:
    return lambda lines: lines.insert(number - 1, line)


def rename(record: Json) -> None:
    record["rows"][0][3] = "eng-00000000000009"


def retoken(record: Json) -> None:
    record["rows"][0][0] = "another"


#: By description: a change of the whole ledger, the line that is named, and words of the reason.
DAMAGES: dict[str, tuple[Callable[[Lines], None], int, str]] = {
    "the head is missing": (removed(1), 1, "no run line before it"),
    "an intent is missing": (removed(2), 2, "no intent named"),
    "a result is missing": (removed(4), 6, "counts 3 succeeded, 1 failed, 0 in doubt, 0 unattempted, but"),
    "a later head is missing": (removed(8), 8, "does not open an invocation"),
    "the last end is missing": (removed(11), 10, "no end line"),
    "an intent is doubled": (doubled(2), 3, "a second time"),
    "a result is doubled": (doubled(3), 4, "no intent named"),
    "an end is doubled": (doubled(7), 8, "does not open an invocation"),
    "the last end is doubled": (doubled(11), 12, "does not open an invocation"),
    "intent and result are swapped": (swapped(2), 2, "no intent named"),
    "head and intent are swapped": (swapped(1), 1, "no run line before it"),
    "result and end are swapped": (swapped(6), 6, "counts"),
    "end and head are swapped": (swapped(7), 9, "does not open an invocation"),
    "a count is edited": (
        altered(7, lambda record: record["counts"].update(succeeded=4, failed=0)), 7, "counts"
    ),
    "a count is lost": (altered(7, lambda record: record["counts"].pop("failed")), 7, "counts"),
    "a count of zero is lost": (altered(7, lambda record: record["counts"].pop("in_doubt")), 7, "counts"),
    "rows are named again after their results": (lambda lines: lines.insert(6, lines[1]), 7, "a second time"),
    "the rows are edited": (altered(1, lambda record: record.update(rows=5)), 7, "counts"),
    "a status is edited": (
        altered(4, lambda record: record.update(status="in_doubt", ambiguous=True)), 7, "counts"
    ),
    "the token of a result is edited": (
        altered(3, lambda record: record.update(client_token="another")), 3, "another token"
    ),
    "the token of an intent is edited": (altered(9, retoken), 10, "another token"),
    "the row of an intent is edited": (altered(2, rename), 3, "no intent named"),
    "the row of a result is edited": (
        altered(3, lambda record: record.update(resource="O777")), 3, "no intent named"
    ),
    "the run of a head is edited": (
        altered(8, lambda record: record.update(run_id="another")), 8, "run_id 'another'"
    ),
    "the schema is another": (altered(1, lambda record: record.update(schema=2)), 1, "schema 2"),
    "a time is before all runs": (
        altered(3, lambda record: record.update(first_sent_at="0001-01-01T00:00:00+14:00")), 3, "a time of a"
    ),
    "a time is after all runs": (
        altered(3, lambda record: record.update(first_sent_at="9999-12-31T23:59:59-12:00")), 3, "a time of a"
    ),
    "garbage lies between": (put(5, b"%PDF-1.7\n"), 5, "not JSON"),
}  # fmt: skip


@pytest.fixture
def path(place):
    made: Path = place.folder / "case.ndjson"
    yield made
    made.unlink(missing_ok=True)
    shutil.rmtree(made.parent / "out", ignore_errors=True)


def test_check_accepts_a_whole_ledger(whole, path, capsys):
    path.write_bytes(b"".join(whole))
    assert status.check_ledger(path) == 4
    assert cli.main(["status", str(path), "--check"]) == 0
    said = capsys.readouterr()
    assert "whole: 4 rows, each in one state" in said.out
    assert said.err == ""


@pytest.mark.parametrize("name", DAMAGES)
def test_check_names_the_first_wrong_line(whole, path, name, capsys):
    damage, line, words = DAMAGES[name]
    lines = list(whole)
    damage(lines)
    path.write_bytes(b"".join(lines))
    assert cli.main(["status", str(path), "--check"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (error,) = said.err.splitlines()
    assert error.startswith(f"error: {path}:{line}: ")
    assert words in error


@pytest.mark.parametrize("line", [3, 7])
@pytest.mark.parametrize("run_id", ["another", ""])
def test_a_ledger_with_lines_of_another_run_is_refused(whole, path, line, run_id):
    """Else a row that another run has made would count as done."""
    lines = list(whole)
    altered(line, lambda record: record.update(run_id=run_id))(lines)
    path.write_bytes(b"".join(lines))
    for look in (status.read_status, status.check_ledger, reader.history_of):
        with pytest.raises(LedgerError, match=f"case.ndjson:{line}: run_id '{run_id}' is not the ledger's"):
            look(path)


def test_lines_and_fields_of_a_later_version_are_no_break(whole, path):
    lines = list(whole)
    put(5, b'{"type":"note","text":"of a later version"}\n')(lines)
    altered(3, lambda record: record.update(more=1))(lines)
    path.write_bytes(b"".join(lines))
    assert status.check_ledger(path) == 4


def test_a_torn_end_is_named_wherever_it_is_torn(whole, path):
    content = b"".join(whole)
    for length in (1, 2, 20, len(whole[-1]) - 1):
        path.write_bytes(content[:-length])
        with pytest.raises(LedgerError, match="no end line") as caught:
            status.check_ledger(path)
        assert "and the same command resumes it" in str(caught.value)
    path.write_bytes(content + b'{"type":"ru')
    with pytest.raises(LedgerError, match="its last line is torn"):
        status.check_ledger(path)


def test_check_finds_any_lost_line(whole, path):
    """But what leaves another ledger that is whole: as if it had crashed before its first end, or as if
    the retry had not sent its row."""
    for number in range(1, len(whole) + 1):
        lines = list(whole)
        removed(number)(lines)
        path.write_bytes(b"".join(lines))
        if number in {7, 10}:
            assert status.check_ledger(path) == 4
            continue
        with pytest.raises(LedgerError):
            status.check_ledger(path)


def test_an_empty_ledger_is_none(path):
    path.touch()
    with pytest.raises(LedgerError, match="no run has begun"):
        status.check_ledger(path)


# -- any content -------------------------------------------------------------------------


def decline(_: Any) -> bool:
    """Refuse the confirmation, so that nothing is called."""
    return False


def assert_one_line_errors(path: Path, content: bytes) -> None:
    """Every reader accepts it, or raises an error of one line; nothing is called."""

    def retry() -> None:
        options = Options(state_dir=path.parent / "state")
        everything = run.retry(path, lambda _: plan.all_unfinished(), options, run.Hooks(confirm=decline))
        asyncio.run(everything)

    found, tables = report.load, path.with_suffix(".tables")
    for read in (
        lambda: status.read_status(path),
        lambda: status.check_ledger(path),
        lambda: diff.as_text(diff.diff(path, path)),
        lambda: report.write_csv(found(path), tables),
        lambda: report_page.write(found(path), path.with_suffix(".html"), utc_now()),
        lambda: prune.prune(path.parent, 1, utc_now(), dry_run=True),
        retry,
    ):
        rewriting.write(path, content)
        problem = problem_of(read)
        error = str(problem)
        if problem is None or "not confirmed" in error:
            continue
        assert isinstance(problem, LedgerError)
        assert error.startswith(str(path))
        assert error.isprintable(), "one line that drives no terminal"
        assert len(error) < 1_000


def problem_of(read: Callable[[], object]) -> InputError | None:
    try:
        read()
    except InputError as error:
        return error
    return None


thorough = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

#: What one would find in a file that is not a ledger, or has been one.
GARBAGE = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"\n",
            b"\0" * 40,
            b"\xff\xfe{\0",
            b"\xef\xbb\xbf",
            b"null\n",
            b"{}\n",
            b"[" * 3000,
            b'{"type":"run"}\n',
        ]
    ),
)


@given(content=st.binary(max_size=300))
@example(content=b'{"type":"run","schema":1}\n')
@example(content="\ufeff{}\n".encode())
@example(content="{}\n".encode("utf-16"))
@thorough
def test_no_file_raises_anything_else(path, content):
    assert_one_line_errors(path, content)


@given(rng=st.randoms(use_true_random=False), cut=st.tuples(*[st.floats(0, 1)] * 2), garbage=GARBAGE)
@settings(thorough, max_examples=80)
def test_no_ledger_that_was_spoiled_raises_anything_else(whole, path, rng, cut, garbage):
    """Lines or values of it are others, or bytes of it are gone, written over or inserted."""
    content = b"".join(whole)
    begin, end = sorted(int(len(content) * part) for part in cut)
    kept = rng.choice([content[end:], content[begin:], content[begin + len(garbage) :]])
    assert_one_line_errors(path, rng.choice([change_lines(content, rng), content[:begin] + garbage + kept]))


#: What a head, an account or a row can hold that was edited, or never was one of ours.
STRANGE: dict[str, Any] = {
    "two lines": "a\nb",
    "a NUL": "\0",
    "colour": "\x1b[31mred",
    "very long": "x" * 100_000,
    "a way out": "../../out/x",
    "a thicket": [[]] * 9999,
}
HEAD = ["run_id", "name", "endpoint", "started_at", "command", "schema"]


@pytest.mark.parametrize("field", [*HEAD, "account", "engagement"])
@pytest.mark.parametrize("strange", STRANGE)
def test_no_field_drives_a_terminal_or_leaves_the_folder(whole, path, field, strange):
    lines, value = list(whole), STRANGE[strange]
    for number in (1, 8) if field in HEAD else (3,):
        altered(number, lambda record: record.update({field: value}))(lines)
    content = b"".join(lines)
    if field == "account" and isinstance(value, str):
        content = content.replace(b'"default"', json.dumps(value).encode())
    assert_one_line_errors(path, content)
    assert not (path.parent / "out").exists()


# -- the list of what is guarded ---------------------------------------------------------------------


def test_every_test_that_the_list_of_protections_names_is_there():
    folder = ROOT / "tests"
    named = set(re.findall(r"`([\w/]*test_\w+\.py)::(test_\w+)`", (folder / "README.md").read_text("utf-8")))
    assert len(named) > 90
    for file, name in named:
        assert f"def {name}(" in (folder / file).read_text("utf-8"), f"{file}::{name}"
