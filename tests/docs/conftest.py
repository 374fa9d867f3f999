import anyio
import pytest

from batch_snapshot.simulator import SimulatorSettings, serve


@pytest.fixture
def endpoint():
    """A simulator for one page, in a thread of its own: no page sees what another one made."""
    settings = SimulatorSettings(engagements=20, opportunities_per_engagement=2)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serve(settings)) as (url, _),
    ):
        yield url
