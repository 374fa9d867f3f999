"""The server of the live page: who is answered, and with what."""

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from batch_snapshot.errors import InputError
from batch_snapshot.reporting import server
from tests.support.ledgers import LedgerBuilder, row


@asynccontextmanager
async def served(source, token="", control=None):
    """Serve on loopback; yields a function that gets a path."""
    with server.listen("127.0.0.1", 0) as listening:
        base = server.url(listening, "").rstrip("/")
        serving = server.serve(lambda: source, listening, token, control)
        async with aiohttp.ClientSession() as session, serving:

            def get(path, **more):
                return session.request(more.pop("method", "GET"), base + path, **more)

            yield get


async def status_of(get, path, **more):
    async with get(path, **more) as answer:
        return answer.status, await answer.text()


async def events(answer):
    """The events of a stream as (name, data)."""
    name = ""
    async for line in answer.content:
        kind, _, value = line.decode().rstrip("\n").partition(": ")
        if kind == "event":
            name = value
        elif kind == "data":
            yield name, json.loads(value) if value.strip() else None


@pytest.fixture
def ledger(tmp_path):
    return LedgerBuilder(2).begin().result(row(1)).end().write(tmp_path / "l.ndjson")


@pytest.mark.asyncio
async def test_only_loopback_names_are_answered(ledger):
    async with served(ledger) as get:
        for host in ("localhost", "127.0.0.1:80", "[::1]:8080", "LOCALHOST:1"):
            assert (await status_of(get, "/", headers={"Host": host}))[0] == 200, host
        for host in (
            "evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.nip.io", "[::2]", "[", "",
        ):  # fmt: skip
            for path in ("/", "/events", "/report"):
                assert (await status_of(get, path, headers={"Host": host}))[0] in {400, 403}, host


@pytest.mark.asyncio
async def test_token_is_required_where_there_is_one(ledger):
    async with served(ledger, token="s3cret") as get:
        for path in (
            "/", "/events", "/report", "/?token=", "/?token=s3cre", "/?token=s3cret1", "/?token=%FF",
        ):  # fmt: skip
            assert (await status_of(get, path))[0] == 403, path
        status, page = await status_of(get, "/?token=s3cret", headers={"Host": "snapshots.example"})
        assert status == 200
        assert 'data-events="/events?token=s3cret"' in page
        assert "/report?token=s3cret" in page


@pytest.mark.asyncio
async def test_server_only_reads(ledger):
    before = ledger.read_bytes()
    async with served(ledger) as get:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert (await status_of(get, "/", method=method))[0] == 405
        assert (await status_of(get, "/nothing"))[0] == 404
    assert ledger.read_bytes() == before
    assert [each.name for each in ledger.parent.iterdir()] == ["l.ndjson"]


class Run:
    """Takes commands as a run does; one of them is refused."""

    def __init__(self):
        self.told = []

    def __call__(self, ledger, action, value, account):
        if action == "drain":
            raise InputError(f"{ledger}: no run is writing it")
        self.told.append((ledger.name, action, value, account))
        return f"{action} is done"


COMMAND = {"action": "rate", "value": "2.5", "account": "main"}


def pressed(get, path="/control?token=s3cret", **more):
    """A command as the page sends it, or with other headers."""
    headers = {"Host": "localhost:1", "Origin": "http://localhost:1"} | more.pop("headers", {})
    return status_of(get, path, method="POST", headers=headers, **{"json": COMMAND, **more})


@pytest.mark.asyncio
async def test_commands_of_the_page_reach_the_run_and_their_answer_the_page(tmp_path, ledger):
    run = Run()
    async with served(ledger, "s3cret", run) as get:
        assert await pressed(get) == (200, "rate is done")
        assert await pressed(get, json={"action": "pause"}) == (200, "pause is done")
        assert await pressed(get, json={"action": "drain"}) == (409, f"{ledger}: no run is writing it")
        _, page = await status_of(get, "/?token=s3cret")
        assert 'data-address="/control?token=s3cret"' in page
        (tmp_path / "notes.ndjson").write_text("secret", "utf-8")
    async with served(tmp_path, "s3cret", run) as get:
        assert (await pressed(get))[0] == 409, "which ledger?"
        assert (await pressed(get, "/control?token=s3cret&ledger=notes.ndjson"))[0] == 404
        assert (await pressed(get, "/control?token=s3cret&ledger=l.ndjson"))[0] == 200
        assert 'id="control"' not in (await status_of(get, "/?token=s3cret"))[1]
        assert 'id="control"' in (await status_of(get, "/?token=s3cret&ledger=l.ndjson"))[1]
    rate = ("l.ndjson", "rate", "2.5", "main")
    assert run.told == [rate, ("l.ndjson", "pause", None, None), rate]


@pytest.mark.asyncio
async def test_no_other_page_or_user_can_send_a_command(ledger):
    run = Run()
    no_commands: list[Any] = [
        [],
        "pause",
        {},
        {"action": 1},
        {"action": "rate", "value": 2},
        {"action": "\ud800"},
    ]
    evil, text = "http://evil.example", {"Content-Type": "text/plain"}
    refused: dict[int, list[tuple[str, dict[str, Any]]]] = {
        403: [
            ("/control", {}),
            ("/control?token=other", {}),
            ("/control?token=s3cret", {"headers": {"Origin": evil}}),
            ("/control?token=s3cret", {"headers": {"Origin": "null"}}),
            ("/control?token=s3cret", {"headers": {"Origin": "http://localhost:2"}}),
            ("/control?token=s3cret", {"headers": {"Origin": "", "Sec-Fetch-Site": "none"}}),
            ("/control?token=s3cret", {"headers": {"Host": "evil.example", "Origin": evil}}),
        ],
        415: [("/control?token=s3cret", {"headers": text, "json": None, "data": json.dumps(COMMAND)})],
        413: [("/control?token=s3cret", {"json": {"action": "x" * 9000}})],
        400: [("/control?token=s3cret", {"json": wrong}) for wrong in no_commands],
    }
    unknown = {"Content-Type": "application/json; charset=none"}
    refused[400] += [("/control?token=s3cret", {"headers": unknown, "json": None, "data": b"{}"})]
    async with served(ledger, "s3cret", run) as get:
        for status, requests in refused.items():
            for path, more in requests:
                assert (await pressed(get, path, **more))[0] == status, (path, more)
        for method in ("GET", "PUT", "OPTIONS"):
            assert (await status_of(get, "/control?token=s3cret", method=method))[0] == 405
        assert (await status_of(get, "/?token=s3cret", headers={"Host": "evil.example"}))[0] == 403
    async with served(ledger, "s3cret") as get:
        assert (await pressed(get))[0] == 404, "there is no such thing without --control"
        assert 'id="control"' not in (await status_of(get, "/?token=s3cret"))[1]
    assert run.told == []


@pytest.mark.asyncio
async def test_answers_may_load_nothing_and_are_not_kept(ledger):
    async with served(ledger) as get, get("/") as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "connect-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.asyncio
async def test_folder_lists_its_ledgers_and_nothing_else_is_served(tmp_path):
    folder = tmp_path / "ledgers"
    folder.mkdir()
    LedgerBuilder(1).begin().result(row(1)).end().write(folder / "a b.ndjson")
    LedgerBuilder(1, name="other").begin().result(row(1)).end().write(folder / "b.ndjson")
    (folder / "notes.txt").write_text("secret", "utf-8")
    LedgerBuilder(1).begin().end().write(tmp_path / "outside.ndjson")
    (folder / "link.ndjson").symlink_to(tmp_path / "outside.ndjson")
    async with served(folder) as get:
        _, page = await status_of(get, "/")
        assert page.count("<tr>") == 3
        assert 'href="/?ledger=a+b.ndjson"' in page
        status, page = await status_of(get, "/?ledger=a+b.ndjson")
        assert status == 200
        assert "/report?ledger=a+b.ndjson" in page
        assert (await status_of(get, "/report?ledger=b.ndjson"))[0] == 200
        for name in (
            "notes.txt", "none.ndjson", "../outside.ndjson", "link.ndjson", "..", ".", "/etc/passwd",
        ):  # fmt: skip
            for path in ("/", "/events", "/report"):
                assert (await status_of(get, path, params={"ledger": name}))[0] == 404, name


@pytest.mark.asyncio
async def test_events_tell_what_has_changed_and_the_end(tmp_path):
    ledger = LedgerBuilder(2).begin().result(row(1))
    path = ledger.write(tmp_path / "l.ndjson")
    with server.listen("127.0.0.1", 0) as listening:
        base = server.url(listening, "")
        async with aiohttp.ClientSession() as session:
            serving = server.serve(lambda: path, listening)
            await serving.__aenter__()
            async with session.get(f"{base}events") as answer:
                assert answer.content_type == "text/event-stream"
                told = events(answer)
                name, news = await anext(told)
                assert name == "parts"
                assert news["title"] == "nightly: crashed, 1 of 2 rows succeeded"
                assert set(news["parts"]) >= {"header", "outcome", "failures", "course", "invocations"}
                ledger.result(row(2), at=2).write(path)
                _, news = await anext(told)
                assert news["title"] == "nightly: crashed, 2 of 2 rows succeeded"
                assert "outcome" in news["parts"]
                assert "failures" not in news["parts"], "nothing new"
                ledger.end().write(path)
                closing = asyncio.create_task(serving.__aexit__(None, None, None))
                last = [event async for event in told]
                assert last[0][1]["title"] == "nightly: completed, 2 of 2 rows succeeded"
                assert last[-1] == ("end", None)
                await closing


@pytest.mark.asyncio
async def test_stream_outlives_a_ledger_that_is_removed(tmp_path):
    path = LedgerBuilder(1).begin().result(row(1)).end().write(tmp_path / "l.ndjson")
    async with served(tmp_path) as get, get("/events?ledger=l.ndjson") as answer:
        told = events(answer)
        await anext(told)
        path.unlink()
        _, news = await anext(told)
        assert news["title"] == "l.ndjson cannot be read"
        LedgerBuilder(1).begin().result(row(1)).end().write(path)
        _, news = await anext(told)
        assert news["title"] == "nightly: completed, 1 of 1 row succeeded"


@pytest.mark.asyncio
async def test_page_waits_for_a_run_that_has_not_begun():
    async with served(None) as get:
        status, page = await status_of(get, "/")
        assert status == 200
        assert "The run has not begun yet." in page
        assert (await status_of(get, "/report"))[0] == 404


@pytest.mark.asyncio
async def test_damaged_ledger_is_told_on_its_page(tmp_path):
    path = tmp_path / "l.ndjson"
    path.write_bytes(LedgerBuilder(1).begin().lines[0] + b"{}\n")
    async with served(path) as get:
        status, page = await status_of(get, "/")
        assert status == 200
        assert "l.ndjson:2" in page
        assert (await status_of(get, "/report"))[0] == 409


def test_address_in_use_is_refused_with_the_way_out():
    with server.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(InputError, match=rf":{port}: .*; --serve=127\.0\.0\.1:0 takes any free port"):
            server.listen("127.0.0.1", port)
    for elsewhere in ("no such host", "192.0.2.1"):
        with pytest.raises(InputError, match=r"there \([\w ]+\); name an address of this machine"):
            server.listen(elsewhere, 80)


@pytest.mark.parametrize(
    ("host", "loopback"), [("::1", True), ("127.8.8.8", True), ("0.0.0.0", False), ("h", False)]
)
def test_loopback_addresses_need_no_token(host, loopback):
    assert server.is_loopback(host) is loopback
