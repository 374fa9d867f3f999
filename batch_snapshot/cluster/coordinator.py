"""Drives a run whose calls are made by the workers of a Dask cluster.

The run stays in this process: the order of the rows, intents, the ledger, quota windows, and every decision
to stop. Each account has at most one batch at a worker. What a batch did not send within its budget of
time goes out with the next one. The rows of a lost worker are in doubt; once it must be silent they are
sent again, under the same tokens.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING

import anyio

from batch_snapshot.cluster.batch import LostError, NotBegunError, Progress, lost_outcome, resend
from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.engine.queue import RequestQueue
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.errors import StorageError
from batch_snapshot.models import ApiError, Verdict
from batch_snapshot.ratelimit.pacer import WindowFullError
from batch_snapshot.ratelimit.windows import WindowFull

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from batch_snapshot.cluster.batch import BatchResult
    from batch_snapshot.cluster.dask_client import Workers
    from batch_snapshot.config.options import Settings
    from batch_snapshot.engine.account import AccountState
    from batch_snapshot.engine.seams import Identify, Intend, Record
    from batch_snapshot.models import Outcome, Request
    from batch_snapshot.ratelimit.pacer import Pacer

#: Rows of a first batch. A later one has twice as many as the one before settled, within bounds.
FIRST_BATCH, SMALLEST_BATCH, LARGEST_BATCH = 64, 16, 512
#: Only this part of what a quota window has left is reserved at once: other accounts may share it.
WINDOW_SHARE = 4
#: Reads reserved for a batch beyond those for its rows in doubt: a first read, and one that is throttled.
SPARE_READS = 2
#: Seconds before an account is identified again.
IDENTIFY_AGAIN_AFTER = 0.5


@dataclass(slots=True)
class _AccountRows:
    """One account's rows: those that wait here, and those at a worker."""

    state: AccountState
    waiting: deque[Request] = field(default_factory=deque)
    #: The batch at a worker, by the rows' keys.
    batch: dict[bytes, Request] = field(default_factory=dict)
    batch_size: int = FIRST_BATCH
    #: Keys of rows that an intent of this run names and no outcome has settled.
    intended: set[bytes] = field(default_factory=set)
    #: Outcomes in doubt of waiting rows, for the case that they are not sent again.
    in_doubt: dict[bytes, Outcome] = field(default_factory=dict)
    #: Since when no worker has carried a batch out.
    failing_since: float | None = None
    #: No rows are left.
    done: bool = False


class Coordinator(RunState):
    """Brings requests to their outcomes by the workers of a cluster. Used like an `Engine`."""

    def __init__(
        self,
        accounts: dict[str, AccountState],
        workers: Workers,
        settings: Settings,
        *,
        identify: Identify,
        intend: Intend,
        record: Record,
        record_lost: Record,
    ) -> None:
        """Wire a run.

        Args:
            accounts: by name.
            workers: make the calls.
            settings: bounds; the concurrency is each worker's.
            identify: see `Seams`, as for the next two.
            intend: makes a batch durable.
            record: writes an outcome to the ledger.
            record_lost: writes that a row is in doubt which is about to be sent again.
        """
        super().__init__(accounts, record, workers.now, settings.failure_limit)
        self._workers = workers
        self._settings = settings
        self._identify = identify
        self._intend = intend
        self._record_lost = record_lost
        self._queue = RequestQueue(accounts, lambda name: accounts[name].halted)
        self._rows = [_AccountRows(account) for account in accounts.values()]
        #: Pairs at workers: no pair is in two calls at once.
        self._pairs: set[tuple[str, str, str]] = set()
        self._pairs_freed = anyio.Event()

    @property
    def in_flight(self) -> int:
        """Rows at workers: each of them may be in flight."""
        return sum(len(rows.batch) for rows in self._rows)

    def abort(self) -> None:
        """Drop the calls in flight; their rows are in doubt."""
        self._scope.deadline = anyio.current_time()
        self._workers.stop(abort=True)
        for account in self.accounts.values():
            account.halt()
        self._halt_changed(None)

    def _drain(self) -> None:
        deadline = anyio.current_time() + self._settings.drain_timeout
        self._scope.deadline = min(self._scope.deadline, deadline)
        self._workers.stop()

    def _fail_recording(self) -> None:
        super()._fail_recording()
        self._workers.stop(abort=True)

    def _halt_changed(self, account: AccountState | None) -> None:  # noqa: ARG002 - all look again
        self._queue.wake()
        self._wake()

    def _wake(self) -> None:
        self._pairs_freed.set()
        self._pairs_freed = anyio.Event()

    async def run(
        self, batches: Iterable[Sequence[Request]], expected: Mapping[str, int] | None = None
    ) -> None:
        """Bring all batches to their outcomes, or to an early stop (see `Engine.run`).

        Raises:
            BaseExceptionGroup: with whatever `record` or `intend` raised.
        """
        try:
            async with anyio.create_task_group() as timer:
                if self._settings.max_duration is not None:
                    timer.start_soon(self.stop_after, self._settings.max_duration)
                async with anyio.create_task_group() as serving:
                    for rows in self._rows:
                        serving.start_soon(self._serve, rows)
                    await self._queue.read(batches, expected)
                timer.cancel_scope.cancel()
        finally:
            self._queue.close()
            with anyio.CancelScope(shield=True):
                await self._workers.silence()
        self._refresh_deferrals()

    async def _serve(self, rows: _AccountRows) -> None:
        """Hand out an account's rows, batch after batch, until all have an outcome or the account stops."""
        while not rows.state.halted:
            if not rows.waiting:
                rows.waiting.extend(await self._queue.take(rows.state.name, rows.batch_size))
                if not rows.waiting:
                    break
            freed = self._pairs_freed
            if batch := self._next_batch(rows):
                await self._hand_out(rows, batch)
            else:
                await freed.wait()
        rows.done = True
        for outcome in rows.in_doubt.values():
            self.record(outcome)

    def _next_batch(self, rows: _AccountRows) -> list[Request]:
        """Take the next rows whose pairs are at no worker."""
        batch: list[Request] = []
        passed: list[Request] = []
        while rows.waiting and len(batch) < rows.batch_size:
            request = rows.waiting.popleft()
            if _pair(request) in self._pairs:
                passed.append(request)
            else:
                self._pairs.add(_pair(request))
                batch.append(request)
        rows.waiting.extendleft(reversed(passed))
        return batch

    async def _hand_out(self, rows: _AccountRows, batch: list[Request]) -> None:
        """Have a worker send a batch; rows that are not settled wait again, before all others."""
        left = batch
        try:
            if await self._ready(rows, batch[0]):
                left = await self._send(rows, batch)
        finally:
            rows.batch = {}
            rows.waiting.extendleft(reversed(left))
            self._pairs.difference_update(map(_pair, batch))
            self._wake()

    async def _ready(self, rows: _AccountRows, request: Request) -> bool:
        """Whether the account can call; a first read tells the clock skew, which intents record."""
        account = rows.state
        try:
            if not account.identified:
                await self._identify(account)
                account.identified = True
        except StorageError as error:
            self.stop_uncounted(error)
        except ApiError as error:
            await self._note_unidentified(rows, error)
            return False
        if not account.halted and request.row.catalog not in account.read_catalogs:
            await self._carry(rows, prepare=request)
        return not account.halted and request.row.catalog in account.read_catalogs

    async def _send(self, rows: _AccountRows, batch: list[Request]) -> list[Request]:
        """Send rows; returns those that wait again."""
        reservations = await self._reserve(rows.state, rows.state.pacer, len(batch))
        number = len(batch) if reservations is None else len(reservations)
        batch, rest = batch[:number], batch[number:]
        if batch:
            await self._intend_new(rows, batch)
            rows.batch = {request.row.key: request for request in batch}
        return await self._carry(rows, reservations) + rest

    async def _intend_new(self, rows: _AccountRows, batch: Sequence[Request]) -> None:
        """Make the intent of rows durable that no intent of this run names yet."""
        if new := [request for request in batch if request.row.key not in rows.intended]:
            try:
                await self._intend(new)
            except Exception:
                self._fail_recording()
                raise
            rows.intended.update(request.row.key for request in new)

    async def _carry(
        self, rows: _AccountRows, reservations: list[int] | None = None, prepare: Request | None = None
    ) -> list[Request]:
        """Hand the account's batch to a worker and record what became of it; returns rows that wait again."""
        account, sent_at = rows.state, self._now()
        in_doubt = sum(request.ambiguous for request in rows.batch.values())
        reads = await self._reserve(account, account.read_pacer, in_doubt + SPARE_READS)
        unused: Iterable[int] = reservations or ()
        unused_reads: Iterable[int] = reads or ()
        result, left = None, [*rows.batch.values()]
        try:
            if not account.halted and (rows.batch or prepare):
                result = await self._workers.carry(
                    account.name,
                    sum(not (one.done or one.state.halted) for one in self._rows),
                    Progress.of(account, account.pacer.now()),
                    requests=left,
                    prepare=prepare,
                    reservations=reservations,
                    read_reservations=reads,
                )
        except NotBegunError as error:
            self._note_failing(rows, error)
        except LostError as error:
            # Its reservations count as used: nobody knows better.
            unused, unused_reads = (), ()
            self._note_failing(rows, error)
            left = [self._note_lost(rows, request, sent_at) for request in left]
        if result is not None:
            unused, unused_reads = result.unused, result.unused_reads
            left = self._take_in(rows, result, sent_at)
        _release(account.pacer, reservations, unused, left=result is not None)
        _release(account.read_pacer, reads, unused_reads, left=result is not None)
        return left

    def _take_in(self, rows: _AccountRows, result: BatchResult, sent_at: datetime) -> list[Request]:
        """Record what became of a batch; returns the rows that wait again."""
        account, left = rows.state, dict(rows.batch)
        rows.failing_since = None
        rows.batch_size = min(max(SMALLEST_BATCH, 2 * len(result.outcomes)), LARGEST_BATCH)
        result.progress.apply(account, account.pacer.now())
        account.traffic.calls += result.calls
        account.traffic.throttled += result.throttled
        account.warnings.extend(result.warnings)
        self._workers.learn_skew(account.name, result)
        for outcome in result.outcomes:
            key = outcome.request.row.key
            if left.pop(key, None):
                rows.in_doubt.pop(key, None)
                rows.intended.discard(key)
                self.record(outcome)
        for request, in_doubt in result.unsettled:
            left[request.row.key] = request
            if known := in_doubt or rows.in_doubt.get(request.row.key):
                counted = replace(known, attempts=request.attempts, throttles=request.throttles)
                rows.in_doubt[request.row.key] = counted
        if result.stop is not None and self.stop is None:
            self.stop_account(account.name, result.stop)
        if result.crash is None:
            return [*left.values()]
        why = f"account {account.name}: its worker's program broke ({result.crash}): see the worker's log"
        self.stop_account(account.name, Stop(StopKind.STOPPED, f"{why}, then run the same command again"))
        return [self._note_lost(rows, request, sent_at) for request in left.values()]

    def _note_lost(self, rows: _AccountRows, request: Request, sent_at: datetime) -> Request:
        """Note that a worker may have sent a row and did not report; returns it as it is to be sent again."""
        skew = self._workers.clock_skew(rows.state.name)
        known = rows.in_doubt.get(request.row.key)
        outcome = known or lost_outcome(request, sent_at, self._now(), skew)
        rows.in_doubt[request.row.key] = outcome
        if not rows.state.halted:
            self._write(self._record_lost, outcome)
            rows.intended.discard(request.row.key)
        return resend(outcome)

    def _note_failing(self, rows: _AccountRows, error: Exception) -> None:
        """Note that no worker carried a batch out; after too long the account waits for another run."""
        now, patience = anyio.current_time(), self._settings.patience
        rows.failing_since = now if rows.failing_since is None else rows.failing_since
        if not self._workers.reachable:
            gone = "the Dask scheduler is gone: start it again, then run the same command"
            self.request_stop(Stop(StopKind.STOPPED, gone))
        elif now - rows.failing_since > patience:
            why = f"account {rows.state.name}: no worker took the account for {patience:g} s ({error})"
            self.stop_account(rows.state.name, Stop(StopKind.DEFERRED, why))

    async def _note_unidentified(self, rows: _AccountRows, error: ApiError) -> None:
        """Note that an account could not be identified; what may pass is tried again."""
        if error.failure.verdict is Verdict.STOP_ACCOUNT:
            why = f"account {rows.state.name}: {error.failure.code}: {error.failure.message}"
            self.stop_account(rows.state.name, Stop(StopKind.STOPPED, why))
        else:
            self._note_failing(rows, error)
            await anyio.sleep(IDENTIFY_AGAIN_AFTER)

    async def _reserve(self, account: AccountState, pacer: Pacer, wanted: int) -> list[int] | None:
        """Reserve up to `wanted` calls of quota windows; None: there are no windows.

        Where none fits now, waits for a while or stops the account, and returns an empty list.
        """
        meter, reserved = pacer.meter, list[int]()
        if meter is None:
            return None
        try:
            pacer.check_failure()
            wanted = min(wanted, max(1, ceil(meter.free_calls() / WINDOW_SHARE)))
            while len(reserved) < wanted:
                reservation = meter.reserve()
                if isinstance(reservation, WindowFull):
                    if not reserved:
                        await pacer.wait_for_window(reservation)
                    break
                reserved.append(reservation)
        except WindowFullError as error:
            self.stop_account(account.name, account.window_spent(pacer, error.spent, self._now()))
        except StorageError as error:
            _release(pacer, reserved, reserved, left=False)
            self.stop_uncounted(error)
            return []
        return reserved


def _pair(request: Request) -> tuple[str, str, str]:
    return request.row.catalog, request.row.engagement, request.row.resource


def _release(pacer: Pacer, reserved: Iterable[int] | None, unused: Iterable[int], *, left: bool) -> None:
    """Give unused reservations back; with `left`, the calls of the others have ended."""
    unused = set(unused)
    for reservation in reserved or ():
        if reservation in unused:
            pacer.release(reservation, left=False)
        elif left:
            pacer.release(reservation, left=True)
