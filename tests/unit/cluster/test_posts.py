"""Where accounts are placed, with a Dask client made up."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest

from batch_snapshot import __version__
from batch_snapshot.aws.target import Target
from batch_snapshot.cluster.hosts import STARTED_AT_ONCE
from batch_snapshot.cluster.lease import Hello, RenewalReply, Start, Started
from batch_snapshot.cluster.posts import PLACED_AT_ONCE, Posts
from batch_snapshot.config import options
from batch_snapshot.config.options import ClusterOptions
from batch_snapshot.models import Account, Request, Row, client_token

pytestmark = pytest.mark.asyncio

NAMES = [f"a{number:03d}" for number in range(100)]
ROW = Row("main", "Sandbox", "eng-00000000000001", "Opportunity", "O1", "T")
START = Start(
    declared=None, learned=None, delay=0.0, windowed=False, request=Request(ROW, client_token("r", ROW, 0))
)


class Crowd:
    """How many are inside, and were at most."""

    def __init__(self) -> None:
        self.inside = self.most = 0

    async def __aenter__(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        for _ in range(20):
            await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        self.inside -= 1


class Dask:
    """Takes the place of Dask's client: one worker, which takes every account."""

    status = "running"
    as_current = nullcontext

    def __init__(self) -> None:
        self.searching, self.beginning = Crowd(), Crowd()

    async def submit(self, *_: object, **__: object) -> Dask:
        return self

    # As an actor.

    async def hello(self) -> Hello:
        async with self.searching:
            return Hello("host", "tcp://w:1", __version__, 0.0)

    async def renew(self, _: object) -> RenewalReply:
        return RenewalReply(0.0, ())

    async def start(self, _: object) -> Any:
        async with self.beginning:
            return Started(None, None, None)  # type: ignore[arg-type] # nobody asks when


async def test_a_worker_is_not_asked_for_all_accounts_at_once():
    accounts = {name: Account(name) for name in NAMES}
    target = Target(endpoint_url="http://127.0.0.1:9")
    posts = Posts(accounts, target, options.Settings(), ClusterOptions(), read_rate=1.0)
    dask: Any = Dask()
    posts._client = dask

    async def begin(name: str) -> None:
        await posts.start(await posts.place(name), START)

    await asyncio.gather(*map(begin, NAMES))
    assert len(posts._posts) == len(NAMES)
    assert dask.searching.most == PLACED_AT_ONCE
    assert dask.beginning.most == STARTED_AT_ONCE
    await posts.__aexit__(None, None, None)
