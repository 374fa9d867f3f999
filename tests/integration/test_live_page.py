"""The live page in a real browser: of a run with --serve, of `watch`, over the run's end and a restart."""

import asyncio
import re
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from playwright.async_api import async_playwright, expect

from batch_snapshot import paths
from batch_snapshot.ledger import locks
from batch_snapshot.models import Status
from batch_snapshot.reporting import server
from tests.support import browser
from tests.support.ledgers import LedgerBuilder, row
from tests.support.processes import Place, of_type, pairs, until
from tests.unit.reporting.test_html import CONTRAST

#: Milliseconds for anything that the page is to show.
PATIENCE = 30_000


#: Tests with a browser share it, and for that an event loop.
in_browser = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page():
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=browser.program(), args=["--no-sandbox"])
        yield await chromium.new_page()
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def seen(page):
    """The page, with what it complained of and asked for."""
    seen = SimpleNamespace(page=page, complaints=[], requests=[])
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("console", lambda message: seen.complaints.append(message.text))
    page.on("request", lambda request: seen.requests.append(request.url))
    yield seen
    await page.goto("about:blank")
    await page.emulate_media(color_scheme="null")
    await page.set_viewport_size({"width": 1280, "height": 720})


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    return f"127.0.0.1:{port}"


async def answers(address):
    def connects():
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", int(address.split(":")[1]))) == 0

    await until(connects, "the page", PATIENCE / 1000)


@in_browser
async def test_page_of_a_run_is_live_and_survives_its_end_and_restart(tmp_path, address, seen):
    place = Place(tmp_path)
    place.manifest(pairs(60), accounts={"default": {"quota": {"per_second": 12, "per_hour": 50}}})
    run = ["run", "trial.yaml", "--simulate", "--state", "world.ndjson", f"--serve={address}"]
    page = seen.page
    async with place.started(*run) as child:
        await answers(address)
        await page.goto(f"http://{address}/")
        await expect(page.locator("#live")).to_have_text("Live", timeout=PATIENCE)
        await expect(page.locator("#part-now")).to_contain_text("of 12/s declared", timeout=PATIENCE)
        await expect(page.locator("#part-now")).to_contain_text("left, until", timeout=PATIENCE)
        first = await page.title()
        await expect(page).not_to_have_title(first, timeout=PATIENCE)
        await page.locator("#throughput-table summary").click()
        assert (await child.finished()).code == 4
    # The last news of a run, whose window is spent.
    await expect(page.locator(".outcome")).to_have_text("deferred", timeout=PATIENCE)
    await expect(page).to_have_title("trial: deferred, 50 of 60 rows succeeded")
    await expect(page.locator("#windows")).to_contain_text("opens")
    told = re.compile(r"^The run has ended: deferred at 20\S+ \S+ UTC\. .* continues when it is back\.$")
    await expect(page.locator("#live")).to_have_text(told, timeout=PATIENCE)
    assert await page.locator("#throughput-table[open]").count() == 1, "what was opened stays open"
    paper = await page.pdf(print_background=True)
    assert paper.startswith(b"%PDF-")
    # While the server is away the browser complains, and tries again.
    assert all("ERR_" in each for each in seen.complaints)
    seen.complaints.clear()
    async with place.started("watch", "ledgers", "--serve", address) as watching:
        await expect(page.locator("#live")).to_have_text("Live", timeout=PATIENCE)
        watching.signal(signal.SIGINT)
        assert (await watching.finished()).code == 130
    assert {url.split("/")[2] for url in seen.requests} == {address}


@in_browser
async def test_page_that_was_opened_before_the_run_gets_its_links_and_accounts(tmp_path, seen):
    begun: list[Path] = []
    with server.listen("127.0.0.1", 0) as listening:
        async with server.serve(lambda: begun[0] if begun else None, listening, "s3cret", lambda *_: ""):
            await seen.page.goto(server.url(listening, "s3cret"))
            await expect(seen.page.locator("#part-header")).to_contain_text("has not begun yet")
            assert await seen.page.get_by_role("link").count() == 0
            accounts: dict[str, dict[str, str]] = {"main": {}, "other": {}}
            begun.append(LedgerBuilder(2).begin(accounts=accounts).write(tmp_path / "l.ndjson"))
            link = seen.page.get_by_role("link", name="The whole report")
            await expect(link).to_be_visible(timeout=PATIENCE)
            assert await seen.page.locator("#rate-account option").count() == 3
            await link.click()
            await expect(seen.page.locator("h1")).to_contain_text("nightly")


@in_browser
async def test_folder_is_a_list_whose_pages_follow_their_ledgers(tmp_path, address, seen):
    place = Place(tmp_path)
    (tmp_path / "ledgers").mkdir()
    ledger = LedgerBuilder(2, name="other").begin().result(row(1), Status.FAILED, message="<b>no</b> access")
    path = ledger.write(tmp_path / "ledgers" / "b.ndjson")
    failed = LedgerBuilder(1).begin().result(row(1), Status.FAILED).end()
    failed.write(tmp_path / "ledgers" / "a.ndjson")
    async with place.started("watch", "ledgers", "--serve", address) as child:
        page = seen.page
        await answers(address)
        await page.goto(f"http://{address}/")
        await expect(page.locator("#ledgers tbody tr")).to_have_count(2)
        await expect(page.locator("#ledgers")).to_contain_text("completed with failures")
        assert await page.evaluate(CONTRAST) == []
        await page.get_by_role("link", name="b.ndjson").click()
        await expect(page.locator("#part-failures")).to_contain_text("<b>no</b> access")
        await page.locator("#group-search").fill("access")
        await expect(page.locator("#group-count")).to_have_text("1 of 1 groups")
        ledger.result(row(2), Status.IN_DOUBT, at=3).write(path)
        await expect(page).to_have_title("other: crashed, 0 of 2 rows succeeded", timeout=PATIENCE)
        await expect(page.locator(".group")).to_have_count(2, timeout=PATIENCE)
        await expect(page.locator("#group-search")).to_have_value("access")
        assert await page.evaluate("document.activeElement.id") == "group-search"
        await page.emulate_media(color_scheme="dark")
        assert await page.evaluate(CONTRAST) == []
        await page.set_viewport_size({"width": 400, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") <= 400
        await page.get_by_role("link", name="The whole report").click()
        await expect(page.locator("#body tr")).to_have_count(2)
        await page.goto(f"http://{address}/")
        (tmp_path / "ledgers" / "a.ndjson").unlink()
        await expect(page.locator("#ledgers tbody tr")).to_have_count(1, timeout=PATIENCE)
        assert seen.complaints == []
        child.signal(signal.SIGTERM)
        ended = await child.finished()
        assert (ended.code, ended.stdout) == (143, f"live at http://{address}/\n")


@in_browser
async def test_buttons_steer_the_run_and_show_what_it_answers(tmp_path, address, seen):
    place = Place(tmp_path)
    place.env["BATCH_SNAPSHOT_SERVE_TOKEN"] = "of-the-test"
    quota = {"quota": {"per_second": 4}}
    rows = pairs(200, account="main") + pairs(200, 200, account="acme")
    place.manifest(rows, accounts={"main": quota, "acme": quota})
    run = ["run", "trial.yaml", "--simulate", "--ledger", "trial.ndjson"]
    async with place.started(*run, f"--serve={address}", "--control") as child:
        page, answer = seen.page, seen.page.locator("#answer")

        async def press(name, says):
            await page.get_by_role("button", name=name).click()
            await expect(answer).to_contain_text(says, timeout=PATIENCE)

        await answers(address)
        await until(lambda: of_type(place.folder / "trial.simulated.ndjson", "result"), "the first row")
        await page.goto(f"http://{address}/?token=of-the-test")
        await expect(page.locator("#live")).to_have_text("Live", timeout=PATIENCE)
        await expect(page.locator("#bar a")).to_be_visible()
        assert await page.evaluate(CONTRAST) == []
        await press("Pause", "paused: no further call begins")
        await expect(page.locator("#part-now")).to_contain_text("Paused", timeout=PATIENCE)
        await page.get_by_label("Calls a second").fill("nought")
        await press("Set rate", "rate nought: give calls a second")
        assert await answer.get_attribute("class") == "failed"
        assert await page.evaluate(CONTRAST) == []
        await page.get_by_label("Calls a second").fill("2.5")
        await page.get_by_label("of", exact=True).select_option("acme")
        await page.keyboard.press("Enter")
        await press("Set rate", "2.5 calls/s declared for acme")
        await expect(page.locator("#part-now")).to_contain_text("of 6.5/s declared", timeout=PATIENCE)
        await page.get_by_label("Calls in flight").fill("3")
        await press("Set concurrency", "at most 3 calls in flight")
        await press("Resume", "resumed")
        await expect(page.locator("#part-now")).to_contain_text("left, until", timeout=PATIENCE)
        drain = page.get_by_role("button", name="Drain")
        async with page.expect_event("dialog") as asked:
            clicked = asyncio.create_task(drain.click())
        assert (await asked.value).message.startswith("End this run?")
        await (await asked.value).dismiss()
        await clicked
        await expect(answer).to_have_text("resumed")
        page.once("dialog", lambda dialog: asyncio.create_task(dialog.accept()))
        await press("Drain", "draining: no further row is sent")
        assert (await child.finished()).code == 4
        await expect(page.locator(".outcome")).to_have_text("deferred", timeout=PATIENCE)
        for button in await page.locator("#control button").all():
            await expect(button).to_be_disabled(timeout=PATIENCE)
        # It leads to the server, which has ended with the run.
        await expect(page.locator("#bar a")).to_be_hidden(timeout=PATIENCE)
    told = of_type(place.folder / "trial.simulated.ndjson", "control")
    assert [(each["action"], each.get("value"), each.get("account")) for each in told] == [
        ("pause", None, None),
        ("rate", 2.5, "acme"),
        ("rate", 2.5, "acme"),
        ("concurrency", 3, None),
        ("resume", None, None),
        ("drain", None, None),
    ]


@in_browser
async def test_page_says_that_the_run_has_ended_and_follows_one_that_continues(tmp_path, address, seen):
    place = Place(tmp_path)
    place.env["BATCH_SNAPSHOT_SERVE_TOKEN"] = "of-the-test"
    path = tmp_path / "l.ndjson"
    ledger = LedgerBuilder(2).begin().result(row(1))
    ledger.write(path)
    watch = ["watch", "l.ndjson", "--serve", address, "--control"]
    async with place.started(*watch) as child:
        await answers(address)
        await seen.page.goto(f"http://{address}/?token=of-the-test")
        says, resume = seen.page.locator("#live"), seen.page.get_by_role("button", name="Resume")
        await expect(says).to_have_text(
            "The run has ended: crashed, last line at 2026-03-01 12:00:01 UTC.", timeout=PATIENCE
        )
        await expect(resume).to_be_disabled()
        with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
            ledger.begin(at=60).result(row(2), at=61).write(path)
            await expect(says).to_have_text("Live", timeout=PATIENCE)
            await resume.click()
            answer = seen.page.locator("#answer.failed")
            await expect(answer).to_contain_text("the run that writes it takes no commands")
            ledger.end(at=62).write(path)
        await expect(says).to_have_text(
            "The run has ended: completed at 2026-03-01 12:01:02 UTC.", timeout=PATIENCE
        )
        child.signal(signal.SIGINT)
        assert f"http://{address}/?token=of-the-test" in (await child.finished()).stdout


@pytest.mark.asyncio
async def test_beyond_loopback_and_with_buttons_the_address_has_a_token(tmp_path, address):
    place = Place(tmp_path)
    LedgerBuilder(1).begin().result(row(1)).end().write(tmp_path / "l.ndjson")
    everywhere, tokens = address.replace("127.0.0.1", "0.0.0.0"), set()
    for serve, token in ([everywhere], "of-the-test"), ([everywhere], ""), ([address, "--control"], ""):
        place.env["BATCH_SNAPSHOT_SERVE_TOKEN"] = token
        async with (
            place.started("watch", "l.ndjson", "--serve", *serve) as child,
            ClientSession() as session,
        ):
            await answers(address)
            async with session.get(f"http://{address}/") as answer:
                assert answer.status == 403
            if token:
                async with session.get(f"http://{address}/", params={"token": token}) as answer:
                    assert answer.status == 200
            child.signal(signal.SIGINT)
            shown = (await child.finished()).stdout.strip().partition("?token=")[2]
            assert shown == token or len(shown) > 20
            tokens.add(shown)
    assert len(tokens) == 3, "each is new"
