"""Reading a ledger: which lines are read, skipped or refused."""

import itertools
import json
import os
from pathlib import Path

import pytest

from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger import reader, records
from batch_snapshot.ledger.records import Header, Intent, Line
from tests.unit.ledger.examples import (
    END_LINE,
    INTENT_LINE,
    LINES,
    RESULT_LINE,
    RUN_LINE,
    records_of,
    written,
)


def test_a_ledger_is_read_with_the_place_of_every_line_without_those_of_a_later_version(path):
    content = [*LINES[:2], b'{"type":"novel"}\n', *LINES[2:]]
    places = [0, *itertools.accumulate(map(len, content[:-1]))]
    numbered = zip(places, itertools.count(1), map(records.decode, content), strict=False)
    expected = [Line(at, number, record) for at, number, record in numbered if record]
    assert list(reader.lines(written(path, b"".join(content)))) == expected
    assert [line.number for line in expected] == [1, 2, 4, 5, 6]


def test_a_ledger_that_another_program_wrote_again_with_blanks_says_the_same(path, tmp_path):
    again = b"".join(json.dumps(json.loads(line)).encode() + b"\n" for line in LINES)
    blanks = written(tmp_path / "again.ndjson", again)
    assert reader.last_header(blanks) == reader.last_header(written(path))
    assert reader.ending(blanks) == reader.ending(path)


def test_reading_streams(path):
    """The first records are there although a later line is bad: no line is read before it is due."""
    lines = reader.lines(written(path, RUN_LINE + INTENT_LINE + b"bad\n"))
    assert isinstance(next(lines).record, Header)
    assert isinstance(next(lines).record, Intent)
    with pytest.raises(LedgerError):
        next(lines)


@pytest.mark.parametrize("torn", [b"{", RESULT_LINE[:-2], b"\0\0\0", b"not ours"])
def test_a_torn_last_line_is_skipped(path, torn):
    assert records_of(written(path, RUN_LINE + torn)) == [records.decode(RUN_LINE)]
    assert records_of(written(path, b"")) == []


@pytest.mark.parametrize("bad", [b"{\n", RESULT_LINE[:-2] + b"\n", b"a,b\n"])
def test_a_bad_line_in_the_middle_is_named_with_file_and_line(path, bad):
    with pytest.raises(LedgerError) as caught:
        records_of(written(path, RUN_LINE + INTENT_LINE + bad + END_LINE))
    assert str(caught.value).startswith(f"{path}:3: not JSON")


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("hole", [b"\0\0", RESULT_LINE[:30] + b"\0\0", b"\0\0" + RESULT_LINE[-30:-1] + b"\0"])
def test_zeros_that_a_power_cut_left_are_skipped_with_what_they_tore(path, hole, kept):
    content = RUN_LINE + INTENT_LINE + hole + (b"" if kept else b"\n") + END_LINE
    assert [line.record for line in reader.lines(written(path, content))] == [
        records.decode(line) for line in (RUN_LINE, INTENT_LINE, END_LINE)
    ]
    last = [*reader.lines(path)][-1]
    assert reader.line_begins_at(path, last.offset)


def test_a_line_longer_than_any_is_refused_before_it_is_held_in_memory(path):
    written(path, RUN_LINE)
    os.truncate(path, len(RUN_LINE) + reader.LONGEST_LINE + 1)
    with pytest.raises(LedgerError, match=r"nightly.ndjson:2: longer than any line"):
        records_of(path)


def test_the_longest_line_is_read(path):
    frame = b'{"type":"novel","pad":"%b"}\n'
    longest = frame % (b"x" * (reader.LONGEST_LINE - len(frame % b"")))
    assert len(longest) == reader.LONGEST_LINE
    assert len(records_of(written(path, RUN_LINE + longest + END_LINE))) == 2


@pytest.mark.parametrize(
    ("make", "out"),
    [
        (Path.mkdir, "nightly.ndjson` lists the ledgers in it"),
        (lambda path: path.symlink_to(path), "name a ledger that a run has written"),
    ],
)
def test_a_path_that_cannot_be_read_is_named_with_the_way_out(path, make, out):
    make(path)
    with pytest.raises(LedgerError) as caught:
        records_of(path)
    assert str(caught.value).startswith(f"{path}: cannot be read (")
    assert str(caught.value).endswith(out)


def test_a_torn_last_line_is_recognized(path):
    assert not reader.is_torn(written(path, b""))
    assert not reader.is_torn(written(path, RUN_LINE))
    assert reader.is_torn(written(path, RUN_LINE[:-1]))
    assert reader.is_torn(written(path, RUN_LINE + b"{"))
    assert path.read_bytes() == RUN_LINE + b"{"
