"""Workers of a cluster in virtual time: they run what real ones run, and can be lost, cut off or frozen."""

import contextlib
import pickle
from collections.abc import Callable

import anyio
import trio

from batch_snapshot.aws.target import Target
from batch_snapshot.cluster.worker import Batch, Host, Run
from batch_snapshot.config.options import BEGIN_WITHIN, silent_after
from batch_snapshot.models import Account, ApiError, ErrorKind, Failure, Verdict

BUDGET = 5.0


class FakeWorkers:
    """Takes the place of `Workers`. `fate` says of each batch, by its number, what becomes of it.

    None: it is carried out. "refused": no worker is there. "lost": its worker is killed at once. "cut off":
    its worker sends it, and its answer never arrives. "frozen": the same, but it begins late.
    """

    def __init__(self, service, settings, now, fate: Callable[[int], str | None] = lambda _: None) -> None:
        self.reachable = True
        self.batches: list[Batch] = []
        self.host = Host(Run("run", Target(), settings, BUDGET))
        vars(self.host).update(vars(service), _now=now, clock=anyio.current_time)
        self._fate = fate
        self._silent_after = silent_after(BUDGET, settings.drain_timeout)

    async def carry(self, batch):
        self.batches.append(batch)
        fate = self._fate(len(self.batches) - 1)
        if fate == "refused":
            raise _lost(may_have_landed=False)
        batch.identity = batch.identity or f"aws:{batch.account}"
        deadline = anyio.current_time() + BEGIN_WITHIN + BUDGET
        sent = pickle.loads(pickle.dumps(batch))
        if fate is None:
            answer, _ = await self._answer(deadline, sent)
            if isinstance(answer, Failure):
                raise ApiError(answer)
            return answer
        async with anyio.create_task_group() as cut_off:
            if fate == "cut off":
                cut_off.start_soon(self._answer, deadline, sent)
            await anyio.sleep(self._silent_after)
        if fate == "frozen":
            trio.lowlevel.spawn_system_task(self._answer, deadline, sent)
        raise _lost(may_have_landed=True)

    async def _answer(self, deadline, batch):
        return await self.host.answer(Account(batch.account), deadline, "carry", batch)

    def stop(self, *, abort):
        stopping = self.host.stop(abort=abort)
        with contextlib.suppress(StopIteration):
            stopping.send(None)  # it waits for nothing


def _lost(*, may_have_landed):
    lost = ErrorKind.TRANSIENT, "WorkerLost", "no worker answered", Verdict.RETRY
    return ApiError(Failure(*lost, may_have_landed=may_have_landed))
