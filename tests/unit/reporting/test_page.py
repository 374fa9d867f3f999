"""The rows of the HTML page."""

import base64
import json
import os
import re
import zlib

import pytest
import trio

from batch_snapshot import paths
from batch_snapshot.clock import utc_now
from batch_snapshot.engine.limits import AccountForecast, AccountLimits
from batch_snapshot.ledger import locks, records
from batch_snapshot.models import Account, Quota, Skip, Status
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.forecast import Forecast
from batch_snapshot.ratelimit.windows import CallLog, windows
from batch_snapshot.reporting import html, report
from batch_snapshot.reporting import page as report_page
from batch_snapshot.reporting.entries import ReportEntry
from batch_snapshot.reporting.page import LedgerView, PageRows
from batch_snapshot.reporting.report import FailureMessages
from batch_snapshot.reporting.status import LedgerWatch
from tests.support.ledgers import BEGAN, RUN_ID, LedgerBuilder, row
from tests.support.processes import move_in, write_manifest
from tests.support.reports import NOW, A, B


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
    rows = PageRows(5)
    for status in ("succeeded", "failed", "unattempted", "in_doubt") * 2:
        rows.add(ReportEntry(A, status))
    assert [entry.status for entry in rows.kept] == ["failed"] * 2 + ["in_doubt"] * 2 + ["unattempted"]
    assert rows.total == 8


def test_natural_order_sorts_numbers_in_names():
    names = ["eng-2b", "eng-10a", "O9", "O10"]
    assert sorted(["O10", "O9", "eng-2b", "eng-10a"], key=html.natural_order) == names[2:] + names[:2]


def test_error_messages_are_shortened_and_safe_in_a_script_element():
    columns = report_page.columns([ReportEntry(A, "failed", code="E", message="</script>&" * 100)])
    (text,) = columns["texts"]["error"]["of"]
    assert (len(text), text[:5], text[-1]) == (html.LONGEST_MESSAGE, "E: </", "…")
    assert not set("<>&\u2028\u2029") & set(html.packed(columns))


def test_messages_that_differ_only_in_row_names_are_counted_together():
    group = FailureMessages()
    for n in range(20):
        group.add(ReportEntry(row(n), "failed", message=f"engagement {row(n).engagement} is closed"))
    assert group.messages == {"engagement ‹engagement› is closed": 20}
    for n in range(20):
        group.add(ReportEntry(row(n), "failed", message=f"trace {n * 7919}"))
    assert (len(group.messages), group.rows) == (5, 40)
    assert group.messages.total() + group.others == 40


# -- what the live page tells of a ledger while it grows


def test_view_follows_the_ledger_and_its_end(tmp_path):
    quota = {"quota": {"per_second": 3}}
    ledger = LedgerBuilder(2).begin(accounts={"main": quota}).intend(row(1), row(2)).result(row(1))
    path = ledger.write(tmp_path / "l.ndjson")
    view = LedgerView(path)
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        title, parts = view.read()
        assert title == "nightly: running, 1 of 2 rows succeeded"
        assert "in the last minute, of 3/s declared" in parts["now"]
        assert "Allowed: 180 a minute." in parts["course"]
        ledger.result(row(2), Status.FAILED, message="no access").write(path)
        title, parts = view.read()
        assert "no access" in parts["failures"]
        assert "Last error: eng-00000000000002/O2" in parts["now"]
    ledger.end().write(path)
    title, parts = view.read()
    assert title == "nightly: completed with failures, 1 of 2 rows succeeded"
    assert parts["now"].strip() == ""


def test_run_that_crashed_and_is_resumed_is_seen(tmp_path):
    ledger = LedgerBuilder(2).begin().intend(row(1)).result(row(1))
    path = ledger.write(tmp_path / "l.ndjson")
    view = LedgerView(path)
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        view.read()
    assert view.read()[0] == "nightly: crashed, 1 of 2 rows succeeded"
    ledger.begin(at=60).intend(row(2), at=60).result(row(2), at=61).end(at=62).write(path)
    title, parts = view.read()
    assert title == "nightly: completed, 2 of 2 rows succeeded"
    assert parts["invocations"].count("<tr>") == 3


def test_pause_is_seen_until_it_ends_with_the_invocation_or_before(tmp_path):
    path, seen = tmp_path / "l.ndjson", []
    view, ledger = LedgerView(path), LedgerBuilder(2).begin().intend(row(1))
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        for action in ("rate", "pause", "concurrency", "resume", "pause", None):
            if action is None:
                ledger.begin(at=60)  # the paused invocation has crashed
            else:
                ledger.lines.append(records.encode_control(RUN_ID, NOW, action, by=0))
            ledger.write(path)
            seen.append("<b>Paused</b>" in view.read()[1]["now"])
    assert seen == [False, True, True, False, True, False]


def test_rate_that_control_has_declared_is_the_allowed_one_until_the_invocation_ends(tmp_path, monkeypatch):
    move_in(monkeypatch, tmp_path)
    path, seen = tmp_path / "l.ndjson", []
    quotas = {name: {"quota": {"per_second": 3}} for name in ("main", "acme")}
    view, ledger = LedgerView(path), LedgerBuilder(3).begin(accounts=quotas).intend(row(1)).result(row(1))

    def look():
        ledger.write(path)
        parts = view.read()[1]
        return parts["now"].partition("last minute, of ")[2].partition(" ")[0], "Allowed: " in parts["course"]

    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        seen.append(look())
        odd = ({"value": "x"}, {"value": 1e999}, {"value": True}, {"value": 2, "account": ["acme"]})
        for more in ({"value": 2.5, "account": "acme"}, {"value": 10.0}, *odd):
            ledger.lines.append(records.encode_control(RUN_ID, NOW, "rate", **more))
            seen.append(look())
        ledger.begin(at=60, accounts=quotas).intend(row(2), at=60).result(row(2), at=60)
        seen.append(look())
    # No line is drawn over an invocation whose allowed rate has changed.
    changed = [("5.5/s", False), *[("20/s", False)] * 5]
    assert seen == [("6/s", True), *changed, ("6/s", True)]


def test_ledger_that_is_replaced_is_read_anew(tmp_path):
    path = LedgerBuilder(2).begin().result(row(1)).result(row(2)).end().write(tmp_path / "l.ndjson")
    view = LedgerView(path)
    assert "2 of 2" in view.read()[0]
    LedgerBuilder(1).begin().result(row(1)).end().write(tmp_path / "new").replace(path)
    assert "1 of 1" in view.read()[0]
    path.unlink()
    title, parts = view.read()
    assert title == "l.ndjson cannot be read"
    assert "there is no such file" in parts["header"]


@pytest.mark.parametrize("wait", [True, False])
def test_time_left_waits_for_spent_windows_if_the_run_does(tmp_path, monkeypatch, wait):
    """Two calls an hour, of which two are used, and three rows to go: two hours, whatever the rate."""
    move_in(monkeypatch, tmp_path)
    rows = [row(number) for number in range(4)]
    pairs = [{"engagement": each.engagement, "resource": each.resource, "account": "main"} for each in rows]
    quota = {"per_second": 1, "per_hour": 2}
    account = Account("main", quota=Quota(per_second=1, per_hour=2))
    manifest = write_manifest(tmp_path / "m.yaml", pairs, name="nightly", accounts={"main": {"quota": quota}})
    settings = {"wait": True} if wait else {}
    ledger = LedgerBuilder(4, manifest=str(manifest)).begin(
        accounts={"main": {"quota": quota}}, settings=settings
    )
    path = ledger.intend(*rows).result(rows[0], at=0.5).write(tmp_path / "l.ndjson")

    async def identified(_: str) -> str:
        return "aws/1"

    with CallLog(paths.call_log_file(tmp_path / "state")) as usage:
        limits = AccountLimits({"main": account}, "aws", usage, os.environ)
        trio.run(limits.apply, limits.new_state("main", wait=True), identified)
        for _ in range(2):
            reservation = usage.reserve("aws/1 writes", windows(account.quota))
            assert isinstance(reservation, int)
            usage.finish(reservation)
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        _, parts = LedgerView(path).read()
    assert "per hour is spent, opens" in parts["now"]
    assert "of 1/s declared" in parts["now"]
    left = parts["now"].partition("left, until")[0].rpartition("<b>")[2].partition("</b>")[0]
    assert left.startswith(("1:59", "2:00") if wait else "0:00"), left
    assert ("; 3 rows will be deferred</span>" in parts["now"]) is not wait
    ledger.end("deferred").write(path)
    assert "opens 20" in LedgerView(path).read()[1]["quotas"], "the next run waits for them"
    ledger.begin(at=60, accounts={"main": {"quota": quota}}).end(at=61).write(path)
    assert "opens 20" not in LedgerView(path).read()[1]["quotas"]


def test_rate_of_the_last_minute_is_not_shown_above_a_learned_one(tmp_path, monkeypatch):
    """A pace that has learned half a call a second probes above it."""
    move_in(monkeypatch, tmp_path)
    ages = [(utc_now() - BEGAN).total_seconds() - age for age in (30, 20, 10)]
    ledger = LedgerBuilder(99).begin(accounts={"main": {}}, at=ages[0])
    ledger.intend(*map(row, range(40)), at=ages[0])
    for number in range(40):
        ledger.result(row(number), at=ages[1 + number % 2])
    path = ledger.write(tmp_path / "l.ndjson")

    async def identified(_: str) -> str:
        return "aws/1"

    async def learn(limits: AccountLimits) -> None:
        state = limits.new_state("main", wait=True)
        await limits.apply(state, identified)
        state.pacer.change(lambda _: pace.learned(0.5, state.pacer.now()))

    with CallLog(paths.call_log_file(tmp_path / "state")) as usage:
        trio.run(learn, AccountLimits({"main": Account("main")}, "aws", usage, os.environ))
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        _, parts = LedgerView(path).read()
    shown = re.search(r"<b>([\d.]+)/s</b>.*, of ([\d.]+)/s learned", parts["now"])
    assert shown
    assert float(shown[2]) >= float(shown[1]) > 1
    assert "Allowed: 30 a minute." in parts["course"], "the chart has the learned rate"


def test_secrets_of_messages_are_not_shown(tmp_path):
    secret = "AKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    message = f"https://user:hunter2@example.com/?X-Amz-Signature=abcdef0123456789 {secret}"
    ledger = LedgerBuilder(2).begin().intend(row(1), row(2)).result(row(1), Status.FAILED, message=message)
    path = ledger.write(tmp_path / "l.ndjson")
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        _, parts = LedgerView(path).read()
    assert "hunter2" not in "".join(parts.values())


def test_many_spent_windows_are_counted(tmp_path):
    ledger = LedgerBuilder(1).begin(accounts={}).intend(row(1)).result(row(1))
    path = ledger.write(tmp_path / "l.ndjson")
    watch = LedgerWatch(path)
    watch.refresh()
    hour = windows(Quota(per_hour=5))
    known = AccountForecast(Forecast((), 60.0), 1.0, "declared", hour, (5,), (60.0,))
    room = AccountForecast(Forecast((), 0.0), 1.0, "declared", hour, (1,), (0.0,))
    data = report.ReportData(watch, watch.summary())
    data.forecasts = {"open": room, **{f"a{number}": known for number in range(30)}}
    data.frame = watch.frame()
    parts = report_page.sections(data, NOW)
    assert parts["now"].count("is spent, opens 2026-03-02 00:01 UTC") == 6
    assert "<b>24</b> <span>more windows are spent" in parts["now"]
    assert parts["quotas"].count("<tr>") == 21
    assert "the fullest of 31 windows" in parts["quotas"]
