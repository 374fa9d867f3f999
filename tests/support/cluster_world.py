"""Workers of a cluster in virtual time: they run what real ones run, and can be lost or cut off."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio

from batch_snapshot.cluster import worker
from batch_snapshot.cluster.batch import Batch, LostError, NotBegunError, silent_after
from batch_snapshot.engine.limits import ConcurrencyLimit
from batch_snapshot.models import Account

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET = 5.0


class FakeWorkers:
    """Takes the place of `Workers`. `fate` says of each batch, by its number, what becomes of it.

    None: it is carried out. "refused": no worker takes it. "lost": its worker is killed at once.
    "cut off": its worker sends it, and its result never arrives.
    """

    def __init__(self, client, settings, now, fate: Callable[[int], str | None] = lambda _: None) -> None:
        self.now = now
        self.reachable = True
        self.batches: list[Batch] = []
        self._client = client
        self._settings = settings
        self._fate = fate
        self._kept: Any = SimpleNamespace(
            clients=client, concurrency=ConcurrencyLimit(settings.concurrency), engines=set()
        )
        self._silent_after = silent_after(BUDGET, settings.drain_timeout)
        self._sending = 0

    async def carry(self, account, accounts, progress, *, requests, prepare, reservations, read_reservations):
        batch = Batch(
            run="run",
            turn=str(len(self.batches)),
            account=Account(account),
            target=None,  # type: ignore[arg-type]
            settings=self._settings,
            sharing=accounts,
            identity=None,
            requests=tuple(requests),
            prepare=prepare,
            progress=progress,
            reservations=None if reservations is None else tuple(reservations),
            read_reservations=None if read_reservations is None else tuple(read_reservations),
        )
        self.batches.append(batch)
        fate = self._fate(len(self.batches) - 1)
        if fate == "refused":
            await anyio.sleep(0.5)
            raise NotBegunError("no worker took it in time")
        if fate is None:
            return await self._send(batch)
        async with anyio.create_task_group() as cut_off:
            if fate == "cut off":
                cut_off.start_soon(self._send, batch)
            await anyio.sleep(self._silent_after)
        raise LostError("it was lost")

    async def _send(self, batch):
        self._sending += 1
        try:
            return await worker.send(
                batch, self._kept, anyio.current_time() + BUDGET, clock=anyio.current_time, now=self.now
            )
        finally:
            self._sending -= 1

    def clock_skew(self, account):
        return self._client.clock_skew(account)

    def learn_skew(self, account, result):
        pass

    def stop(self, *, abort=False):
        for engine in [*self._kept.engines]:
            if abort:
                engine.abort()
            else:
                worker._stop(engine)

    async def silence(self):
        self.stop(abort=True)
        while self._sending:
            await anyio.sleep(0.1)
