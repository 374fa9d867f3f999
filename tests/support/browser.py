"""Debian's Chromium without a window, driven by Playwright."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

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
def started() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=["--no-sandbox"])
        browser.new_context().new_page()
        yield browser
        browser.close()


class OpenPage:
    """A page of a file: what it complained of on its console, and the addresses it asked for.

    The browser's only page is used again: another one takes a process.
    """

    def __init__(self, browser: Browser) -> None:
        self.page: Page = browser.contexts[0].pages[0]
        self.page.emulate_media(media="null", color_scheme="null")
        self.page.set_viewport_size({"width": 1280, "height": 720})
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.js = self.page.evaluate
        self.key = self.page.keyboard.press

    def open(self, path: Path) -> float:
        """Open a file; returns the seconds until it could be used."""
        began = time.perf_counter()
        self.page.goto(path.as_uri())
        return time.perf_counter() - began
