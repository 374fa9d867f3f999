"""Who is measured: this program, and the scripts that people write instead of it.

Each is a process of its own. The scripts are started as `python -m tests.bench.clients NAME URL ROWS FIRST`.
Under a limit they swallow what fails in the end: the endpoint knows which rows are missing.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from tests.bench.processes import python
from tests.bench.scenarios import Scenario
from tests.support.processes import TEMPLATE, Json, pairs, write_manifest

OURS, AWS = "ours", "aws"

#: Calls in flight of everybody but the AWS CLI, where there is no limit.
WORKERS = 32

#: Interpreters of the AWS CLI that xargs keeps going: one a core of a small machine.
_AWS_PROCESSES = 2

_SERVICE, _REGION = "partnercentral-selling", "us-east-1"
_TARGET = "AWSPartnerCentralSelling.CreateResourceSnapshot"
_TYPE = "application/x-amz-json-1.0"


# -- command lines -----------------------------------------------------------------------------------


def ours(manifest: Path, url: str, place: Path, *flags: object) -> list[str]:
    """This program, as its users start it; the ledger is named after the manifest."""
    words = [
        "--endpoint-url",
        url,
        "--state-dir",
        place / "state",
        "--ledger",
        manifest.with_suffix(".ndjson"),
    ]
    return python("batch_snapshot", "run", manifest, *words, "--progress", "none", "--format", "json", *flags)


def script(name: str, url: str, rows: int, first: int = 0) -> list[str]:
    return python("tests.bench.clients", name, url, rows, first)


def limited(name: str, scenario: Scenario, url: str, place: Path, process: int) -> list[str]:
    """A scenario's n-th process, whose rows are its own."""
    first = process * scenario.rows
    if name != OURS:
        return script(name, url, scenario.rows, first)
    manifest = write_manifest(
        place / f"{process}.yaml",
        pairs(scenario.rows, first),
        name=f"bench-{process}",
        accounts={"bench": {"quota": {**scenario.quota}}},
    )
    return ours(manifest, url, place, *scenario.flags)


def aws_executable() -> str | None:
    """The AWS CLI; None: it is not installed."""
    found = shutil.which("aws")
    if found and Path(found).parent.name == "shims" and shutil.which("pyenv"):
        # pyenv's shim takes longer than the command that it leads to, which is not what is measured.
        real = subprocess.run(["pyenv", "which", "aws"], capture_output=True, text=True, check=False)
        return real.stdout.strip() or None
    return found


def aws(url: str, rows: int, arguments: Path) -> list[str]:
    """The AWS CLI, which xargs starts for each row of a file that this writes."""
    lines = [f"--engagement-identifier eng-{n:014d} --resource-identifier O{n + 1}\n" for n in range(rows)]
    arguments.write_text("".join(lines), "utf-8")
    words = ["xargs", "-L", "1", "-P", str(_AWS_PROCESSES), aws_executable() or "aws"]
    words += [_SERVICE, "create-resource-snapshot", "--endpoint-url", url, "--region", _REGION]
    words += ["--catalog", "Sandbox", "--resource-type", "Opportunity"]
    return [*words, "--resource-snapshot-template-identifier", TEMPLATE]


# -- the scripts -------------------------------------------------------------------------------------


def _parameters(row: Json) -> Json:
    """What the SDKs call for a row with; none of them is given a token, so botocore makes one."""
    return {
        "Catalog": "Sandbox",
        "EngagementIdentifier": row["engagement"],
        "ResourceType": "Opportunity",
        "ResourceIdentifier": row["resource"],
        "ResourceSnapshotTemplateIdentifier": TEMPLATE,
    }


def _boto3(url: str, rows: list[Json], *, threads: int = WORKERS, **config: Any) -> None:
    """Send the rows by a pool of threads that share a client."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    client = boto3.client(_SERVICE, _REGION, endpoint_url=url, config=Config(**config))

    def send(row: Json) -> None:
        with suppress(ClientError):
            client.create_resource_snapshot(**_parameters(row))

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(send, rows):
            pass


def _tasks(sender: Callable[[str, int], Any], workers: int, url: str, rows: list[Json]) -> None:
    """Send the rows by so many tasks, each by what `sender` opens."""

    async def main() -> None:
        waiting = iter(rows)
        async with sender(url, workers) as send:

            async def work() -> None:
                for row in waiting:
                    await send(row)

            await asyncio.gather(*(work() for _ in range(workers)))

    asyncio.run(main())


Send = Callable[[Json], Awaitable[object]]


@asynccontextmanager
async def _aioboto3(url: str, workers: int, **config: Any) -> AsyncIterator[Send]:
    import aioboto3
    from botocore.config import Config

    session = aioboto3.Session(region_name=_REGION)
    settings = Config(max_pool_connections=workers, **config)
    async with session.client(_SERVICE, endpoint_url=url, config=settings) as client:
        yield lambda row: client.create_resource_snapshot(**_parameters(row))


@asynccontextmanager
async def _tenacity(url: str, workers: int) -> AsyncIterator[Send]:
    from botocore.exceptions import ClientError
    from tenacity import RetryError, retry, stop_after_attempt, wait_random_exponential

    # tenacity is to be the only one that retries.
    async with _aioboto3(url, workers, retries={"total_max_attempts": 1}) as once:
        again = retry(wait=wait_random_exponential(multiplier=1, max=60), stop=stop_after_attempt(10))

        @again
        async def several(row: Json) -> None:
            await once(row)

        async def send(row: Json) -> None:
            with suppress(ClientError, RetryError):
                await several(row)

        yield send


@asynccontextmanager
async def _aiohttp(url: str, workers: int) -> AsyncIterator[Send]:
    import aiohttp
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    credentials = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    auth = SigV4Auth(credentials, _SERVICE, _REGION)
    headers = {"Content-Type": _TYPE, "X-Amz-Target": _TARGET}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=workers)) as session:

        async def send(row: Json) -> None:
            body = json.dumps({**_parameters(row), "ClientToken": str(uuid4())}).encode()
            request = AWSRequest("POST", url, headers=headers, data=body)
            auth.add_auth(request)
            async with session.post(url, data=body, headers=dict(request.headers)) as answer:
                answer.raise_for_status()
                await answer.json(content_type=None)

        yield send


def _sockets(url: str, rows: list[Json]) -> None:
    """Ask as fast as the endpoint can answer: what it is asked is ready, what it answers is not looked at."""
    body = json.dumps({**_parameters(rows[0]), "ClientToken": "%036d"}).encode()
    length = len(body) - len("%036d") + 36
    head = f"POST / HTTP/1.1\r\nContent-Type: {_TYPE}\r\nX-Amz-Target: {_TARGET}\r\nContent-Length: {length}"
    plain = head.encode() + b"\r\n\r\n" + body
    there = urlsplit(url)
    open_ = [socket.create_connection((there.hostname or "", there.port or 0)) for _ in range(WORKERS)]
    for sent in range(0, len(rows), WORKERS):
        asked = open_[: len(rows) - sent]
        for number, each in enumerate(asked, sent):
            each.sendall(plain % number)
        for each in asked:
            while not each.recv(65_536).endswith(b"}"):
                pass
    for each in open_:
        each.close()


_POOL: dict[str, Any] = {"max_pool_connections": WORKERS}
_ADAPTIVE = {"mode": "adaptive", "total_max_attempts": 10}

#: The scripts by name: they get the URL and the rows.
SCRIPTS: Mapping[str, Callable[[str, list[Json]], None]] = {
    "boto3-defaults": partial(_boto3, threads=16),
    "boto3-standard": partial(_boto3, retries={"mode": "standard"}, **_POOL),
    "boto3-adaptive": partial(_boto3, retries=_ADAPTIVE, **_POOL),
    "aioboto3-tenacity-32": partial(_tasks, _tenacity, 32),
    "aioboto3-tenacity-8": partial(_tasks, _tenacity, 8),
    "boto3": partial(_boto3, **_POOL),
    "aioboto3": partial(_tasks, _aioboto3, WORKERS),
    "aiohttp": partial(_tasks, _aiohttp, WORKERS),
    "sockets": _sockets,
}

#: Those that are measured under a limit.
CLIENTS = (OURS, *[*SCRIPTS][:5])

#: Those that are measured without one, in the order of the table.
FAST: Mapping[str, str] = {
    OURS: "batch-snapshot, ledger and all",
    "boto3": f"boto3, {WORKERS} threads",
    "aioboto3": f"bare aioboto3, {WORKERS} tasks",
    AWS: f"AWS CLI, xargs -P {_AWS_PROCESSES}",
    "aiohttp": f"bare aiohttp, signed, {WORKERS} tasks",
    "sockets": f"the endpoint itself: {WORKERS} sockets, unsigned",
}


def main(name: str, url: str, rows: str, first: str) -> None:
    """Run a script to its end."""
    SCRIPTS[name](url, pairs(int(rows), int(first)))


if __name__ == "__main__":
    main(*sys.argv[1:])
