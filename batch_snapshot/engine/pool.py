"""The worker pool: requests in, one recorded outcome for each that was tried.

It knows neither AWS nor files: `Send` makes a call, `Record` keeps an outcome, `Intend` makes a
batch durable before any of it is sent. anyio only, so that tests run it in virtual time.

An account is a `AccountState`: its own pace, breaker, queue and workers, so that none waits for another.
"""

from __future__ import annotations

from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Protocol

import anyio
from tenacity import AsyncRetrying, RetryCallState, stop_after_attempt

from batch_snapshot.engine.account import AccountState, Stop, StopKind
from batch_snapshot.engine.attempts import Attempts
from batch_snapshot.engine.limits import ConcurrencyLimit
from batch_snapshot.engine.queue import RequestQueue
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.errors import StorageError
from batch_snapshot.failures import retry
from batch_snapshot.failures.breakers import UNREACHABLE, Pause
from batch_snapshot.models import ApiError, Failure, Outcome, Receipt, Verdict
from batch_snapshot.ratelimit.pacer import WindowFullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from random import Random

    from anyio.abc import TaskGroup

    from batch_snapshot.config.options import Settings
    from batch_snapshot.models import Request
    from batch_snapshot.ratelimit.pacer import Pacer, Permit

    Identify = Callable[[AccountState], Awaitable[None]]
    Send = Callable[[Request], Awaitable[Receipt]]
    LookUp = Callable[[Request], Awaitable[Receipt | None]]
    Probe = Callable[[Request], Awaitable[None]]
    ClockSkew = Callable[[str], float | None]
    Record = Callable[[Outcome], None]
    Intend = Callable[[Sequence[Request]], Awaitable[None]]


#: Rows that one intent names: so many an account are in doubt after a crash, besides those being sent.
INTENT_SIZE = 64


#: Nothing has to be waited for.
_AT_ONCE = nullcontext()


class Supply(Protocol):
    """Hands out requests by account; `RequestQueue` sorts those of a manifest."""

    def poke(self) -> None:
        """Something changed."""

    def close(self) -> None:
        """Forget what waits."""

    def busy(self) -> int:
        """How many accounts have requests that wait, or to come."""

    async def read(
        self, batches: Iterable[Sequence[Request]], expected: Mapping[str, int] | None = None
    ) -> None:
        """Take in `batches` until there are no more, or nobody takes any; so many are `expected` of each."""

    async def take(self, name: str, size: int) -> list[Request]:
        """Take the next requests of an account, up to `size`; none: there will be no more."""


class _Abandoned(Exception):  # noqa: N818 - no error: the row is left for another run
    """The run or the account stopped before this row's next try."""


class _LookUpRefusedError(Exception):
    """A doubtful row's snapshot cannot be looked up, so sending again might make another."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class Engine(RunState):
    """Runs requests to their outcomes."""

    def __init__(
        self,
        *,
        lanes: dict[str, AccountState],
        send: Send,
        look_up: LookUp,
        identify: Identify,
        probe: Probe,
        intend: Intend,
        record: Record,
        clock_skew: ClockSkew,
        now: Callable[[], datetime],
        rng: Random,
        settings: Settings,
        slots: ConcurrencyLimit | None = None,
        feed: Callable[[Iterable[str], Callable[[str], bool]], Supply] = RequestQueue,
    ) -> None:
        """Wire the seams.

        Args:
            lanes: by account name.
            send: makes one call; raises `ApiError`.
            look_up: finds the snapshot an earlier try may have made; raises `ApiError`.
            identify: finds out whose account it is, before its first permit, and sets its pace and its
                windows; raises `ApiError`.
            probe: makes one cheap read as the account, before its first write; raises `ApiError`.
            intend: makes a batch durable; nothing of it is sent before that.
            record: keeps an outcome; whatever it raises ends the run before another call.
            clock_skew: the service's clock less the wall clock in seconds, as an account was told last;
                None: it was not.
            now: the wall clock.
            rng: draws the jitter.
            settings: bounds.
            slots: for the calls in flight, where other engines share them.
            feed: makes what hands out the requests by account.
        """
        super().__init__(lanes, record, now, settings.failure_limit)
        self._send = send
        self._look_up = look_up
        self._identify = identify
        self._probe = probe
        self._intend = intend
        self._clock_skew = clock_skew
        self._rng = rng
        self._began = now()
        self._settings = settings
        self._scope = anyio.CancelScope()
        self._waiting: dict[anyio.CancelScope, AccountState] = {}
        self._slots = slots or ConcurrencyLimit(settings.concurrency)
        self._feed = feed(lanes, lambda name: self._halted(self.lanes[name]))
        self._pairs: dict[tuple[str, str, str], anyio.Event] = {}

    @property
    def in_flight(self) -> int:
        """How many calls are in flight."""
        return self._slots.taken

    @property
    def drain_left(self) -> float | None:
        """Seconds until the calls in flight are dropped; None: nothing has stopped the run."""
        left = self._scope.deadline - anyio.current_time()
        return max(0.0, left) if isfinite(left) else None

    def _drain(self) -> None:
        deadline = anyio.current_time() + self._settings.drain_timeout
        self._scope.deadline = min(self._scope.deadline, deadline)

    def abort(self) -> None:
        """Drop the calls in flight too; their rows are in doubt."""
        self._scope.cancel()

    async def run(
        self, batches: Iterable[Sequence[Request]], expected: Mapping[str, int] | None = None
    ) -> None:
        """Drive all batches to their outcomes, or to an early stop (see `ending`).

        Args:
            batches: the requests.
            expected: how many there will be of each account; None: nobody knows.

        Raises:
            BaseExceptionGroup: with whatever `record` or `intend` raised.
        """
        for lane in self.lanes.values():
            lane.open()
        try:
            with self._scope:
                await self._drive(batches, expected)
        finally:
            self._slots.leave(self)
            self._feed.close()
            for lane in self.lanes.values():
                lane.close()
        self._tell_again()

    async def _drive(self, batches: Iterable[Sequence[Request]], expected: Mapping[str, int] | None) -> None:
        async with anyio.create_task_group() as watch:
            if self._settings.max_duration is not None:
                watch.start_soon(self._end_after, self._settings.max_duration)
            async with anyio.create_task_group() as workers:
                for lane in self.lanes.values():
                    workers.start_soon(self._serve, lane, workers)
                await self._feed.read(batches, expected)
            watch.cancel_scope.cancel()

    async def _end_after(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self.request_stop(Stop(StopKind.DEFERRED, f"--max-duration is over ({seconds:g} s)"))

    async def _serve(self, lane: AccountState, workers: TaskGroup) -> None:
        """Hand an account's rows to its workers, each batch after its intent is durable.

        An account has its share of the concurrency, so that one whose calls hang takes no other's; it grows
        with every account that has no more rows.
        """
        while batch := await self._feed.take(lane.name, INTENT_SIZE):
            if not await self.ready(lane, batch[0]):
                continue
            await self._intend(batch)
            share = self._slots.share(self, self._feed.busy())
            for request in batch:
                if lane.workers < share:
                    lane.workers += 1
                    workers.start_soon(self._work, lane)
                await lane.requests.send(request)
        lane.requests.close()

    async def _work(self, lane: AccountState) -> None:
        async for request in lane.queue:
            with suppress(_Abandoned):
                await self._room(lane)
                lane.active += 1
                try:
                    await self._process(lane, request)
                finally:
                    lane.active -= 1
                    lane.ease()

    async def _room(self, lane: AccountState) -> None:
        """Wait until one more row may be on its way, so that all that fail in one way stay within a bound.

        Raises:
            _Abandoned: the run or the account stopped.
        """
        while (room := lane.breaker.room) is not None and lane.active >= room:
            with self._interruptible(lane):
                await lane.eased.wait()
        if self._halted(lane):
            raise _Abandoned

    async def _process(self, lane: AccountState, request: Request) -> None:
        """Bring one request to its outcome; its pair is ours alone meanwhile."""
        pair = (request.row.catalog, request.row.engagement, request.row.resource)
        while busy := self._pairs.get(pair):
            await busy.wait()
        done = self._pairs[pair] = anyio.Event()
        try:
            await self._settle(lane, request)
        finally:
            del self._pairs[pair]
            done.set()

    async def _settle(self, lane: AccountState, request: Request) -> None:
        tries = Attempts(request, self._now(), self._began)
        try:
            await self._preflight(lane, request)
            outcome = await self._persist(lane, request, tries)
        except _Abandoned:
            self._leave(tries)
        except _LookUpRefusedError as refusal:
            self._keep(tries.unsettled(refusal.failure, self._now()))
        except ApiError as error:
            self._give_up(lane, tries, error.failure)
        except anyio.get_cancelled_exc_class():
            self._leave(tries)
            raise
        else:
            self._keep(outcome)
            if not outcome.reconciled:
                lane.breaker = lane.breaker.after_success()
                lane.resume()

    async def ready(self, lane: AccountState, request: Request) -> bool:
        """Whether the account can call: the first intent is to tell by how much the clocks differ.

        Why it cannot, its lane says.
        """
        try:
            await self._preflight(lane, request)
        except _Abandoned:
            return False
        except ApiError as error:
            if error.failure.verdict is Verdict.STOP_ACCOUNT:
                self._stop_signing(lane, error.failure)
                return False
        return True

    async def _preflight(self, lane: AccountState, request: Request) -> None:
        """Know the account and make one cheap read, before its first irreversible write in a catalog."""
        catalog = request.row.catalog
        if catalog in lane.probed:
            return
        async with lane.probing:
            if self._halted(lane):
                raise _Abandoned
            if not lane.identified:
                await self._know(lane)
            if catalog not in lane.probed:
                await self._first_read(lane, request)

    async def _know(self, lane: AccountState) -> None:
        try:
            # A prompt for an MFA code, or a slow STS, does not outlast a stop.
            with self._interruptible(lane):
                await self._identify(lane)
        except StorageError as error:
            self._lose_count(error)
            raise _Abandoned from None
        lane.identified = True

    async def _first_read(self, lane: AccountState, request: Request) -> None:
        failure = await self._read(lane, lambda: self._probe(request))
        while isinstance(failure, Failure) and failure.unreachable:
            failure = await self._read(lane, lambda: self._probe(request))
        if isinstance(failure, Failure):
            if failure.verdict is Verdict.STOP_ACCOUNT:
                raise ApiError(failure)
            why = f"{failure.code}: {failure.message}"
            lane.warnings.append(
                f"account {lane.name}, catalog {request.row.catalog}: a first read failed ({why}); rows "
                "in doubt may not be settled by looking"
            )
        lane.probed.add(request.row.catalog)

    async def _read(
        self, lane: AccountState, read: Callable[[], Awaitable[Receipt | None]]
    ) -> Receipt | Failure | None:
        """Make one read as soon as the account may; returns what it brought, or why it failed.

        Raises:
            _Abandoned: the run or the account stopped.
        """
        async with self._turn(lane):
            with await self._permit(lane, lane.read_pacer) as permit:
                permit.used()
                try:
                    async with self._slot(lane.read_pacer):
                        found = await read()
                except ApiError as error:
                    _learn(permit, error.failure)
                    self._heed(lane, error.failure, permit.sent_at)
                    return error.failure
                permit.answered()
                self._heed(lane, None, permit.sent_at)
                return found

    async def _persist(self, lane: AccountState, request: Request, tries: Attempts) -> Outcome:
        """Try until the service has said what became of the row, or another try is no use."""
        try:
            return await self._try(lane, request, tries)
        except ApiError as error:
            return await self._persevere(lane, request, tries, error)

    async def _persevere(
        self, lane: AccountState, request: Request, tries: Attempts, first: ApiError
    ) -> Outcome:
        """Go on after the first try, which failed; most rows never come here."""
        failed: ApiError | None = first

        async def attempt() -> Outcome:
            nonlocal failed
            if failed is not None:
                error, failed = failed, None
                raise error
            return await self._try(lane, request, tries)

        def again(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            return isinstance(error, ApiError) and retry.should_retry(
                error.failure, attempt=state.attempt_number, ambiguous=tries.ambiguous
            )

        def pause(state: RetryCallState) -> float:
            hint = tries.failure.retry_after if tries.failure else None
            return max(retry.backoff(state.attempt_number, self._rng), min(hint or 0.0, retry.BACKOFF_CAP))

        async def rest(seconds: float) -> None:
            with self._interruptible(lane):
                await anyio.sleep(seconds)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._settings.max_attempts),
            retry=again,
            wait=pause,
            sleep=rest,
            reraise=True,
        )
        return await retrying(attempt)

    async def _try(self, lane: AccountState, request: Request, tries: Attempts) -> Outcome:
        """Make one try; throttles are waited out here, for they cost no attempt."""
        while True:
            if self._must_look(lane, tries) and (found := await self._find(lane, request, tries)):
                return tries.succeeded(found, self._now(), reconciled=True)
            async with self._turn(lane):
                with await self._permit(lane, lane.pacer) as permit:
                    if self._must_look(lane, tries):
                        continue  # the wait for the permit outlived the token
                    try:
                        receipt = await self._call(lane, permit, request, tries)
                    except ApiError as error:
                        failure = error.failure
                    else:
                        return tries.succeeded(receipt, self._now())
            if failure.unreachable:
                continue
            if failure.verdict is Verdict.THROTTLED:
                self._look_for_starvation(lane)
                continue
            if found := await self._find_after(lane, request, tries, failure):
                return tries.succeeded(found, self._now(), reconciled=True)
            raise ApiError(failure)

    async def _find_after(
        self, lane: AccountState, request: Request, tries: Attempts, failure: Failure
    ) -> Receipt | None:
        """Look whether an earlier try landed, where the failure hints that it did."""
        if not retry.look_up_may_settle(failure, ambiguous=tries.ambiguous):
            return None
        try:
            return await self._find(lane, request, tries)
        except (ApiError, _LookUpRefusedError):
            return None

    async def _call(self, lane: AccountState, permit: Permit, request: Request, tries: Attempts) -> Receipt:
        async with self._slot(lane.pacer):
            if self._halted(lane):
                raise _Abandoned
            tries.left(self._reading(lane))
            permit.used()
            lane.traffic.calls += 1
            try:
                receipt = await self._send(request)
            except ApiError as error:
                tries.answered(error.failure)
                lane.traffic.calls -= error.failure.never_left
                lane.traffic.throttled += _learn(permit, error.failure)
                self._heed(lane, error.failure, permit.sent_at)
                raise
            tries.answered()
            permit.answered()
            self._heed(lane, None, permit.sent_at)
            return receipt

    def _turn(self, lane: AccountState) -> AbstractAsyncContextManager[None]:
        """Make a call as soon as the account may: in a pause when it is its turn to be the probe.

        Raises:
            _Abandoned: the run or the account stopped.
        """
        return _AT_ONCE if lane.pause is None else self._turn_in_pause(lane)

    @asynccontextmanager
    async def _turn_in_pause(self, lane: AccountState) -> AsyncIterator[None]:
        async with AsyncExitStack() as held:
            with self._interruptible(lane):
                await held.enter_async_context(lane.turn)
                await self._sit_out(lane)
            if lane.pause is None:
                await held.aclose()
            yield

    async def _sit_out(self, lane: AccountState) -> None:
        """Wait for the time of the next probe, or for the end of the pause."""
        while (pause := lane.pause) is not None and (left := pause.next_at - anyio.current_time()) > 0:
            with anyio.move_on_after(left):
                await lane.eased.wait()

    def _heed(self, lane: AccountState, failure: Failure | None, left: float) -> None:
        """Pause an account whose calls, the last at the time `left`, don't leave; any answer ends that."""
        if failure is None or not failure.never_left:
            if lane.pause is not None and lane.pause.key == UNREACHABLE:
                lane.resume()
        elif failure.unreachable:
            self._hold_up(lane, UNREACHABLE, failure.message, left)

    def _hold_up(self, lane: AccountState, key: str, what: str, left: float) -> None:
        """Let an account make no call but probes; where they fail for too long, it is deferred."""
        now = anyio.current_time()
        if lane.pause is None:
            lane.pause = Pause.begin(key, what, now, self._settings.pause)
        elif left < lane.pause.next_at:
            return  # it was under way before, and is no probe
        elif now < lane.pause.ends:
            lane.pause = lane.pause.after_probe(what, now)
        else:
            self._stop_lane(lane, lane.gave_up(replace(lane.pause, what=what), now))

    @asynccontextmanager
    async def _slot(self, pacer: Pacer) -> AsyncIterator[None]:
        """Be one of the calls in flight. Only with more accounts than those is one waited for.

        Then an account has one worker, so that the pace of what leaves is kept by telling it of the wait.
        Who waits longest is next: that is the turn of each account.
        """
        if not self._slots.take_nowait():
            await self._slots.take()
            leaves = pacer.now()
            pacer.change(lambda pace: pace.late(leaves))
        try:
            yield
        finally:
            self._slots.give_back()

    def _look_for_starvation(self, lane: AccountState) -> None:
        if lane.pacer.starved(self._settings.patience):
            waited = f"nothing but throttles for {self._settings.patience:g} s at the lowest rate"
            self._stop_lane(
                lane, Stop(StopKind.DEFERRED, f"account {lane.name}: {waited}: its quota is spent")
            )

    def _reading(self, lane: AccountState) -> retry.ClockReading:
        return retry.ClockReading(self._now(), self._clock_skew(lane.name))

    def _must_look(self, lane: AccountState, tries: Attempts) -> bool:
        return retry.must_look_up_first(
            ambiguous=tries.ambiguous,
            known_since=tries.known_since,
            now=self._reading(lane),
            token_ttl=self._settings.token_ttl,
        )

    async def _find(self, lane: AccountState, request: Request, tries: Attempts) -> Receipt | None:
        """Look for the snapshot an earlier try may have made; None: send, under the same token."""
        while True:
            with self._interruptible(lane):
                await anyio.sleep(
                    retry.read_lag_left(tries.last_sent_at, self._now(), self._settings.read_lag)
                )
            known = replace(request, first_sent_at=tries.first_sent_at, clock_skew=tries.clock_skew)
            failure = await self._read(lane, partial(self._look_up, known))
            if not isinstance(failure, Failure):
                tries.known_since = None
                return failure
            if failure.unreachable:
                continue
            if failure.verdict is Verdict.THROTTLED:
                if lane.read_pacer.starved(self._settings.patience):
                    raise _LookUpRefusedError(failure)
                continue
            if failure.verdict is not Verdict.REFUSED:
                raise ApiError(failure)
            if not self._settings.resend_in_doubt:
                raise _LookUpRefusedError(failure)
            tries.known_since = None
            return None

    async def _permit(self, lane: AccountState, pacer: Pacer) -> Permit:
        """Wait for a permit of the account.

        Raises:
            _Abandoned: the run or the account stopped, perhaps because a window is spent.
        """
        permit = None
        try:
            with self._interruptible(lane):
                permit = await pacer.acquire()
        except WindowFullError as error:
            self._stop_lane(lane, lane.deferred(pacer, error.spent, self._now()))
        except StorageError as error:
            self._lose_count(error)
        except _Abandoned:
            if permit is not None:
                permit.give_back()
            raise
        if permit is None:
            raise _Abandoned
        return permit

    @contextmanager
    def _interruptible(self, lane: AccountState) -> Iterator[None]:
        """Wait inside, and be woken by a stop of the run or the account.

        Raises:
            _Abandoned: it stopped.
        """
        if self._halted(lane):
            raise _Abandoned
        with anyio.CancelScope() as scope:
            self._waiting[scope] = lane
            try:
                yield
            finally:
                del self._waiting[scope]
        if self._halted(lane):
            raise _Abandoned

    def _wake(self, lane: AccountState | None) -> None:
        self._feed.poke()
        for scope, owner in self._waiting.items():
            if lane is None or owner is lane:
                scope.cancel()

    def _give_up(self, lane: AccountState, tries: Attempts, failure: Failure) -> None:
        """No further try: the row failed or is in doubt, or the account cannot sign."""
        if failure.verdict is Verdict.STOP_ACCOUNT:
            self._stop_signing(lane, failure)
            self._leave(tries)
            return
        self._keep(tries.unsettled(failure, self._now()))
        self._count_failed(lane, failure)

    def _count_failed(self, lane: AccountState, failure: Failure) -> None:
        """A row failed, or is in doubt: after so many of one kind the account pauses or stops."""
        breaker = lane.breaker = lane.breaker.after(failure)
        trouble = breaker.trouble
        if lane.pause is not None and lane.pause.key != trouble.key:
            lane.resume()
        if not breaker.tripped:
            return
        if trouble.passes:
            self._hold_up(lane, trouble.key, breaker.reason, anyio.current_time())
        else:
            self._stop_lane(lane, Stop(StopKind.STOPPED, f"account {lane.name}: {breaker.reason}"))

    def _stop_signing(self, lane: AccountState, failure: Failure) -> None:
        self._stop_lane(
            lane, Stop(StopKind.STOPPED, f"account {lane.name}: {failure.code}: {failure.message}")
        )

    def _leave(self, tries: Attempts) -> None:
        """Leave a row to another run: unattempted, or in doubt if a try of ours left it so."""
        if tries.in_flight:
            tries.dropped()
        if failure := tries.unsettled_failure:
            self._keep(tries.unsettled(failure, self._now()))


def _learn(permit: Permit, failure: Failure) -> bool:
    """Tell the pace what a failed call says about the limit; returns whether it was throttled."""
    if failure.verdict is Verdict.THROTTLED:
        permit.throttled(failure.retry_after)
        return True
    if failure.never_left:
        permit.never_left()
    elif not failure.may_have_landed and failure.http_status is not None:
        permit.answered()
    return False
