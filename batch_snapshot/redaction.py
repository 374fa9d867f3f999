"""Takes the secrets that this process knows out of texts.

It knows the credentials in URLs (proxies, endpoints, package indexes, …) of the environment and of the
command line, the webhook's URL, and the AWS credentials in the environment. Every text that leaves the
program passes through `redacted` or `redacted_all`; texts of calls pass through `Secrets.scrub` before they
are stored.
"""

import json
import os
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote, unquote, urlsplit

#: Replaces a secret.
INSTEAD = "[secret]"

#: A secret of at least this many characters is looked for anywhere in a text. AWS's secret keys have 40.
LONG = 8

#: A password of at least this many characters is looked for as a word; a shorter one only in URLs.
SHORTEST_WORD = 4

#: A part of a webhook's path with at least this many characters counts as a secret.
LONGEST_NAME = 16

WEBHOOK_FLAG = "--notify-webhook"
#: The end of the names of variables for that flag, which some commands have for themselves.
_WEBHOOK_VARIABLE = "_NOTIFY_WEBHOOK"

#: Variables whose whole value is a secret; so are those whose names begin with `AWS_BEARER_TOKEN_`.
_VARIABLES = (
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
)

#: User and password in a URL, up to the last @ before its path.
_USER_INFO = re.compile(r"(?<=://)[^\s/?#]+(?=@)")


class Secrets:
    def __init__(self, texts: Iterable[str] = ()) -> None:
        #: The longest first: one secret may contain another.
        self._known: list[str] = []
        self.add(texts)

    def add(self, texts: Iterable[str]) -> None:
        """Know more; what is shorter than `SHORTEST_WORD` is ignored, as any word may be the same."""
        if fresh := {text for text in texts if len(text) >= SHORTEST_WORD and text not in self._known}:
            self._known = sorted(fresh.union(self._known), key=len, reverse=True)

    def scrub(self, text: str) -> str:
        """The text without the secrets, and without user and password of any URL."""
        for secret in self._known:
            if secret in text and len(secret) >= LONG:
                text = text.replace(secret, INSTEAD)
            elif secret in text:
                text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", INSTEAD, text)
        return _USER_INFO.sub(INSTEAD, text) if "@" in text else text


def of_environment(environ: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    for name, value in environ.items():
        if name in _VARIABLES or name.startswith("AWS_BEARER_TOKEN_"):
            found |= {text for text in (value, value.strip()) if len(text) >= LONG}
        elif name.endswith(_WEBHOOK_VARIABLE):
            found |= of_webhook(value)
        elif name.startswith("OTEL_EXPORTER_OTLP") and name.endswith("HEADERS"):
            values = (unquote(pair.partition("=")[2].strip()) for pair in value.split(","))
            found |= {text for text in values if len(text) >= LONG}
        elif "@" in value and ("://" in value or name.lower().endswith("_proxy")):
            found |= of_url(value)
    return found


def of_arguments(arguments: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for before, word in zip(["", *arguments], arguments, strict=False):
        flag, _, value = word.partition("=")
        if WEBHOOK_FLAG in {before, flag}:
            found |= of_webhook(word if before == WEBHOOK_FLAG else value)
        elif "@" in word and "://" in word:
            found |= of_url(word)
    return found


def of_url(text: str) -> set[str]:
    """The secrets in one URL or several: user and password in all their spellings."""
    found: set[str] = set()
    for url in {text, *re.split(r"[\s,;]+", text)}:
        rest = url.partition("://")[2] or url
        # A password may contain / or ?, which should end it; libraries differ in how they read such a URL.
        for authority in (re.split(r"[/?#]", rest, maxsplit=1)[0], rest):
            user_info, at, _ = authority.rpartition("@")
            if at and user_info:
                found.update(_spellings(user_info))
    return found


def _spellings(user_info: str) -> Iterator[str]:
    user, _, password = user_info.partition(":")
    # Without a password the name is the secret, such as a token.
    secret = password or user
    for text in (user_info, unquote(user_info), secret, unquote(secret)):
        yield from _encodings(text)
    # Errors of parsers quote parts of it.
    for part in re.split(r"[:/@?#\[\]]", secret):
        yield from (part, unquote(part))
    for pair in (user_info, f"{unquote(user)}:{unquote(password)}"):
        for encoding in ("utf-8", "latin-1"):
            yield b64encode(pair.encode(encoding, "replace")).decode().rstrip("=")


def _encodings(text: str) -> set[str]:
    """The text as it is written in URLs, in Python's errors, in JSON and in HTML."""
    quoted = {quote(text, safe, errors="replace") for safe in ("", "!$&'()*+,;=~:@")}
    return {text, *quoted, repr(text)[1:-1], ascii(text)[1:-1], json.dumps(text)[1:-1], escape(text)}


def of_webhook(url: str) -> set[str]:
    """The secrets in the URL of a webhook: all of it, and the parts of its path and query."""
    found = {url, url.partition("://")[2]} | (of_url(url) if "@" in url else set())
    try:
        parts = urlsplit(url)
    except ValueError:
        return {text for text in found if len(text) >= LONG}
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    *names, last = parts.path.split("/")
    found |= {name for name in names if len(name) >= LONGEST_NAME}
    found |= {target, parts.path, last, *(pair.partition("=")[2] for pair in parts.query.split("&"))}
    return {text for text in found | {unquote(text) for text in found} if len(text) >= LONG}


#: Secrets of the command line that runs.
_given: set[str] = set()
#: All that is known while a command line runs: its environment does not change.
_running: list[Secrets] = []


def begin(arguments: Sequence[str]) -> None:
    """Know the secrets of this command line, and forget those of an earlier one."""
    _given.clear()
    _given.update(of_arguments(arguments))
    _running[:] = [known()]


def known() -> Secrets:
    """The secrets that the process knows now; more can be added."""
    return Secrets(of_environment(os.environ) | _given)


def redacted(text: str) -> str:
    return (_running[0] if _running else known()).scrub(text)


def redacted_all(value: Any) -> Any:
    """`redacted` for every text in a JSON value, keys too."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {redacted_all(key): redacted_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_all(item) for item in value]
    return value
