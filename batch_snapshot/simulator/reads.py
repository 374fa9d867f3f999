"""The read operations: single things, and lists page by page, filtered and sorted as asked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final
from uuid import uuid4

from batch_snapshot.simulator import opportunity
from batch_snapshot.simulator.answers import Problem, invalid, not_found
from batch_snapshot.simulator.model import parse_time, show_time
from batch_snapshot.simulator.world import EPOCH, SeededJob, Series, Snapshot, World, account_of

Params = dict[str, Any]
Row = dict[str, Any]
Rows = list[Row]

#: Members of items that are named differently from the parameters that filter by them.
_MEMBERS: Final = {
    "EngagementIdentifier": "EngagementId",
    "EngagementInvitationIdentifier": "EngagementInvitationId",
    "OpportunityIdentifier": "OpportunityId",
    "TaskIdentifier": "TaskId",
    "ContextIdentifier": "ContextId",
    "ResourceIdentifier": "ResourceId",
    "ResourceSnapshotTemplateIdentifier": "ResourceSnapshotTemplateName",
}
#: Parameters of lists that are no filters.
_NO_FILTERS: Final = frozenset({"Catalog", "MaxResults", "NextToken", "Sort"})
#: The accounts that made the seeded engagements: this partner's, and AWS's own, which sent the invitations.
_SEEDER, _INVITER = account_of("seed"), account_of("inviter")

#: Items of a page when the request names no number.
_DEFAULT_SIZE: Final = 100
#: Tokens of next pages that are kept; beyond that the oldest become invalid.
_KEPT: Final = 10_000


class ReadApi:
    """Reads the world as it was `lag` seconds before."""

    def __init__(self, world: World, lag: float) -> None:
        self._world = world
        self._lag = lag
        #: By NextToken: the request, all its items, and where the next page starts.
        self._next: dict[str, tuple[object, Rows, int]] = {}

    def read(self, operation: str, params: Params, at: float) -> dict[str, Any]:
        if operation in _GETS:
            return _GETS[operation](self._world, params, at - self._lag)
        member, list_rows = _LISTS[operation]
        asked = (operation, {k: v for k, v in params.items() if k not in {"MaxResults", "NextToken"}})
        token = params.get("NextToken")
        if token is None:
            start, rows = 0, list_rows(self._world, params, at - self._lag)
        else:
            known, rows, start = self._next.get(token, (None, [], 0))
            if known != asked:
                message = "NextToken is not valid for this request"
                raise invalid(message, [Problem("NextToken", message, "INVALID_VALUE")])
        end = start + (params.get("MaxResults") or _DEFAULT_SIZE)
        if end >= len(rows):
            return {member: rows[start:]}
        token = uuid4().hex
        self._next[token] = (asked, rows, end)
        if len(self._next) > _KEPT:
            del self._next[next(iter(self._next))]
        return {member: rows[start:end], "NextToken": token}


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
    asked = {"Catalog": params["Catalog"], "EngagementIdentifier": [wanted]}
    listed = _list_engagements(world, asked, seen_until)
    if not listed:
        raise not_found(f"Engagement {wanted}")
    return {**listed[0], "Contexts": [{"Type": kind} for kind in listed[0]["ContextTypes"]]}


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


def _list_engagements(world: World, params: Params, seen_until: float) -> Rows:
    catalog = params["Catalog"]
    origins = {one.engagement: one.origin for one in world.invitations}
    made = {
        number: (_INVITER if number in origins else _SEEDER, EPOCH + index)
        for index, number in enumerate(world.engagements)
    }
    for (of, engagement), snapshots in world.by_engagement.items():
        if of == catalog and engagement not in made and _seen(snapshots[:1], seen_until):
            made[engagement] = (account_of(snapshots[0].access_key), snapshots[0].created_at)
    rows = [
        {
            "Arn": _arn(catalog, f"engagement/{number}"),
            "Id": number,
            "Title": f"Engagement {number}",
            "CreatedAt": show_time(created_at),
            "CreatedBy": created_by,
            "MemberCount": 2,
            "ContextTypes": types,
        }
        for number, (created_by, created_at) in made.items()
        if _wanted(params, "CreatedBy", created_by)
        and created_by not in (params.get("ExcludeCreatedBy") or ())
        and _wanted(params, "EngagementIdentifier", number)
        for types in [_context_types(number, origins.get(number))]
        # Nobody documents whether one of several types is enough: here an engagement must have all.
        if set(params.get("ContextTypes") or types) <= set(types)
        and not set(params.get("ExcludeContextTypes") or ()) & set(types)
    ]
    return _sorted(rows, params, {"CreatedDate": lambda row: row["CreatedAt"]})


def _list_associations(world: World, params: Params, seen_until: float) -> Rows:
    rows: dict[tuple[str, str], Row] = {}
    for series, snapshots in world.series.items():
        if series.catalog == params["Catalog"] and _seen(snapshots[:1], seen_until):
            rows.setdefault((series.engagement, series.resource), _snapshot_row(snapshots[0]))
    members = ("Catalog", "EngagementId", "ResourceType", "ResourceId", "CreatedBy")
    return _parts(_matching(rows.values(), params), members)


def _list_snapshots(world: World, params: Params, seen_until: float) -> Rows:
    snapshots = world.by_engagement.get((params["Catalog"], params["EngagementIdentifier"]), ())
    rows = [_snapshot_row(snapshot) for snapshot in _seen(snapshots, seen_until)]
    members = ("Arn", "Revision", "ResourceType", "ResourceId", "ResourceSnapshotTemplateName", "CreatedBy")
    return _parts(_matching(rows, params), members)


def _context_types(engagement: str, origin: str | None) -> list[str]:
    """The types of an engagement's contexts; one whose id ends in 0 has none."""
    if engagement.endswith("0"):
        return []
    return ["Lead"] if origin == "engagement" else ["CustomerProject"]


#: What tasks name: members of their summaries, and the fields of a job.
_NAMED: Final = {
    "OpportunityId": "opportunity",
    "ResourceSnapshotJobId": "job_id",
    "EngagementId": "engagement",
    "EngagementInvitationId": "invitation_id",
    "ContextId": "context",
}


_JOINED: Final = ("OpportunityId", "ResourceSnapshotJobId", "EngagementId")
#: A task that accepted the invitation to a lead made no opportunity.
_ACCEPTING: Final = {
    "invitation": ("OpportunityId", "ResourceSnapshotJobId", "EngagementInvitationId"),
    "engagement": ("EngagementInvitationId",),
}


def _list_tasks(
    kind: str, members: Mapping[str, Sequence[str]], world: World, params: Params, _seen_until: float
) -> Rows:
    """The tasks of a kind; `members` says of what they begin with, by origin, what they name."""
    rows = [
        {
            "TaskId": job.task_id,
            "TaskArn": _arn(params["Catalog"], f"{kind}-task/{job.task_id}"),
            "StartTime": show_time(job.created_at),
            "TaskStatus": "COMPLETE",
            **{name: getattr(job, _NAMED[name]) for name in members[job.origin]},
        }
        for job in world.jobs
        if job.origin in members
    ]
    return _sorted(_matching(rows, params), params, {"StartTime": lambda row: row["StartTime"]})


def _list_invitations(world: World, params: Params, _seen_until: float) -> Rows:
    """The invitations that this partner has received; it has sent none."""
    rows = [
        {
            "Catalog": params["Catalog"],
            "Id": one.invitation_id,
            "Arn": _arn(params["Catalog"], f"engagement-invitation/{one.invitation_id}"),
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
    return _sorted(_matching(rows, params), params, {"InvitationDate": lambda row: row["InvitationDate"]})


def _list_jobs(world: World, params: Params, _seen_until: float) -> Rows:
    rows = _matching([_job_row(params["Catalog"], job) for job in world.jobs], params)
    rows = _sorted(rows, params, {"CreatedDate": lambda row: row["Id"]})
    return _parts(rows, ("Id", "Arn", "EngagementId", "Status"))


def _list_opportunities(world: World, params: Params, _seen_until: float) -> Rows:
    span = params.get("LastModifiedDate") or {}
    after = parse_time(span.get("AfterLastModifiedDate") or "") or float("-inf")
    before = parse_time(span.get("BeforeLastModifiedDate") or "") or float("inf")
    rows = [
        _opportunity_row(world, params["Catalog"], number, modified)
        for number, modified in world.opportunities[params["Catalog"]].items()
        if after < modified < before
    ]
    found = [
        row
        for row in rows
        if _wanted(params, "Identifier", row["Id"])
        and _wanted(params, "LifeCycleStage", row["LifeCycle"]["Stage"])
        and _wanted(params, "LifeCycleReviewStatus", row["LifeCycle"]["ReviewStatus"])
        and _wanted(params, "CustomerCompanyName", row["Customer"]["Account"]["CompanyName"])
    ]
    keys: Mapping[str, Callable[[Row], Any]] = {
        "LastModifiedDate": lambda row: row["LastModifiedDate"],
        "Identifier": lambda row: row["Id"],
        "CustomerCompanyName": lambda row: row["Customer"]["Account"]["CompanyName"],
    }
    return _sorted(found, params, keys)


def _matching(rows: Iterable[Row], params: Params) -> Rows:
    """The rows whose members equal the parameters that filter by them, or are among those that these list."""
    asked = {
        _MEMBERS.get(name, name): value if isinstance(value, list) else [value]
        for name, value in params.items()
        if value is not None and name not in _NO_FILTERS
    }
    return [row for row in rows if all(_wanted(asked, member, row.get(member, "")) for member in asked)]


def _sorted(rows: Rows, params: Params, keys: Mapping[str, Callable[[Row], Any]]) -> Rows:
    """Sort as the request asks, or leave the order of creation."""
    sort = params.get("Sort") or {}
    if not sort:
        return rows
    key = keys[sort.get("SortBy") or next(iter(keys))]
    return sorted(rows, key=key, reverse=sort.get("SortOrder") == "DESCENDING")


#: By operation: the answer's member and what fills it.
_LISTS: Final[Mapping[str, tuple[str, Callable[[World, Params, float], Rows]]]] = {
    "ListEngagementByAcceptingInvitationTasks": (
        "TaskSummaries",
        partial(_list_tasks, "engagement-by-accepting-invitation", _ACCEPTING),
    ),
    "ListEngagementFromOpportunityTasks": (
        "TaskSummaries",
        partial(_list_tasks, "engagement-from-opportunity", {"opportunity": _JOINED}),
    ),
    "ListEngagementInvitations": ("EngagementInvitationSummaries", _list_invitations),
    "ListEngagementResourceAssociations": ("EngagementResourceAssociationSummaries", _list_associations),
    "ListEngagements": ("EngagementSummaryList", _list_engagements),
    "ListOpportunities": ("OpportunitySummaries", _list_opportunities),
    "ListOpportunityFromEngagementTasks": (
        "TaskSummaries",
        partial(_list_tasks, "opportunity-from-engagement", {"engagement": (*_JOINED, "ContextId")}),
    ),
    "ListResourceSnapshotJobs": ("ResourceSnapshotJobSummaries", _list_jobs),
    "ListResourceSnapshots": ("ResourceSnapshotSummaries", _list_snapshots),
}

#: The operations that are served here.
READS: Final = frozenset({*_GETS, *_LISTS})


# -- items ------------------------------------------------------------------------------------------------


def _arn(catalog: str, tail: str) -> str:
    return f"arn:aws:partnercentral:us-east-1::catalog/{catalog}/{tail}"


def _opportunity_row(world: World, catalog: str, number: str, modified: float) -> Row:
    return {
        "Catalog": catalog,
        "Id": number,
        "Arn": _arn(catalog, f"opportunity/{number}"),
        "OpportunityType": "Net New Business",
        "LastModifiedDate": show_time(modified),
        "CreatedDate": show_time(min(modified, EPOCH)),
        "LifeCycle": {"Stage": opportunity.stage(number, world.edits(number)), "ReviewStatus": "Approved"},
        "Customer": opportunity.customer(number),
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
        "Arn": _arn(catalog, f"resource-snapshot-job/{job.job_id}"),
        "EngagementId": job.engagement,
        "ResourceType": "Opportunity",
        "ResourceId": job.opportunity,
        "ResourceArn": _arn(catalog, f"opportunity/{job.opportunity}"),
        "ResourceSnapshotTemplateName": "OpportunitySummaryView",
        "CreatedAt": show_time(job.created_at),
        "Status": job.status,
    }


def _parts(rows: Rows, members: Sequence[str]) -> Rows:
    return [{member: row[member] for member in members} for row in rows]


def _seen(snapshots: Sequence[Snapshot], until: float) -> list[Snapshot]:
    """The snapshots that reads show already."""
    return [snapshot for snapshot in snapshots if snapshot.created_at <= until]


def _wanted(params: Params, name: str, value: str) -> bool:
    """Whether a list parameter is absent, empty, or holds the value or an Arn that ends with it."""
    choices = params.get(name)
    return not choices or any(choice == value or choice.endswith(f"/{value}") for choice in choices)
