"""A Dask cluster for a run: reached or started, and asked to carry batches. All that uses Dask is here.

A batch is an ordinary task of one worker, which Dask gives to no other. It names the moment, by that worker's
own clock, after which none of its calls begins. So its rows can be sent elsewhere once that is over, whatever
has become of the worker. The coordinator reads each worker's clock every few seconds, and sets none.
"""

import asyncio
import logging
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any
from uuid import uuid4

import anyio
from distributed import Client, LocalCluster, get_worker, secede

from batch_snapshot import __version__
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import seconds_since_boot
from batch_snapshot.cluster.worker import Answer, Batch, Run, host
from batch_snapshot.config.options import BEGIN_WITHIN, ClusterOptions, Settings, silent_after
from batch_snapshot.errors import InputError
from batch_snapshot.failures.retry import NO_LIMIT
from batch_snapshot.models import Account, ApiError, ErrorKind, Failure, Request, Verdict

#: Seconds for a first worker to be there.
FIRST_WORKER_WITHIN = 60.0
#: Seconds between two looks at the workers, and for each to answer: one that does not gets no batch.
LOOK_EVERY = 5.0
#: Seconds for a question to the service, credentials included.
ASK_WITHIN = 60.0


async def dask_setup(_: object) -> None:
    """Leave Ctrl-C to the coordinator, where a local worker shares its terminal (a Dask preload)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def hello(dask_worker: Any) -> tuple[str, str, float]:
    """The worker's version of this package, the id of its process, and what its clock says."""
    return __version__, dask_worker.id, seconds_since_boot()


def answer(run: Run, worker_id: str, *question: Any) -> Answer | None:
    """Answer a question on the worker's event loop (a Dask task); None: an earlier process was asked."""
    worker: Any = get_worker()
    if worker.id != worker_id:
        return None
    secede()  # this thread only waits: other tasks may begin
    answering = host(run).answer(*question)
    return asyncio.run_coroutine_threadsafe(answering, worker.loop.asyncio_loop).result()


async def obey(run: Run, method: str, how: Mapping[str, Any]) -> None:
    await getattr(host(run), method)(**how)


@asynccontextmanager
async def open_workers(
    accounts: Mapping[str, Account],
    target: Target,
    settings: Settings,
    cluster: ClusterOptions,
    now: Callable[[], datetime],
) -> AsyncIterator["Workers"]:
    """The workers of a cluster that is there, or of one that is started for the block.

    Raises `InputError` if there is none, or it cannot run this program.
    """
    for name in ("distributed", "distributed.worker", "distributed.scheduler", "distributed.nanny"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    async with AsyncExitStack() as stack:
        address = cluster.scheduler or await stack.enter_async_context(_local_cluster(cluster.workers))
        try:
            client = Client(address, asynchronous=True, set_as_default=False, timeout=LOOK_EVERY)
            await stack.enter_async_context(client)
        except (OSError, TimeoutError, ValueError) as error:
            why = f"--scheduler {address}: no Dask scheduler answers there ({type(error).__name__})"
            raise InputError(f"{why}: start one (dask scheduler), or correct the address") from None
        run = Run(uuid4().hex, target, replace(settings, failure_limit=NO_LIMIT), cluster.budget)
        workers = Workers(client, run, accounts, now)
        with anyio.move_on_after(FIRST_WORKER_WITHIN):
            while not workers.there:
                await workers.look()
                await anyio.sleep(0.1)
        if not workers.there:
            why = f"no worker came within {FIRST_WORKER_WITHIN:g} s: start some (dask worker ADDRESS)"
            raise InputError(f"--scheduler {cluster.scheduler}: {why}")
        looking = asyncio.ensure_future(workers.keep_looking())
        try:
            yield workers
        finally:
            looking.cancel()
            with anyio.CancelScope(shield=True):
                await workers.tell("__aexit__")
                await stack.aclose()


def _local_cluster(workers: int | None) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        # Without an address the dashboard would take its usual port all the same.
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        asynchronous=True,
        silence_logs=logging.CRITICAL,
        memory_limit=0,
        preload=[__name__],
    )


class Workers:
    """The workers of a cluster. Takes the place of `Clients` in the run's process."""

    def __init__(
        self, client: Any, run: Run, accounts: Mapping[str, Account], now: Callable[[], datetime]
    ) -> None:
        self._client, self._run, self._accounts, self._now = client, run, accounts, now
        self._numbers = count(1)
        self._identities: dict[str, str] = {}
        self._skews: dict[str, float] = {}
        self.clock_skew = self._skews.get
        #: By address: the worker's id, and by how many seconds its clock is ahead of ours at least.
        self.there: dict[str, tuple[str, float]] = {}
        #: Questions to each without an answer yet.
        self._asked: Counter[str] = Counter()
        self._stops: list[asyncio.Task[None]] = []  # asyncio keeps none of them

    @property
    def reachable(self) -> bool:
        return bool(self._client.status == "running")

    async def identify(self, account: str) -> str:
        """See `Clients`, as for the next four: a worker calls."""
        self._identities[account] = found = str(await self._ask(account, "identify", account))
        return found

    async def quota_owner(self, account: str) -> str:
        return str(await self._ask(account, "quota_owner", account))

    async def read(self, account: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return dict(await self._ask(account, "read", account, operation, dict(parameters)))

    async def probe(self, request: Request) -> None:
        await self._ask(request.row.account, "probe", request)

    async def carry(self, batch: Batch) -> Batch:
        """Have a worker send a batch; returns once it makes no call any more.

        Raises `ApiError` if nothing was sent, or, where it `may_have_landed`, nobody knows what was.
        """
        batch.identity = self._identities[batch.account]
        carried: Batch = await self._ask(batch.account, "carry", batch, within=self._run.budget)
        return carried

    def stop(self, *, abort: bool) -> None:
        """End all batches early; with `abort` their calls in flight are dropped."""
        self._stops.append(asyncio.ensure_future(self.tell("stop", abort=abort)))

    async def tell(self, method: str, **how: Any) -> None:
        """Call a method of all hosts; one that is not reached ends with its deadlines."""
        await _wait(self._client.run(obey, self._run, method, how, on_error="ignore"), LOOK_EVERY)

    async def _ask(self, account: str, method: str, *arguments: Any, within: float = ASK_WITHIN) -> Any:
        """Have a worker call a method of its `Host`, for a limited time once it begins."""
        now, silent = anyio.current_time(), silent_after(within, self._run.settings.drain_timeout)
        address, told = min(self.there, key=self._asked.__getitem__, default=None), None
        if address is not None:
            worker_id, ahead = self.there[address]
            deadline = now + ahead + BEGIN_WITHIN + within
            question = self._run, worker_id, self._accounts[account], deadline, method, *arguments
            key = f"batch-snapshot-{self._run.id}-{next(self._numbers)}"
            self._asked[address] += 1
            try:
                with suppress(Exception):  # without a scheduler Dask raises this and that
                    future = self._client.submit(answer, *question, key=key, workers=[address], pure=False)
                    told = await _wait(self._client.gather(future, errors="skip"), silent)
                    future.release()
            finally:
                self._asked[address] -= 1
            if told is None:
                self.there.pop(address, None)
                await anyio.sleep_until(now + silent)
        if told is None:
            lost = ErrorKind.TRANSIENT, "WorkerLost", "no worker answered", Verdict.RETRY
            raise ApiError(Failure(*lost, may_have_landed=address is not None))
        value, service_now = told
        if service_now is not None:
            self._skews[account] = (service_now - self._now()).total_seconds()
        if isinstance(value, Failure):
            raise ApiError(value)
        return value

    async def keep_looking(self) -> None:
        while True:
            await anyio.sleep(LOOK_EVERY)
            with suppress(InputError):
                await self.look()

    async def look(self) -> None:
        """Learn which workers there are, and what their clocks say; raises `InputError` if one is refused."""
        addresses = await _wait(self._client.nthreads(), LOOK_EVERY) or {}
        self.there = {address: one for address, one in self.there.items() if address in addresses}
        await asyncio.gather(*map(self._greet, addresses))

    async def _greet(self, address: str) -> None:
        greeting = self._client.run(hello, workers=[address], on_error="return")
        told = (await _wait(greeting, LOOK_EVERY) or {}).get(address)
        self.there.pop(address, None)
        if isinstance(told, tuple) and told[0] == __version__:
            self.there[address] = told[1], told[2] - anyio.current_time()
        elif told is not None:
            why = f"has batch-snapshot {told[0]}" if isinstance(told, tuple) else f"cannot run it ({told!r})"
            raise InputError(f"worker {address} {why}: install batch-snapshot[dask]=={__version__} there")


async def _wait(answer: Awaitable[Any], within: float) -> Any:
    """Await what Dask may never answer, for at most `within` seconds; None: no answer, or an error.

    It is never cancelled: Dask would cancel what others wait for with it.
    """
    task = asyncio.ensure_future(answer)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio logs it
    await asyncio.wait({task}, timeout=within)
    return task.result() if task.done() and not (task.cancelled() or task.exception()) else None
