"""Drives a run whose calls are made by the workers of a Dask cluster.

The run stays in this process: the order of the rows, intents, the ledger, quota windows, and every decision
to stop. Each account has at most one batch at a worker. What a batch did not send within its budget of
time goes out with the next one. The rows of a lost worker are in doubt; once it must be silent they are
sent again, under the same tokens.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup

from batch_snapshot.cluster.worker import Batch
from batch_snapshot.config.options import Settings
from batch_snapshot.engine.account import Abandoned, AccountState, Progress, Stop, StopKind
from batch_snapshot.engine.attempts import Attempts
from batch_snapshot.engine.pool import Engine
from batch_snapshot.engine.seams import Seams
from batch_snapshot.engine.signal import Signal
from batch_snapshot.models import ApiError, Failure, Request, Verdict

if TYPE_CHECKING:
    from batch_snapshot.cluster.dask_client import Workers
    from batch_snapshot.ratelimit.pacer import Reserved

#: Rows of a first batch. A later one has twice as many as the one before settled, within bounds.
FIRST_BATCH, SMALLEST_BATCH, LARGEST_BATCH = 64, 16, 512
#: Reads reserved for a batch beyond those for its rows in doubt.
SPARE_READS = 2
#: Seconds before what failed is tried again.
RETRY_AFTER = 0.5


@dataclass(slots=True)
class _Rows:
    """One account's rows that an intent names and that have no outcome yet."""

    left: dict[bytes, Attempts] = field(default_factory=dict)
    wanted: int = FIRST_BATCH
    #: Since when no worker has carried a batch out.
    failing_since: float | None = None


class Coordinator(Engine):
    """An engine whose rows are sent by the workers of a cluster."""

    steerable = False  # a worker learns of nothing before its batch ends

    def __init__(
        self, accounts: dict[str, AccountState], seams: Seams, settings: Settings, workers: "Workers"
    ) -> None:
        super().__init__(accounts, seams, settings)
        self._workers = workers

    @property
    def in_flight(self) -> int:
        return len(self._pairs)  # a call of each pair at a worker may be

    def abort(self) -> None:
        self._workers.stop(abort=True)
        super().abort()

    def _drain(self) -> None:
        self._workers.stop(abort=False)
        super()._drain()

    async def _serve(self, account: AccountState, _: TaskGroup) -> None:
        """Hand out an account's rows, batch after batch, until all have an outcome or the account stops."""
        rows = _Rows()
        more: list[Request] = []
        try:
            while not account.halted:
                await anyio.lowlevel.checkpoint()  # batches are shielded from the end of the run
                if not rows.left and not (more := more or await self._queue.take(account.name, rows.wanted)):
                    break
                try:
                    if more:
                        for request in more:
                            await self._calls.check(account, request)
                        await self._seams.intend(more)
                        rows.left = {one.row.key: Attempts(one, self._now(), self._began) for one in more}
                        more = []
                    await self._hand_out(account, rows)
                except Abandoned:
                    pass
                except ApiError as error:
                    await self._note_failure(account, rows, error.failure)
        except BaseException:
            self._workers.stop(abort=True)
            raise
        finally:
            for attempts in rows.left.values():
                self._leave(attempts)

    async def _hand_out(self, account: AccountState, rows: _Rows) -> None:
        """Have a worker send rows that are left, once no other account has one of their pairs there."""
        requests = [attempts.request for attempts in rows.left.values()]
        pairs, done = {request.row.pair for request in requests}, Signal()
        reads = SPARE_READS + sum(request.ambiguous for request in requests)
        reserved: list[Reserved | None] = []
        # Rows that may have been sent keep their pairs while the batch waits for its windows.
        sent = any(one.request.ambiguous or one.known_since is not None for one in rows.left.values())
        try:
            if sent:
                await self._claim_all(account, pairs, done)
            for pacer, wanted in ((account.pacer, len(requests)), (account.read_pacer, reads)):
                reserved.append(await self._calls.reserve(account, pacer, wanted))
            if not sent:
                await self._claim_all(account, pairs, done)
            account.check_halted()
            number = reserved[0].left if reserved[0] else None
            batch = Batch(account.name, requests[:number], Progress.of(account), reserved)
            with anyio.CancelScope(shield=True):  # until this ends, its worker may make calls
                batch = await self._carry(account, rows, batch)
            reserved = batch.reserved
            self._take_in(account, rows, batch)
        finally:
            for pacer, one in zip((account.pacer, account.read_pacer), reserved, strict=False):
                pacer.settle(one)
            for pair in pairs:
                if self._pairs.get(pair) is done:
                    del self._pairs[pair]
            done.send()

    async def _claim_all(self, account: AccountState, pairs: set[tuple[str, str, str]], done: Signal) -> None:
        """Claim all pairs at once, so that no two batches wait for each other."""
        while busy := pairs & self._pairs.keys():
            with account.interruptible():
                await self._pairs[busy.pop()].wait()
        self._pairs.update(dict.fromkeys(pairs, done))

    async def _carry(self, account: AccountState, rows: _Rows, batch: Batch) -> Batch:
        sent = self._calls.clock_reading(account)
        try:
            return await self._workers.carry(batch)
        except ApiError as error:
            if error.failure.may_have_landed:
                for reserved in filter(None, batch.reserved):
                    reserved.left = 0
                for request in batch.requests:
                    rows.left[request.row.key].lost(sent, error.failure)
            raise

    def _take_in(self, account: AccountState, rows: _Rows, batch: Batch) -> None:
        batch.progress.apply(account)
        rows.failing_since = None
        rows.wanted = min(max(SMALLEST_BATCH, 2 * len(batch.outcomes)), LARGEST_BATCH)
        for attempts in batch.unsettled:
            key = attempts.request.row.key
            attempts.failure = attempts.failure or rows.left[key].failure
            rows.left[key] = attempts
        for outcome in batch.outcomes:
            del rows.left[outcome.request.row.key]
            self.record(outcome)
        if batch.stop is not None and self.stop is None:
            self.stop_account(account.name, batch.stop)

    async def _note_failure(self, account: AccountState, rows: _Rows, failure: Failure) -> None:
        """Note that no worker carried a batch out; after too long the account waits for another run."""
        now, patience = anyio.current_time(), self._settings.patience
        rows.failing_since = now if rows.failing_since is None else rows.failing_since
        if failure.verdict is Verdict.STOP_ACCOUNT:
            self._calls.stop_signing(account, failure)
        elif not self._workers.reachable:
            gone = "the Dask scheduler is gone: start it again, then run the same command"
            self.request_stop(Stop(StopKind.STOPPED, gone))
        elif now - rows.failing_since > patience:
            why = f"account {account.name}: no worker took the account for {patience:g} s ({failure.message})"
            self.stop_account(account.name, Stop(StopKind.DEFERRED, why))
        else:
            await anyio.sleep(RETRY_AFTER)
