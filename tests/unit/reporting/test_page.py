"""The rows of the HTML page."""

import base64
import json
import zlib

from batch_snapshot.ledger import records
from batch_snapshot.models import Skip
from batch_snapshot.reporting import html, report
from batch_snapshot.reporting import page as report_page
from batch_snapshot.reporting.entries import ReportEntry
from batch_snapshot.reporting.page import PageRows
from batch_snapshot.reporting.report import FailureMessages
from tests.support.ledgers import BEGAN, LedgerBuilder, row
from tests.support.reports import NOW, A, B, C, D


def test_page_shows_rows_that_were_left_out(tmp_path):
    ledger = LedgerBuilder(2).begin()
    ledger.lines.append(records.encode_skip("night-1", BEGAN, Skip.UNCHANGED, [A]))
    data = report.load(ledger.intend(B).result(B).end().write(tmp_path / "l.ndjson"))
    report_page.write(data, tmp_path / "page.html", NOW)
    page = (tmp_path / "page.html").read_text("utf-8")
    found = json.loads(zlib.decompress(base64.b64decode(page.partition('id="data">')[2].partition("<")[0])))
    assert [found["statuses"][at] for at in found["numbers"]["status"]] == ["succeeded", "unchanged"]


def test_page_says_how_many_rows_it_lists_without_javascript(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "PLAIN_ROWS", 1)
    data = report.load(LedgerBuilder(3).begin().intend(A, B).result(A).end("deferred").write(tmp_path / "l"))
    report_page.write(data, tmp_path / "page.html", NOW)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "Without JavaScript this lists the first 1 of 2 rows that did not succeed." in page


def test_page_keeps_rows_that_did_not_succeed_first():
    found = [
        ReportEntry(A, "succeeded"),
        ReportEntry(B, "failed"),
        ReportEntry(C, "unattempted"),
        ReportEntry(D, "in_doubt"),
    ] * 2
    rows = PageRows(5)
    for entry in found:
        rows.add(entry)
    assert [entry.status for entry in rows.kept] == [
        "failed",
        "failed",
        "in_doubt",
        "in_doubt",
        "unattempted",
    ]
    assert rows.total == 8


def test_natural_order_sorts_numbers_in_names():
    assert sorted(["O10", "O9", "eng-2b", "eng-10a"], key=html.natural_order) == [
        "O9",
        "O10",
        "eng-2b",
        "eng-10a",
    ]


def test_page_data_is_safe_in_a_script_element():
    assert not set("<>&\u2028\u2029") & set(
        html.packed(report_page.columns([ReportEntry(A, "failed", message="</script>&")]))
    )


def test_error_messages_are_shortened():
    (text,) = report_page.columns([ReportEntry(A, "failed", code="E", message="x" * 1000)])["texts"]["error"][
        "of"
    ]
    assert (len(text), text[:4], text[-1]) == (html.LONGEST_MESSAGE, "E: x", "…")


def test_messages_that_differ_only_in_row_names_are_counted_together():
    group = FailureMessages()
    for n in range(20):
        group.add(ReportEntry(row(n), "failed", message=f"engagement {row(n).engagement} is closed"))
    assert group.messages == {"engagement ‹engagement› is closed": 20}
    for n in range(20):
        group.add(ReportEntry(row(n), "failed", message=f"trace {n * 7919}"))
    assert (len(group.messages), group.rows) == (5, 40)
    assert group.messages.total() + group.others == 40
