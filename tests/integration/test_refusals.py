"""Hundreds of rows against servers that refuse all of them in one way, or that cannot be reached."""

import asyncio
import json
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import batch_snapshot
from batch_snapshot.aws import http
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.reporting import display, progress
from batch_snapshot.reporting.progress import RunView
from batch_snapshot.reporting.summary import Summary, as_text
from tests.support.haste import Hasty
from tests.support.http_server import endpoint
from tests.support.processes import of_type, pairs, write_manifest

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("cwd")]

ROWS = pairs(300)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("refusals") / "trial.yaml", ROWS)


async def run(
    manifest: Path,
    url: str,
    watch: Callable[[RunView], Coroutine[Any, Any, None]] | None = None,
    daily_quota: int | None = None,
    **driven: Any,
) -> Summary:
    settings = Settings(**{"max_attempts": 2, "pause": 0.3, **driven})
    options = Options(endpoint_url=url, rate=2000.0, daily_quota=daily_quota, engine=settings)
    return await batch_snapshot.run(manifest, options, batch_snapshot.Hooks(rng=Hasty(), watch=watch))


class Server:
    """Answers each creation as it is told to, and knows the rows."""

    def __init__(self, answer: Callable[[], web.Response]) -> None:
        self._answer = answer
        self.rows: set[str] = set()
        self.tokens: set[str] = set()

    async def handle(self, request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        if request.headers["X-Amz-Target"].endswith(".CreateResourceSnapshot"):
            self.rows.add(asked["EngagementIdentifier"])
            self.tokens.add(asked["ClientToken"])
        return self._answer()


def page(status: int, **headers: str) -> Callable[[], web.Response]:
    return lambda: web.Response(
        status=status, text="<!DOCTYPE html><h1>no</h1>", content_type="text/html", headers=headers
    )


def error(code: str, status: int = 400, message: str = "no") -> Callable[[], web.Response]:
    return lambda: web.json_response({"__type": code, "message": message}, status=status)


REFUSALS = {
    "a firewall's page": (page(403), "HTML with status 403"),
    "a gateway's JSON": (
        lambda: web.json_response({"message": "Forbidden"}, status=403),
        "not an answer of the service with status 403",
    ),
    "a portal": (page(302, Location="http://portal.example/login"), "a redirect (status 302)"),
    "503": (page(503), "a server error (status 503)"),
    "a page as a success": (page(200), "a success that names no snapshot"),
}


@pytest.mark.parametrize(("answer", "said"), REFUSALS.values(), ids=REFUSALS)
async def test_a_server_that_refuses_all_rows_sees_few_and_the_run_stops(manifest, answer, said):
    server = Server(answer)
    async with endpoint(server.handle) as url:
        summary = await run(manifest, url)
    assert 20 <= len(server.rows) <= 40
    assert (summary.outcome, summary.exit_code) == ("stopped", 3)
    assert summary.counts.unattempted == len(ROWS) - len(server.rows)
    assert said in str(summary.accounts["default"].stopped)
    assert summary.reasons == [summary.accounts["default"].stopped]


def unheard() -> int:
    """A port at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "nobody.invalid"])
async def test_against_nobody_the_run_is_deferred_with_all_rows_unattempted(manifest, host, tmp_path):
    url = f"http://{host}:{unheard()}"
    summary = await run(manifest, url)
    assert (summary.outcome, summary.exit_code) == ("deferred", 4)
    assert summary.counts == (0, 0, 0, len(ROWS))
    assert summary.calls == 0
    assert f"cannot reach {url.removeprefix('http://')}: " in summary.reasons[0]
    assert not of_type(tmp_path / "ledgers/trial.ndjson", "intent")


async def test_tries_that_never_left_are_taken_off_the_log_of_calls(manifest, tmp_path):
    """The first read is answered; then nobody listens any more, and no row uses the day's quota."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.close()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    summary = await run(manifest, url, daily_quota=5000)
    assert (summary.exit_code, summary.calls, summary.counts.unattempted) == (4, 0, len(ROWS))
    assert of_type(tmp_path / "ledgers/trial.ndjson", "intent")
    (log,) = tmp_path.rglob("usage.sqlite")
    with closing(sqlite3.connect(log)) as usage:
        assert usage.execute("SELECT COUNT(*) FROM calls").fetchall() == [(1,)], "the read"


async def test_a_run_goes_on_when_there_is_someone_again(tmp_path):
    few = write_manifest(tmp_path / "few.yaml", pairs(30))
    port = unheard()
    server = Server(lambda: web.json_response({"Arn": "arn", "Revision": 1}))

    failing, done = asyncio.Event(), asyncio.Event()

    async def later() -> None:
        await failing.wait()
        async with endpoint(server.handle, port):
            await done.wait()

    def show(frame: display.Frame) -> None:
        if frame.parts[0].failure:
            failing.set()

    async def watch(view: RunView) -> None:
        await progress.watch(view, show, every=0.01)

    listening = asyncio.create_task(later())
    summary = await run(few, f"http://127.0.0.1:{port}", watch, pause=20)
    done.set()
    await listening
    assert (summary.outcome, summary.exit_code) == ("completed", 0)
    assert len(server.rows) == len(server.tokens) == 30


@asynccontextmanager
async def proxy(answer: bytes) -> AsyncIterator[int]:
    """What answers whatever it is asked with the same, and hangs up."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


LOGIN = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_a_password_stops_the_run_and_is_named(manifest, scheme, monkeypatch):
    async with proxy(LOGIN) as port:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://me:PASSWORD@127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY")
        summary = await run(manifest, f"{scheme}://api.example")
    assert (summary.exit_code, summary.calls, summary.counts.unattempted) == (3, 0, len(ROWS))
    said = as_text(summary)
    assert f"the proxy 127.0.0.1:{port} " in said
    assert "407" in said
    assert "put the proxy's user and password into HTTPS_PROXY" in said
    assert "PASSWORD" not in said


@pytest.mark.parametrize("answer", [b"", b"what?\r\n\r\n", b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n"])
async def test_a_tunnel_that_does_not_open_proves_that_nothing_left(manifest, answer, monkeypatch):
    async with proxy(answer) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:PASSWORD@127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY")
        summary = await run(manifest, "https://api.example")
    assert (summary.exit_code, summary.calls, summary.counts.unattempted) == (4, 0, len(ROWS))
    assert "PASSWORD" not in as_text(summary)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:PASSWORD@127.0.0.1:99999",
        "http://me:PASSWORD@127.0.0.1:port",
        "socks5://me:PASSWORD@127.0.0.1:1080",
        "http://me:PASSWORD@[::1:80",
        "http://me:PASS/WORD@127.0.0.1:80",
        "http://",
        "pro xy:80",
    ],
)
async def test_a_proxy_that_is_no_url_stops_the_run_and_the_variable_is_named(manifest, url, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", url)
    monkeypatch.delenv("NO_PROXY")
    summary = await run(manifest, "https://api.example")
    assert (summary.exit_code, summary.calls, summary.counts.unattempted) == (3, 0, len(ROWS))
    said = as_text(summary)
    assert "InvalidProxyError: the URL of the proxy " in said
    assert "correct HTTPS_PROXY" in said
    assert not any(secret in said for secret in ("PASSWORD", "PASS/", "WORD@"))


async def test_whoever_watches_is_told_meanwhile_what_is_waited_for(manifest):
    url = f"http://127.0.0.1:{unheard()}"
    frames: list[display.Frame] = []

    async def watch(view: RunView) -> None:
        await progress.watch(view, frames.append, every=0.05)

    await run(manifest, url, watch=watch)
    (trouble,) = {one.parts[0].failure[:2] for one in frames[:-1] if one.parts[0].failure}
    assert trouble == (f"cannot reach {url.removeprefix('http://')}: connection refused", len(ROWS))


async def test_a_name_server_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(http, "NAME_TIMEOUT", 0.05)
    asked = threading.Event()
    resolver = http.Resolver(lambda *_, **__: [asked.wait(30)])
    with pytest.raises(TimeoutError):
        await resolver.resolve("api.example", 443)
    asked.set()
