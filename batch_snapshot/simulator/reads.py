"""The read operations: single things, and lists page by page, filtered and sorted as asked.

A row holds all that is known of a thing, under the names of the service and under those of the parameters
that filter or sort by it. Of these an answer has what the service model says.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final
from uuid import uuid4

from batch_snapshot.simulator import opportunity
from batch_snapshot.simulator.answers import invalid, not_found, problem
from batch_snapshot.simulator.model import parse_time, parts, show_time
from batch_snapshot.simulator.world import EPOCH, SeededJob, Series, Snapshot, World, account_of, arn

Params = dict[str, Any]
Row = dict[str, Any]
Rows = list[Row]

#: Parameters of lists that are not filters; nor is a parameter that is an object.
_NO_FILTERS: Final = frozenset({"Catalog", "MaxResults", "NextToken", "Sort"})
#: The accounts that made the seeded engagements: this partner's, and AWS's own, which sent the invitations.
_SEEDER, _INVITER = account_of("seed"), account_of("inviter")

#: Items of a page when the request names no number.
_DEFAULT_SIZE: Final = 100
#: Tokens of next pages that are kept; beyond that the oldest become invalid.
_KEPT: Final = 10_000


class ReadApi:
    """Reads the world as it was `lag` seconds before."""

    def __init__(self, model: Any, world: World, lag: float) -> None:
        self._model = model
        self._world = world
        self._lag = lag
        #: By NextToken: the request, all its items, and where the next page starts.
        self._next: dict[str, tuple[object, Rows, int]] = {}

    def read(self, operation: str, params: Params, at: float) -> dict[str, Any]:
        seen_until = at - self._lag
        output = self._model.operation_model(operation).output_shape
        if operation in _GETS:
            return parts(output, _GETS[operation](self._world, params, seen_until))
        member, items = next(one for one in output.members.items() if one[1].type_name == "list")
        asked = (operation, {k: v for k, v in params.items() if k not in {"MaxResults", "NextToken"}})
        token = params.get("NextToken")
        if token is None:
            rows = _matching(_LISTS[operation](self._world, params, seen_until), params)
            # Without a sort the order is that of creation.
            if sort := params.get("Sort"):
                by, falling = sort.get("SortBy") or "CreatedDate", sort.get("SortOrder") == "DESCENDING"
                rows.sort(key=lambda row: row[by], reverse=falling)
            start, rows = 0, [parts(items.member, row) for row in rows]
        else:
            known, rows, start = self._next.get(token, (None, [], 0))
            if known != asked:
                message = "NextToken is not valid for this request"
                raise invalid(message, [problem("NextToken", message, "INVALID_VALUE")])
        end = start + (params.get("MaxResults") or _DEFAULT_SIZE)
        if end >= len(rows):
            return {member: rows[start:]}
        token = uuid4().hex
        self._next[token] = (asked, rows, end)
        if len(self._next) > _KEPT:
            del self._next[next(iter(self._next))]
        return {member: rows[start:end], "NextToken": token}


def _matching(rows: Iterable[Row], params: Params) -> Rows:
    filters = {
        name: value if isinstance(value, list) else [value]
        for name, value in params.items()
        if value and name not in _NO_FILTERS and not isinstance(value, dict)
    }
    return [row for row in rows if all(_fits(row, name, wanted) for name, wanted in filters.items())]


def _fits(row: Row, name: str, wanted: Sequence[str]) -> bool:
    """Whether a row has one of the values that a parameter lists, or an Arn that ends with it.

    Nobody documents whether one of several values is enough where a row has several: here it must have all.
    """
    member = name.removeprefix("Exclude")
    if member not in row:
        member = member.replace("TemplateIdentifier", "TemplateName").replace("Identifier", "Id")
    found = row.get(member, "")
    if member != name and name.startswith("Exclude"):
        return not set(wanted) & set(found if isinstance(found, list) else [found])
    if isinstance(found, list):
        return set(wanted) <= set(found)
    return any(one == found or one.endswith(f"/{found}") for one in wanted)


# -- single things ----------------------------------------------------------------------------------------


def _get_snapshot(world: World, params: Params, seen_until: float) -> Row:
    revisions = _seen(world.series.get(Series.of(params), ()), seen_until)
    wanted = params.get("Revision")
    found = next((s for s in reversed(revisions) if wanted in {None, s.revision}), None)
    if found is None:
        raise not_found("ResourceSnapshot")
    payload = {"OpportunitySummary": opportunity.summary(found.resource, found.edits)}
    return {**_snapshot_row(found), "Payload": payload}


def _get_job(world: World, params: Params, _seen_until: float) -> Row:
    wanted = params["ResourceSnapshotJobIdentifier"]
    if wanted not in world.jobs_by_id:
        raise not_found(f"ResourceSnapshotJob {wanted}")
    return _job_row(params["Catalog"], world.jobs_by_id[wanted])


def _get_engagement(world: World, params: Params, seen_until: float) -> Row:
    wanted = params["Identifier"].rpartition("/")[2]
    found = next((row for row in _engagements(world, params, seen_until) if row["Id"] == wanted), None)
    if found is None:
        raise not_found(f"Engagement {wanted}")
    return {**found, "Contexts": [{"Type": kind} for kind in found["ContextTypes"]]}


def _get_opportunity(world: World, params: Params, _seen_until: float) -> Row:
    wanted, catalog = params["Identifier"], params["Catalog"]
    modified = world.opportunities[catalog].get(wanted)
    if modified is None:
        raise not_found(f"Opportunity {wanted}")
    return {**_opportunity_row(world, catalog, wanted, modified), "RelatedEntityIdentifiers": {}}


_GETS: Final[Mapping[str, Callable[[World, Params, float], Row]]] = {
    "GetEngagement": _get_engagement,
    "GetOpportunity": _get_opportunity,
    "GetResourceSnapshot": _get_snapshot,
    "GetResourceSnapshotJob": _get_job,
}


# -- lists ------------------------------------------------------------------------------------------------


def _engagements(world: World, params: Params, seen_until: float) -> Rows:
    catalog = params["Catalog"]
    origins = {one.engagement: one.origin for one in world.invitations}
    made = {
        number: (_INVITER if number in origins else _SEEDER, EPOCH + index)
        for index, number in enumerate(world.engagements)
    }
    for (of, engagement), snapshots in world.by_engagement.items():
        if of == catalog and engagement not in made and _seen(snapshots[:1], seen_until):
            made[engagement] = (account_of(snapshots[0].access_key), snapshots[0].created_at)
    return [
        {
            "Arn": arn(catalog, f"engagement/{number}"),
            **dict.fromkeys(("Id", "EngagementId"), number),
            "Title": f"Engagement {number}",
            **dict.fromkeys(("CreatedAt", "CreatedDate"), show_time(created_at)),
            "CreatedBy": created_by,
            "MemberCount": 2,
            # One whose id ends in 0 has no context.
            "ContextTypes": []
            if number.endswith("0")
            else ["Lead" if origins.get(number) == "engagement" else "CustomerProject"],
        }
        for number, (created_by, created_at) in made.items()
    ]


def _associations(world: World, params: Params, seen_until: float) -> Iterable[Row]:
    rows: dict[tuple[str, str], Row] = {}
    for series, snapshots in world.series.items():
        if series.catalog == params["Catalog"] and _seen(snapshots[:1], seen_until):
            rows.setdefault((series.engagement, series.resource), _snapshot_row(snapshots[0]))
    return rows.values()


def _snapshots(world: World, params: Params, seen_until: float) -> Rows:
    snapshots = world.by_engagement.get((params["Catalog"], params["EngagementIdentifier"]), ())
    return [_snapshot_row(snapshot) for snapshot in _seen(snapshots, seen_until)]


def _tasks(kind: str, origins: Sequence[str], world: World, params: Params, _seen_until: float) -> Rows:
    """The tasks of a kind, which began with a thing of these origins."""

    def row(job: SeededJob) -> Row:
        # A task that accepted the invitation to a lead made no opportunity.
        made = job.origin == origins[0]
        return {
            "TaskId": job.task_id,
            "TaskArn": arn(params["Catalog"], f"{kind}-task/{job.task_id}"),
            "StartTime": show_time(job.created_at),
            "TaskStatus": job.task_status,
            "OpportunityId": job.opportunity if made else None,
            "ResourceSnapshotJobId": job.job_id if made else None,
            "EngagementId": job.engagement,
            "EngagementInvitationId": None if job.origin == "opportunity" else job.invitation_id,
            "ContextId": job.context,
        }

    return [row(job) for job in world.jobs if job.origin in origins]


def _invitations(world: World, params: Params, _seen_until: float) -> Rows:
    """The invitations that this partner has received; it has sent none."""
    return [
        {
            "Catalog": params["Catalog"],
            "Id": one.invitation_id,
            "Arn": arn(params["Catalog"], f"engagement-invitation/{one.invitation_id}"),
            "PayloadType": "LeadInvitation" if one.origin == "engagement" else "OpportunityInvitation",
            "EngagementId": one.engagement,
            "EngagementTitle": f"Engagement {one.engagement}",
            "Status": "PENDING" if one.origin == "pending" else "ACCEPTED",
            "InvitationDate": show_time(one.created_at),
            "ExpirationDate": show_time(one.created_at + 15 * 86_400),
            "SenderAwsAccountId": _INVITER,
            "SenderCompanyName": "AWS",
            "ParticipantType": "RECEIVER",
        }
        for one in world.invitations
    ]


def _opportunities(world: World, params: Params, _seen_until: float) -> Rows:
    span = params.get("LastModifiedDate") or {}
    after = parse_time(span.get("AfterLastModifiedDate") or "") or float("-inf")
    before = parse_time(span.get("BeforeLastModifiedDate") or "") or float("inf")
    return [
        _opportunity_row(world, params["Catalog"], number, modified)
        for number, modified in world.opportunities[params["Catalog"]].items()
        if after < modified < before
    ]


_LISTS: Final[Mapping[str, Callable[[World, Params, float], Iterable[Row]]]] = {
    "ListEngagementByAcceptingInvitationTasks": partial(
        _tasks, "engagement-by-accepting-invitation", ["invitation", "engagement"]
    ),
    "ListEngagementFromOpportunityTasks": partial(_tasks, "engagement-from-opportunity", ["opportunity"]),
    "ListEngagementInvitations": _invitations,
    "ListEngagementResourceAssociations": _associations,
    "ListEngagements": _engagements,
    "ListOpportunities": _opportunities,
    "ListOpportunityFromEngagementTasks": partial(_tasks, "opportunity-from-engagement", ["engagement"]),
    "ListResourceSnapshotJobs": lambda world, params, _: [_job_row(params["Catalog"], j) for j in world.jobs],
    "ListResourceSnapshots": _snapshots,
}

#: The operations that are served here.
READS: Final = frozenset({*_GETS, *_LISTS})


# -- items ------------------------------------------------------------------------------------------------


def _opportunity_row(world: World, catalog: str, number: str, modified: float) -> Row:
    stage, customer = opportunity.stage(number, world.edits(number)), opportunity.customer(number)
    return {
        "Catalog": catalog,
        **dict.fromkeys(("Id", "Identifier"), number),
        "Arn": arn(catalog, f"opportunity/{number}"),
        "OpportunityType": "Net New Business",
        "LastModifiedDate": show_time(modified),
        "CreatedDate": show_time(min(modified, EPOCH)),
        "LifeCycle": {"Stage": stage, "ReviewStatus": "Approved"},
        "LifeCycleStage": stage,
        "LifeCycleReviewStatus": "Approved",
        "Customer": customer,
        "CustomerCompanyName": customer["Account"]["CompanyName"],
        "Project": {},
    }


def _snapshot_row(one: Snapshot) -> Row:
    return {
        "Catalog": one.catalog,
        "Arn": one.arn,
        "CreatedBy": account_of(one.access_key),
        "CreatedAt": show_time(one.created_at),
        "EngagementId": one.engagement,
        "ResourceType": one.resource_type,
        "ResourceId": one.resource,
        "ResourceSnapshotTemplateName": one.template,
        "Revision": one.revision,
    }


def _job_row(catalog: str, job: SeededJob) -> Row:
    return {
        "Catalog": catalog,
        "Id": job.job_id,
        "Arn": arn(catalog, f"resource-snapshot-job/{job.job_id}"),
        "EngagementId": job.engagement,
        "ResourceType": "Opportunity",
        "ResourceId": job.opportunity,
        "ResourceArn": arn(catalog, f"opportunity/{job.opportunity}"),
        "ResourceSnapshotTemplateName": "OpportunitySummaryView",
        **dict.fromkeys(("CreatedAt", "CreatedDate"), show_time(job.created_at)),
        "Status": job.status,
    }


def _seen(snapshots: Sequence[Snapshot], until: float) -> list[Snapshot]:
    """The snapshots that reads show already."""
    return [snapshot for snapshot in snapshots if snapshot.created_at <= until]
