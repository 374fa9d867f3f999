"""The way to the service: which endpoint is called, and readers for what only reads."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from batch_snapshot import places
from batch_snapshot.allowance import Allowances
from batch_snapshot.client import Clients, Target
from batch_snapshot.errors import InputError
from batch_snapshot.model import AWS, SIMULATOR
from batch_snapshot.options import own_state, state_of
from batch_snapshot.quota import Usage
from batch_snapshot.reads import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime
    from random import Random

    from batch_snapshot.accounts import Called
    from batch_snapshot.lane import Lane
    from batch_snapshot.options import Options
    from batch_snapshot.posts import Posts

#: Engagements that a simulated world begins with, and opportunities of each, where no state file tells.
SEEDED = (20, 3)


async def target(endpoint: str, options: Options, stack: AsyncExitStack) -> Target:
    """Where the calls go; a simulator is started for as long as the stack lasts.

    Raises:
        InputError: the state file of the simulator is none, or cannot be used.
    """
    url = None if endpoint in {AWS, SIMULATOR} else endpoint
    simulated = endpoint == SIMULATOR
    if simulated:
        from batch_snapshot import simulator  # noqa: PLC0415 - half a second of imports that few runs need

        state = options.simulator_state
        known = state is not None and state.exists()
        settings = simulator.Settings(
            rate=20,
            burst=20,
            latency=0.05,
            state=state,
            engagements=0 if known else SEEDED[0],
            opportunities_per_engagement=0 if known else SEEDED[1],
        )
        try:
            url, _ = await stack.enter_async_context(simulator.serve(settings))
        except (ValueError, OSError) as error:
            raise InputError(f"--state: {error}") from None
    return Target(endpoint_url=url, simulated=simulated, concurrency=options.engine.concurrency)


@asynccontextmanager
async def readers(
    called: Called, options: Options, now: Callable[[], datetime], rng: Random
) -> AsyncIterator[Mapping[str, Reader]]:
    """A reader an account, for as long as the block lasts.

    Raises:
        StorageError: the log of calls cannot be used.
    """
    async with AsyncExitStack() as stack:
        options = stack.enter_context(own_state(options, simulated=called.endpoint == SIMULATOR))
        usage = stack.enter_context(Usage(places.usage_file(state_of(options))))
        accounts = {
            name: replace(account, quota=called.quotas[name]) for name, account in called.accounts.items()
        }
        allowances = Allowances(accounts, called.endpoint, usage, os.environ, read_rate=options.read_rate)
        where = await target(called.endpoint, options, stack)
        clients = await stack.enter_async_context(Clients(accounts, where, now))
        lanes = {name: allowances.lane(name, wait=options.wait) for name in accounts}
        yield over(lanes, allowances, clients, now, rng)


def over(
    lanes: Mapping[str, Lane],
    allowances: Allowances,
    clients: Clients | Posts,
    now: Callable[[], datetime],
    rng: Random,
) -> dict[str, Reader]:
    """Readers over the lanes of accounts, by name."""
    identify = partial(allowances.settle_reads, identify=clients.identify)
    return {name: Reader(lane, clients.read, identify, now=now, rng=rng) for name, lane in lanes.items()}
