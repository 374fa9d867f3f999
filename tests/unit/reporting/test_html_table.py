"""The rows of the HTML page."""

import json

from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.ledger import codec
from batch_snapshot.models import Skip
from batch_snapshot.reporting import html, html_table, report
from batch_snapshot.reporting.entries import ReportEntry
from batch_snapshot.reporting.html_table import FailureMessages, PageRows
from tests.support.ledgers import BEGAN, LedgerBuilder, row
from tests.support.reports import NOW, A, B, C, D, names
from tests.support.strategies import patient


def test_page_shows_rows_that_were_left_out(tmp_path):
    ledger = LedgerBuilder(2).begin()
    ledger.lines.append(codec.encode_skip("night-1", BEGAN, Skip.UNCHANGED, [A]))
    data = report.load(ledger.intend(B).result(B).end().write(tmp_path / "l.ndjson"))
    report.write_html(data, tmp_path / "page.html", NOW)
    page = (tmp_path / "page.html").read_text("utf-8")
    found = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [found["statuses"][at] for at in found["numbers"]["status"]] == ["succeeded", "unchanged"]


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
    assert sorted(["O10", "O9", "eng-2b", "eng-10a"], key=html_table.natural_order) == [
        "O9",
        "O10",
        "eng-2b",
        "eng-10a",
    ]


@given(names, names, st.integers(0, 12), names.map(lambda tail: f"arn:{tail}"), st.booleans())
@patient
def test_arn_is_restored_from_its_pattern(engagement, resource, revision, arn, natural):
    if natural:
        arn = f"arn:aws:x/{engagement}/{resource}/snapshot/{revision}"
    entry = ReportEntry(
        row(1, engagement=engagement, resource=resource), "succeeded", arn=arn, revision=revision
    )
    shape = html_table.columns([entry])["texts"]["arn"]["of"][0]
    assert html_table.fill_arn(shape, (engagement, resource, f"/{revision}")) == arn


def test_arns_of_all_rows_share_one_pattern():
    made = [
        ReportEntry(each, "succeeded", arn=f"arn/{each.engagement}/{each.resource}/1", revision=1)
        for each in map(row, range(50))
    ]
    assert len(html_table.columns(made)["texts"]["arn"]["of"]) == 1


def test_long_messages_are_cut():
    long = [ReportEntry(row(n), "failed", code="E", message=f"{n} " + "x" * 1000) for n in range(30_000)]
    texts = html_table.columns(long)["texts"]["error"]["of"]
    assert sum(map(len, texts)) < 8_500_000
    assert all(text.endswith("…") for text in texts)


@given(st.text() | st.sampled_from(["</script>", "<!--", "\u2028", "&lt;", "]]>"]))
@patient
def test_page_data_is_safe_in_a_script_element(text):
    data = html.as_data({"x": [text, {text: 1}]})
    assert json.loads(data) == {"x": [text, {text: 1}]}
    assert not set("<>&\u2028\u2029") & set(data)


def test_messages_that_differ_only_in_row_names_are_counted_together():
    group = FailureMessages()
    for n in range(20):
        group.add(ReportEntry(row(n), "failed", message=f"engagement {row(n).engagement} is closed"))
    assert group.messages == {"engagement ‹engagement› is closed": 20}
    for n in range(20):
        group.add(ReportEntry(row(n), "failed", message=f"trace {n * 7919}"))
    assert (len(group.messages), group.rows) == (5, 40)
    assert group.messages.total() + group.others == 40
