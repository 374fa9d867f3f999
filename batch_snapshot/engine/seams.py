"""The functions through which the engine reaches the service, the ledger and the clocks."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Never

from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.attempts import Attempts
from batch_snapshot.models import Outcome, Receipt, Request

Send = Callable[[Request], Awaitable[Receipt]]
Record = Callable[[Outcome], None]
Identify = Callable[[AccountState], Awaitable[None]]


async def by_workers(_: Request) -> Never:
    """Stands for what only the workers of a cluster do."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """Wired once for a run. Everything that calls the service raises `ApiError`."""

    #: Makes a batch of one account durable; nothing of it is sent before that.
    intend: Callable[[Sequence[Request]], Awaitable[None]]
    #: Makes one call.
    send: Send = by_workers
    #: Writes an outcome to the ledger; an exception ends the run before another call.
    record: Record
    #: Takes a row that was begun and not settled; None: it is recorded if it is in doubt.
    leave: Callable[[Attempts], None] | None = None
    #: Finds the snapshot that an earlier try may have made.
    look_up: Callable[[Request], Awaitable[Receipt | None]] = by_workers
    #: Finds out which AWS account signs, and sets the account's pace and windows, before its first permit.
    identify: Identify
    #: Makes one cheap read as the account, before its first write.
    probe: Callable[[Request], Awaitable[None]]
    #: The service's clock less ours in seconds, by account name; None: not known.
    clock_skew: Callable[[str], float | None]
    #: The wall clock.
    now: Callable[[], datetime]
    #: Draws the jitter.
    rng: Random
