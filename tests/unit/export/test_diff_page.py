"""The page of what changed, in a real browser: it counts, filters, saves, and shows values as text."""

import csv
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest

from batch_snapshot.export import diff
from batch_snapshot.reporting import html
from tests.support import browser
from tests.support.browser import OpenPage
from tests.unit.export.test_diff import write
from tests.unit.reporting.test_html import CONTRAST, EVIL

NOW = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def chromium():
    with browser.started() as found:
        yield found


@pytest.fixture
def file(tmp_path):
    """Twelve rows of which ten changed; two of them hold what no page may take for its own."""
    before: list[Any] = [(number, 1, {"Stage": "Qualified", "Title": f"={number}"}) for number in range(12)]
    after: list[Any] = [(number, 2, {"Stage": "Committed", "Title": f"={number}"}) for number in range(10)]
    after += [(10, 2, before[10][2]), (99, 1, {})]
    after[8] = (8, 2, {"Stage": EVIL, "Title": "=9", "Team": [{"Name": EVIL}]})
    after[9] = (9, 2, {"Title": "=9", f"{EVIL}": []})
    found = diff.diff(write(tmp_path / "a.ndjson", *before), write(tmp_path / "b.ndjson", *after))
    diff.write_page(found, tmp_path / "changes.html", NOW)
    return tmp_path / "changes.html"


def table(opened):
    return opened.js(
        "[...document.querySelectorAll('#body tr')].map(tr => [...tr.cells].map(td => td.textContent))"
    )


def test_page_counts_fields_and_shows_each_change(file, chromium):
    opened = OpenPage(chromium)
    opened.open(file)
    opened.page.wait_for_selector("#table-of-rows", state="visible")
    tiles = opened.js("[...document.querySelectorAll('.tile')].map(li => li.innerText.split('\\n'))")
    assert tiles == [
        ["10", "changed"],
        ["1", "did not change"],
        ["1", "only in the first"],
        ["1", "only in the second"],
    ]
    fields = opened.js(
        "[...document.querySelectorAll('#fields tbody tr')].map(tr => tr.innerText.split('\\t'))"
    )
    assert fields[0][:3] == ["Stage", "10", "100\u00a0%"]
    assert {each[0] for each in fields} == {"Stage", "Title", "Team.Name", EVIL}
    assert opened.page.locator("#count").text_content() == "13 changes"
    assert table(opened)[0] == ["eng-00000000000000", "O0", "1 → 2", "Stage", "Qualified", "Committed"]
    assert [line[-1] for line in table(opened) if EVIL in line[-1]] == [EVIL] * 2
    assert ["nothing", "empty"] in [line[-2:] for line in table(opened)]
    assert opened.js("document.querySelectorAll('img').length") == 0
    options = opened.page.locator("#field option").all_inner_texts()
    assert [each.partition(" (")[0] for each in options] == ["all", EVIL, "Stage", "Team.Name", "Title"]
    opened.page.get_by_role("row", name="Title").get_by_role("button").click()
    assert table(opened) == [["eng-00000000000008", "O8", "1 → 2", "Title", "=8", "=9"]]
    opened.page.get_by_label("Search").fill("no such thing")
    opened.page.locator("#place", has_text="No change matches").wait_for()
    opened.page.get_by_label("Search").fill("")
    opened.page.locator("#place", has_text="Changes 1 to 1").wait_for()
    with opened.page.expect_download() as saved:
        opened.page.get_by_role("button", name="Save these changes").click()
    assert saved.value.suggested_filename == "changes.csv"
    (line,) = csv.DictReader(StringIO(saved.value.path().read_text("utf-8-sig")))
    assert (line["resource"], line["field"], line["before"], line["after"]) == ("O8", "Title", "'=8", "'=9")
    assert opened.complaints == []
    assert [each for each in opened.requests if not each.startswith("blob:")] == [file.as_uri()]


def test_page_of_too_many_changes_says_how_many_it_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "MOST_ROWS", 4)
    monkeypatch.setattr(html, "PLAIN_ROWS", 3)
    before, after = ([(number, 1, {"Title": title}) for number in range(5)] for title in "ab")
    found = diff.diff(write(tmp_path / "a.ndjson", *before), write(tmp_path / "b.ndjson", *after))
    diff.write_page(found, tmp_path / "changes.html", NOW)
    page = (tmp_path / "changes.html").read_text("utf-8")
    assert "The table holds 4 of 5 changes." in page
    assert "Without JavaScript this lists the first 3 of 5 changes." in page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_for_every_eye_and_width(file, chromium, scheme):
    opened = OpenPage(chromium)
    opened.open(file)
    opened.page.wait_for_selector("#table-of-rows", state="visible")
    opened.page.emulate_media(color_scheme=scheme)
    assert opened.js(CONTRAST) == []
    opened.page.set_viewport_size({"width": 400, "height": 800})
    assert opened.js("document.documentElement.scrollWidth") <= 400
    assert opened.page.pdf().startswith(b"%PDF-")


def test_page_can_be_read_without_javascript(file, chromium):
    opened = chromium.new_context(java_script_enabled=False).new_page()
    opened.goto(file.as_uri())
    assert opened.locator("#plain tbody tr").count() == 13
    assert opened.locator("button:visible").count() == 0


def test_page_of_no_change_says_so(tmp_path, chromium):
    same = write(tmp_path / "a.ndjson", (1, 1, {"Stage": "Qualified"}))
    diff.write_page(diff.diff(same, same), tmp_path / "changes.html", NOW)
    opened = OpenPage(chromium)
    opened.open(tmp_path / "changes.html")
    opened.page.locator("#place", has_text="There are no changes").wait_for()
    assert "No field of a row changed." in opened.page.locator("main").inner_text()
    assert opened.complaints == []
