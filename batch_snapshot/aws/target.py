"""Where the calls of a run go: AWS, a URL, or a simulator that is started for the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_snapshot.aws.client import Target
from batch_snapshot.errors import InputError
from batch_snapshot.models import AWS, SIMULATOR

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from pathlib import Path

#: Engagements that a simulated world begins with, and opportunities of each, where no state file tells.
SEEDED = (20, 3)


async def open_target(
    endpoint: str, stack: AsyncExitStack, *, state: Path | None = None, concurrency: int
) -> Target:
    """Where the calls go; a simulator is started for as long as the stack lasts.

    Raises:
        InputError: the state file of the simulator is none, or cannot be used.
    """
    url = None if endpoint in {AWS, SIMULATOR} else endpoint
    simulated = endpoint == SIMULATOR
    if simulated:
        from batch_snapshot import simulator  # noqa: PLC0415 - half a second of imports that few runs need

        known = state is not None and state.exists()  # noqa: ASYNC240 - before the first call
        settings = simulator.SimulatorSettings(
            rate=20,
            burst=20,
            latency=0.05,
            state=state,
            engagements=0 if known else SEEDED[0],
            opportunities_per_engagement=0 if known else SEEDED[1],
        )
        try:
            url, _ = await stack.enter_async_context(simulator.serve(settings))
        except (ValueError, OSError) as error:
            raise InputError(f"--state: {error}") from None
    return Target(endpoint_url=url, simulated=simulated, concurrency=concurrency)
