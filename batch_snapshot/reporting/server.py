"""The report's page in a browser, live: a server that sends the parts of the page that have changed.

It reads ledgers. A page may load nothing but its own events. Without a token a request must name a loopback
host, so that no name of another site leads here (DNS rebinding). Only a server that was given `control` takes
commands to a run, and then it is on loopback, has a token, and takes them from its own page alone.
"""

import asyncio
import errno
import hmac
import platform
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import orjson
from aiohttp import web

from batch_snapshot.clock import utc_now
from batch_snapshot.errors import BatchSnapshotError, InputError
from batch_snapshot.ledger import reader
from batch_snapshot.redaction import redacted
from batch_snapshot.reporting import html, page, report
from batch_snapshot.reporting.status import list_ledgers

#: Seconds between two looks at a ledger at least, and the share of a processor that looks may take.
LOOK_EVERY, LOOK_SHARE = 1.0, 0.1
#: Seconds until a browser reconnects.
RECONNECT_AFTER = 1.0
#: Seconds for the last news when the server ends.
SHUTDOWN = 3.0
#: Ledgers that are kept open for browsers.
MOST_VIEWS = 8

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: Sends an action, its value and its account to the run that writes a ledger, and returns what that did.
Control = Callable[[Path, str, str | None, str | None], str]
LONGEST_COMMAND = 4096


def is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while")[0]
        out = "name an address of this machine, such as 127.0.0.1"
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            out = f"--serve={host}:0 takes any free port"
        raise InputError(f"--serve {host}:{port}: cannot listen there ({why}); {out}") from None


def url(listening: socket.socket, token: str) -> str:
    host, port = listening.getsockname()[:2]
    host = platform.node() if ip_address(host).is_unspecified else f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/" + (f"?{urlencode({'token': token})}" if token else "")


@asynccontextmanager
async def serve(
    source: Callable[[], Path | None],
    listening: socket.socket,
    token: str = "",
    control: Control | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[None]:
    """Serve while the context is open, and say where; at its end browsers get the last news.

    `source` says what is shown: a ledger, a folder of ledgers, or None as long as that is not known. Requests
    must bear the `token`; without one they must name a loopback host. `control` carries out what the page's
    buttons say, in a thread; None: there are none.
    """
    site = Site(source, token, control)
    application = web.Application(middlewares=[site.guard], client_max_size=LONGEST_COMMAND)
    for path, handler in (("/", site.show), ("/events", site.send_events), ("/report", site.show_report)):
        application.router.add_get(path, handler)
    if control is not None:
        application.router.add_post("/control", site.take_command)
    application.on_response_prepare.append(_add_headers)
    runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=SHUTDOWN)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        announce(f"live at {url(listening, token)}")
        yield
    finally:
        site.closing.set()
        await runner.cleanup()


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


class Site:
    def __init__(self, source: Callable[[], Path | None], token: str, control: Control | None) -> None:
        self._source, self._token, self._control = source, token, control
        self._watched = lru_cache(MOST_VIEWS)(
            lambda ledger: Watched(page.LedgerView(ledger).read if ledger else self._list)
        )
        self._reporting = asyncio.Lock()
        self.closing = asyncio.Event()

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host = ""
        with suppress(ValueError):
            host = urlsplit(f"//{request.host}").hostname or ""
        if not (self._token and self._control is None) and not is_loopback(host):
            raise web.HTTPForbidden(
                text="This server answers only requests for a loopback name, such as localhost."
            )
        if not hmac.compare_digest(request.query.get("token", "").encode(), self._token.encode()):
            raise web.HTTPForbidden(text="The address lacks the token: use the one that the command printed.")
        return await handler(request)

    def _ledger(self, request: web.Request) -> Path | None:
        """The ledger that a request asks for; None: the list of a folder, or not known yet."""
        folder, name = self._source(), request.query.get("ledger", "")
        if folder is None or not folder.is_dir():
            return folder
        if not name:
            return None
        path = folder / name
        with suppress(OSError, ValueError):  # such as a name that is too long
            if path.parent == folder and not path.is_symlink() and reader.head_if_ledger(path):
                return path
        raise web.HTTPNotFound(text="There is no such ledger here.")

    def _list(self) -> page.View:
        folder = self._source()
        if folder is None:
            return page.message("Waiting", "The run has not begun yet.")
        try:
            ledgers = list_ledgers(folder)
        except (BatchSnapshotError, OSError) as error:
            return page.message("Ledgers", str(error))
        text = html.template("ledgers.html").render(
            folder=folder, ledgers=ledgers, link=lambda name: self._link("/", folder / name)
        )
        return f"Ledgers in {folder}", {"header": text}

    def _link(self, path: str, ledger: Path | None = None) -> str:
        source = self._source()
        query = {"ledger": ledger.name} if ledger and source and source.is_dir() else {}
        query |= {"token": self._token} if self._token else {}
        return f"{path}?{urlencode(query)}" if query else path

    async def show(self, request: web.Request) -> web.Response:
        ledger = self._ledger(request)
        title, parts = await self._watched(ledger).look()
        links = {"The whole report, with all rows": self._link("/report", ledger)} if ledger else {}
        links |= {"All ledgers": self._link("/")} if "ledger" in request.query else {}
        steered = self._control is not None and (ledger or self._source() is None)
        head = reader.head_if_ledger(ledger) if steered and ledger else None
        text, policy = html.render_live(
            title,
            dict.fromkeys(page.SECTIONS, "") | parts,  # parts that only come later need their places
            ledger=ledger.name if ledger else "",
            events=self._link("/events", ledger),
            links=links,
            control=self._link("/control", ledger) if steered else "",
            accounts=[*head.accounts] if head else [],
        )
        return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": policy})

    async def take_command(self, request: web.Request) -> web.Response:
        """Have a run do what a button of our own page says."""
        if request.headers.get("Origin") != f"http://{request.host}":
            raise web.HTTPForbidden(text="Commands are taken from this server's own page only.")
        ledger = self._ledger(request)
        if ledger is None or self._control is None:
            raise web.HTTPConflict(text="No run has begun here: wait for it, or choose a ledger.")
        # Another site's page cannot send this type without asking first.
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="A command must be JSON.")
        try:
            given = await request.json()
            action, value, account = (given.get(name) for name in ("action", "value", "account"))
        except (ValueError, LookupError, AttributeError, RecursionError):
            action = value = account = None
        words = [action, *(each for each in (value, account) if each is not None)]
        if not all(isinstance(word, str) and word.isprintable() for word in words):
            raise web.HTTPBadRequest(text="This is not a command.")
        return web.Response(text=redacted(await _in_thread(self._control, ledger, action, value, account)))

    async def send_events(self, request: web.Request) -> web.StreamResponse:
        """The parts that have changed, as often as there are any."""
        ledger, over = self._ledger(request), False
        sent: dict[str, str] = {}
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        # Browsers go away.
        with suppress(ConnectionError):
            await stream.prepare(request)
            await stream.write(f"retry: {RECONNECT_AFTER * 1000:.0f}\n\n".encode())
            while not over:
                over = self.closing.is_set()
                ledger = ledger or self._ledger(request)
                title, parts = await self._watched(ledger).look(now=over)
                changed = {name: part for name, part in parts.items() if sent.get(name) != part}
                sent |= changed
                news = {"title": title, "parts": changed, "ledger": ledger.name if ledger else ""}
                # Without news a comment is sent, so that a lost browser is noticed.
                await stream.write(
                    b"event: parts\ndata: %b\n\n" % orjson.dumps(news) if changed else b":\n\n"
                )
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.closing.wait(), LOOK_EVERY)
            await stream.write(b"event: end\ndata: \n\n")
        return stream

    async def show_report(self, request: web.Request) -> web.Response:
        """The page that `report --html` writes; one at a time, because it takes memory."""
        ledger = self._ledger(request)
        if ledger is None:
            raise web.HTTPNotFound(text="There is no ledger to report on.")
        async with self._reporting:
            text = await _in_thread(lambda: page.render(report.load(ledger), utc_now()))
        return web.Response(text=text, content_type="text/html")


async def _in_thread(work: Callable[..., str], *given: object) -> str:
    try:
        return await asyncio.to_thread(work, *given)
    except BatchSnapshotError as error:
        raise web.HTTPConflict(text=redacted(str(error))) from None


class Watched:
    """A view that is made at most once a second, however many browsers look at it."""

    def __init__(self, read: Callable[[], page.View]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._next = 0.0
        self._view: page.View = ("", {})

    async def look(self, *, now: bool = False) -> page.View:
        async with self._lock:
            began = time.monotonic()
            if now or began >= self._next:
                self._view, cost = await asyncio.to_thread(self._read_and_measure)
                self._next = began + max(LOOK_EVERY, cost / LOOK_SHARE)
        return self._view

    def _read_and_measure(self) -> tuple[page.View, float]:
        began = time.thread_time()
        return self._read(), time.thread_time() - began
