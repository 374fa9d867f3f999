"""Clients for the simulator's tests: boto3 itself, and bare signed HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import aiohttp
import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from batch_snapshot.simulator import Simulator, SimulatorSettings, serve

ENGAGEMENT = "eng-0123456789abcd"
PAIR = {
    "Catalog": "Sandbox",
    "EngagementIdentifier": ENGAGEMENT,
    "ResourceType": "Opportunity",
    "ResourceIdentifier": "O1",
    "ResourceSnapshotTemplateIdentifier": "OpportunitySummaryView",
}
CREATE = "CreateResourceSnapshot"
KEY = "AKIAEXAMPLE000000000"

Call = Callable[..., Awaitable[dict[str, Any]]]


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


class Service:
    """A served simulator and one boto3 client on it."""

    def __init__(self, url: str, simulator: Simulator) -> None:
        self.url = url
        self.simulator = simulator
        self._clients: dict[str, Any] = {}

    def client(self, key: str = KEY) -> Any:
        if key not in self._clients:
            self._clients[key] = session().client(
                "partnercentral-selling",
                region_name="us-east-1",
                endpoint_url=self.url,
                aws_access_key_id=key,
                aws_secret_access_key="secret",
                config=Config(retries={"total_max_attempts": 1}),
            )
        return self._clients[key]

    async def call(self, method: str, key: str = KEY, /, **params: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await asyncio.to_thread(getattr(self.client(key), method), **params)
        return answer

    async def create(self, token: str, key: str = KEY, /, **changes: str) -> dict[str, Any]:
        return await self.call("create_resource_snapshot", key, ClientToken=token, **{**PAIR, **changes})

    async def pages(self, method: str, size: int, **params: Any) -> list[list[dict[str, Any]]]:
        """Walk botocore's own paginator; return the items of each page."""
        paginator = self.client().get_paginator(method)

        def walk() -> list[list[dict[str, Any]]]:
            pages = paginator.paginate(**params, PaginationConfig={"PageSize": size})
            return [page[paginator.result_keys[0].expression] for page in pages]

        return await asyncio.to_thread(walk)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@cache
def session() -> Any:
    return boto3.Session()


@asynccontextmanager
async def service(
    settings: SimulatorSettings | None = None, *, now: Callable[[], float] = time.time
) -> AsyncIterator[Service]:
    async with serve(settings, now=now) as (url, simulator):
        served = Service(url, simulator)
        try:
            yield served
        finally:
            served.close()


def signed(url: str, operation: str = CREATE, key: str = KEY) -> dict[str, str]:
    """Headers that botocore signs; the body is not part of what the simulator checks."""
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"AWSPartnerCentralSelling.{operation}",
    }
    request = AWSRequest("POST", f"{url}/", headers=headers, data=b"")
    SigV4Auth(Credentials(key, "secret"), "partnercentral-selling", "us-east-1").add_auth(request)
    return {name: value for name, value in request.headers.items() if name != "Content-Length"}


async def post(url: str, headers: dict[str, str], body: object = None) -> tuple[int, dict[str, Any], Any]:
    """Post as is; return status, the answer's headers and its JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{url}/", data=data, headers=headers) as answer,
    ):
        return answer.status, dict(answer.headers), json.loads(await answer.read())
