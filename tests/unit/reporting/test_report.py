"""What is handed out about a ledger, but for what a browser makes of it (`test_html`)."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot import manifest, paths
from batch_snapshot.errors import InputError, LedgerError, ManifestError
from batch_snapshot.ledger import codec, history, locks, reader
from batch_snapshot.models import ErrorKind, Skip, Status
from batch_snapshot.reporting import charts, entries, html, html_table, report
from batch_snapshot.reporting.csv import COLUMNS, escape_formula
from batch_snapshot.reporting.entries import ReportEntry, settled
from batch_snapshot.reporting.html_table import FailureMessages, PageRows
from batch_snapshot.reporting.stats import LedgerStats, percentile
from tests.support import rewriting
from tests.support.ledgers import BEGAN, LedgerBuilder, row
from tests.support.processes import pairs, write_manifest
from tests.support.strategies import patient, some_of

NOW = datetime(2026, 3, 2, tzinfo=UTC)
A, B, C, D = (row(number) for number in range(1, 5))


def rows_of(folder, name):
    with (folder / f"{name}.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def written(tmp_path, book, **manifest_path):
    material = report.load(book.write(tmp_path / "l.ndjson"), **manifest_path)
    folder = tmp_path / "csv"
    numbers = report.write_csv(material, folder)
    there = [name for name in COLUMNS if (folder / f"{name}.csv").exists()]
    found = {name: rows_of(folder, name) for name in there}
    assert numbers == {name: len(rows) for name, rows in found.items()}
    return material, found


# ---- one entry a row


def read(tmp_path, book):
    path = book.write(tmp_path / "l.ndjson")
    stats = LedgerStats()
    for line in reader.lines(path, whole=True):
        stats.add(line)
    stats.mark_crashed()
    return stats, list(settled(reader.lines(path, whole=True), stats.history, stats.repeated))


def test_last_result_of_a_row_counts(tmp_path):
    book = LedgerBuilder(3).begin().intend(A, B, C)
    book.result(A, Status.FAILED).result(B, Status.FAILED, code="first").result(C, Status.IN_DOUBT)
    book.end().begin("retry").intend(A, B, C)
    book.result(A).result(B, Status.FAILED, code="second").result(C, Status.FAILED, code="third").end()
    _, found = read(tmp_path, book)
    assert [(entry.row, entry.status, entry.code) for entry in found] == [
        (A, "succeeded", ""),
        (B, "failed", "second"),
        (C, "failed", "third"),
    ]


def test_last_of_two_successes_is_reported(tmp_path):
    book = LedgerBuilder(1).begin().result(A, revision=1).result(A, revision=2).end()
    _, found = read(tmp_path, book)
    assert [entry.revision for entry in found] == [2]


def test_row_that_failed_between_two_successes_is_reported_once(tmp_path):
    book = LedgerBuilder(1).begin().result(A, revision=1).result(A, Status.FAILED).result(A, revision=3).end()
    _, found = read(tmp_path, book)
    assert [(entry.status, entry.revision) for entry in found] == [("succeeded", 3)]


def test_rows_in_doubt_after_a_crash_and_unsent_rows_are_reported(tmp_path):
    book = LedgerBuilder(3).begin().intend(A, B).result(A).end("interrupted").begin().intend(C)
    _, found = read(tmp_path, book)
    assert [(entry.row, entry.status, entry.code) for entry in found] == [
        (B, "unattempted", ""),
        (A, "succeeded", ""),
        (C, "in_doubt", history.CRASHED),
    ]


def test_invalid_fields_are_left_out(tmp_path):
    book = LedgerBuilder(1).begin().result(A, Status.FAILED)
    line = json.loads(book.lines[-1])
    odd = {"attempts": -3, "throttles": "many", "finished_at": "soon", "request_id": 7, "novel": {}}
    line |= odd
    line["error"] |= {"reason": ["x"], "http_status": "400"}
    book.lines[-1] = orjson.dumps(line) + b"\n"
    _, (entry,) = read(tmp_path, book)
    assert (entry.attempts, entry.throttles, entry.finished_at, entry.seconds) == (0, 0, None, None)
    assert (entry.request_id, entry.reason, entry.http_status) == (None, "", None)


statuses = st.sampled_from(Status)


POOL = [row(number, ("main", "acme")[number % 2]) for number in range(6)]
some_rows = some_of(POOL)


@st.composite
def books(draw):
    """A ledger of a few rows, over invocations that end or crash."""
    book = LedgerBuilder(len(POOL))
    for number in range(draw(st.integers(1, 4))):
        book.begin(at=number * 100)
        named = draw(some_rows)
        book.intend(*named)
        told = draw(st.integers(0, len(named)))
        for each in named[:told]:
            book.result(each, draw(statuses), at=number * 100 + draw(st.integers(1, 50)))
        if draw(st.booleans()):
            book.end(at=number * 100 + 60)
    return book


@given(books())
@patient
def test_entries_and_stats_agree_with_the_history(tmp_path_factory, book):
    folder = tmp_path_factory.getbasetemp()
    stats, found = read(folder, book)
    past = history.fold(reader.lines(folder / "l.ndjson"))
    assert Counter(entry.status for entry in found if entry.status != entries.UNATTEMPTED) == +past.counts()
    assert (stats.rows.statuses, stats.rows.failures) == (past.counts(), past.failures())
    assert len({entry.row for entry in found}) == len(found)
    rows = PageRows()
    for entry in found:
        rows.add(entry)
    assert {group: made.rows for group, made in rows.groups.items()} == past.failures()
    for name, counts in stats.accounts.items():
        assert counts.statuses == Counter({status: rows.accounts[name][status] for status in Status})


@given(books(), st.data())
@patient
def test_stats_of_a_ledger_read_in_pieces_are_the_same(tmp_path_factory, book, data):
    path = book.write(tmp_path_factory.getbasetemp() / "pieces.ndjson")
    content = path.read_bytes()
    whole, pieces = LedgerStats(), LedgerStats()
    for line in reader.lines(path, whole=True):
        whole.add(line)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=4)))
    for cut in [*cuts, len(content)]:
        rewriting.write(path, content[:cut])
        for line in reader.lines(path, after=pieces.line, whole=True):
            pieces.add(line)
    assert pieces.line == whole.line
    assert pieces.accounts == whole.accounts
    assert pieces.rows == whole.rows


def test_present_rate_of_a_ledger_is_that_of_the_last_minute(tmp_path):
    book = LedgerBuilder(200).begin()
    for second in range(120):
        book.result(row(second, ("main", "acme")[second % 2]), at=second + 1, throttles=1)
    stats = LedgerStats()
    for line in reader.lines(book.write(tmp_path / "l.ndjson"), whole=True):
        stats.add(line)
    now = BEGAN.replace(minute=2)
    assert stats.rate(now) == pytest.approx(2, abs=0.05)
    assert stats.rate(now, "acme") == pytest.approx(1, abs=0.05)
    assert stats.rate(now.replace(minute=10)) == 0
    assert LedgerStats().rate(now) == 0


# ---- tables


def test_csv_has_each_row_in_the_file_of_its_status(tmp_path):
    listed = write_manifest(tmp_path / "trial.yaml", pairs(5), name="nightly")
    ours = [
        row(n, "default", engagement=pair["engagement"], resource=pair["resource"])
        for n, pair in enumerate(pairs(5))
    ]
    book = LedgerBuilder(5, manifest=str(listed)).begin().intend(*ours[:3])
    book.result(ours[0]).result(ours[1], Status.FAILED, message="no, no").result(
        ours[2], Status.IN_DOUBT
    ).end()
    _, found = written(tmp_path, book)
    assert [line["resource"] for line in found["succeeded"]] == ["O1"]
    assert found["succeeded"][0]["arn"].startswith("arn:aws:partnercentral:")
    assert [(line["resource"], line["status"], line["message"]) for line in found["failed"]] == [
        ("O2", "failed", "no, no"),
        ("O3", "in_doubt", "not authorized"),
    ]
    assert [line["resource"] for line in found["unprocessed"]] == ["O4", "O5"]
    rest = {"version": 1, "name": "rest", "defaults": {"catalog": "AWS"}, "include": ["csv/unprocessed.csv"]}
    (tmp_path / "rest.yaml").write_text(json.dumps(rest), "utf-8")
    left = manifest.load(tmp_path / "rest.yaml")
    assert list(manifest.rows(left)) == ours[3:], "a manifest can include what is left"


def test_csv_has_left_out_rows_in_a_file_of_their_own(tmp_path):
    listed = write_manifest(tmp_path / "trial.yaml", pairs(3), name="nightly")
    ours = list(manifest.rows(manifest.load(listed)))
    book = LedgerBuilder(3, manifest=str(listed)).begin()
    book.lines.append(codec.encode_skip("night-1", BEGAN, Skip.UNCHANGED, ours[:1]))
    book.intend(*ours[1:2]).result(ours[1]).end()
    _, found = written(tmp_path, book)
    assert [(line["resource"], line["status"]) for line in found["left_out"]] == [("O1", "unchanged")]
    assert [line["resource"] for line in found["unprocessed"]] == ["O3"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "＝", "\u00a0-"])
def test_csv_escapes_formulas(tmp_path, start):
    text = f'{start}HYPERLINK("http://x")'
    book = LedgerBuilder(1).begin().result(A, Status.FAILED, code=text, message=text, request_id=text).end()
    _, found = written(tmp_path, book)
    (line,) = found["failed"]
    assert line["code"] == line["message"] == line["request_id"] == f"'{text}"


@given(st.text())
@patient
def test_escape_formula_changes_only_formulas(text):
    cell = escape_formula(text)
    assert cell.removeprefix("'") == text.removeprefix("'")
    assert not cell.strip(" \u00a0\u3000").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert escape_formula("O123 = 4") == "O123 = 4"


# ---- what is missing is said


def test_note_counts_rows_that_only_a_missing_manifest_names(tmp_path):
    book = (
        LedgerBuilder(9, manifest=str(tmp_path / "gone.yaml")).begin().intend(A, B).result(A).end("deferred")
    )
    material, found = written(tmp_path, book)
    (note,) = material.notes
    assert "7 unprocessed rows" in note
    assert "gone.yaml" in note
    assert "--manifest" in note
    assert [line["resource"] for line in found["unprocessed"]] == ["O2"], "the ledger alone names it"


def test_complete_report_has_no_notes(tmp_path):
    material, _ = written(tmp_path, LedgerBuilder(1).begin().result(A).end())
    assert material.notes == []


def test_manifest_of_another_ledger_and_invalid_manifest_are_refused(tmp_path):
    path = LedgerBuilder(1).begin().result(A).end().write(tmp_path / "l.ndjson")
    other = write_manifest(tmp_path / "other.yaml", pairs(1), name="other")
    with pytest.raises(
        InputError, match=r"other\.yaml: is manifest 'other', but the ledger belongs to 'nightly'"
    ):
        report.load(path, other)
    (tmp_path / "broken.yaml").write_text("version: 2", "utf-8")
    with pytest.raises(ManifestError):
        report.load(path, tmp_path / "broken.yaml")


def test_notes_name_a_changed_manifest_and_a_running_run(tmp_path):
    listed = write_manifest(tmp_path / "trial.yaml", pairs(1), name="nightly")
    path = LedgerBuilder(1, manifest=str(listed)).begin().intend(A).write(tmp_path / "l.ndjson")
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        material = report.load(path)
    assert [note.split()[0] for note in material.notes] == ["A", "The"]
    assert material.stats.invocations[-1].outcome == "running"
    assert material.stats.history.counts()[Status.IN_DOUBT] == 0


@pytest.mark.parametrize("content", [None, b"", b'{"type":"ru', b'{"type":"result"}\n', b"\xff\n"])
def test_report_of_a_file_that_is_no_ledger_is_refused(tmp_path, content):
    path = tmp_path / "l.ndjson"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"l\.ndjson"):
        report.load(path)


# ---- files


def test_report_is_written_atomically_and_never_over_its_sources(tmp_path):
    listed = write_manifest(tmp_path / "trial.yaml", pairs(1), name="nightly")
    path = LedgerBuilder(1, manifest=str(listed)).begin().result(A).end().write(tmp_path / "l.ndjson")
    material = report.load(path)
    target = tmp_path / "page.html"
    target.write_text("before", "utf-8")
    report.write_html(material, target, NOW)
    assert target.read_text("utf-8").startswith("<!DOCTYPE html>")
    before = path.read_bytes(), listed.read_bytes()
    (tmp_path / "link").symlink_to(path)
    for ours in (path, listed, tmp_path / "link"):
        with pytest.raises(InputError, match="what the report is made from"):
            report.write_html(material, ours, NOW)
    assert (path.read_bytes(), listed.read_bytes()) == before
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["l.ndjson", "link", "page.html", "trial.yaml"], "nothing else is left behind"


def test_failed_report_keeps_the_file_that_was_there(tmp_path):
    path = LedgerBuilder(1).begin().result(A).end().write(tmp_path / "l.ndjson")
    material = report.load(path)
    (tmp_path / "succeeded.csv").write_text("before", "utf-8")
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(LedgerError, match="not an object with a type"):
        report.write_csv(material, tmp_path)
    assert (tmp_path / "succeeded.csv").read_text("utf-8") == "before"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["l.ndjson", "succeeded.csv"]


@pytest.mark.parametrize("target", ["nowhere/page.html", "l.ndjson/page.html", "."])
def test_report_error_names_a_path_that_cannot_be_written(tmp_path, target):
    material = report.load(LedgerBuilder(1).begin().result(A).end().write(tmp_path / "l.ndjson"))
    with pytest.raises(InputError) as caught:
        report.write_html(material, tmp_path / target, NOW)
    assert str(caught.value).startswith(str(tmp_path / target))
    with pytest.raises(InputError, match="--csv"):
        report.write_csv(material, tmp_path / "l.ndjson" / "csv")


# ---- the page's table


def test_page_shows_rows_that_were_left_out(tmp_path):
    book = LedgerBuilder(2).begin()
    book.lines.append(codec.encode_skip("night-1", BEGAN, Skip.UNCHANGED, [A]))
    data = report.load(book.intend(B).result(B).end().write(tmp_path / "l.ndjson"))
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


names = st.text(st.sampled_from("aO1/\x01-"), max_size=5)


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


# ---- groups, percentiles, drawings


def test_messages_that_differ_only_in_row_names_are_counted_together():
    group = FailureMessages()
    for n in range(20):
        group.add(ReportEntry(row(n), "failed", message=f"engagement {row(n).engagement} is closed"))
    assert group.messages == {"engagement ‹engagement› is closed": 20}
    for n in range(20):
        group.add(ReportEntry(row(n), "failed", message=f"trace {n * 7919}"))
    assert (len(group.messages), group.rows) == (5, 40)
    assert group.messages.total() + group.others == 40


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.001, 1))
@patient
def test_percentile_covers_its_share_of_values(values, share):
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-6


@given(books())
@patient
def test_chart_over_time_has_every_result_once_within_its_size(tmp_path_factory, book):
    stats, _ = read(tmp_path_factory.getbasetemp(), book)
    drawn = charts.over_time(stats.invocations)
    results = sum(invocation.results for invocation in stats.invocations)
    if not results:
        assert drawn == []
        return
    assert sum(int(cell) for line in drawn[0].rows for cell in line[1:]) == results
    assert len(drawn[0].rows) <= charts.BARS + len(stats.invocations)
    for chart in [*drawn, charts.attempts(stats.attempts), charts.latency(stats.latencies)]:
        for bar in chart.bars if chart else ():
            for piece in bar.pieces:
                assert piece.x >= charts.LEFT - 0.01
                assert piece.x + piece.width <= charts.WIDTH
                assert piece.y >= charts.TOP - len(bar.pieces)
                assert piece.y + piece.height <= charts.HEIGHT - charts.BOTTOM + 0.01


def test_chart_has_as_many_bars_for_a_minute_as_for_a_month(tmp_path):
    for seconds in (30, 3_000, 300_000, 3_000_000):
        book = LedgerBuilder().begin()
        stats = LedgerStats()
        for share in range(200):
            book.result(row(share), at=seconds * share / 200)
        for line in reader.lines(book.write(tmp_path / "l.ndjson"), whole=True):
            stats.add(line)
        step, found = charts.buckets(stats.invocations)
        assert 25 <= len(found) <= charts.BARS + 1, step


def test_no_chart_without_values():
    assert charts.latency([]) is None
    assert charts.attempts(Counter()) is None
    drawn = charts.attempts(Counter({0: 1, 1: 5, 12: 2}))
    assert drawn
    assert [bar.title for bar in drawn.bars] == [
        "no try, but a look: 1",
        "1 try: 5",
        "9 or more tries: 2",
    ]


def test_latency_counts_only_rows_with_one_unthrottled_call(tmp_path):
    book = LedgerBuilder(5).begin().result(A, took=0.25).result(B, throttles=1).result(C, attempts=2)
    book.result(D, reconciled=True).result(row(9), first_sent_at=BEGAN.replace(year=2025))
    book.result(row(10), Status.FAILED, took=0.5, kind=ErrorKind.INVALID).end()
    stats, _ = read(tmp_path, book)
    assert list(stats.latencies) == [0.25, 0.5]
