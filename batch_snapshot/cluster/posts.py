"""Which worker of a Dask cluster carries which account, and what is asked of it there.

Dask's scheduler chooses the worker (an account is an actor), its futures tell when one was lost, and
its events bring the news. What Dask cannot know is added here: a worker that is cut off may still
call, so nobody takes its accounts before its lease must be over (see `lease`).
"""

from __future__ import annotations

import asyncio
import math
import pickle
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import anyio

from batch_snapshot import __version__, redaction
from batch_snapshot.cluster import carrier
from batch_snapshot.cluster.carrier import Carrier
from batch_snapshot.cluster.dask_client import ASK_TIMEOUT, connected, soon
from batch_snapshot.cluster.hosts import Host, News, Post
from batch_snapshot.cluster.lease import RENEWALS, Brief, LostError, Orders, Term
from batch_snapshot.failures import retry
from batch_snapshot.models import ApiError, ErrorKind, Failure, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from batch_snapshot.aws.target import Target
    from batch_snapshot.cluster.lease import Hello, Parcel, RenewalReply, Start, Started
    from batch_snapshot.config.options import ClusterOptions, Settings
    from batch_snapshot.engine.account import Stop
    from batch_snapshot.models import Account

#: Leases for which a worker that was lost gets no account.
SHUNNED_FOR = 4.0
#: After this share of a lease without an answer a worker is taken for lost: a busy one may be slow.
PATIENT_FOR = 0.8
#: A parcel that is not taken after so many tries loses its worker.
ASKED_SO_OFTEN = 3
#: Accounts that look for a worker at once (see also `hosts.STARTED_AT_ONCE`).
PLACED_AT_ONCE = 16
#: Seconds between two looks at what comes by itself.
LOOK_AGAIN = 0.5


class Posts:
    """The posts of a run's accounts. Takes the place of `Clients` where others make the calls."""

    def __init__(
        self,
        accounts: Mapping[str, Account],
        target: Target,
        settings: Settings,
        placing: ClusterOptions,
        *,
        read_rate: float,
    ) -> None:
        """Nothing is placed or connected yet.

        Args:
            accounts: whom to call for.
            target: where the calls go.
            settings: how a worker drives an account.
            placing: where.
            read_rate: reads a second and account.
        """
        self.placing = placing
        self.run = uuid4().hex
        self._accounts = accounts
        self._target = target
        self._settings = replace(settings, max_duration=None, failure_limit=retry.NO_LIMIT)
        self._read_rate = read_rate
        self._patience = settings.patience
        self._posts: dict[str, Post] = {}
        self._hosts: dict[str, Host] = {}
        self._turns = {name: anyio.Lock() for name in accounts}
        #: Numbers the placings.
        self._placings = count(1)
        self._searching = anyio.Semaphore(PLACED_AT_ONCE)
        self._skews: dict[str, float | None] = {}
        #: Why the last worker did not take an account.
        self._refusals: dict[str, str] = {}
        #: Accounts that need no worker any more.
        self._released: set[str] = set()
        #: Workers that did not answer or cannot run this program, and until when they get no account.
        self._shunned: dict[str, float] = {}
        self._renewing: list[asyncio.Task[None]] = []
        self._stop: Stop | None = None
        self._abort = False
        self._stack = AsyncExitStack()
        self._told, self.news = anyio.create_memory_object_stream[News](math.inf)

    async def __aenter__(self) -> Self:
        """Reach the cluster, or start one.

        Raises:
            InputError: there is none, or it cannot run this program.
        """
        async with AsyncExitStack() as stack:
            self._client = await stack.enter_async_context(connected(self.placing))
            self._client.subscribe_topic(carrier.topic(self.run), self._hear)  # type: ignore[no-untyped-call]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; one that was started for this run ends."""
        for task in self._renewing:
            task.cancel()
        with anyio.CancelScope(shield=True):
            self._told.close()
            self.news.close()
            self._posts.clear()
            self._hosts.clear()
            await self._stack.aclose()

    @property
    def reachable(self) -> bool:
        """Whether the scheduler is there, for all that is known."""
        return self._client.status == "running"

    # What `Clients` does, by the account's worker.

    async def identify(self, account: str) -> str:
        """Name whose quotas the account spends, as its worker finds out (see `Clients.identify`).

        Raises:
            ApiError: there are no credentials on the worker, or no worker.
        """
        return str(await self._answer(account, "identify"))

    async def quota_owner(self, account: str) -> str:
        """The same, though it may not be able to sign (see `Clients.quota_owner`).

        Raises:
            ApiError: nobody knows.
        """
        return str(await self._answer(account, "whose"))

    async def read(self, account: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Make one read from the account's worker (see `Clients.read`).

        Raises:
            ApiError: it failed.
        """
        answer: dict[str, Any] = await self._answer(account, "read", operation, dict(parameters))
        return answer

    def clock_skew(self, account: str) -> float | None:
        """The service's clock less ours in seconds; None: the service has not told."""
        return self._skews.get(account)

    def skew(self, account: str) -> timedelta:
        """The same; none where it is not known."""
        return timedelta(seconds=self._skews.get(account) or 0.0)

    def learn_skew(self, account: str, host: Host, seconds: float | None) -> None:
        """Note how far the service's clock is from a worker's, and so from ours."""
        if seconds is not None:
            self._skews[account] = seconds + host.ahead

    async def _answer(self, account: str, method: str, *arguments: Any) -> Any:
        try:
            answer = await self.ask(account, method, *arguments, within=self._target.call_timeout * 2)
        except LostError as error:
            raise ApiError(
                Failure(ErrorKind.TRANSIENT, "WorkerLost", str(error), Verdict.RETRY, may_have_landed=False)
            ) from None
        if isinstance(answer, Failure):
            raise ApiError(answer)
        return answer

    # Placing, and asking.

    def at(self, account: str) -> Post | None:
        """Where the account is; None: at no worker yet, or no longer."""
        post = self._posts.get(account)
        return None if post is None or post.host.lost else post

    async def place(self, account: str) -> Post:
        """Find the account a worker, unless it has one.

        Raises:
            LostError: there is none in good time.
        """
        async with self._turns[account]:
            if post := self.at(account):
                return post
            with anyio.move_on_after(self._patience):
                return await self._place(account)
            why = self._refusals.get(account)
            last = f" (the last refusal: {why})" if why else ""
            raise LostError(f"no worker took the account for {self._patience:g} s{last}")

    async def _place(self, account: str) -> Post:
        brief = Brief(
            run=self.run,
            account=self._accounts[account],
            target=self._target,
            settings=self._settings,
            read_rate=self._read_rate,
            lease=self.placing.lease,
        )
        while True:
            if not self.reachable:
                raise LostError("the scheduler is gone")
            try:
                async with self._searching:
                    future, actor, hello = await self._submit(account, brief)
            except Exception as error:  # noqa: BLE001 - also what a worker has that cannot run this program
                self._refusals[account] = redaction.redacted(f"{type(error).__name__}: {error}")
                await anyio.sleep(LOOK_AGAIN)
                continue
            host = self._hosts.get(hello.host) or self._open(hello, actor)
            await host.opened.wait()
            if host.lost:
                continue
            self._posts[account] = Post(account, host, actor, future)
            return self._posts[account]

    async def _submit(self, account: str, brief: Brief) -> tuple[Any, Any, Hello]:
        """Have Dask choose a worker, of those that answer as far as is known, and get its first word.

        Raises:
            Exception: whatever Dask or the worker raises.
        """
        dask: Any = self._client
        workers = None
        if any(map(self._shuns, self._shunned)):
            known = [*await soon(dask.nthreads())]
            workers = [address for address in known if not self._shuns(address)] or known
        key = f"batch-snapshot-{self.run}-{account}-{uuid4().hex}"
        brief = replace(brief, turn=next(self._placings))
        future = self._client.submit(Carrier, brief, actor=True, key=key, pure=False, workers=workers)
        within = 2 * self.placing.lease
        try:
            with self._client.as_current():
                actor = await soon(future, within)
            hello: Hello = await soon(actor.hello(), within)
        except TimeoutError:
            for address, keys in (await soon(dask.processing())).items():
                if key in keys:
                    self._shun(address)
            raise
        if hello.version != __version__:
            self._shun(hello.address)
            raise LostError(f"worker {hello.address} has batch-snapshot {hello.version}, not {__version__}")
        return future, actor, hello

    def _shun(self, address: str) -> None:
        """Give no account to a worker for a while."""
        self._shunned[address] = anyio.current_time() + SHUNNED_FOR * self.placing.lease

    def _shuns(self, address: str) -> bool:
        return self._shunned.get(address, -math.inf) > anyio.current_time()

    def _open(self, hello: Hello, actor: Any) -> Host:
        host = Host(hello.host, hello.address, actor, Term(self.placing.lease), hello.stamp)
        self._hosts[host.name] = host
        self._renewing.append(asyncio.get_running_loop().create_task(self._renew(host)))
        return host

    async def ask(self, account: str, method: str, *arguments: Any, within: float = ASK_TIMEOUT) -> Any:
        """Ask the account's worker, and where that is lost the next one.

        Raises:
            LostError: it does not answer.
        """
        while True:
            post = await self.place(account)
            try:
                return await self._ask(post, method, *arguments, within=within)
            except LostError:
                if not await self.gone(post):
                    raise

    async def _ask(self, post: Post, method: str, *arguments: Any, within: float = ASK_TIMEOUT) -> Any:
        host, why = post.host, "it was lost"
        if host.lost:
            raise LostError(f"its worker {host.address} was lost")
        with anyio.CancelScope() as scope:
            host.asked.add(scope)
            try:
                return await soon(getattr(post.actor, method)(*arguments), within)
            except Exception as error:  # noqa: BLE001 - whatever it is, there is no answer
                why = type(error).__name__
            finally:
                host.asked.discard(scope)
        raise LostError(f"its worker {host.address} does not answer ({why})")

    async def gone(self, post: Post) -> bool:
        """Wait until a worker that does not answer is lost; returns whether it is."""
        with anyio.move_on_after(2 * self.placing.lease):
            while not post.host.lost:
                await anyio.sleep(LOOK_AGAIN)
        return post.host.lost

    async def start(self, post: Post, start: Start) -> Started:
        """Begin an account at its worker.

        Raises:
            LostError: the worker did not answer.
        """
        async with post.host.beginning:
            started: Started = await self._ask(post, "start", start, within=self._target.call_timeout * 3)
        return started

    async def hand_out(self, post: Post, parcel: Parcel) -> None:
        """Give a worker rows; returns once it has them, or is lost: then nobody knows whether it has."""
        tries = 0
        while not post.host.lost:
            try:
                await self._ask(post, "carry", parcel)
            except LostError:
                tries += 1
                post.host.doubted = tries >= ASKED_SO_OFTEN
                await anyio.sleep(LOOK_AGAIN)
            else:
                return

    async def tell(self, post: Post, method: str, *arguments: Any) -> None:
        """Tell a worker something that a lost one need not hear."""
        with suppress(LostError):
            await self._ask(post, method, *arguments)

    def release(self, account: str) -> None:
        """The account needs no worker any more; the last one of a worker stays, to renew its lease."""
        self._released.add(account)
        post = self._posts.get(account)
        if post is not None and post.actor is not post.host.actor:
            del self._posts[account]

    @property
    def _accounts_a_worker(self) -> int:
        workers = sum(not host.lost for host in self._hosts.values())
        return -(-(len(self._accounts) - len(self._released)) // max(1, workers))

    # Leases.

    def order(self, stop: Stop | None, *, abort: bool = False) -> None:
        """Tell all workers to make no further call, and perhaps to drop those in flight."""
        self._stop, self._abort = stop or self._stop, abort or self._abort
        for host in self._hosts.values():
            host.poke()

    async def dismiss(self) -> None:
        """Have all calls dropped; returns when no worker calls any more, or must not."""
        self.order(None, abort=True)
        while any(not (host.lost or host.aborted) for host in self._hosts.values()):
            await anyio.sleep(0.05)

    async def _renew(self, host: Host) -> None:
        every, answered = self.placing.lease / RENEWALS, anyio.current_time()
        while not (host.aborted or host.doubted):
            host.poked = anyio.Event()
            now, abort = anyio.current_time(), self._abort
            if now - answered > PATIENT_FOR * self.placing.lease:
                break
            host.term.renew(now)
            try:
                orders = Orders(host.stamp, host.heard, self._stop, self._accounts_a_worker, abort)
                answer: RenewalReply = await soon(host.actor.renew(orders), every)
            except TimeoutError:
                continue
            except Exception:  # noqa: BLE001 - a lease that cannot be renewed is over, whatever the reason
                break
            answered, host.stamp, host.aborted = anyio.current_time(), answer.stamp, abort
            host.opened.set()
            for bulletin in answer.bulletins:
                self._told.send_nowait(News(host, bulletin))
            with anyio.move_on_after(every):
                await host.poked.wait()
        if not host.aborted:
            await self._give_up(host)

    async def _give_up(self, host: Host) -> None:
        """Wait until the worker must have fallen silent."""
        await anyio.sleep(max(0.0, host.term.left(anyio.current_time())))
        host.lost = True
        for scope in host.asked:
            scope.cancel()
        self._shun(host.address)
        host.opened.set()
        self._told.send_nowait(News(host, None))

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        _, told = event
        host = self._hosts.get(told["host"])
        if host is not None and not host.lost:
            # Of this program on a worker of ours: what Dask carries is pickled as it is.
            self._told.send_nowait(News(host, pickle.loads(told["bulletin"])))  # noqa: S301
