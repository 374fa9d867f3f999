"""Damaged files: each whole record is found, and each place where something else stood is a gap."""

import pytest

from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger import records, repair
from batch_snapshot.models import Status
from tests.support.ledgers import LedgerBuilder, row

RUN, INTENT, RESULT, END = (
    LedgerBuilder(rows=1).begin().intend(row(1)).result(row(1), Status.SUCCEEDED).end().lines
)


def found(path, content: bytes) -> list[bytes]:
    path.write_bytes(content)
    return [fragment.raw for fragment in repair.fragments(path)]


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (RUN + INTENT + RESULT + END, [RUN, INTENT, RESULT, END]),
        (RUN + INTENT[:40] + RESULT, [RUN, b"", RESULT]),
        (RUN + INTENT[:-1] + RESULT, [RUN, INTENT, RESULT]),
        (RUN + RESULT[:-1] + b"x\n" + END, [RUN, RESULT, b"", END]),
        (RUN + b"\0\0\n" + END, [RUN, b"", END]),
        (RUN + b" \r\n" + END, [RUN, END]),
        (RUN + b"[]\n" + END, [RUN, b"", END]),
        (RUN + END[:-1], [RUN, END]),
        (RUN + END[:20], [RUN, b""]),
        (RUN + END[:20] + b"\0", [RUN, b""]),
        (RUN + b"no ledger", [RUN, b""]),
        (b"\xef\xbb\xbf" + RUN, [RUN]),
        (b"", []),
    ],
)  # fmt: skip
def test_whole_records_and_gaps_are_found_in_order(tmp_path, content, fragments):
    assert found(tmp_path / "l.ndjson", content) == fragments


def test_a_record_of_a_later_schema_is_refused_with_its_line(tmp_path):
    path = tmp_path / "l.ndjson"
    with pytest.raises(LedgerError, match=r"l.ndjson:2: schema 2 is not 1"):
        found(path, RUN + RUN.replace(b'"schema":1', b'"schema":2'))


def test_the_first_header_is_of_the_run_that_most_lines_belong_to(tmp_path):
    path = tmp_path / "l.ndjson"
    path.write_bytes(RUN.replace(b'"run_id":"', b'"run_id":"x') + RUN + RESULT + END)
    assert repair.first_header(path) == records.decode(RUN)


def test_the_first_header_gets_the_run_id_of_most_lines(tmp_path):
    path = tmp_path / "l.ndjson"
    path.write_bytes(RUN.replace(b'"run_id":"', b'"run_id":"x') + RESULT + END)
    assert repair.first_header(path) == records.decode(RUN)
