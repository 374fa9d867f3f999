"""Who is measured: this program, and the scripts that people write instead of it.

Each is a process of its own. The scripts are started as
`python -m tests.bench.clients NAME URL FIRST ROWS`; they swallow what fails in the end: the endpoint
knows which rows are missing.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.scenarios import Scenario
from tests.support.processes import TEMPLATE, Json, pairs, write_manifest

OURS = "ours"

_SERVICE = "partnercentral-selling"


def command(name: str, scenario: Scenario, url: str, folder: Path, process: int) -> list[str]:
    """The command line of a scenario's n-th process, whose rows are its own."""
    first = process * scenario.rows
    if name != OURS:
        script = ["-m", "tests.bench.clients", name, url, str(first), str(scenario.rows)]
        return [sys.executable, *script]
    manifest = write_manifest(
        folder / f"{process}.yaml",
        pairs(scenario.rows, first),
        name=f"bench-{process}",
        accounts={"bench": {"quota": {**scenario.quota}}},
    )
    words = ["run", str(manifest), "--endpoint-url", url, "--state-dir", str(folder / "state")]
    words += ["--ledger", str(folder / f"{process}.ndjson"), "--format", "json", "--progress", "none"]
    return [sys.executable, "-m", "batch_snapshot", *words, *scenario.flags]


def parameters(row: Json) -> Json:
    """What the SDKs call for a row with; none of them is given a token, so botocore makes one."""
    return {
        "Catalog": "Sandbox",
        "EngagementIdentifier": row["engagement"],
        "ResourceType": "Opportunity",
        "ResourceIdentifier": row["resource"],
        "ResourceSnapshotTemplateIdentifier": TEMPLATE,
    }


def with_boto3(url: str, rows: list[Json], *, threads: int, **config: Any) -> None:
    """Send the rows by a pool of threads that share a client."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    client = boto3.client(_SERVICE, "us-east-1", endpoint_url=url, config=Config(**config))

    def send(row: Json) -> None:
        with suppress(ClientError):
            client.create_resource_snapshot(**parameters(row))

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(send, rows):
            pass


def _tenacity(url: str, rows: list[Json], *, workers: int) -> None:
    asyncio.run(_with_tenacity(url, iter(rows), workers))


async def _with_tenacity(url: str, rows: Iterator[Json], workers: int) -> None:
    import aioboto3
    from botocore.config import Config
    from botocore.exceptions import ClientError
    from tenacity import RetryError, retry, stop_after_attempt, wait_random_exponential

    # tenacity is to be the only one that retries.
    config = Config(retries={"total_max_attempts": 1}, max_pool_connections=workers)
    session = aioboto3.Session(region_name="us-east-1")
    async with session.client(_SERVICE, endpoint_url=url, config=config) as client:

        @retry(wait=wait_random_exponential(multiplier=1, max=60), stop=stop_after_attempt(10))
        async def send(row: Json) -> None:
            await client.create_resource_snapshot(**parameters(row))

        async def work() -> None:
            for row in rows:
                with suppress(ClientError, RetryError):
                    await send(row)

        await asyncio.gather(*(work() for _ in range(workers)))


#: The scripts by name: they get the URL and the rows.
SCRIPTS: Mapping[str, Callable[[str, list[Json]], None]] = {
    "boto3-defaults": partial(with_boto3, threads=16),
    "boto3-standard": partial(with_boto3, threads=32, retries={"mode": "standard"}, max_pool_connections=32),
    "boto3-adaptive": partial(
        with_boto3,
        threads=32,
        retries={"mode": "adaptive", "total_max_attempts": 10},
        max_pool_connections=32,
    ),
    "aioboto3-tenacity-32": partial(_tenacity, workers=32),
    "aioboto3-tenacity-8": partial(_tenacity, workers=8),
}

CLIENTS = (OURS, *SCRIPTS)


def main(name: str, url: str, first: str, rows: str) -> None:
    """Run a script to its end."""
    SCRIPTS[name](url, pairs(int(rows), int(first)))


if __name__ == "__main__":
    main(*sys.argv[1:])
