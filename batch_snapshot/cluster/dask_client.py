"""A Dask cluster for a run: one that is there, or one that is started for it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import anyio
from distributed import Client, LocalCluster
from distributed.client import AllExit

from batch_snapshot import __version__
from batch_snapshot.cluster import carrier
from batch_snapshot.cluster.lease import LostError
from batch_snapshot.errors import InputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

    from batch_snapshot.config.options import ClusterOptions

#: Seconds to reach the scheduler, and for a first worker to be there.
CONNECT_TIMEOUT = 5.0
FIRST_WORKER_TIMEOUT = 60.0
#: Seconds for a question to a worker that answers at once unless something is wrong.
ASK_TIMEOUT = 30.0

#: What of Dask would log by itself.
_LOGGERS = ("distributed", "distributed.worker", "distributed.scheduler", "distributed.nanny")


@asynccontextmanager
async def connected(placing: ClusterOptions) -> AsyncIterator[Client]:
    """A client of the cluster for the length of the block; a cluster that was started for it ends with it.

    Raises:
        InputError: there is none, or it cannot run this program.
    """
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _hushed_gathers():
        async with _address(placing) as address, await _reached(address) as client:
            await _check_workers(client, placing.scheduler)
            yield client


@asynccontextmanager
async def _address(placing: ClusterOptions) -> AsyncIterator[Any]:
    if placing.scheduler is not None:
        yield placing.scheduler
        return
    async with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=placing.workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        # Without one it would take its usual port all the same.
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        asynchronous=True,
        silence_logs=logging.CRITICAL,
        memory_limit=0,
        preload=[carrier.__name__],
    ) as cluster:
        yield cluster


async def _reached(address: Any) -> Client:
    try:
        client: Client = await Client(  # type: ignore[no-untyped-call]
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
    with anyio.move_on_after(ASK_TIMEOUT):
        told = await client.run(carrier.version, on_error="return")
    for worker, version in told.items():
        if isinstance(version, Exception):
            why = f"cannot run this program ({type(version).__name__}: {version})"
            raise InputError(f"worker {worker} {why}: install batch-snapshot[dask]=={__version__} there")
        if version != __version__:
            raise InputError(f"worker {worker} has batch-snapshot {version}, not {__version__}: update it")


@contextmanager
def _hushed_gathers() -> Iterator[None]:
    """Let the loop say nothing of what Dask raises within a gather that was given up: nobody awaits it."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), AllExit):
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


async def soon(answer: Awaitable[Any], within: float = ASK_TIMEOUT) -> Any:
    """Await what may never be answered, for so many seconds.

    Dask may cancel what waits for a worker that is lost. That is kept from the task that asks, which would
    take it for an end of the run.

    Raises:
        TimeoutError: it was not answered.
        LostError: it will not be.
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
        raise LostError("Dask dropped the question")
    return task.result()
