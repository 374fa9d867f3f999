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
    #: Instead of AWS's own, for all accounts.
    endpoint_url: str | None = None
    #: The endpoint accepts any signature, so no credentials are looked for.
    simulated: bool = False
    #: The most calls in flight; the pool has as many connections.
    concurrency: int = 32
    #: Seconds for a whole call, and before it for what gives its credentials.
    call_timeout: float = CALL_TIMEOUT
    #: Make every call as botocore does, though it takes more than twice the processor time.
    plain: bool = False


async def open_target(
    endpoint: str, stack: AsyncExitStack, simulated: Mapping[str, Any], concurrency: int
) -> Target:
    """Where the calls go, by an endpoint that is aws, simulator, or a URL.

    A simulator is started for as long as the stack lasts; `simulated` are the fields of its settings that
    differ from `simulator.DEMO`.
    """
    url = None if endpoint in {AWS, SIMULATOR} else endpoint
    if endpoint == SIMULATOR:
        from batch_snapshot import simulator  # half a second of imports that few runs need

        state = simulated.get("state")
        seeded = {} if state is not None and state.exists() else SEEDED
        settings = replace(simulator.DEMO, **{**seeded, **simulated})
        try:
            url, _ = await stack.enter_async_context(simulator.serve(settings))
        except (ValueError, OSError) as error:
            raise InputError(f"--state: {error}") from None
    return Target(endpoint_url=url, simulated=endpoint == SIMULATOR, concurrency=concurrency)
