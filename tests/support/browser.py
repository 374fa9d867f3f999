"""A real headless Chromium, driven over its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

#: Seconds for whatever is waited for.
PATIENCE = 30.0

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str:
    """The browser's path. Without one the test fails in CI and is skipped elsewhere."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        why = "no Chromium: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


@contextmanager
def started(folder: Path) -> Iterator[str]:
    """Start a browser with its profile in `folder`; yields the address of its protocol."""
    command = [
        program(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--remote-debugging-address=127.0.0.1",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        port = folder / "DevToolsActivePort"
        deadline = time.monotonic() + PATIENCE
        while not (port.exists() and port.read_text("utf-8").count("\n")):
            assert process.poll() is None, "the browser ended as it began"
            assert time.monotonic() < deadline, "the browser opened no port"
            time.sleep(0.02)
        number, path = port.read_text("utf-8").split("\n")[:2]
        yield f"ws://127.0.0.1:{number}{path}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


class Page:
    """One page, and what went wrong in it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._session: str | None = None
        self._number = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        #: What the console shows as a warning or worse, exceptions included.
        self.complaints: list[str] = []
        #: Addresses that were asked for.
        self.requests: list[str] = []

    async def listen(self) -> None:
        """Take in what the browser says, until it says no more."""
        async for message in self._socket:
            received = message.json()
            if "id" in received:
                self._answers.pop(received["id"]).set_result(received)
            else:
                self._on_event(received["method"], received["params"])

    def _on_event(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif (method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}) or (
            method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}
        ):
            self.complaints.append(str(params))

    async def send(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_json({"id": self._number, "method": method, "params": params, **session})
        answered = await asyncio.wait_for(answer, PATIENCE)
        assert "error" not in answered, answered
        return answered["result"]

    async def attach(self) -> None:
        """Open an empty page."""
        target = await self.send("Target.createTarget", url="about:blank")
        attached = await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")

    async def open(self, path: Path) -> float:
        """Open a file; returns the seconds until it could be used."""
        self._loaded.clear()
        began = time.perf_counter()
        await self.send("Page.navigate", url=path.as_uri())
        await asyncio.wait_for(self._loaded.wait(), PATIENCE)
        return time.perf_counter() - began

    async def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answered = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answered, answered
        return answered["result"].get("value")

    async def media(self, media: str = "", **features: str) -> None:
        """Look at the page as on paper, or with other preferences."""
        wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        await self.send("Emulation.setEmulatedMedia", media=media, features=wanted)

    async def key(self, key: str, code: int) -> None:
        """Press a key."""
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more
            )

    async def picture(self, *, whole: bool = False) -> bytes:
        """The page as PNG."""
        answered = await self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(answered["data"])

    async def paper(self) -> bytes:
        """The page as PDF."""
        answered = await self.send("Page.printToPDF", printBackground=True)
        return base64.b64decode(answered["data"])


@asynccontextmanager
async def page(address: str) -> AsyncIterator[Page]:
    """A page of the browser at `address`."""
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(address, max_msg_size=0) as socket,
    ):
        ours = Page(socket)
        listening = asyncio.ensure_future(ours.listen())
        try:
            await ours.attach()
            yield ours
            await ours.send("Page.close")
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
