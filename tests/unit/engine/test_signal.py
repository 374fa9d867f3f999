"""A signal wakes what waits for it, each time that it is sent."""

import anyio
import pytest

from batch_snapshot.engine.signal import Signal

pytestmark = pytest.mark.anyio


async def test_each_sending_wakes_those_that_wait_then():
    signal, woken = Signal(), []

    async def wait(name, times):
        for _ in range(times):
            await signal.wait()
            woken.append(name)

    signal.send()  # nothing waits: it is not kept
    async with anyio.create_task_group() as group:
        group.start_soon(wait, "a", 1)
        group.start_soon(wait, "b", 2)
        for expected in ("ab", "abb"):
            await anyio.sleep(1)
            signal.send()
            await anyio.sleep(1)
            assert "".join(sorted(woken)) == expected
