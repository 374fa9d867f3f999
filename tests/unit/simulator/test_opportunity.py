"""What the simulator's snapshots say: what the service's model allows, and other things after a change."""

import pytest

from batch_snapshot.simulator import SimulatorSettings, opportunity
from batch_snapshot.simulator.model import load_model, problems_of
from tests.support.simulator_client import PAIR, service


@pytest.mark.parametrize("number", [f"O{number}" for number in (*range(6), 1_000_001, 10**19 - 1)])
@pytest.mark.parametrize("edits", [0, 1, 7])
def test_a_payload_is_one_that_the_model_allows(number, edits):
    payload = {"OpportunitySummary": opportunity.summary(number, edits)}
    assert list(problems_of(load_model(None).shape_for("ResourceSnapshotPayload"), payload, "")) == []


@pytest.mark.parametrize("number", ["O1", "O2", "O3"])
def test_each_modification_changes_a_payload(number):
    shown = [opportunity.summary(number, edits) for edits in range(9)]
    assert all(one not in shown[:index] for index, one in enumerate(shown))
    assert [opportunity.stage("O3", edits) for edits in range(4)] == [
        "Qualified",
        "Committed",
        "Launched",
        "Launched",
    ]


@pytest.mark.asyncio
async def test_a_snapshot_says_what_its_opportunity_was_when_it_was_made_also_after_a_restart(tmp_path):
    settings = SimulatorSettings(state=tmp_path / "world.ndjson")

    async def stages(api) -> list[str]:
        answers = [await api.call("get_resource_snapshot", **PAIR, Revision=one) for one in (1, 2)]
        return [answer["Payload"]["OpportunitySummary"]["Lifecycle"]["Stage"] for answer in answers]

    async with service(settings) as api:
        await api.create("t1")
        api.simulator.touch(PAIR["ResourceIdentifier"])
        await api.create("t2")
        assert await stages(api) == ["Committed", "Launched"]
        listed = await api.pages("list_opportunities", 9, Catalog="Sandbox")
        assert listed[0][0]["LifeCycle"]["Stage"] == "Launched"
    async with service(settings) as api:
        assert await stages(api) == ["Committed", "Launched"]
