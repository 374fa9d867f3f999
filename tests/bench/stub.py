"""An endpoint that is no limit: it answers every call at once, checks nothing, and counts.

A process of its own: `python -m tests.bench.stub LATENCY` prints its URL; each answer is held back for so
many seconds. It speaks as much HTTP/1.1 as the SDKs do: requests with a Content-Length over connections
that stay.
"""

import asyncio
import gc
import re
import signal
import sys
import time
from contextlib import AbstractContextManager
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import orjson

from tests.bench.processes import python, served

_TAKE = b"GET /_stub/take "
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CREATE = b"AWSPartnerCentralSelling.CreateResourceSnapshot"
_NOT_FOUND = {"__type": "ResourceNotFoundException", "Message": "There is no such snapshot."}


# -- the process that serves -------------------------------------------------------------------------


class Record(NamedTuple):
    """What the endpoint saw since it was asked last."""

    creates: int
    others: int
    #: Distinct client tokens.
    tokens: int
    #: Arrivals of the first call and of the last, by the monotonic clock.
    first: float
    last: float

    @property
    def rate(self) -> float:
        """Snapshots a second."""
        return (self.creates - 1) / (self.last - self.first) if self.last > self.first else 0.0


class World:
    """Answers calls."""

    def __init__(self) -> None:
        self._requests = self._second = 0
        self._date = b""
        self._begin()

    def _begin(self) -> None:
        self._creates = self._others = 0
        self._tokens: set[str] = set()
        self._first = self._last = 0.0

    def _taken(self) -> dict[str, Any]:
        seen = Record(self._creates, self._others, len(self._tokens), self._first, self._last)
        self._begin()
        return seen._asdict()

    def answer(self, head: bytes, body: bytes) -> bytes:
        """Answer one request, whole."""
        if head.startswith(_TAKE):
            return self._written(b"200 OK", self._taken())
        self._last = time.monotonic()
        self._first = self._first or self._last
        if _CREATE not in head:
            self._others += 1
            return self._written(b"400 Bad Request", _NOT_FOUND)
        return self._written(b"200 OK", self._created(orjson.loads(body)))

    def _created(self, asked: dict[str, str]) -> dict[str, Any]:
        self._creates += 1
        self._tokens.add(asked["ClientToken"])
        arn = (
            f"arn:aws:partnercentral:us-east-1::catalog/{asked['Catalog']}"
            f"/engagement/{asked['EngagementIdentifier']}"
            f"/resource/{asked['ResourceType']}/{asked['ResourceIdentifier']}"
            f"/template/{asked['ResourceSnapshotTemplateIdentifier']}/snapshot/1"
        )
        return {"Arn": arn, "Revision": 1}

    def _written(self, status: bytes, answer: dict[str, Any]) -> bytes:
        body = orjson.dumps(answer)
        self._requests += 1
        now = int(time.time())
        if now != self._second:
            self._second, self._date = now, formatdate(now, usegmt=True).encode()
        return (
            b"HTTP/1.1 %b\r\nContent-Type: application/x-amz-json-1.0\r\n"
            b"x-amzn-RequestId: 00000000-0000-4000-8000-%012d\r\nDate: %b\r\nContent-Length: %d\r\n\r\n%b"
        ) % (status, self._requests, self._date, len(body), body)


class Connection(asyncio.Protocol):
    """Cuts what arrives into requests."""

    def __init__(self, world: World, latency: float = 0.0) -> None:
        self._world = world
        self._latency = latency
        self._transport: Any = None
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (head := self._unread.find(_HEAD_END)) >= 0:
            length = _LENGTH.search(self._unread, 0, head)
            begin = head + len(_HEAD_END)
            end = begin + (int(length[1]) if length else 0)
            if len(self._unread) < end:
                return
            self._tell(self._world.answer(self._unread[:head], self._unread[begin:end]))
            self._unread = self._unread[end:]

    def _tell(self, answer: bytes) -> None:
        if self._latency:
            asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)
        else:
            self._transport.write(answer)


async def _serve(latency: float) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    world = World()
    server = await loop.create_server(lambda: Connection(world, latency), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)  # noqa: T201 - it is asked for
    await over.wait()
    server.close()


# -- the process that measures -----------------------------------------------------------------------


def take(url: str) -> Record:
    """Take what an endpoint has counted, and let it begin anew."""
    with urlopen(f"{url}/_stub/take") as answer:
        return Record(**orjson.loads(answer.read()))


def serve(place: Path, latency: float = 0.0) -> AbstractContextManager[str]:
    """Serve in a process of its own, and yield the URL; each answer is held back for `latency` seconds."""
    return served(python("tests.bench.stub", latency), place)


if __name__ == "__main__":
    # A set of a million tokens would be walked again and again, in the middle of calls.
    gc.disable()
    asyncio.run(_serve(float(sys.argv[1])))
