"""Many accounts share one client."""

from datetime import UTC, datetime
from random import Random

import pytest

from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import utc_now
from batch_snapshot.models import Account, Request, Row
from batch_snapshot.simulator import serve

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.asyncio
async def test_a_thousand_accounts_share_one_client_and_its_connections():
    accounts = {f"a{n}": Account(f"a{n}") for n in range(1_000)}
    async with (
        serve() as (url, simulator),
        Clients(accounts, Target(endpoint_url=url, simulated=True), utc_now) as clients,
    ):
        lines = [await clients._account_client(name) for name in accounts]
        assert len({id(line.client) for line in lines}) == 1
        assert len({id(line.fast_calls) for line in lines}) == 1
        assert len({id(line.credentials) for line in lines}) == 1_000
        for name in ("a0", "a999"):
            await clients.send(
                Request(
                    Row(name, "Sandbox", "eng-0123456789abcd", "Opportunity", "O1", "OpportunitySummaryView"),
                    name,
                )
            )
        keys = {snapshot.access_key for snapshot in simulator.snapshots}
        assert len(keys) == 2, "each signs for itself"


@pytest.mark.asyncio
async def test_regions_and_endpoints_have_clients_of_their_own():
    accounts = {
        "a": Account("a"),
        "b": Account("b", region="eu-west-1"),
        "c": Account("c", endpoint_url="http://127.0.0.1:8"),
    }
    async with Clients(accounts, Target(simulated=True), lambda: NOW, Random(1)) as clients:
        assert len({id((await clients._account_client(name)).client) for name in accounts}) == 3
