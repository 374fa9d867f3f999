"""The operations of the Partner Central Selling API that this package calls. Pure.

`CREATES` says how a row becomes a call, what the answer means, and which reads show what was made.
Another create operation, or another resource type, is one entry there and its tests.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from batch_snapshot.models import LARGEST_COUNT, Receipt, Request, Row

#: As botocore names the service.
SERVICE = "partnercentral-selling"

#: The lists that name pairs: tasks and invitations also those never snapshotted, associations those with a
#: snapshot.
SOURCES = ("tasks", "associations", "invitations")

#: The error of a read that finds nothing.
NOT_FOUND = "ResourceNotFoundException"


class ListRead(NamedTuple):
    name: str
    #: The member of an answer that holds the items.
    items: str
    #: The most items that a page may have.
    page_size: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CreateOperation:
    name: str
    #: Rows of these types are sent by it.
    resource_types: tuple[str, ...]
    #: The templates known today, the default first; no enum exists, so another name is at most a warning.
    templates: tuple[str, ...]
    #: The parameters of requests by the fields of a row, in the order in which they are sent.
    parameters: Mapping[str, str]
    #: The same of answers, which name some of them differently.
    members: Mapping[str, str]
    #: What a success says of a row; a text says why the answer makes no sense.
    receipt: Callable[[Mapping[str, Any], Row], Receipt | str]
    #: The read that takes the same parameters and finds what was made.
    look_up: str
    #: The list of what was made in an engagement.
    listing: ListRead
    #: AWS's own jobs, each of which repeats this operation for one resource: their list, the read of one, and
    #: the parameter of that read that names the job.
    jobs: ListRead
    get_job: str
    job_parameter: str
    #: Never sent: a valid row, with which the fast call is learned.
    example: Row
    #: The parameter for the idempotency token.
    token: str = "ClientToken"  # noqa: S105 - a parameter's name

    def read_parameters(self, row: Row) -> dict[str, Any]:
        return {parameter: getattr(row, field) for field, parameter in self.parameters.items()}

    def create_parameters(self, request: Request) -> dict[str, Any]:
        return {self.token: request.client_token, **self.read_parameters(request.row)}


def snapshot_receipt(answer: Mapping[str, Any], row: Row) -> Receipt | str:
    """Read the snapshot of `row` out of a success.

    Garbage looks like a success that names none, and an answer that came late may be of another row.
    """
    arn, revision = answer.get("Arn"), answer.get("Revision")
    if not (isinstance(arn, str) and arn and type(revision) is int and 1 <= revision <= LARGEST_COUNT):
        return "the answer says success but names no snapshot"
    named = _NAMED_BY_ARN.findall(arn)
    engagements = {engagement for engagement, _ in named if engagement} | _texts(answer.get("EngagementId"))
    resources = {resource for _, resource in named if resource} | _texts(answer.get("ResourceId"))
    # A row may name its engagement by an ARN, whose last part is the id.
    own = row.engagement.rpartition("/")[2]
    if engagements <= {own, row.engagement} and resources <= {row.resource}:
        return Receipt(arn, revision)
    return "the answer says success but names the snapshot of another row"


#: Where an Arn names an engagement and a resource; an Arn that names neither is accepted as it is.
_NAMED_BY_ARN = re.compile(r"(?:^|/)engagement/([^/]+)|(?:^|/)resource/[^/]+/([^/]+)")


def _texts(value: object) -> set[str]:
    return {value} if isinstance(value, str) and value else set()


SNAPSHOT = CreateOperation(
    name="CreateResourceSnapshot",
    resource_types=("Opportunity",),
    templates=("OpportunitySummaryView", "AwsOpportunitySummaryFullView"),
    parameters={
        "catalog": "Catalog",
        "engagement": "EngagementIdentifier",
        "resource": "ResourceIdentifier",
        "template": "ResourceSnapshotTemplateIdentifier",
        "resource_type": "ResourceType",
    },
    members={
        "engagement": "EngagementId",
        "resource_type": "ResourceType",
        "resource": "ResourceId",
        "template": "ResourceSnapshotTemplateName",
    },
    receipt=snapshot_receipt,
    look_up="GetResourceSnapshot",
    listing=ListRead("ListResourceSnapshots", "ResourceSnapshotSummaries", 1000),
    jobs=ListRead("ListResourceSnapshotJobs", "ResourceSnapshotJobSummaries", 1000),
    get_job="GetResourceSnapshotJob",
    job_parameter="ResourceSnapshotJobIdentifier",
    example=Row("", "Sandbox", "eng-0123456789abcd", "Opportunity", "O1", "OpportunitySummaryView"),
)

#: Every create operation; the first one also serves rows whose resource type no entry names.
CREATES: tuple[CreateOperation, ...] = (SNAPSHOT,)

#: The lists that only `discover:` and the dates of opportunities need.
_OTHER_LISTS = (
    ListRead("ListEngagementByAcceptingInvitationTasks", "TaskSummaries", 1000),
    ListRead("ListEngagementFromOpportunityTasks", "TaskSummaries", 1000),
    ListRead("ListEngagementInvitations", "EngagementInvitationSummaries", 100),
    ListRead("ListEngagementResourceAssociations", "EngagementResourceAssociationSummaries", 1000),
    ListRead("ListEngagements", "EngagementSummaryList", 100),
    ListRead("ListOpportunities", "OpportunitySummaries", 100),
    # Only newer SDKs know it.
    ListRead("ListOpportunityFromEngagementTasks", "TaskSummaries", 1000),
)

#: The reads that `discover:` may need.
DISCOVERY_READS = frozenset({*(read.name for read in _OTHER_LISTS), "GetEngagement"})

#: Every list by the name of its operation.
LISTS = {
    read.name: read
    for read in (*_OTHER_LISTS, *(read for one in CREATES for read in (one.listing, one.jobs)))
}

#: Everything that is read, lists and single things.
READS = frozenset(
    {*LISTS, *DISCOVERY_READS, *(name for one in CREATES for name in (one.look_up, one.get_job))}
)


def create_operation(row: Row, creates: Sequence[CreateOperation] = CREATES) -> CreateOperation:
    """The operation that carries out a row, by its resource type."""
    return next((one for one in creates if row.resource_type in one.resource_types), creates[0])


def iam_action(operation: str) -> str:
    """What an IAM policy calls an operation."""
    return f"partnercentral:{operation}"
