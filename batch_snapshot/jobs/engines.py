"""Which engine drives a run, and what makes its calls: this process, or the workers of a Dask cluster."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Union

import anyio

from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target
from batch_snapshot.cluster.coordinator import Coordinator
from batch_snapshot.config.options import BUDGET, DEFAULT_SETTINGS, LONGEST_BUDGET, Options, silent_after
from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.pool import Engine
from batch_snapshot.engine.seams import Seams
from batch_snapshot.errors import InputError, install_command
from batch_snapshot.jobs.recorder import Recorder
from batch_snapshot.ledger.history import History
from batch_snapshot.models import Account

if TYPE_CHECKING:
    from batch_snapshot.cluster.dask_client import Workers  # may not be installed

Callers = Union[Clients, "Workers"]

#: The longest drain time-out of a ledger that is believed, in seconds.
LONGEST_DRAIN = 3600.0


async def wait_for_lost_workers(past: History, on_wait: Callable[[str], None] | None) -> None:
    """Wait until the workers of a coordinator that crashed must have stopped calling."""
    last = past.last
    if last is None or past.end is not None or last.settings.get("engine") != "dask":
        return
    budget = _seconds(last.settings.get("lease_s"), LONGEST_BUDGET) or BUDGET
    drain = _seconds(last.settings.get("drain_s"), LONGEST_DRAIN) or DEFAULT_SETTINGS.drain_timeout
    left = silent_after(budget, drain)
    if on_wait:
        on_wait(f"waiting {left:.0f} s: the workers of the crashed run may still make calls")
    await anyio.sleep(left)


def _seconds(value: object, longest: float) -> float | None:
    """A time as a ledger has it; None: it makes no sense."""
    return float(value) if isinstance(value, int | float) and 0 < value <= longest else None


def open_callers(
    accounts: Mapping[str, Account], target: Target, options: Options, now: Callable[[], datetime]
) -> AbstractAsyncContextManager[Callers]:
    """What makes the calls for the accounts, for as long as the block lasts."""
    if options.cluster is None:
        return Clients(accounts, target, now)
    try:
        from batch_snapshot.cluster.dask_client import open_workers  # may not be installed
    except ImportError as error:
        if (error.name or "").startswith("batch_snapshot"):
            raise
        raise InputError(f"--engine dask needs Dask: {install_command('dask')}") from None
    return open_workers(accounts, target, options.engine, options.cluster, now)


def build_engine(
    callers: Callers,
    accounts: dict[str, AccountState],
    options: Options,
    recorder: Recorder,
    *,
    identify: Callable[[AccountState], Awaitable[None]],
    rng: Random,
) -> Engine:
    seams = Seams(
        intend=recorder.intend,
        record=recorder.record,
        identify=identify,
        probe=callers.probe,
        clock_skew=callers.clock_skew,
        now=recorder.now,
        rng=rng,
    )
    if isinstance(callers, Clients):
        seams = replace(seams, send=callers.send, look_up=callers.look_up)
        return Engine(accounts, seams, options.engine)
    return Coordinator(accounts, seams, options.engine, callers)
