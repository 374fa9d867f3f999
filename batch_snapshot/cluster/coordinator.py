"""Drives a run whose calls are made by the workers of a Dask cluster.

What a run is stays here, in one process: the order of the rows, intents, the ledger, the quota
windows, and every decision to stop. An account, with its pace and its breaker, is at one worker, which
is handed its rows in parcels after their intent is durable, and tells what became of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from batch_snapshot.cluster.desk import Desk, Pairs, again
from batch_snapshot.cluster.lease import PARCEL, LostError, Parcel, Start
from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.engine.queue import RequestQueue
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.errors import StorageError
from batch_snapshot.models import ApiError, Outcome, Verdict
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.pacer import WindowFullError
from batch_snapshot.ratelimit.windows import WindowFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from batch_snapshot.cluster.hosts import News, Post
    from batch_snapshot.cluster.lease import Tale
    from batch_snapshot.cluster.posts import Posts
    from batch_snapshot.cluster.purse import Purse
    from batch_snapshot.config.options import Settings
    from batch_snapshot.engine.account import AccountState
    from batch_snapshot.engine.seams import Identify, Intend, Record
    from batch_snapshot.failures.breakers import Pause
    from batch_snapshot.models import Request


#: Seconds after which a worker is told again that no more rows will come.
ASK_AGAIN = 5.0
#: Seconds beyond the drain time-out for the workers' last words.
LAST_WORDS = 5.0
#: Reads for which slots of their quota are claimed at a time: most accounts make one, before all calls.
READS_AHEAD = 4


class Coordinator(RunState):
    """Runs requests to their outcomes, by the workers of a cluster. Used like an `Engine`."""

    def __init__(
        self,
        *,
        accounts: dict[str, AccountState],
        posts: Posts,
        identify: Identify,
        intend: Intend,
        record: Record,
        suspend: Record,
        now: Callable[[], datetime],
        settings: Settings,
    ) -> None:
        """Wire the seams.

        Args:
            accounts: by name.
            posts: the accounts' workers.
            identify: as for an `Engine`.
            intend: as for an `Engine`.
            record: as for an `Engine`.
            suspend: keeps that a row is in doubt which is about to be sent again.
            now: the wall clock.
            settings: bounds; the concurrency is each worker's.
        """
        super().__init__(accounts, record, now, settings.failure_limit)
        self._posts = posts
        self._identify = identify
        self._intend = intend
        self._suspend = suspend
        self._settings = settings
        self._queue = RequestQueue(accounts, lambda name: self.accounts[name].halted)
        self._desks = {name: Desk(lane) for name, lane in accounts.items()}
        self._pairs = Pairs()
        #: Accounts that have passed rows, since another account held their pairs.
        self._passed: set[str] = set()

    @property
    def in_flight(self) -> int:
        """How many rows are at the workers: any of them may be in flight."""
        return sum(len(desk.leased) for desk in self._desks.values())

    def _drain(self) -> None:
        self._posts.order(self.stop)
        deadline = anyio.current_time() + self._settings.drain_timeout + LAST_WORDS
        self._scope.deadline = min(self._scope.deadline, deadline)

    def abort(self) -> None:
        """Drop the calls in flight too; their rows are in doubt."""
        self._posts.order(self.stop, abort=True)
        self._scope.deadline = min(self._scope.deadline, anyio.current_time() + LAST_WORDS)

    async def run(
        self, batches: Iterable[Sequence[Request]], expected: Mapping[str, int] | None = None
    ) -> None:
        """Drive all batches to their outcomes, or to an early stop (see `ending`).

        Args:
            batches: in the order of the manifest.
            expected: how many rows there will be of each account, as far as is known.

        Raises:
            BaseExceptionGroup: with whatever `record` or `intend` raised.
        """
        try:
            with self._scope:
                await self._drive(batches, expected)
        finally:
            self._queue.close()
            with anyio.CancelScope(shield=True):
                await self._close()
        self._refresh_deferrals()

    async def _drive(self, batches: Iterable[Sequence[Request]], expected: Mapping[str, int] | None) -> None:
        async with anyio.create_task_group() as watch:
            if self._settings.max_duration is not None:
                watch.start_soon(self.stop_after, self._settings.max_duration)
            watch.start_soon(self._listen)
            async with anyio.create_task_group() as serving:
                for desk in self._desks.values():
                    serving.start_soon(self._fetch, desk)
                    serving.start_soon(self._serve, desk)
                await self._queue.read(batches, expected)
            watch.cancel_scope.cancel()

    async def _close(self) -> None:
        """Leave no row without a word, and no worker that calls."""
        if not any(desk.leased for desk in self._desks.values()):
            return
        await self._posts.dismiss()
        while True:
            try:
                self._heard(self._posts.news.receive_nowait())
            except anyio.WouldBlock:
                break
        for desk in self._desks.values():
            self._lose(desk, self.record)

    def _halt_changed(self, lane: AccountState | None) -> None:
        self._queue.wake()
        for desk in self._desks.values():
            if lane is None or desk.lane is lane:
                desk.poke()
                desk.placing.cancel()

    async def _fetch(self, desk: Desk) -> None:
        """Keep an account's rows ready."""
        while batch := await self._queue.take(desk.lane.name, PARCEL):
            desk.backlog.extend(batch)
            desk.poke()
            while len(desk.backlog) >= PARCEL and not desk.lane.halted:
                await desk.changed.wait()
        desk.exhausted = True
        desk.poke()

    async def _serve(self, desk: Desk) -> None:
        """Hand an account's rows to its worker, until all have an outcome or the account stops."""
        lane = desk.lane
        while not lane.halted:
            changed = desk.changed
            if desk.reads.short:
                await self._give(desk, reads=await self._claim(desk, desk.reads, READS_AHEAD))
            if desk.low and (batch := self._next(desk)):
                await self._hand_out(desk, batch)
            elif desk.slots.short and desk.owing > 0:
                await self._refill(desk)
            elif desk.exhausted and not (desk.leased or desk.backlog):
                break
            elif not desk.reads.short:
                await changed.wait()
        await self._finish(desk)

    async def _finish(self, desk: Desk) -> None:
        """Wait for what is still in flight."""
        desk.finishing = True
        if desk.post is None:
            self._posts.release(desk.lane.name)
            return
        while not desk.over:
            changed, post = desk.changed, desk.post
            if desk.lane.stop is not None and self.stop is None:
                await self._posts.tell(post, "halt", desk.lane.stop)
            await self._posts.tell(post, "finish")
            with anyio.move_on_after(ASK_AGAIN):
                await changed.wait()
        self._posts.release(desk.lane.name)

    def _next(self, desk: Desk) -> list[Request]:
        """Take the next rows, and hold their pairs; those of a pair that another account holds are passed."""
        taken: list[Request] = []
        passed: list[Request] = []
        while desk.backlog and len(taken) < desk.parcel_size:
            request = desk.backlog.popleft()
            (taken if self._pairs.hold(desk.lane.name, request) else passed).append(request)
        if passed:
            desk.backlog.extendleft(reversed(passed))
            self._passed.add(desk.lane.name)
        return taken

    def _let_go(self, desk: Desk, request: Request) -> None:
        """A row is neither at the account's worker nor on its way there any more."""
        if self._pairs.let_go(desk.lane.name, request):
            for name in self._passed:
                self._desks[name].poke()
            self._passed.clear()

    def _put_back(self, desk: Desk, requests: Sequence[Request]) -> None:
        """These rows wait again, before all others."""
        for request in requests:
            self._let_go(desk, request)
        desk.backlog.extendleft(reversed(requests))

    async def _hand_out(self, desk: Desk, batch: list[Request]) -> None:
        """Name rows on disk, then give them to the account's worker."""
        if not await self._ready(desk, batch[0]):
            self._put_back(desk, batch)
            return
        claims = await self._claim(desk, desk.slots, len(batch) - desk.spare)
        if desk.slots.counted:
            number = len(claims) + desk.spare
            self._put_back(desk, batch[number:])
            batch = batch[:number]
        if batch and not desk.lane.halted:
            await self._name(desk, batch)
        if not batch or desk.lane.halted or desk.post is None:
            desk.slots.give_back(claims)
            self._put_back(desk, batch)
            return
        desk.lease(batch, self._now())
        await self._give(desk, batch, claims)

    async def _name(self, desk: Desk, batch: Sequence[Request]) -> None:
        """Make the rows' intent durable; those whose worker was lost before it had them have one."""
        if new := [request for request in batch if request.row.key not in desk.named]:
            try:
                await self._intend(new)
            except Exception:
                self._fail_recording()
                raise
            desk.named.update(request.row.key for request in new)

    async def _give(
        self,
        desk: Desk,
        batch: Sequence[Request] = (),
        claims: Sequence[int] = (),
        reads: Sequence[int] = (),
    ) -> None:
        if desk.post is None or not (batch or claims or reads):
            desk.slots.give_back(claims)
            desk.reads.give_back(reads)
            return
        desk.parcels += 1
        desk.slots.hand_over(claims)
        desk.reads.hand_over(reads)
        parcel = Parcel(desk.parcels, tuple(batch), tuple(claims), tuple(reads))
        await self._posts.hand_out(desk.post, parcel)

    async def _refill(self, desk: Desk) -> None:
        """Claim further slots for rows at the worker: a throttled call used its own."""
        await self._give(desk, claims=await self._claim(desk, desk.slots, desk.owing))

    async def _claim(self, desk: Desk, purse: Purse, number: int) -> list[int]:
        """Claim slots of the account's windows, as many as there are now; waits a little for the first."""
        try:
            found = purse.claim(number)
        except StorageError as error:
            self.stop_uncounted(error)
            return []
        if isinstance(found, WindowFull):
            await self._window(desk, purse, found)
            return []
        return found

    async def _window(self, desk: Desk, purse: Purse, found: WindowFull) -> None:
        """A window is spent: look again later, or stop once what is at the worker is settled."""
        lane, changed = desk.lane, desk.changed
        try:
            await purse.pacer.wait_for_window(found)
        except WindowFullError:
            if purse.claims and desk.leased:
                await changed.wait()
                return
            self.stop_account(lane.name, lane.window_spent(purse.pacer, found, self._now()))

    async def _ready(self, desk: Desk, request: Request) -> bool:
        """See that the account is at a worker, and can call; whose it is was found out before."""
        lane = desk.lane
        if desk.post is not None and desk.post.host.lost:
            self._gone(desk)
        try:
            with anyio.CancelScope() as desk.placing:
                if not lane.identified:
                    await self._identify(lane)
                    lane.identified = True
                if desk.post is None:
                    await self._begin(desk, await self._posts.place(lane.name), request)
        except StorageError as error:
            self.stop_uncounted(error)
        except ApiError as error:
            self._not_placed(lane, error)
        except LostError as error:
            self._no_worker(lane, str(error))
        return not lane.halted and desk.post is not None and not desk.over

    def _not_placed(self, lane: AccountState, error: ApiError) -> None:
        failure = error.failure
        if failure.verdict is Verdict.STOP_ACCOUNT:
            why = f"{failure.code}: {failure.message}"
            self.stop_account(lane.name, Stop(StopKind.STOPPED, f"account {lane.name}: {why}"))
        else:
            self._no_worker(lane, failure.message)

    def _no_worker(self, lane: AccountState, why: str) -> None:
        if not self._posts.reachable:
            self.request_stop(
                Stop(
                    StopKind.STOPPED,
                    "the Dask scheduler is gone: start it again, then run the same command",
                )
            )
        self.stop_account(lane.name, Stop(StopKind.DEFERRED, f"account {lane.name}: {why}"))

    async def _begin(self, desk: Desk, post: Post, request: Request) -> None:
        lane = desk.lane
        now = lane.pacer.now()
        known = lane.pacer.pace
        declared = known.declared
        start = Start(
            declared=declared,
            learned=None if declared is not None else known.known,
            delay=max(0.0, known.next_call_at - now) if declared is not None else 0.0,
            windowed=desk.slots.counted,
            request=request,
        )
        desk.before = (lane.traffic.calls, lane.traffic.throttled)
        desk.post, desk.over, desk.parcels = None, False, 0
        if desk.reads.counted:
            reads = await self._claim(desk, desk.reads, READS_AHEAD)
            if not reads:
                return
            desk.reads.hand_over(reads)
            start = start._replace(reads=tuple(reads))
        try:
            started = await self._posts.start(post, start)
        except LostError:
            desk.reads.forget()
            if not await self._posts.gone(post):
                raise
            return
        post.host.told(started.at, self._now())
        self._posts.learn_skew(lane.name, post.host, started.skew)
        desk.post = post
        if started.stop is not None:
            self.stop_account(lane.name, started.stop)

    async def _listen(self) -> None:
        async for news in self._posts.news:
            self._heard(news)

    def _heard(self, news: News) -> None:
        host, bulletin = news
        if bulletin is None:
            for desk in self._desks.values():
                if desk.post is not None and desk.post.host is host:
                    self._gone(desk)
        elif not host.lost and bulletin.number == host.heard + 1:
            host.told(bulletin.at, self._now())
            for tale in bulletin.tales:
                self._posts.learn_skew(tale.account, host, tale.skew)
                self._told(self._desks[tale.account], tale)
            host.heard = bulletin.number

    def _told(self, desk: Desk, tale: Tale) -> None:
        lane = desk.lane
        for outcome in tale.outcomes:
            if self._settled(desk, outcome.request.row.key):
                self.record(outcome)
        desk.slots.told(tale.slots, current=tale.parcel == desk.parcels)
        desk.reads.told(tale.reads, current=tale.parcel == desk.parcels)
        calls, throttled = desk.before
        lane.traffic.calls, lane.traffic.throttled = calls + tale.calls, throttled + tale.throttled
        lane.warnings.extend(tale.warnings)
        self._learn(lane, tale.learned)
        _show_pause(lane, tale.pause)
        if tale.stop is not None and self.stop is None:
            self.stop_account(lane.name, tale.stop)
        if tale.over:
            self._over(desk, tale)
        desk.poke()

    def _learn(self, lane: AccountState, rate: float | None) -> None:
        """Keep a rate that a worker has measured, for the next run."""
        if rate and rate != lane.pacer.pace.known:
            ceiling = lane.pacer.pace.ceiling
            found = pace.learned(rate, lane.pacer.now())
            lane.pacer.change(lambda _: found._replace(ceiling=ceiling))

    def _over(self, desk: Desk, tale: Tale) -> None:
        """Nothing is in flight any more: what has no outcome was not sent, unless the program broke."""
        desk.over = True
        if tale.crash is not None:
            self._lose(desk, self.record)
        for key in [*desk.leased]:
            self._settled(desk, key)
        desk.slots.give_all_back()
        desk.reads.give_all_back()
        if not desk.finishing and not desk.lane.halted:
            why = f"its worker's program broke ({tale.crash or 'it ended early'}): see the worker's log"
            stop = Stop(StopKind.STOPPED, f"account {desk.lane.name}: {why}, then run the same command again")
            self.stop_account(desk.lane.name, stop)

    def _gone(self, desk: Desk) -> None:
        """The worker is lost: its rows are in doubt, and another one is to send them again."""
        desk.post, desk.over = None, True
        # The next worker may sign as somebody else.
        desk.lane.identified = False
        desk.slots.forget()
        desk.reads.forget()
        if desk.lane.halted:
            self._lose(desk, self.record)
        else:
            desk.backlog.extendleft(reversed(self._lose(desk, self._set_aside)))
        desk.poke()

    def _lose(self, desk: Desk, keep: Record) -> list[Request]:
        """Note that the rows at a worker are in doubt; returns them as they are to be sent again."""
        lost = []
        for leased in [*desk.leased.values()]:
            skew = self._posts.clock_skew(leased.request.row.account)
            outcome = leased.in_doubt(self._now(), skew)
            keep(outcome)
            self._settled(desk, leased.request.row.key)
            lost.append(again(outcome))
        return lost

    def _fail_recording(self) -> None:
        """Tell all workers at once, before anything here comes to its end: their calls leave meanwhile."""
        super()._fail_recording()
        self._posts.order(None, abort=True)

    def _set_aside(self, outcome: Outcome) -> None:
        """Record that a row is in doubt which is about to be sent again; it is not counted as done."""
        self._write(self._suspend, outcome)

    def _settled(self, desk: Desk, key: bytes) -> bool:
        """A row is at its worker no longer; returns whether it was."""
        leased = desk.leased.pop(key, None)
        if leased is None:
            return False
        self._let_go(desk, leased.request)
        return True


def _show_pause(lane: AccountState, pause: Pause | None) -> None:
    """Note for the display that an account pauses at its worker, whose clock is another one."""
    known = lane.pause
    if pause is None:
        lane.pause = None
    elif known is None or (known.began, known.probes) != (pause.began, pause.probes):
        lane.pause = replace(pause, next_at=lane.pacer.now() + pause.probe_gap)
