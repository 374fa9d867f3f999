"""Which worker is asked, and what is concluded from its silence; Dask is a fake, and time virtual."""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from batch_snapshot import __version__
from batch_snapshot.aws.target import Target
from batch_snapshot.cluster.worker import Batch, Run
from batch_snapshot.config.options import BEGIN_WITHIN, Settings, silent_after
from batch_snapshot.errors import InputError
from batch_snapshot.models import Account, ApiError

BUDGET, DRAIN = 5.0, 2.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose waits take no time."""

    def __init__(self) -> None:
        self._now = 0.0
        jumping = selectors.SelectSelector()
        jumping.select = self._jump  # type: ignore[method-assign]
        super().__init__(jumping)

    def _jump(self, timeout: float | None = None) -> list[Any]:
        self._now += timeout or 0.0
        return []

    def time(self) -> float:
        return self._now


def in_virtual_time(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work)


class FakeDask:
    """Takes the place of a Dask client."""

    status = "running"

    def __init__(self, **workers: Any) -> None:
        #: By address: what the worker says to `hello`; None: nothing, ever.
        self.workers: dict[str, Any] = workers
        #: By address: a list of its answer; None: there is none, ever.
        self.answers: dict[str, list[Any] | None] = {}
        self.asked: list[tuple[str, Any]] = []

    async def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(self.workers, 1)

    async def run(self, *_: object, workers: list[str], **__: object) -> dict[str, Any]:
        (address,) = workers
        told = self.workers[address]
        if told is None:
            await asyncio.Event().wait()
        return {address: told}

    def submit(self, _: object, *question: Any, workers: list[str], **__: object) -> "FakeDask":
        self.asked.append((workers[0], question))
        return self

    def release(self) -> None:
        """A future is released, as Dask's are."""

    async def gather(self, *_: object, **__: object) -> Any:
        answer = self.answers.get(self.asked[-1][0])
        while answer is None:
            await asyncio.Event().wait()
        return answer[0]


def workers_of(dask: FakeDask) -> Any:
    from batch_snapshot.cluster.dask_client import Workers  # which imports Dask: that takes long

    run = Run("run", Target(), Settings(drain_timeout=DRAIN), BUDGET)
    return Workers(dask, run, {"main": Account("main")}, lambda: NOW)


def hello(name: str, clock: float = 100.0, version: str = __version__) -> tuple[str, str, float]:
    return version, name, clock


async def carry(workers: Any) -> ApiError:
    workers._identities["main"] = "aws:main"
    with pytest.raises(ApiError) as caught:
        await workers.carry(Batch("main", [], None, []))  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("answer", [None, [None]], ids=["frozen", "another process at its address"])
def test_a_worker_that_does_not_answer_is_left_until_it_must_be_silent(answer):
    async def main() -> None:
        dask = FakeDask(frozen=hello("first"))
        dask.answers["frozen"] = answer
        workers = workers_of(dask)
        await workers.look()
        error = await carry(workers)
        assert error.failure.may_have_landed
        assert asyncio.get_running_loop().time() == pytest.approx(silent_after(BUDGET, DRAIN))
        assert not workers.there
        dask.workers["frozen"] = None
        await workers.look()
        error = await carry(workers)
        assert not error.failure.may_have_landed
        assert len(dask.asked) == 1

    in_virtual_time(main())


def test_the_deadline_is_by_the_clock_of_the_worker_that_is_asked():
    async def main() -> None:
        dask = FakeDask(ahead=hello("one", clock=1000.0))
        dask.answers["ahead"] = [("done", NOW)]
        workers = workers_of(dask)
        await asyncio.sleep(40)
        await workers.look()
        await asyncio.sleep(3)
        workers._identities["main"] = "aws:main"
        assert await workers.carry(Batch("main", [], None, [])) == "done"  # type: ignore[arg-type]
        ((_, question),) = dask.asked
        _, worker_id, account, deadline, method, _ = question
        assert (worker_id, account.name, method) == ("one", "main", "carry")
        assert deadline == pytest.approx(1003.0 + BEGIN_WITHIN + BUDGET)

    in_virtual_time(main())


def test_a_worker_of_another_version_is_refused_and_never_asked():
    async def main() -> None:
        workers = workers_of(FakeDask(old=hello("old", version="0.0.1")))
        with pytest.raises(InputError, match=r"worker old has batch-snapshot 0\.0\.1"):
            await workers.look()
        assert not workers.there

    in_virtual_time(main())


def test_the_worker_with_the_fewest_open_questions_is_asked():
    async def main() -> None:
        dask = FakeDask(one=hello("one"), two=hello("two"))
        workers = workers_of(dask)
        await workers.look()
        waiting = [asyncio.ensure_future(carry(workers)) for _ in range(4)]
        await asyncio.sleep(5)
        assert sorted(address for address, _ in dask.asked) == ["one", "one", "two", "two"]
        await asyncio.gather(*waiting)

    in_virtual_time(main())
