"""The list operations: items of the world as the service shows them, filtered and sorted as asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from batch_snapshot.simulator.model import parse_time, show_time
from batch_snapshot.simulator.world import EPOCH, account_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from batch_snapshot.simulator.world import Snapshot, World

    Params = dict[str, Any]
    Row = dict[str, Any]
    Rows = list[Row]

#: Members of items that are named differently from the parameters that filter by them.
_MEMBERS: Final = {
    "EngagementIdentifier": "EngagementId",
    "ResourceIdentifier": "ResourceId",
    "ResourceSnapshotTemplateIdentifier": "ResourceSnapshotTemplateName",
}
_RESOURCE_FILTERS: Final = ("ResourceType", "ResourceIdentifier", "CreatedBy")
#: The account that made the seeded engagements.
_SEEDER: Final = account_of("seed")


def arn(catalog: str, tail: str) -> str:
    """The Arn of something in a catalog."""
    return f"arn:aws:partnercentral:us-east-1::catalog/{catalog}/{tail}"


def customer(opportunity: str) -> dict[str, Any]:
    """An opportunity's customer; the name follows from the id."""
    account = {"CompanyName": f"Customer {opportunity}", "Industry": "Other", "WebsiteUrl": "example.com"}
    return {"Account": account}


def stage(opportunity: str) -> str:
    """An opportunity's stage follows from its id: every third is launched."""
    return ("Qualified", "Committed", "Launched")[int(opportunity[1:]) % 3]


def opportunity_row(catalog: str, number: str, modified: float) -> dict[str, Any]:
    """An opportunity as lists show it."""
    return {
        "Catalog": catalog,
        "Id": number,
        "Arn": arn(catalog, f"opportunity/{number}"),
        "OpportunityType": "Net New Business",
        "LastModifiedDate": show_time(modified),
        "CreatedDate": show_time(min(modified, EPOCH)),
        "LifeCycle": {"Stage": stage(number), "ReviewStatus": "Approved"},
        "Customer": customer(number),
        "Project": {},
    }


def contexts(engagement: str) -> list[dict[str, Any]]:
    """An engagement's contexts follow from its id: one that ends in 0 has none."""
    return [] if engagement.endswith("0") else [{"Type": "CustomerProject"}]


def engagement_row(catalog: str, number: str, created_by: str, created_at: float) -> dict[str, Any]:
    """An engagement as lists show it."""
    return {
        "Arn": arn(catalog, f"engagement/{number}"),
        "Id": number,
        "Title": f"Engagement {number}",
        "CreatedAt": show_time(created_at),
        "CreatedBy": created_by,
        "MemberCount": 2,
    }


def seen(snapshots: Sequence[Snapshot], until: float) -> list[Snapshot]:
    """The snapshots that reads show already."""
    return [snapshot for snapshot in snapshots if snapshot.created_at <= until]


def wanted(params: dict[str, Any], name: str, value: str) -> bool:
    """Whether a list parameter is absent, empty or holds the value."""
    choices = params.get(name)
    return not choices or value in choices


def named(params: dict[str, Any], name: str, value: str) -> bool:
    """Like `wanted`, for parameters that hold ids or Arns."""
    choices = params.get(name)
    return not choices or any(choice == value or choice.endswith(f"/{value}") for choice in choices)


# -- lists ------------------------------------------------------------------------------------------------


def _list_engagements(world: World, params: Params, seen_until: float) -> Rows:
    catalog = params["Catalog"]
    rows = {
        number: engagement_row(catalog, number, _SEEDER, EPOCH + index)
        for index, number in enumerate(world.engagements)
    }
    for (of, engagement), snapshots in world.by_engagement.items():
        if of == catalog and engagement not in rows and seen(snapshots[:1], seen_until):
            first = snapshots[0]
            rows[engagement] = engagement_row(
                catalog, engagement, account_of(first.access_key), first.created_at
            )
    found = [
        row
        for row in rows.values()
        if wanted(params, "CreatedBy", row["CreatedBy"])
        and row["CreatedBy"] not in (params.get("ExcludeCreatedBy") or ())
        and named(params, "EngagementIdentifier", row["Id"])
    ]
    return _sorted(found, params, {"CreatedDate": lambda row: row["CreatedAt"]})


def _list_associations(world: World, params: Params, seen_until: float) -> Rows:
    catalog = params["Catalog"]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for series, snapshots in world.series.items():
        key = (series.engagement, series.resource)
        if series.catalog != catalog or key in rows or not seen(snapshots[:1], seen_until):
            continue
        rows[key] = {
            "Catalog": catalog,
            "EngagementId": series.engagement,
            "ResourceType": series.resource_type,
            "ResourceId": series.resource,
            "CreatedBy": account_of(snapshots[0].access_key),
        }
    return _filtered(rows.values(), params, "EngagementIdentifier", *_RESOURCE_FILTERS)


def _list_snapshots(world: World, params: Params, seen_until: float) -> Rows:
    snapshots = world.by_engagement.get((params["Catalog"], params["EngagementIdentifier"]), ())
    rows = [
        {
            "Arn": snapshot.arn,
            "Revision": snapshot.revision,
            "ResourceType": snapshot.resource_type,
            "ResourceId": snapshot.resource,
            "ResourceSnapshotTemplateName": snapshot.template,
            "CreatedBy": account_of(snapshot.access_key),
        }
        for snapshot in seen(snapshots, seen_until)
    ]
    return _filtered(rows, params, "ResourceSnapshotTemplateIdentifier", *_RESOURCE_FILTERS)


def _list_tasks(world: World, params: Params, _seen_until: float) -> Rows:
    rows = [
        {
            "TaskId": job.task_id,
            "TaskArn": arn(params["Catalog"], f"engagement-from-opportunity-task/{job.task_id}"),
            "StartTime": show_time(job.created_at),
            "TaskStatus": "COMPLETE",
            "OpportunityId": job.opportunity,
            "ResourceSnapshotJobId": job.job_id,
            "EngagementId": job.engagement,
        }
        for job in world.jobs
        if named(params, "TaskIdentifier", job.task_id)
        and named(params, "EngagementIdentifier", job.engagement)
        and wanted(params, "OpportunityIdentifier", job.opportunity)
        and wanted(params, "TaskStatus", "COMPLETE")
    ]
    return _sorted(rows, params, {"StartTime": lambda row: row["StartTime"]})


def _list_jobs(world: World, params: Params, _seen_until: float) -> Rows:
    rows = [
        {
            "Id": job.job_id,
            "Arn": arn(params["Catalog"], f"resource-snapshot-job/{job.job_id}"),
            "EngagementId": job.engagement,
            "Status": job.status,
        }
        for job in world.jobs
    ]
    rows = _filtered(rows, params, "EngagementIdentifier", "Status")
    return _sorted(rows, params, {"CreatedDate": lambda row: row["Id"]})


def _list_opportunities(world: World, params: Params, _seen_until: float) -> Rows:
    span = params.get("LastModifiedDate") or {}
    after = parse_time(span.get("AfterLastModifiedDate") or "") or float("-inf")
    before = parse_time(span.get("BeforeLastModifiedDate") or "") or float("inf")
    rows = [
        opportunity_row(params["Catalog"], number, modified)
        for number, modified in world.opportunities[params["Catalog"]].items()
        if after < modified < before
    ]
    found = [
        row
        for row in rows
        if wanted(params, "Identifier", row["Id"])
        and wanted(params, "LifeCycleStage", row["LifeCycle"]["Stage"])
        and wanted(params, "LifeCycleReviewStatus", row["LifeCycle"]["ReviewStatus"])
        and wanted(params, "CustomerCompanyName", row["Customer"]["Account"]["CompanyName"])
    ]
    keys: Mapping[str, Callable[[dict[str, Any]], Any]] = {
        "LastModifiedDate": lambda row: row["LastModifiedDate"],
        "Identifier": lambda row: row["Id"],
        "CustomerCompanyName": lambda row: row["Customer"]["Account"]["CompanyName"],
    }
    return _sorted(found, params, keys)


def _filtered(rows: Iterable[Row], params: Params, *names: str) -> Rows:
    """The rows whose members equal those parameters of the request that are given."""
    asked = [(_MEMBERS.get(name, name), params[name]) for name in names if params.get(name) is not None]
    return [row for row in rows if all(row[member] == value for member, value in asked)]


def _sorted(rows: Rows, params: Params, keys: Mapping[str, Callable[[Row], Any]]) -> Rows:
    """Sort as the request asks, or leave the order of creation."""
    sort = params.get("Sort") or {}
    if not sort:
        return rows
    key = keys[sort.get("SortBy") or next(iter(keys))]
    return sorted(rows, key=key, reverse=sort.get("SortOrder") == "DESCENDING")


#: By operation: the answer's member and what fills it.
LISTS: Final[Mapping[str, tuple[str, Callable[[World, Params, float], Rows]]]] = {
    "ListEngagementFromOpportunityTasks": ("TaskSummaries", _list_tasks),
    "ListEngagementResourceAssociations": ("EngagementResourceAssociationSummaries", _list_associations),
    "ListEngagements": ("EngagementSummaryList", _list_engagements),
    "ListOpportunities": ("OpportunitySummaries", _list_opportunities),
    "ListResourceSnapshotJobs": ("ResourceSnapshotJobSummaries", _list_jobs),
    "ListResourceSnapshots": ("ResourceSnapshotSummaries", _list_snapshots),
}
