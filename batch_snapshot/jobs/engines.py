"""Who makes the calls of a run: this process or the workers of a cluster, and the engine that drives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from batch_snapshot.aws.client import Clients
from batch_snapshot.cluster.coordinator import Coordinator
from batch_snapshot.cluster.lease import Term
from batch_snapshot.config.options import LEASE, LONGEST_LEASE
from batch_snapshot.engine.allowance import READ_RATE
from batch_snapshot.engine.pool import Engine
from batch_snapshot.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from random import Random

    from batch_snapshot.aws.target import Target
    from batch_snapshot.cluster.posts import Posts
    from batch_snapshot.config.options import Options
    from batch_snapshot.engine.account import AccountState
    from batch_snapshot.ledger.history import History
    from batch_snapshot.models import Account, Outcome, Request

    Callers = Clients | Posts
    Driver = Engine | Coordinator
    Identify = Callable[[AccountState], Awaitable[None]]
    Intend = Callable[[Sequence[Request]], Awaitable[None]]
    Record = Callable[[Outcome], None]


async def wait_for_lost_workers(past: History, tell: Callable[[str], None] | None) -> None:
    """Wait until the workers of a coordinator that crashed must have stopped calling.

    Args:
        past: of the ledger that it wrote.
        tell: is told what is waited for.
    """
    last = past.last
    if last is None or past.end is not None or last.settings.get("engine") != "dask":
        return
    seconds = last.settings.get("lease_s")
    term = Term(seconds if isinstance(seconds, int | float) and 0 < seconds <= LONGEST_LEASE else LEASE)
    term.renew(0.0)
    if tell:
        tell(f"waiting {term.left(0.0):.0f} s: workers of the run before, which crashed, may call until then")
    await anyio.sleep(term.left(0.0))


def open_callers(
    accounts: Mapping[str, Account], target: Target, options: Options, now: Callable[[], datetime]
) -> AbstractAsyncContextManager[Callers]:
    """Who makes the calls for the accounts, for as long as the block lasts.

    Raises:
        InputError: workers are wanted, and Dask is not there.
    """
    if options.cluster is None:
        return Clients(accounts, target, now)
    try:
        from batch_snapshot.cluster.posts import Posts  # noqa: PLC0415 - Dask is there only where it is wanted
    except ImportError as error:
        if (error.name or "").startswith("batch_snapshot"):
            raise
        raise InputError("--engine dask needs Dask: pip install 'batch-snapshot[dask]'") from None
    read_rate = options.read_rate or READ_RATE
    return Posts(accounts, target, options.engine, options.cluster, read_rate=read_rate)


def build_engine(
    callers: Callers,
    lanes: dict[str, AccountState],
    options: Options,
    *,
    identify: Identify,
    intend: Intend,
    record: Record,
    suspend: Record,
    now: Callable[[], datetime],
    rng: Random,
) -> Driver:
    """What drives the run, by whoever makes the calls.

    Args:
        callers: make them.
        lanes: by account name.
        options: how.
        identify: as for an `Engine`, and so are those that follow.
        intend: makes a batch durable.
        record: keeps an outcome.
        suspend: keeps that a row is in doubt which is about to be sent again, as its worker was lost.
        now: the wall clock.
        rng: draws the jitter.
    """
    if isinstance(callers, Clients):
        return Engine(
            lanes=lanes,
            identify=identify,
            send=callers.send,
            look_up=callers.look_up,
            probe=callers.probe,
            intend=intend,
            record=record,
            clock_skew=callers.clock_skew,
            now=now,
            rng=rng,
            settings=options.engine,
        )
    return Coordinator(
        lanes=lanes,
        posts=callers,
        identify=identify,
        intend=intend,
        record=record,
        suspend=suspend,
        now=now,
        settings=options.engine,
    )
