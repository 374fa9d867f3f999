"""Who is measured against the endpoint: this program, and what people use instead of it.

Each is a process of its own. The scripts are started as
`python -m tests.bench.speed.clients NAME URL ROWS`.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

from tests.bench.clients import parameters, with_boto3
from tests.bench.speed import material
from tests.bench.speed.children import python
from tests.support.processes import TEMPLATE, Json, pairs

OURS, AWS = "ours", "aws"

#: Calls in flight of everybody but the AWS CLI.
WORKERS = 32

#: Interpreters that xargs keeps going: one a core of a small machine.
_AWS_PROCESSES = 2

_SERVICE, _REGION = "partnercentral-selling", "us-east-1"
_TARGET = "AWSPartnerCentralSelling.CreateResourceSnapshot"
_TYPE = "application/x-amz-json-1.0"


# -- their command lines -----------------------------------------------------------------------------


class Command(NamedTuple):
    """How a client is started."""

    words: list[str]
    stdin: Path | None = None


def command(name: str, url: str, rows: int, place: Path) -> Command:
    """The command line that sends so many rows."""
    if name == OURS:
        return Command(ours(material.manifest(place / "bench.yaml", rows), url, place))
    if name == AWS:
        return _aws(url, rows, place / "arguments.txt")
    return Command(python("tests.bench.speed.clients", name, url, rows))


def ours(manifest: Path, url: str, place: Path) -> list[str]:
    """This program, as its users start it."""
    words = ["--endpoint-url", url, "--state-dir", place / "state", "--ledger", place / "bench.ndjson"]
    words += ["--progress", "none", "--format", "json", "--concurrency", WORKERS]
    return python("batch_snapshot", "run", manifest, *words)


def aws_executable() -> str | None:
    """The AWS CLI; None: it is not installed."""
    found = shutil.which("aws")
    if found and Path(found).parent.name == "shims" and shutil.which("pyenv"):
        # pyenv's shim takes longer than the command that it leads to, which is not what is measured.
        real = subprocess.run(["pyenv", "which", "aws"], capture_output=True, text=True, check=False)
        return real.stdout.strip() or None
    return found


def _aws(url: str, rows: int, arguments: Path) -> Command:
    lines = [f"--engagement-identifier eng-{n:014d} --resource-identifier O{n + 1}\n" for n in range(rows)]
    arguments.write_text("".join(lines), "utf-8")
    words = ["xargs", "-L", "1", "-P", str(_AWS_PROCESSES), aws_executable() or "aws"]
    words += [_SERVICE, "create-resource-snapshot", "--endpoint-url", url, "--region", _REGION]
    words += ["--catalog", "Sandbox", "--resource-type", "Opportunity"]
    return Command([*words, "--resource-snapshot-template-identifier", TEMPLATE], arguments)


# -- the scripts -------------------------------------------------------------------------------------


def _aioboto3(url: str, rows: int) -> None:
    asyncio.run(_with_aioboto3(url, iter(pairs(rows))))


async def _with_aioboto3(url: str, rows: Iterator[Json]) -> None:
    import aioboto3
    from botocore.config import Config

    session = aioboto3.Session(region_name=_REGION)
    config = Config(max_pool_connections=WORKERS)
    async with session.client(_SERVICE, endpoint_url=url, config=config) as client:

        async def work() -> None:
            for row in rows:
                await client.create_resource_snapshot(**parameters(row))

        await asyncio.gather(*(work() for _ in range(WORKERS)))


def _aiohttp(url: str, rows: int) -> None:
    asyncio.run(_with_aiohttp(url, iter(pairs(rows))))


async def _with_aiohttp(url: str, rows: Iterator[Json]) -> None:
    import aiohttp
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    credentials = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    auth = SigV4Auth(credentials, _SERVICE, _REGION)
    headers = {"Content-Type": _TYPE, "X-Amz-Target": _TARGET}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=WORKERS)) as session:

        async def work() -> None:
            for row in rows:
                body = json.dumps({**parameters(row), "ClientToken": str(uuid4())}).encode()
                request = AWSRequest("POST", url, headers=headers, data=body)
                auth.add_auth(request)
                async with session.post(url, data=body, headers=dict(request.headers)) as answer:
                    answer.raise_for_status()
                    await answer.json(content_type=None)

        await asyncio.gather(*(work() for _ in range(WORKERS)))


def _sockets(url: str, rows: int) -> None:
    """Ask as fast as the endpoint can answer: what it is asked is ready, what it answers is not looked at."""
    there = urlsplit(url)
    open_ = [socket.create_connection((there.hostname or "", there.port or 0)) for _ in range(WORKERS)]
    sent = 0
    while sent < rows:
        asked = open_[: rows - sent]
        for number, each in enumerate(asked, sent):
            each.sendall(_PLAIN % number)
        for each in asked:
            while not each.recv(65_536).endswith(b"}"):
                pass
        sent += len(asked)
    for each in open_:
        each.close()


def _unsigned() -> bytes:
    """A call as the others make it, but for the signature, with a place for its token."""
    (row,) = pairs(1)
    body = json.dumps({**parameters(row), "ClientToken": "%036d"}).encode()
    length = len(body) - len("%036d") + 36
    head = f"POST / HTTP/1.1\r\nContent-Type: {_TYPE}\r\nX-Amz-Target: {_TARGET}\r\nContent-Length: {length}"
    return head.encode() + b"\r\n\r\n" + body


_PLAIN = _unsigned()

#: The scripts by name: they get the URL and the number of rows.
SCRIPTS: Mapping[str, Callable[[str, int], None]] = {
    "boto3": lambda url, rows: with_boto3(url, pairs(rows), threads=WORKERS, max_pool_connections=WORKERS),
    "aioboto3": _aioboto3,
    "aiohttp": _aiohttp,
    "sockets": _sockets,
}

#: What each is, in the order of the table.
CLIENTS: Mapping[str, str] = {
    OURS: "batch-snapshot, ledger and all",
    "boto3": f"boto3, {WORKERS} threads",
    "aioboto3": f"bare aioboto3, {WORKERS} tasks",
    AWS: f"AWS CLI, xargs -P {_AWS_PROCESSES}",
    "aiohttp": f"bare aiohttp, signed, {WORKERS} tasks",
    "sockets": f"the endpoint itself: {WORKERS} sockets, unsigned",
}


def main(name: str, url: str, rows: str) -> None:
    """Run a script to its end."""
    SCRIPTS[name](url, int(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
