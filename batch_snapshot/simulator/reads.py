"""The read operations: what of the world they show, in the service's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from batch_snapshot.simulator.lists import LISTS
from batch_snapshot.simulator.refusals import Refusal
from batch_snapshot.simulator.times import show
from batch_snapshot.simulator.views import arn, contexts, customer, opportunity_row, seen
from batch_snapshot.simulator.world import Series, account_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batch_snapshot.simulator.pages import Pages
    from batch_snapshot.simulator.world import World

    Params = dict[str, Any]


class ReadApi:
    """Reads the world as of one lag behind."""

    def __init__(self, world: World, pages: Pages, lag: float) -> None:
        """Take the world, where listings are kept, and the lag in seconds."""
        self._world = world
        self._pages = pages
        self._lag = lag

    def read(self, operation: str, params: Params, at: float) -> dict[str, Any]:
        """Answer a read operation.

        Raises:
            Refusal: nothing there, or a NextToken that is not valid.
        """
        seen_until = at - self._lag
        if operation in LISTS:
            key, rows = LISTS[operation]
            page, token = self._pages.page(operation, params, lambda: rows(self._world, params, seen_until))
            return {key: page} if token is None else {key: page, "NextToken": token}
        return _GETS[operation](self._world, params, seen_until)


def _get_snapshot(world: World, params: Params, seen_until: float) -> dict[str, Any]:
    revisions = seen(world.series.get(Series.of(params), ()), seen_until)
    wanted = params.get("Revision")
    found = next((s for s in reversed(revisions) if wanted in {None, s.revision}), None)
    if found is None:
        raise Refusal("ResourceNotFoundException", "ResourceSnapshot not found")
    return {
        "Catalog": found.catalog,
        "Arn": found.arn,
        "CreatedBy": account_of(found.access_key),
        "CreatedAt": show(found.created_at),
        "EngagementId": found.engagement,
        "ResourceType": found.resource_type,
        "ResourceId": found.resource,
        "ResourceSnapshotTemplateName": found.template,
        "Revision": found.revision,
        "Payload": {"OpportunitySummary": {"Customer": customer(found.resource)}},
    }


def _get_job(world: World, params: Params, _seen_until: float) -> dict[str, Any]:
    wanted = params["ResourceSnapshotJobIdentifier"]
    job = world.jobs_by_id.get(wanted)
    if job is None:
        raise Refusal("ResourceNotFoundException", f"ResourceSnapshotJob {wanted} not found")
    catalog = params["Catalog"]
    return {
        "Catalog": catalog,
        "Id": job.job_id,
        "Arn": arn(catalog, f"resource-snapshot-job/{job.job_id}"),
        "EngagementId": job.engagement,
        "ResourceType": "Opportunity",
        "ResourceId": job.opportunity,
        "ResourceArn": arn(catalog, f"opportunity/{job.opportunity}"),
        "ResourceSnapshotTemplateName": "OpportunitySummaryView",
        "CreatedAt": show(job.created_at),
        "Status": job.status,
    }


def _get_engagement(world: World, params: Params, seen_until: float) -> dict[str, Any]:
    wanted = params["Identifier"].rpartition("/")[2]
    listed = LISTS["ListEngagements"][1](
        world, {"Catalog": params["Catalog"], "EngagementIdentifier": [wanted]}, seen_until
    )
    if not listed:
        raise Refusal("ResourceNotFoundException", f"Engagement {wanted} not found")
    return {**listed[0], "Contexts": contexts(wanted)}


def _get_opportunity(world: World, params: Params, _seen_until: float) -> dict[str, Any]:
    wanted, catalog = params["Identifier"], params["Catalog"]
    modified = world.opportunities[catalog].get(wanted)
    if modified is None:
        raise Refusal("ResourceNotFoundException", f"Opportunity {wanted} not found")
    return {**opportunity_row(catalog, wanted, modified), "RelatedEntityIdentifiers": {}}


_GETS: Final[Mapping[str, Callable[[World, Params, float], dict[str, Any]]]] = {
    "GetEngagement": _get_engagement,
    "GetOpportunity": _get_opportunity,
    "GetResourceSnapshot": _get_snapshot,
    "GetResourceSnapshotJob": _get_job,
}
