"""The report's page in a real browser: it renders, filters, sorts, prints, and loads nothing."""

import csv
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from batch_snapshot.models import ErrorKind, Status
from batch_snapshot.reporting import page as report_page
from batch_snapshot.reporting import report
from tests.support import browser
from tests.support.browser import OpenPage
from tests.support.ledgers import BEGAN, LedgerBuilder, row
from tests.support.processes import pairs, write_manifest

NOW = datetime(2026, 3, 2, tzinfo=UTC)
EVIL = "<script>alert(1)</script>\u2028</script><img src=x onerror=alert(2)>{{ 7 * 7 }}&amp;"


@pytest.fixture(scope="module")
def chromium():
    with browser.started() as found:
        yield found


def made(ledger: Path, manifest: Path | None = None) -> Path:
    page = ledger.with_suffix(".html")
    report_page.write(report.load(ledger, manifest), page, NOW)
    return page


@contextmanager
def opened(chromium: Browser, file: Path) -> Iterator[OpenPage]:
    """The page; in the end it has complained of nothing and asked for nothing."""
    page = OpenPage(chromium)
    page.open(file)
    page.page.wait_for_selector("#table-of-rows", state="visible")
    yield page
    assert page.complaints == []
    assert page.requests == [file.as_uri()]


def cells(page: OpenPage) -> list[list[str]]:
    """Those of the rows that are shown."""
    shown_rows: list[list[str]] = page.js(
        "[...document.querySelectorAll('#body tr')].map(tr => [...tr.cells].map(td => td.textContent))"
    )
    return shown_rows


def shown(page: OpenPage, column: int) -> list[str]:
    """One column of the rows that are shown."""
    return [row[column] for row in cells(page)]


def heads(page: OpenPage) -> list[str]:
    return list(page.js("[...document.querySelectorAll('#head th')].map(th => th.textContent)"))


def type_in(page: OpenPage, field: str, text: str) -> None:
    """Change a field as a person would, and wait until that was drawn."""
    page.js(
        f"(() => {{ const at = document.getElementById({json.dumps(field)}); at.value = {json.dumps(text)};"
        "at.dispatchEvent(new Event(at.tagName === 'SELECT' ? 'change' : 'input', { bubbles: true }));"
        "return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))) })()"
    )


def text(page: OpenPage, selector: str) -> str:
    return str(page.js(f"document.querySelector({json.dumps(selector)}).textContent.trim()"))


def varied(path: Path) -> Path:
    """250 rows in two accounts and every state, over two invocations, of a manifest that is there."""
    names = pairs(250)
    for number, pair in enumerate(names):
        pair["account"] = ("main", "acme")[number % 2]
    manifest = write_manifest(
        path / "trial.yaml", names, accounts={"main": {"profile": "p"}, "acme": {"profile": "q"}}
    )
    quota = {"quota": {"per_second": 5.0, "per_day": 1000}}
    ledger = LedgerBuilder(250, manifest=str(manifest), name="trial")
    ledger.begin(accounts={"main": quota, "acme": quota}, manifest_sha256="c0ffee" * 8)
    rows = [
        row(n, pair["account"], engagement=pair["engagement"], resource=pair["resource"])
        for n, pair in enumerate(names)
    ]
    for number, each in enumerate(rows[:200]):
        ledger.result(each, at=number / 4, took=0.05 + number / 1000, throttles=int(number % 25 == 0))
    for number, each in enumerate(rows[200:230]):
        ledger.result(each, Status.FAILED, at=60 + number, message=f"{each.engagement} may not {EVIL}")
    both = {"main": quota, "acme": quota}
    ledger.end(at=100).begin("retry", at=90_000, accounts=both, manifest_sha256="c0ffee" * 8)
    for number, each in enumerate(rows[230:240]):
        ledger.result(
            each,
            Status.IN_DOUBT,
            at=90_000 + number,
            kind=ErrorKind.TRANSIENT,
            code="ReadTimeout",
            attempts=8,
        )
    return ledger.end(at=90_100).write(path / "trial.ndjson")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    return made(varied(tmp_path_factory.mktemp("html")))


@pytest.fixture
def page(page_file, chromium):
    with opened(chromium, page_file) as found:
        yield found


def test_page_shows_outcome_failures_charts_and_rows(page):
    tiles = page.js("[...document.querySelectorAll('.tile')].map(li => li.innerText.split('\\n'))")
    assert tiles[:5] == [
        ["250", "rows in all"],
        ["200", "succeeded, 80.0\u00a0%"],
        ["30", "failed, 12.0\u00a0%"],
        ["10", "in doubt, 4.0\u00a0%"],
        ["10", "unattempted, 4.0\u00a0%"],
    ]
    assert tiles[5] == ["318", "calls, 8 throttled (2.5\u00a0%)"]
    ids = page.js("[...document.querySelectorAll('figure')].map(each => each.id)")
    assert ids == ["failing", "throughput", "throttles", "latency", "attempts", "calendar"]
    assert page.js("document.querySelectorAll('#throughput rect.failed').length") >= 1
    assert page.js("document.querySelectorAll('#throughput .border').length") == 1
    assert text(page, "#count") == "250 rows"
    assert text(page, "#place") == "Rows 1 to 100, page 1 of 3"
    assert shown(page, 0) == ["failed"] * 30 + ["in doubt"] * 10 + ["unattempted"] * 10 + ["succeeded"] * 50
    page.js("document.getElementById('last').click()")
    assert len(cells(page)) == 50
    assert page.js("document.getElementById('next').disabled")


def test_markup_in_values_is_shown_as_text(tmp_path, chromium):
    ledger = LedgerBuilder(2, name="trial").begin(endpoint=EVIL).result(row(1, account=EVIL), arn=EVIL)
    ledger.result(row(2, account="+1"), Status.FAILED, message=EVIL, code=EVIL, request_id=EVIL).end()
    with opened(chromium, made(ledger.write(tmp_path / "trial.ndjson"))) as page:
        assert page.js("document.querySelectorAll('img').length") == 0
        assert page.js("document.scripts.length") == 2
        assert EVIL in text(page, ".group .messages")
        failed, done = cells(page)
        assert EVIL in failed[-1]
        assert done[1] == done[-1] == EVIL
        # Nothing but the page's own script may run, and nothing may be asked for.
        page.js("document.body.insertAdjacentHTML('beforeend', '<img src=https://127.0.0.1:9/x>')")
        assert any("Content Security Policy" in complaint for complaint in page.complaints)
        page.complaints.clear()
        page.requests[1:] = []


def test_page_filters_rows_and_searches_failures(page):
    type_in(page, "search", "O201")
    assert shown(page, 3) == ["O201"]
    assert text(page, "#count") == "1 of 250 rows"
    type_in(page, "search", "MAY not  accessdenied")
    assert text(page, "#count") == "30 of 250 rows"
    type_in(page, "account", "0")
    assert text(page, "#count") == "15 of 250 rows"
    assert set(shown(page, 1)) == {"acme"}
    type_in(page, "search", "no such thing")
    assert (cells(page), text(page, "#place")) == ([], "No row matches")
    page.js("document.getElementById('clear').click()")
    assert text(page, "#count") == "250 rows"
    arn = "arn:aws:partnercentral:us-east-1::catalog/Sandbox/engagement/eng-00000000000007"
    type_in(page, "search", arn)
    assert shown(page, 3) == ["O8"]
    type_in(page, "group-search", "timeout")
    assert text(page, "#group-count") == "1 of 2 groups"
    assert page.js("[...document.querySelectorAll('.group')].map(each => each.hidden)") == [True, False]
    page.js("document.querySelectorAll('button.show')[1].click()")
    assert text(page, "#count") == "10 of 250 rows"
    assert set(shown(page, 0)) == {"in doubt"}


def test_page_sorts_rows_with_the_keyboard(page):
    resource = (heads(page)).index("Resource")
    page.js("document.querySelector('th[data-name=resource] button').focus()")
    page.key("Enter")
    assert (shown(page, resource))[:11] == [f"O{n}" for n in range(1, 12)]
    assert page.js("document.querySelector('th[data-name=resource]').ariaSort") == "ascending"
    page.key("Enter")
    assert (shown(page, resource))[0] == "O250"
    assert page.js("document.querySelector('th[data-name=resource]').ariaSort") == "descending"
    page.key("Tab")
    assert page.js("document.activeElement.parentElement.dataset.name") == "revision"
    assert page.js("document.querySelector('th[data-name=status]').ariaSort") == "none"


CONTRAST = """(() => {
  const linear = (v) => v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const rgb = (text) => text.match(/[\\d.]+/g).map((n) => Number(n) * (text.startsWith('color(') ? 255 : 1));
  const back = (at) => {
    for (; at; at = at.parentElement) {
      const c = rgb(getComputedStyle(at).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const at of document.body.querySelectorAll('*')) {
    if (![...at.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !at.checkVisibility()
      || at.closest('script, style') || at.disabled) continue;
    const svg = at.namespaceURI.endsWith('svg');
    if (svg && at.localName !== 'text') continue;
    const [a, b] = [light(rgb(getComputedStyle(at)[svg ? 'fill' : 'color']).slice(0, 3)), light(back(at))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(`${at.localName}.${at.className}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(bad)];
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_sufficient_in_light_and_dark_mode(scheme, page):
    page.page.emulate_media(color_scheme=scheme)
    back = page.js("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 22, 29)"}[scheme]
    assert page.js(CONTRAST) == []
    levels = page.js("[...document.querySelectorAll('h1, h2, h3')].map(each => +each.localName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    unnamed = "[...document.querySelectorAll('input, select')].filter(each => !each.labels.length).length"
    assert page.js(unnamed) == 0
    assert page.js("[...document.querySelectorAll('svg')].every(each => each.ariaLabel)")
    # A narrow screen scrolls its tables, never the page.
    page.page.set_viewport_size({"width": 400, "height": 800})
    assert page.js("document.documentElement.scrollWidth") <= 400


def test_printed_page_has_summary_and_all_unsettled_rows_without_controls(page):
    page.js("document.getElementById('last').click()")
    page.page.emulate_media(media="print", color_scheme="dark")
    assert page.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    visible = "[...document.querySelectorAll('button, input, select')].filter(e => e.checkVisibility())"
    hidden = f"{visible}.filter(each => !each.closest('thead')).length"
    assert page.js(hidden) == 0
    count = "window.paper = document.getElementById('body').rows.length"
    page.js(f"addEventListener('beforeprint', () => {{ {count} }})")
    paper = page.page.pdf(print_background=True)
    assert paper.startswith(b"%PDF-")
    assert paper.count(b"/Type /Page\n") < 13
    assert page.js("window.paper") == 50, "all that failed, are in doubt or unattempted"
    assert text(page, "#printed").startswith("50 of 250 rows")
    assert len(cells(page)) == 50, "the page of before: 201 to 250"
    assert set(shown(page, 0)) == {"succeeded"}


def test_page_can_be_read_without_javascript(page_file, chromium):
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto(page_file.as_uri())
    assert page.locator("#plain tbody tr").count() == 50
    assert page.locator("#table-of-rows").is_hidden()
    assert page.locator("button:visible").count() == 0
    assert page.locator("h1 .outcome").text_content() == "incomplete"


def test_head_names_manifest_version_and_times(page_file, page):
    facts = page.js(
        "Object.fromEntries([...document.querySelectorAll('.facts > div')].map("
        "each => [...each.children].map(part => part.textContent)))"
    )
    assert facts["Started"] == "2026-03-01 12:00:00 UTC"
    assert facts["Finished"] == "2026-03-02 13:01:40 UTC"
    assert facts["Manifest"] == f"{page_file.with_name('trial.yaml')} (sha256 c0ffeec0ffee)"
    assert facts["Last command"] == "retry, by batch-snapshot 1"


@pytest.mark.parametrize(
    ("failed", "rows", "outcome", "words", "tone"),
    [
        (0, 2, "completed", "completed", "good"),
        (1, 2, "completed", "completed with failures", "mixed"),
        (1, 3, "completed", "incomplete", "mixed"),
        (1, 3, "deferred", "deferred", "mixed"),
        (1, 3, "stopped", "stopped", "bad"),
    ],
)
def test_badge_is_green_only_if_every_row_succeeded(tmp_path, failed, rows, outcome, words, tone):
    ledger = LedgerBuilder(rows).begin()
    for number in range(2):
        ledger.result(row(number), Status.FAILED if number < failed else Status.SUCCEEDED)
    page = made(ledger.end(outcome).write(tmp_path / "l.ndjson")).read_text("utf-8")
    assert f'<span class="outcome {tone}">{words}</span>' in page


def test_accounts_are_in_the_order_of_the_manifest_and_bounded(tmp_path):
    def shown_accounts(ledger: LedgerBuilder) -> list[str]:
        page = made(ledger.end().write(tmp_path / "l.ndjson")).read_text("utf-8")
        section = page.partition('id="accounts-title"')[2].partition("</section>")[0]
        return re.findall(r'<th scope="row">(\w+)</th>', section)

    ledger = LedgerBuilder(2).begin(accounts={"main": {}, "acme": {}})
    ledger.result(row(1, "acme"), Status.FAILED).result(row(2, "main"))
    assert shown_accounts(ledger) == ["main", "acme"]
    many = LedgerBuilder(600).begin(accounts={f"a{number}": {} for number in range(600)})
    for number in range(600):
        many.result(row(number, f"a{number}"), Status.FAILED if number == 599 else Status.SUCCEEDED)
    assert shown_accounts(many) == ["a599", *(f"a{number}" for number in range(499))]


def test_commands_can_be_copied(page):
    clipboard = "{ value: { writeText: async (text) => { window.got = text } } }"
    page.js(f"Object.defineProperty(navigator, 'clipboard', {clipboard})")
    page.js("document.querySelector('button.copy').focus()")
    page.key("Enter")
    page.page.wait_for_function("window.got")
    assert page.js("window.got") == text(page, ".commands code")
    assert text(page, ".commands button") == "Copied"


def test_filtered_rows_are_saved_as_csv(tmp_path, chromium):
    ledger = LedgerBuilder(3).begin()
    for number in range(3):
        ledger.result(
            row(number), Status.FAILED, code='=HYPERLINK("x")', message="a, b" if number else "other"
        )
    with opened(chromium, made(ledger.end().write(tmp_path / "l.ndjson"))) as page:
        type_in(page, "search", "a,")
        with page.page.expect_download() as download:
            page.js("document.getElementById('save').click()")
        saved = tmp_path / "saved.csv"
        download.value.save_as(saved)
        with saved.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
        page.requests[1:] = [each for each in page.requests[1:] if not each.startswith("blob:")]
    assert [(line["resource"], line["status"], line["error"]) for line in lines] == [
        (f"O{number}", "failed", '\'=HYPERLINK("x"): a, b') for number in (1, 2)
    ]


def test_wait_is_told_apart_from_the_call(tmp_path, chromium):
    ledger = LedgerBuilder(2).begin()
    ledger.result(row(1), at=5, took=0.08, started_at=BEGAN + timedelta(seconds=2.5))
    ledger.result(row(2), at=6, took=2.0, first_sent_at=BEGAN - timedelta(seconds=60))
    with opened(chromium, made(ledger.end().write(tmp_path / "l.ndjson"))) as page:
        assert shown(page, heads(page).index("Wait + call")) == ["2.4 s + 80 ms", "2 s"]


def test_page_compares_with_the_ledger_before(tmp_path, chromium):
    first = LedgerBuilder(2).begin().result(row(1), Status.FAILED).result(row(2)).end()
    first.write(tmp_path / "b.ndjson")
    # Neither an older one, nor those of another manifest or endpoint.
    LedgerBuilder(2).begin(at=-60).result(row(9)).end().write(tmp_path / "a.ndjson")
    LedgerBuilder(2, name="other").begin(at=60).result(row(9)).end().write(tmp_path / "c.ndjson")
    LedgerBuilder(2).begin(at=60, endpoint="simulator").result(row(9)).end().write(tmp_path / "d.ndjson")
    ledger = LedgerBuilder(3).begin(at=90_000).result(row(1)).result(row(2), Status.FAILED).result(row(3))
    with opened(chromium, made(ledger.end().write(tmp_path / "e.ndjson"))) as page:
        summaries = "[...document.querySelectorAll('#part-difference summary')]"
        kinds = page.js(f"{summaries}.map(each => each.innerText.split(':')[0])")
        assert kinds == ["1 new", "1 newly failing", "1 recovered"]
    assert "Since the ledger before" not in made(tmp_path / "a.ndjson").read_text("utf-8")
    # Each simulated run makes first revisions, unless its world is kept.
    again = LedgerBuilder(2).begin(at=99_000, endpoint="simulator").result(row(9)).end()
    text = made(again.write(tmp_path / "f.ndjson")).read_text("utf-8")
    assert "1</b> revision jumps: expected, because a simulated run without --state starts again" in text
    with (tmp_path / "b.ndjson").open("ab") as file:
        file.write(b"{}\n")
    assert "cannot be compared" in made(tmp_path / "e.ndjson").read_text("utf-8")


MANY = 100_000


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A ledger of 100,000 rows, made of lines that differ in the row alone."""
    ledger = LedgerBuilder(MANY).begin()
    first = ledger.lines[0]
    lines = LedgerBuilder().result(row(7)).result(row(7), Status.FAILED).lines
    good, bad = (line.replace(b"00000000000007", b"%014d").replace(b'"O7"', b'"O%d"') for line in lines)
    good = good.replace(b"/O7/", b"/O%d/").replace(b"request-O7", b"r")
    bad = bad.replace(b"request-O7", b"r")
    path = tmp_path_factory.mktemp("large") / "large.ndjson"
    with path.open("wb") as file:
        file.write(first)
        for n in range(MANY):
            failed = n % 50 == 0
            file.write(bad % (n, n) if failed else good % (n, n, n, n))
        file.write(LedgerBuilder().end().lines[0])
    return path


def _ready_after(page: OpenPage, file: Path) -> float:
    seconds = page.open(file)
    began = time.perf_counter()
    page.page.wait_for_selector("#table-of-rows", state="visible")
    return seconds + time.perf_counter() - began


SEARCH = "const at = document.getElementById('search'); at.value = %s; at.dispatchEvent(new Event('input'))"
DRAWN = "new Promise(done => { %s; requestAnimationFrame(() => requestAnimationFrame(done)) })"


def _clock(page: OpenPage) -> Callable[[str], float]:
    """The processor time, in seconds, that the page needs for a step until that is drawn.

    Other work on this machine is no fault of the page.
    """
    tools = page.page.context.new_cdp_session(page.page)
    tools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        metrics = tools.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))

    def clocked(step: str) -> float:
        before = spent()
        page.js(DRAWN % step)
        return spent() - before

    return clocked


@pytest.mark.long
@pytest.mark.timeout(120)
def test_page_with_100_000_rows_opens_and_filters_quickly(large, chromium):
    file = made(large)
    assert file.stat().st_size < 25e6
    page = OpenPage(chromium)
    # The better of two: other work on this machine is no fault of the page.
    assert min([_ready_after(page, file) for _ in range(2)]) < 3.0
    assert text(page, "#count") == "100,000 rows"
    steps = [
        SEARCH % "'O777'",
        SEARCH % "'accessdenied'",
        SEARCH % "''",
        "document.querySelector('th[data-name=engagement] button').click()",
        "document.querySelector('th[data-name=engagement] button').click()",
        "document.querySelector('th[data-name=error] button').click()",
    ]
    clocked = _clock(page)
    times = [min(clocked(step) for _ in range(3)) for step in steps]
    assert min(times) > 0
    assert max(times) < 0.2, times
    assert page.complaints == []
