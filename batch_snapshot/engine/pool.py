"""The path of a row: intend, permit, send, record.

The engine takes requests, and records one outcome for each that was tried. It knows neither AWS nor
files: everything outside is a function in `Seams`. It waits by anyio alone, so tests run it in virtual time.
Each account has its own pace, breaker and workers, so that no account waits for another.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup
from tenacity import AsyncRetrying, RetryCallState, stop_after_attempt

from batch_snapshot.config.options import Settings
from batch_snapshot.engine.account import Abandoned, AccountState
from batch_snapshot.engine.attempts import UNANSWERED, Attempts
from batch_snapshot.engine.calls import Calls, LookUpRefusedError
from batch_snapshot.engine.limits import ConcurrencyLimit
from batch_snapshot.engine.queue import RequestQueue
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.engine.seams import Seams
from batch_snapshot.engine.signal import Signal
from batch_snapshot.failures import retry
from batch_snapshot.models import ApiError, Failure, Outcome, Receipt, Request, Verdict
from batch_snapshot.ratelimit.pacer import Permit

#: Rows named by one intent: after a crash at most this many of an account are in doubt, besides those
#: being sent.
INTENT_SIZE = 64


@dataclass(slots=True)
class _IntendedRows:
    """Rows of an account whose intent is durable; its workers take them from here."""

    waiting: deque[Request] = field(default_factory=deque)
    workers: int = 1
    #: Held by the worker that gets more.
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Engine(RunState):
    """Brings requests to their outcomes."""

    #: Whether it can be paused, and its rate and concurrency changed, while it runs.
    steerable = True

    def __init__(
        self,
        accounts: dict[str, AccountState],
        seams: Seams,
        settings: Settings,
        *,
        concurrency: ConcurrencyLimit | None = None,
    ) -> None:
        """Wire a run; engines of one process may share a `concurrency`."""
        super().__init__(accounts, seams.record, seams.now, settings)
        self._seams = seams
        self._began = seams.now()
        self._concurrency = concurrency or ConcurrencyLimit(settings.concurrency)
        self._queue = RequestQueue(accounts, lambda name: accounts[name].halted)
        self._calls = Calls(self, self._concurrency, settings, seams)
        #: What `set_concurrency` adds workers to.
        self._served: list[tuple[AccountState, _IntendedRows, TaskGroup]] = []
        #: Pairs with a row that is being sent; the signal is sent when it no longer is.
        self._pairs: dict[tuple[str, str, str], Signal] = {}

    @property
    def in_flight(self) -> int:
        return self._concurrency.taken

    def abort(self) -> None:
        """Drop the calls in flight; their rows are in doubt."""
        self._scope.cancel()

    def _halt_changed(self) -> None:
        self._queue.wake()

    async def run(
        self, batches: Iterable[Sequence[Request]], expected: Mapping[str, int] | None = None
    ) -> None:
        """Bring all batches to their outcomes, or to an early stop (see `ending`).

        `expected` says how many requests there will be of each account, if that is known. Whatever `record`
        or `intend` raises ends the run, and is raised in a group.
        """
        try:
            with self._scope:
                async with anyio.create_task_group() as timer:
                    timer.start_soon(self.stop_in_time)
                    async with anyio.create_task_group() as workers:
                        for account in self.accounts.values():
                            workers.start_soon(self._serve, account, workers)
                        await self._queue.read(batches, expected)
                    timer.cancel_scope.cancel()
        finally:
            self._queue.close()
        self._refresh_deferrals()

    async def _serve(self, account: AccountState, workers: TaskGroup) -> None:
        rows = _IntendedRows()
        self._served.append((account, rows, workers))
        await self._work(account, rows, workers)

    async def _work(self, account: AccountState, rows: _IntendedRows, workers: TaskGroup) -> None:
        """Bring rows of an account to their outcomes, one after the other, until there are no more."""
        while rows.waiting or await self._intend_more(account, rows, workers):
            request = rows.waiting.popleft()
            with suppress(Abandoned):
                await account.begin_row()
                try:
                    await self._process(account, request)
                finally:
                    account.end_row()

    async def _intend_more(self, account: AccountState, rows: _IntendedRows, workers: TaskGroup) -> bool:
        """Make the intent of further rows durable, and start workers for them; returns whether there are any.

        An account has its share of the concurrency, so that one whose calls hang takes no other's. The share
        grows when another account has no more rows. There is one more worker than rows, if the share allows
        it: while all rows wait for their answers it fetches the next.
        """
        async with rows.lock:
            while not rows.waiting and (batch := await self._queue.take(account.name, INTENT_SIZE)):
                if not await self._calls.ready(account, batch[0]):
                    continue
                await self._seams.intend(batch)
                rows.waiting.extend(batch)
                self._add_workers(account, rows, workers)
            return bool(rows.waiting)

    def _add_workers(self, account: AccountState, rows: _IntendedRows, workers: TaskGroup) -> None:
        share = self._concurrency.share(self._queue.busy())
        for _ in range(min(share - rows.workers, len(rows.waiting))):
            rows.workers += 1
            workers.start_soon(self._work, account, rows, workers)

    def set_concurrency(self, limit: int) -> None:
        """Change the limit of calls in flight."""
        self._concurrency.change(limit)
        for served in self._served:
            self._add_workers(*served)

    async def _process(self, account: AccountState, request: Request) -> None:
        """Bring one request to its outcome; no other request of its pair is sent meanwhile."""
        attempts = Attempts(request, self._now(), self._began)
        try:
            await self._settle(account, attempts)
        finally:
            self._release(attempts)

    async def _until_pair_is_free(self, account: AccountState, attempts: Attempts) -> None:
        """Wait until no other row of the pair is being sent.

        A row in doubt has its pair to itself until it is done. So has a row that was sent: if it gets in
        doubt later, any snapshot made since then may be its own. A row that waits for its first call, perhaps
        for hours, holds back no row of another account.
        """
        sent = attempts.request.ambiguous or attempts.known_since is not None
        if not sent:
            self._release(attempts)
        while attempts.claim is None and (busy := self._pairs.get(attempts.request.row.pair)):
            with account.interruptible():
                await busy.wait()
        if sent:
            self._claim(attempts)

    def _claim(self, attempts: Attempts) -> bool:
        """Let no other row of the pair be sent until `_release`; False: another one is being sent."""
        pair = attempts.request.row.pair
        if attempts.claim is None and pair not in self._pairs:
            attempts.claim = self._pairs[pair] = Signal()
        return attempts.claim is not None

    def _release(self, attempts: Attempts) -> None:
        if (claim := attempts.claim) is not None:
            del self._pairs[attempts.request.row.pair]
            attempts.claim = None
            claim.send()

    async def _settle(self, account: AccountState, attempts: Attempts) -> None:
        """Send a row until its outcome is known, and record it."""
        try:
            await self._calls.check(account, attempts.request)
            before = attempts.request.attempts
            try:
                outcome = await self._try(account, attempts)
            except ApiError as error:
                outcome = await self._retry(account, attempts, before, error)
        except Abandoned:
            self._leave(attempts)
        except LookUpRefusedError as refusal:
            self.record(attempts.unsettled(refusal.failure, self._now()))
        except ApiError as error:
            self._give_up(account, attempts, error.failure)
        except anyio.get_cancelled_exc_class():
            self._leave(attempts)
            raise
        else:
            self.record(outcome)
            if not outcome.reconciled:
                self._calls.row_succeeded(account)

    async def _retry(
        self, account: AccountState, attempts: Attempts, before: int, first: ApiError
    ) -> Outcome:
        """Go on after a row's first try, which failed, and `before` attempts of earlier runs.

        Most rows never come here, and pay for no retrying. Raises the last `ApiError` where no try may help.
        """
        made = [first]

        async def attempt() -> Outcome:
            if made:
                raise made.pop()
            return await self._try(account, attempts)

        def is_curable(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            return isinstance(error, ApiError) and retry.should_retry(
                error.failure,
                attempt=before + state.attempt_number,
                ambiguous=attempts.request.ambiguous,
            )

        def wait(state: RetryCallState) -> float:
            hint = attempts.failure.retry_after if attempts.failure else None
            drawn = retry.backoff(before + state.attempt_number, self._seams.rng)
            return max(drawn, min(hint or 0.0, retry.BACKOFF_CAP))

        async def sleep(seconds: float) -> None:
            with account.interruptible():
                await anyio.sleep(seconds)

        stop = stop_after_attempt(self._settings.max_attempts - before)
        retrying = AsyncRetrying(stop=stop, retry=is_curable, wait=wait, sleep=sleep, reraise=True)
        return await retrying(attempt)

    async def _try(self, account: AccountState, attempts: Attempts) -> Outcome:
        """Make one try. Throttles are waited out here, as they cost no attempt."""
        while True:
            await self._until_pair_is_free(account, attempts)
            due = self._calls.look_up_due(account, attempts)
            if due and (found := await self._calls.find(account, attempts)):
                return attempts.succeeded(found, self._now(), reconciled=True)
            async with self._calls.turn(account):
                with await self._calls.permit(account, account.pacer) as permit:
                    if self._calls.look_up_due(account, attempts):
                        continue  # the token grew too old while waiting for the permit
                    if not await self._begin(account, attempts, permit):
                        continue
                    try:
                        receipt = await self._send(account, permit, attempts)
                    except ApiError as error:
                        failure = error.failure
                    else:
                        return attempts.succeeded(receipt, self._now())
            if failure.unreachable:
                continue
            if failure.verdict is Verdict.THROTTLED:
                self._calls.stop_if_starved(account)
                continue
            if found := await self._calls.find_after(account, attempts, failure):
                return attempts.succeeded(found, self._now(), reconciled=True)
            raise ApiError(failure)

    async def _begin(self, account: AccountState, attempts: Attempts, permit: Permit) -> bool:
        """Begin the call of a permit; False: the permit was not used."""
        if self._claim(attempts):
            return await self._calls.begin(account.pacer, permit)
        permit.never_left()
        return False

    async def _send(self, account: AccountState, permit: Permit, attempts: Attempts) -> Receipt:
        """Make the call that was begun."""
        try:
            account.check_halted()
            attempts.sent(self._calls.clock_reading(account))
            permit.used()
            account.traffic.calls += 1
            receipt = await self._seams.send(attempts.request)
        except ApiError as error:
            attempts.answered(error.failure)
            account.traffic.calls -= error.failure.never_left
            account.traffic.throttled += error.failure.verdict is Verdict.THROTTLED
            self._calls.failed(account, permit, error.failure)
            raise
        finally:
            self._concurrency.give_back()
        attempts.answered()
        self._calls.answered(account, permit)
        return receipt

    def _give_up(self, account: AccountState, attempts: Attempts, failure: Failure) -> None:
        """No further try: the row failed or is in doubt, or the account cannot sign."""
        if failure.verdict is Verdict.STOP_ACCOUNT:
            self._calls.stop_signing(account, failure)
            self._leave(attempts)
            return
        self.record(attempts.unsettled(failure, self._now()))
        self._calls.row_failed(account, failure)

    def _leave(self, attempts: Attempts) -> None:
        """Leave a row to another run: unattempted, or in doubt if a try of this run left it so."""
        if attempts.in_flight:
            attempts.answered(UNANSWERED)
        if self._seams.leave is not None:
            self._seams.leave(attempts)
        elif attempts.request.ambiguous and attempts.failure:
            self.record(attempts.unsettled(attempts.failure, self._now()))
