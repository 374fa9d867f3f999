"""Where the calls of a run go: AWS, a URL, or a simulator that is started for the run."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from batch_snapshot.errors import InputError
from batch_snapshot.models import AWS, SIMULATOR

#: Seconds for a whole call, and before it for what gives its credentials.
CALL_TIMEOUT = 90

#: What a simulated world begins with where there is no state file.
SEEDED = {"engagements": 20, "opportunities_per_engagement": 3, "invitations": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the calls go.

    Attributes:
        endpoint_url: instead of AWS's own, for all accounts.
        simulated: the endpoint accepts any signature, so no credentials are looked for.
        concurrency: the most calls in flight; the pool has as many connections.
        call_timeout: seconds for a whole call, and before it for what gives its credentials.
        plain: make every call as botocore does, though it takes more than twice the processor time.
    """

    endpoint_url: str | None = None
    simulated: bool = False
    concurrency: int = 32
    call_timeout: float = CALL_TIMEOUT
    plain: bool = False


async def open_target(
    endpoint: str, stack: AsyncExitStack, simulated: Mapping[str, Any], concurrency: int
) -> Target:
    """Where the calls go; a simulator is started for as long as the stack lasts.

    Args:
        endpoint: aws, simulator, or a URL.
        stack: closes the simulator.
        simulated: fields of `SimulatorSettings` that differ from `simulator.DEMO`.
        concurrency: the most calls in flight.
    """
    url = None if endpoint in {AWS, SIMULATOR} else endpoint
    if endpoint == SIMULATOR:
        from batch_snapshot import simulator  # noqa: PLC0415 - half a second of imports that few runs need

        state = simulated.get("state")
        seeded = {} if state is not None and state.exists() else SEEDED
        settings = replace(simulator.DEMO, **{**seeded, **simulated})
        try:
            url, _ = await stack.enter_async_context(simulator.serve(settings))
        except (ValueError, OSError) as error:
            raise InputError(f"--state: {error}") from None
    return Target(endpoint_url=url, simulated=endpoint == SIMULATOR, concurrency=concurrency)
