"""Secrets that this process knows, and how they are taken out of texts.

Known are the credentials in URLs (proxies, endpoints, package indexes, …) of the environment and of the
command line, the webhook's URL, and the AWS credentials in the environment. Every text that leaves the
program passes through `redacted` or `redacted_all`; texts of calls pass through `Secrets.scrub` before they
are stored.
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

#: Stands where a secret stood.
INSTEAD = "[secret]"

#: Characters from which on a secret is looked for anywhere. AWS's secret keys have 40.
LONG = 8

#: Characters from which on a password is looked for as a word; a shorter one is only taken out of URLs.
SHORTEST_WORD = 4

#: Characters from which on a part of a webhook's path counts as a secret.
LONGEST_NAME = 16

WEBHOOK_FLAG = "--notify-webhook"
_WEBHOOK_VARIABLE = "BATCH_SNAPSHOT_NOTIFY_WEBHOOK"

#: Variables whose whole value is a secret; `AWS_BEARER_TOKEN_` begins the names of others.
_VARIABLES = frozenset(
    {
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN",
    }
)

#: What a URL of any kind has before its host, up to the last @.
_USER_INFO = re.compile(r"(?<=://)[^\s/?#]+(?=@)")


class Secrets:
    """Secrets, and texts without them."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """Know these; those under `LONG` characters count as words."""
        self._known: set[str] = set()
        self._anywhere: list[str] = []
        self._words: list[str] = []
        self.add(texts)

    def add(self, texts: Iterable[str]) -> None:
        """Know more; what is too short to be told apart from any word is left out."""
        if fresh := {text for text in texts if len(text) >= SHORTEST_WORD and text not in self._known}:
            self._known |= fresh
            # The longest first: one may hold another.
            by_length = sorted(self._known, key=len, reverse=True)
            self._anywhere = [text for text in by_length if len(text) >= LONG]
            self._words = [text for text in by_length if len(text) < LONG]

    def scrub(self, text: str) -> str:
        """The text without them, and without user and password of any URL."""
        for secret in self._anywhere:
            if secret in text:
                text = text.replace(secret, INSTEAD)
        for secret in self._words:
            if secret in text:
                text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", INSTEAD, text)
        return _USER_INFO.sub(INSTEAD, text) if "@" in text else text


def of_environment(environ: Mapping[str, str]) -> set[str]:
    """The secrets in an environment."""
    found: set[str] = set()
    for name, value in environ.items():
        if name in _VARIABLES or name.startswith("AWS_BEARER_TOKEN_"):
            found |= {text for text in (value, value.strip()) if len(text) >= LONG}
        elif name == _WEBHOOK_VARIABLE:
            found |= of_webhook(value)
        elif name.startswith("OTEL_EXPORTER_OTLP") and name.endswith("HEADERS"):
            values = (unquote(pair.partition("=")[2].strip()) for pair in value.split(","))
            found |= {text for text in values if len(text) >= LONG}
        elif "@" in value and ("://" in value or name.lower().endswith("_proxy")):
            found |= of_url(value)
    return found


def of_arguments(arguments: Sequence[str]) -> set[str]:
    """The secrets on a command line."""
    found: set[str] = set()
    for before, word in zip(["", *arguments], arguments, strict=False):
        flag, _, value = word.partition("=")
        if before == WEBHOOK_FLAG:
            found |= of_webhook(word)
        elif flag == WEBHOOK_FLAG:
            found |= of_webhook(value)
        elif "@" in word and "://" in word:
            found |= of_url(word)
    return found


def of_url(text: str) -> set[str]:
    """What is secret in a URL, or in several in one text: user and password in all their spellings."""
    found: set[str] = set()
    for url in {text, *re.split(r"[\s,;]+", text)}:
        rest = url.partition("://")[2] or url
        # A password may hold what ends it by the rules; libraries differ in how they read such a URL.
        for authority in (re.split(r"[/?#]", rest, maxsplit=1)[0], rest):
            user_info, at, _ = authority.rpartition("@")
            if at and user_info:
                found.update(_spellings(user_info))
    return found


def _spellings(user_info: str) -> Iterator[str]:
    user, _, password = user_info.partition(":")
    # Without a password the name is the secret: a token.
    secret = password or user
    for text in (user_info, unquote(user_info), secret, unquote(secret)):
        yield from _written(text)
    # Parts of it, as they stand in the errors of parsers.
    for part in re.split(r"[:/@?#\[\]]", secret):
        yield from (part, unquote(part))
    for pair in (user_info, f"{unquote(user)}:{unquote(password)}"):
        for encoding in ("utf-8", "latin-1"):
            yield b64encode(pair.encode(encoding, "replace")).decode().rstrip("=")


def _written(text: str) -> Iterator[str]:
    """The text as it stands in URLs, in Python's errors, in JSON and in HTML."""
    yield text
    yield quote(text, safe="", errors="replace")
    yield quote(text, safe="!$&'()*+,;=~:@", errors="replace")
    yield repr(text)[1:-1]
    yield ascii(text)[1:-1]
    yield json.dumps(text)[1:-1]
    yield escape(text)


def of_webhook(url: str) -> set[str]:
    """What is secret in the URL of a webhook: all of it, and what stands in its path and query."""
    found = {url, url.partition("://")[2]} | (of_url(url) if "@" in url else set())
    try:
        parts = urlsplit(url)
    except ValueError:
        return {text for text in found if len(text) >= LONG}
    asked = f"{parts.path}?{parts.query}" if parts.query else parts.path
    *names, last = parts.path.split("/")
    found |= {name for name in names if len(name) >= LONGEST_NAME}
    found |= {asked, parts.path, last, *(pair.partition("=")[2] for pair in parts.query.split("&"))}
    return {text for text in found | {unquote(text) for text in found} if len(text) >= LONG}


#: Of the command line that runs.
_given: set[str] = set()
#: What is known while a command line runs: its environment stays as it is.
_running: list[Secrets] = []


def begin(arguments: Sequence[str]) -> None:
    """Know the secrets of this command line, and no other one's."""
    _given.clear()
    _given.update(of_arguments(arguments))
    _running[:] = [known()]


def known() -> Secrets:
    """What the process knows now; more can be added to it."""
    return Secrets(of_environment(os.environ) | _given)


def redacted(text: str) -> str:
    """The text without what the process knows."""
    return (_running[0] if _running else known()).scrub(text)


def redacted_all(value: Any) -> Any:
    """The same of a value of JSON's kinds: every text in it, its keys too."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {redacted_all(key): redacted_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_all(item) for item in value]
    return value
