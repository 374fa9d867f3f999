"""Pairs that were never snapshotted: what finds them with an older and a newer SDK, and what it costs."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from batch_snapshot import manifest, operations
from batch_snapshot.cli import main
from batch_snapshot.discovery import discover, output
from batch_snapshot.errors import ServiceError
from batch_snapshot.simulator import SimulatorSettings, serve
from tests.integration.test_nights import (
    ALL,
    FOUND,
    discovered,
    environment,
    night,
    options,
    spent,
)
from tests.support.service_models import data_path

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("cwd")]

#: Of 8 invitations 4 were accepted with an opportunity, 2 with a lead, and 2 are pending.
WORLD = SimulatorSettings(engagements=20, opportunities_per_engagement=3, invitations=8)

BY_TASK = "ListEngagementFromOpportunityTasks"
ACCEPTING, INVITATIONS = "ListEngagementByAcceptingInvitationTasks", "ListEngagementInvitations"
FROM_ENGAGEMENT = "ListOpportunityFromEngagementTasks"
LEADS = "opportunities that were made from engagements"
JOBS = "ListResourceSnapshotJobs"


@pytest.fixture(params=["older", "newer"])
def sdk(request, monkeypatch, cwd):
    """The SDK whose service model every client and every simulator loads."""
    monkeypatch.setenv("AWS_DATA_PATH", data_path(request.param))
    return request.param


@pytest.fixture
def newer(monkeypatch, cwd):
    monkeypatch.setenv("AWS_DATA_PATH", data_path("newer"))


MINE = """\
version: 1
name: mine
defaults: {catalog: Sandbox}
pairs:
  - {engagement: eng-00000000000001, resource: O1000001}
"""


def found_pairs() -> set[tuple[str, str]]:
    return {(row.engagement, row.resource) for row in manifest.rows(manifest.load(FOUND))}


async def test_pairs_of_accepted_invitations_are_found_and_run(sdk):
    async with serve(WORLD) as (url, simulator):
        found = await discovered(url)
        accepted = {(one.engagement, one.opportunity) for one in simulator.world.invitations}
        by_origin = Counter(one.origin for one in simulator.world.invitations)
        assert by_origin == {"invitation": 4, "engagement": 2, "pending": 2}
        leads = 2 if sdk == "newer" else 0
        assert found.counts.pairs == 64 + leads
        assert found.counts.listed == {"tasks": 60 + leads, "associations": 0, "invitations": 4}
        assert len(found_pairs() & accepted) == 4 + leads
        running = sum(one.status == "Running" for one in simulator.world.jobs)
        assert (running, found.counts.active_jobs) == (34, 34 if leads else 32)
        calls = {ACCEPTING: 1, BY_TASK: 1, "ListEngagementResourceAssociations": 1, INVITATIONS: 1, JOBS: 1}
        calls |= {FROM_ENGAGEMENT: 1} if leads else {}
        assert found.calls == spent(simulator, {}) == calls
        assert found.warnings == []
        assert found.unknown == (set() if leads else {FROM_ENGAGEMENT})
        unseen = output.as_json(found)["cannot_see"]
        assert any(FROM_ENGAGEMENT in one for one in unseen) == (not leads)
        summary = await night(url, 1)
        assert (summary.exit_code, summary.counts.succeeded) == (0, 64 + leads)
        assert {(one.engagement, one.resource) for one in simulator.snapshots} == found_pairs()


async def test_opportunities_of_failed_tasks_are_found_and_those_of_running_ones_not(newer):
    async with serve(WORLD) as (url, simulator):
        world = simulator.world
        invited = [one for one in world.jobs if one.origin in {"invitation", "engagement"}]
        told = ["FAILED", "IN_PROGRESS", "FAILED", "FAILED", "IN_PROGRESS", "COMPLETE"]
        states = dict(zip(invited, told, strict=True))
        world.jobs = [one._replace(task_status=states.get(one, "COMPLETE")) for one in world.jobs]
        await discovered(url)
        found = {(one.engagement, one.opportunity) for one, state in states.items() if state != "IN_PROGRESS"}
        assert found_pairs() & {(one.engagement, one.opportunity) for one in invited} == found


async def test_without_accepted_opportunities_no_invitation_is_read(newer):
    async with serve(replace(WORLD, invitations=0)) as (url, _):
        found = await discovered(url)
        assert (found.counts.pairs, found.calls[ACCEPTING], found.calls.get(INVITATIONS)) == (60, 1, None)


async def test_few_engagements_are_named_in_each_request_that_can_name_them(newer):
    async with serve(WORLD) as (url, simulator):
        names = tuple(one.engagement for one in simulator.world.invitations[:3])
        found = await discovered(url, search=replace(ALL, engagements=(*names, "eng-00000000000001")))
        assert found.counts.listed == {"tasks": 4, "associations": 0, "invitations": 2}
        assert found.counts.pairs == 6


@pytest.mark.parametrize("stopped_at", [ACCEPTING, INVITATIONS])
async def test_a_search_that_was_interrupted_between_invitations_continues(monkeypatch, stopped_at, newer):
    for name in (ACCEPTING, INVITATIONS):
        monkeypatch.setitem(operations.LISTS, name, operations.LISTS[name]._replace(page_size=2))

    def killed(line: str) -> None:
        if line == f"{stopped_at}: 4":
            raise KeyboardInterrupt

    async with serve(WORLD) as (url, simulator):
        with pytest.raises(KeyboardInterrupt):
            await discover.discover(FOUND, ALL, options(url), environment(on_progress=killed))
        before = Counter(simulator.calls)
        found = await discovered(url)
        assert (found.resumed, found.counts.pairs, found.counts.listed["invitations"]) == (True, 66, 4)
        assert spent(simulator, before)[stopped_at] == 1
        assert simulator.calls[ACCEPTING] == simulator.calls[INVITATIONS] == 3


# -- lists that an IAM policy does not allow ---------------------------------------------------------


@pytest.mark.parametrize(
    ("denied", "pairs", "missing", "actions"),
    [
        (ACCEPTING, 62, "pairs of accepted invitations", (ACCEPTING, INVITATIONS)),
        (INVITATIONS, 62, "pairs of accepted invitations", (ACCEPTING, INVITATIONS)),
        (FROM_ENGAGEMENT, 64, LEADS, (FROM_ENGAGEMENT,)),
    ],
)
async def test_a_denied_list_is_left_out_with_a_warning(newer, capfd, denied, pairs, missing, actions):
    async with serve(replace(WORLD, denied=frozenset({denied}))) as (url, _):
        found = await discovered(url)
        assert found.counts.pairs == pairs
        [warning] = found.warnings
        why = f"User is not authorized to perform: partnercentral:{denied} on this resource"
        allow = " and ".join(f"partnercentral:{one}" for one in actions)
        what = f"account default: {missing} are not covered"
        assert warning == f"{what}: {denied}: AccessDeniedException: {why}; allow {allow}"
        assert output.as_json(found)["warnings"] == [warning]


async def test_the_only_list_that_is_wanted_must_be_allowed(newer):
    async with serve(replace(WORLD, denied=frozenset({INVITATIONS}))) as (url, _):
        with pytest.raises(ServiceError, match=f"allow partnercentral:{INVITATIONS}, which this needs"):
            await discovered(url, search=replace(ALL, sources=("invitations",)))
    async with serve(replace(WORLD, denied=frozenset({BY_TASK}))) as (url, _):
        with pytest.raises(ServiceError, match=f"allow partnercentral:{BY_TASK}, which this needs"):
            await discovered(url)


async def test_no_pair_is_marked_as_gone_while_a_list_is_refused(newer):
    FOUND.write_text(MINE, "utf-8")
    async with serve(WORLD) as (url, _):
        await discover.update(FOUND, ALL, options(url), environment())
        text = FOUND.read_text("utf-8")
        gone = "  - {engagement: eng-00000000000001, resource: O5}"
        FOUND.write_text(f"{text}{gone}\n", "utf-8")
        done = await discover.update(FOUND, ALL, options(url), environment())
        assert (done.added, done.gone) == (0, 1)
        marked = FOUND.read_text("utf-8")
    denied = replace(WORLD, denied=frozenset({ACCEPTING}))
    async with serve(denied) as (url, _):
        done = await discover.update(FOUND, ALL, options(url), environment())
        assert (done.added, done.gone, FOUND.read_text("utf-8")) == (0, 0, marked)
        assert "nothing marked, because a list was refused" in output.as_text(done, updated=True)
        FOUND.write_text(f"{text}{gone}\n", "utf-8")
        await discover.update(FOUND, ALL, options(url), environment())
        assert FOUND.read_text("utf-8") == f"{text}{gone}\n"


async def test_a_run_goes_on_without_a_denied_list_and_warns(newer):
    path = Path("live.yaml")
    path.write_text("version: 1\nname: live\ndefaults: {catalog: Sandbox}\ndiscover: {}\n", "utf-8")
    async with serve(replace(WORLD, denied=frozenset({INVITATIONS}))) as (url, _):
        summary = await night(url, 1, path)
        assert (summary.exit_code, summary.counts.succeeded) == (0, 62)
        assert any(f"{INVITATIONS}: AccessDeniedException" in warning for warning in summary.warnings)


# -- context types -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "engagements"),
    [(("CustomerProject",), 22), (("Lead",), 2), (("Lead", "CustomerProject"), 24), (("Document",), 0)],
)
async def test_context_types_are_listed_where_the_sdk_knows_them(sdk, types, engagements):
    async with serve(WORLD) as (url, simulator):
        of_leads = 2 if sdk == "newer" else 0
        found = await discovered(url, search=replace(ALL, context_types=types))
        # Two of the twenty have no context, and only a newer SDK finds the pairs of leads.
        assert found.counts.engagements == engagements - (2 - of_leads if "Lead" in types else 0)
        listed = sdk == "newer" and "Document" not in types
        assert (found.calls.get("GetEngagement", 0) == 0) == listed
        assert (found.calls.get("ListEngagements", 0) > 0) == listed
        assert found.calls == spent(simulator, {})


async def test_without_the_right_to_list_engagements_each_is_read(newer):
    async with serve(replace(WORLD, denied=frozenset({"ListEngagements"}))) as (url, _):
        found = await discovered(url, search=replace(ALL, context_types=("CustomerProject",)))
        assert (found.counts.engagements, found.calls["GetEngagement"], found.warnings) == (22, 26, [])
    async with serve(replace(WORLD, denied=frozenset({"ListEngagements", "GetEngagement"}))) as (url, _):
        FOUND.unlink()
        with pytest.raises(ServiceError, match="allow partnercentral:GetEngagement, which this needs"):
            await discovered(url, search=replace(ALL, context_types=("CustomerProject",)))


async def test_the_command_warns_of_denied_lists_and_succeeds(newer, capsys):
    async with serve(replace(WORLD, denied=frozenset({FROM_ENGAGEMENT}))) as (url, _):
        words = ["discover", "--catalog", "Sandbox", "--output", "found.yaml", "--endpoint-url", url]
        code = await asyncio.to_thread(main, [*words, "--format", "json"])
    said = capsys.readouterr()
    assert code == 0
    assert f"warning: account default: {LEADS} are not covered: {FROM_ENGAGEMENT}: Access" in said.err
    printed = json.loads(said.out)
    assert printed["warnings"] == [said.err.removeprefix("warning: ").splitlines()[0]]
    assert printed["sources"]["invitations"] == {"listed": 4, "taken": 4}
