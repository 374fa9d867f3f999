"""What a worker's process keeps between batches, and its refusal of calls after the budget."""

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from batch_snapshot.clock import seconds_since_boot
from batch_snapshot.cluster import worker
from batch_snapshot.models import ApiError


@pytest.fixture
def kept():
    worker._kept.clear()
    yield worker._kept
    worker._kept.clear()


def test_only_runs_that_are_idle_for_long_are_closed_when_another_run_comes(kept):
    closed = []

    def run(name, used_at, engines=()):
        async def close():
            closed.append(name)

        kept[name] = SimpleNamespace(engines=set(engines), used_at=used_at, close=close)

    run("sharing this worker", used_at=1000.0)
    run("in the middle of a slow call", used_at=0.0, engines=["engine"])
    run("of a coordinator that was killed", used_at=0.0)
    anyio.run(worker._close_idle, 1000.0)
    assert closed == ["of a coordinator that was killed"]


def test_after_the_budget_a_call_is_refused_as_one_that_never_left_and_the_engine_stops():
    stops: list[object] = []
    engine: Any = SimpleNamespace(stop=None, request_stop=stops.append)
    before = worker._budget.set((seconds_since_boot() + 60, engine))
    try:
        worker._check_budget()
        assert stops == []
        worker._budget.set((seconds_since_boot(), engine))
        with pytest.raises(ApiError) as refused:
            worker._check_budget()
    finally:
        worker._budget.reset(before)
    assert refused.value.failure.never_left
    assert len(stops) == 1
