"""A Dask cluster for a run: reached or started, and asked to carry batches.

Only futures, queues and events are used. Dask chooses the worker of each batch, and may run a task again when
a worker is lost; each batch has one turn, taken from the scheduler, so that only one worker sends it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import anyio
from distributed import Client, Event, LocalCluster, Queue
from distributed.client import AllExit
from distributed.comm.core import CommClosedError

from batch_snapshot import __version__, redaction
from batch_snapshot.cluster import worker
from batch_snapshot.cluster.batch import Batch, LostError, NotBegunError, Progress, silent_after
from batch_snapshot.errors import InputError
from batch_snapshot.failures.retry import NO_LIMIT
from batch_snapshot.models import ApiError, ErrorKind, Failure, Verdict
from batch_snapshot.ratelimit.pace import Pace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from datetime import datetime
    from types import TracebackType

    from batch_snapshot.aws.target import Target
    from batch_snapshot.cluster.batch import BatchResult
    from batch_snapshot.config.options import ClusterOptions, Settings
    from batch_snapshot.models import Account

#: Seconds to reach the scheduler, and for a first worker to be there.
CONNECT_TIMEOUT = 5.0
FIRST_WORKER_TIMEOUT = 60.0
#: Seconds for an answer that comes at once unless something is wrong.
ANSWER_TIMEOUT = 30.0
#: Seconds between two counts of the workers: clusters grow and shrink.
COUNT_EVERY = 5.0
#: Seconds before what could not be handed out is tried again.
RETRY_AFTER = 0.5

_LOGGERS = ("distributed", "distributed.worker", "distributed.scheduler", "distributed.nanny")


class Workers:
    """The workers of a cluster. Takes the place of `Clients` in the run's process."""

    def __init__(
        self,
        accounts: Mapping[str, Account],
        target: Target,
        settings: Settings,
        cluster: ClusterOptions,
        *,
        now: Callable[[], datetime],
    ) -> None:
        """Connect to nothing yet.

        Args:
            accounts: by name.
            target: where the calls go.
            settings: how a worker drives an account.
            cluster: where, and for how long at a time.
            now: the wall clock.
        """
        self.now = now
        self._accounts = accounts
        self._cluster = cluster
        self._silent_after = silent_after(cluster.budget, settings.drain_timeout)
        self._batch = Batch(
            run=uuid4().hex,
            turn="",
            account=next(iter(accounts.values())),
            target=target,
            settings=replace(settings, max_duration=cluster.budget, failure_limit=NO_LIMIT),
            sharing=1,
            identity=None,
            progress=Progress(Pace(), Pace()),
        )
        self._numbers = count(1)
        self._identities: dict[str, str] = {}
        self._skews: dict[str, float] = {}
        #: Batches that have been handed out.
        self._carried: set[Any] = set()
        self._setting: set[asyncio.Task[None]] = set()
        self._workers, self._count_again_at = 1, 0.0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Reach the cluster, or start one.

        Raises:
            InputError: there is none, or it cannot run this program.
        """
        self._client: Any = await self._stack.enter_async_context(_connected(self._cluster))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what the run opened at workers, and disconnect; a cluster started for the run ends."""
        with anyio.CancelScope(shield=True):
            with suppress(Exception):
                await _wait_with_timeout(self._client.run(worker.close, self._batch.run), CONNECT_TIMEOUT)
            await self._stack.aclose()

    @property
    def reachable(self) -> bool:
        """Whether the scheduler answered last."""
        return bool(self._client.status == "running")

    async def identify(self, account: str) -> str:
        """See `Clients.identify`; a worker answers, as for the next two."""
        self._identities[account] = found = str(await self._ask(account, "identify"))
        return found

    async def quota_owner(self, account: str) -> str:
        """See `Clients.quota_owner`."""
        return str(await self._ask(account, "quota_owner"))

    async def read(self, account: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """See `Clients.read`."""
        answer: dict[str, Any] = await self._ask(account, "read", operation, dict(parameters))
        return answer

    def clock_skew(self, account: str) -> float | None:
        """The service's clock less ours in seconds; None: not known."""
        return self._skews.get(account)

    def skew(self, account: str) -> timedelta:
        """The service's clock less ours; zero where it is not known."""
        return timedelta(seconds=self._skews.get(account, 0.0))

    def learn_skew(self, account: str, result: BatchResult) -> None:
        """Learn the service's clock less ours from a worker's clock, which was just read."""
        if result.skew is not None:
            self._skews[account] = result.skew + (result.now - self.now()).total_seconds()

    async def _ask(self, account: str, method: str, *arguments: Any) -> Any:
        batch = replace(self._batch, turn=self._next_name(), account=self._accounts[account])
        within = ANSWER_TIMEOUT + 2 * batch.target.call_timeout
        try:
            answer = await _wait_with_timeout(self._submit(worker.ask, batch, method, *arguments), within)
        except Exception as error:  # noqa: BLE001 - whatever Dask or the worker raises, there is no answer
            why = f"no worker answered ({_describe(error)})"
            raise ApiError(
                Failure(ErrorKind.TRANSIENT, "WorkerLost", why, Verdict.RETRY, may_have_landed=False)
            ) from None
        if isinstance(answer, Failure):
            raise ApiError(answer)
        return answer

    def _submit(self, function: Callable[..., Any], batch: Batch, *arguments: Any) -> Any:
        return self._client.submit(function, batch, *arguments, key=batch.turn, pure=False)

    def _next_name(self) -> str:
        return f"batch-snapshot-{self._batch.run}-{next(self._numbers)}"

    async def carry(self, account: str, accounts: int, progress: Progress, **rows: Any) -> BatchResult:
        """Have a worker send rows of an account for one budget of time.

        Args:
            account: its name.
            accounts: how many have rows left.
            progress: of the account.
            rows: see `Batch`: `requests` or `prepare`, `reservations`, `read_reservations`.

        Raises:
            NotBegunError: no worker took the batch, and none will.
            LostError: a worker took it, did not report, and makes no call any more.
        """
        given: Any = {
            name: tuple(value) if isinstance(value, list) else value for name, value in rows.items()
        }
        batch = replace(
            self._batch,
            turn=self._next_name(),
            account=self._accounts[account],
            identity=self._identities.get(account),
            progress=progress,
            sharing=-(-accounts // await self._count_workers()),
            **given,
        )
        try:
            turn = await _wait_with_timeout(Queue(batch.turn, client=self._client), ANSWER_TIMEOUT)
            await _wait_with_timeout(turn.put(1), ANSWER_TIMEOUT)
            future = self._submit(worker.carry, batch)
        except Exception as error:  # noqa: BLE001 - whatever Dask raises, the batch was not handed out
            await anyio.sleep(RETRY_AFTER)
            raise NotBegunError(_describe(error)) from None
        self._carried.add(future)
        try:
            result = await self._result(future, turn)
        except (LostError, NotBegunError):
            self._forget(future, turn)
            raise
        self._forget(future, turn)
        return result

    def _forget(self, future: Any, turn: Any) -> None:
        """Wait no longer for a batch that is over, at the end of the run either."""
        self._carried.discard(future)
        future.release()
        turn.close()

    async def _count_workers(self) -> int:
        """How many workers there are, as they were counted at most a while ago."""
        if (now := anyio.current_time()) >= self._count_again_at:
            self._count_again_at = now + COUNT_EVERY
            with suppress(Exception):
                self._workers = len(await _wait_with_timeout(self._client.nthreads(), ANSWER_TIMEOUT))
        return max(1, self._workers)

    async def _result(self, future: Any, turn: Any) -> BatchResult:
        """Wait for a batch for as long as its worker may need, and once more if it began late."""
        why, within = "it did not answer", self._silent_after + RETRY_AFTER
        for _ in range(2):
            try:
                result: BatchResult | None = await _wait_with_timeout(future, within)
            except TimeoutError:
                if await self._take_turn(turn):
                    raise NotBegunError("no worker took it in time") from None
            except Exception as error:  # noqa: BLE001 - whatever Dask or the worker raises
                why = _describe(error)
                break
            else:
                if result is not None:
                    return result
                why = "it was lost"  # another worker ran the task again, and found the turn taken
                break
        if await self._take_turn(turn):
            await anyio.sleep(RETRY_AFTER)
            raise NotBegunError(why)
        await anyio.sleep(self._silent_after)
        raise LostError(why)

    async def _take_turn(self, turn: Any) -> bool:
        """Take a batch's turn unless a worker has it; where nobody can tell, one has it."""
        with suppress(Exception):
            return bool(await _wait_with_timeout(turn.get(batch=True), ANSWER_TIMEOUT))
        return False

    def stop(self, *, abort: bool = False) -> None:
        """End all batches early; with `abort` their calls in flight are dropped."""
        task = asyncio.ensure_future(self._set_event(abort=abort))
        self._setting.add(task)
        task.add_done_callback(self._setting.discard)

    async def _set_event(self, *, abort: bool) -> None:
        event = Event(worker.stop_event(self._batch.run, abort=abort), client=self._client)
        with suppress(Exception):  # a worker that is not reached ends with its budget
            await _wait_with_timeout(event.set(), ANSWER_TIMEOUT)

    async def silence(self) -> None:
        """Return once no worker calls for this run any more."""
        if self._carried:
            await self._set_event(abort=True)
            ended = [asyncio.ensure_future(_ended(future)) for future in self._carried]
            await asyncio.wait(ended, timeout=self._silent_after)


async def _ended(future: Any) -> None:
    with suppress(Exception):
        await future


def _describe(error: Exception) -> str:
    return redaction.redacted(f"{type(error).__name__}: {error}")


@asynccontextmanager
async def _connected(cluster: ClusterOptions) -> AsyncIterator[Client]:
    """A client of the cluster for the length of the block; a cluster that was started for it ends with it.

    Raises:
        InputError: there is none, or it cannot run this program.
    """
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _quiet_gathers():
        async with _address(cluster) as address, await _reached(address) as client:
            await _check_workers(client, cluster.scheduler)
            yield client


@asynccontextmanager
async def _address(cluster: ClusterOptions) -> AsyncIterator[Any]:
    if cluster.scheduler is not None:
        yield cluster.scheduler
        return
    async with LocalCluster(
        n_workers=cluster.workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        # Without one it would take its usual port all the same.
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        asynchronous=True,
        silence_logs=logging.CRITICAL,
        memory_limit=0,
        preload=[worker.__name__],
    ) as local:
        yield local


async def _reached(address: Any) -> Client:
    try:
        client: Client = await Client(
            address, asynchronous=True, set_as_default=False, timeout=CONNECT_TIMEOUT
        )
    except (OSError, TimeoutError, ValueError) as error:
        why = f"--scheduler {address}: no Dask scheduler answers there ({type(error).__name__})"
        raise InputError(f"{why}: start one (dask scheduler), or correct the address") from None
    return client


async def _check_workers(client: Any, scheduler: str | None) -> None:
    try:
        await client.wait_for_workers(1, timeout=FIRST_WORKER_TIMEOUT)
    except TimeoutError:
        why = f"no worker came within {FIRST_WORKER_TIMEOUT:g} s: start some (dask worker ADDRESS)"
        raise InputError(f"--scheduler {scheduler}: {why}") from None
    told: dict[str, Any] = {}
    with anyio.move_on_after(ANSWER_TIMEOUT):
        told = await client.run(worker.version, on_error="return")
    for address, version in told.items():
        if isinstance(version, Exception):
            why = f"cannot run this program ({type(version).__name__}: {version})"
            raise InputError(f"worker {address} {why}: install batch-snapshot[dask]=={__version__} there")
        if version != __version__:
            raise InputError(f"worker {address} has batch-snapshot {version}, not {__version__}: update it")


@contextmanager
def _quiet_gathers() -> Iterator[None]:
    """Let the loop say nothing of what Dask raises within a gather that was given up: nobody awaits it."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), AllExit | CommClosedError):
            return
        if before is None:
            loop.default_exception_handler(context)
        else:
            before(loop, context)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(before)


async def _wait_with_timeout(answer: Awaitable[Any], within: float) -> Any:
    """Await what may never be answered, for so many seconds.

    Dask may cancel what waits for a worker that is lost. That is kept from the task that asks, which would
    take it for an end of the run.

    Raises:
        TimeoutError: it was not answered.
        ConnectionError: it will not be.
    """

    async def awaited() -> Any:
        return await answer

    task = asyncio.ensure_future(awaited())
    try:
        await asyncio.wait({task}, timeout=within)
        if not task.done():
            raise TimeoutError
    finally:
        task.cancel()
    if task.cancelled():
        raise ConnectionError("Dask dropped the question")
    return task.result()
