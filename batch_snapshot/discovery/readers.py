"""Readers: what a command uses that only reads from the service."""

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from batch_snapshot import paths
from batch_snapshot.aws import profiles
from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import open_target
from batch_snapshot.clock import utc_now
from batch_snapshot.config.accounts import Targets, recorded_accounts, resolve_targets
from batch_snapshot.config.options import Options, isolate_simulated_state, state_folder_of
from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.limits import AccountLimits
from batch_snapshot.engine.reader import Call, Reader
from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger.records import Header
from batch_snapshot.models import SIMULATOR
from batch_snapshot.ratelimit.windows import CallLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    now: Callable[[], datetime] = utc_now
    #: For jitter.
    rng: Random = field(default_factory=Random)
    #: Gets a line on how far it is.
    on_progress: Callable[[str], None] = lambda _: None
    #: Gets a warning.
    warn: Callable[[str], None] = lambda _: None
    #: Seconds by a monotonic clock.
    clock: Callable[[], float] = time.monotonic


@dataclass(kw_only=True)
class Reads:
    """The calls that it took to find out what a command tells."""

    #: By operation, throttled ones too.
    calls: Counter[str] = field(default_factory=Counter)
    throttled: int = 0
    elapsed_s: float = 0.0

    def calls_as_json(self) -> dict[str, Any]:
        return {
            "calls": self.calls.total(),
            "calls_by_operation": dict(sorted(self.calls.items())),
            "throttled_calls": self.throttled,
            "elapsed_s": round(self.elapsed_s, 3),
        }

    def calls_as_text(self) -> str:
        more = f", {self.throttled:,} throttled" if self.throttled else ""
        first = f"calls         {self.calls.total():,} in {self.elapsed_s:,.1f} s{more}"
        each = ", ".join(f"{name} {number:,}" for name, number in sorted(self.calls.items()))
        return f"{first}\n{' ' * 14}{each}" if each else first


@asynccontextmanager
async def open_readers(
    targets: Targets, options: Options, environment: Environment, reads: Reads
) -> AsyncIterator[Mapping[str, Reader]]:
    """Readers for all accounts; at the end `reads` gets their calls."""
    now, rng = environment.now, environment.rng
    async with AsyncExitStack() as stack:
        options = stack.enter_context(
            isolate_simulated_state(options, simulated=targets.endpoint == SIMULATOR)
        )
        usage = stack.enter_context(CallLog(paths.call_log_file(state_folder_of(options))))
        accounts = targets.limited_accounts
        limits = AccountLimits(accounts, targets.endpoint, usage, os.environ, read_rate=options.read_rate)
        where = await open_target(targets.endpoint, stack, options.simulated, options.engine.concurrency)
        clients = await stack.enter_async_context(Clients(accounts, where, now))
        states = {name: limits.new_state(name, wait=options.wait) for name in accounts}
        readers = readers_over(states, limits, clients.identify, clients.read, now=now, rng=rng)
        yield readers
        for reader in readers.values():
            reads.calls += reader.calls
            reads.throttled += reader.throttled


@asynccontextmanager
async def open_ledger_readers(
    path: Path, header: Header, options: Options, environment: Environment, reads: Reads
) -> AsyncIterator[Mapping[str, Reader]]:
    """Readers for the accounts of the ledger at `path`; `header` is its last run line."""
    whom = resolve_targets(recorded_accounts(path, header), options, profiles.endpoints, header.endpoint)
    if header.endpoint != whom.endpoint:
        raise LedgerError(
            f"{path}: was written against {header.endpoint}, not {whom.endpoint}: use that endpoint"
        )
    if whom.endpoint == SIMULATOR and options.simulator_state is None:
        environment.warn(
            f"{path}: this simulator is new and has no snapshots, so all are missing: give --simulate "
            "--state FILE to the run and to this command"
        )
    async with open_readers(whom, options, environment, reads) as readers:
        yield readers


def readers_over(
    accounts: Mapping[str, AccountState],
    limits: AccountLimits,
    identify: Callable[[str], Awaitable[str]],
    call: Call,
    *,
    now: Callable[[], datetime],
    rng: Random,
) -> dict[str, Reader]:
    apply = partial(limits.apply_to_reads, identify=identify)
    return {name: Reader(one, call, apply, now=now, rng=rng) for name, one in accounts.items()}
