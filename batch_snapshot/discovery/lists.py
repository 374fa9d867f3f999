"""The service's lists that name pairs, read page by page into the tables of a search.

A task that made an engagement from an opportunity, or the other way round, names both, whether or not a
snapshot was ever made. A task that accepted an invitation names the opportunity, and the invitation the
engagement. An association is a pair that has at least one snapshot.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from batch_snapshot import sqlite
from batch_snapshot.aws.client import inputs
from batch_snapshot.engine.reader import Reader, map_concurrently
from batch_snapshot.manifest.filters import Filters, since
from batch_snapshot.manifest.service_model import row_input
from batch_snapshot.models import ApiError, Verdict
from batch_snapshot.operations import SNAPSHOT, SOURCES, iam_action

Items = list[dict[str, Any]]

#: Tasks that are over. One that failed, such as at its first snapshot, may have made an opportunity before.
ENDED = ["COMPLETE", "FAILED"]

#: Values that one request may name.
NAMED_AT_ONCE = 10

#: The bit of each list in the column `pairs.sources`.
SOURCE_BITS = {name: 1 << number for number, name in enumerate(SOURCES)}
TASKS, ASSOCIATIONS, INVITATIONS = SOURCE_BITS.values()

#: Only newer SDKs know this list.
OPPORTUNITY_TASKS = "ListOpportunityFromEngagementTasks"

#: What these name together: opportunities by invitation, and the engagement of each invitation.
ACCEPTING_TASKS, ACCEPTED = "ListEngagementByAcceptingInvitationTasks", "ListEngagementInvitations"


@dataclass(slots=True)
class ListReader:
    """Reads the lists of one search, whose number is in each row of its tables."""

    db: sqlite.Connection
    number: int
    filters: Filters
    reader: Reader
    now: datetime
    on_progress: Callable[[str], None]
    #: See `SearchReport.warnings`, and for the other one `unknown`.
    left_out: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    #: The operation that is being read.
    operation: str = ""

    @property
    def _named(self) -> dict[str, Any]:
        """The parameter that names the engagements of the filter, if these are few enough."""
        few = 0 < len(self.filters.engagements) <= NAMED_AT_ONCE
        return {"EngagementIdentifier": list(self.filters.engagements)} if few else {}

    async def read(self, *, jobs: bool) -> None:
        one = self.filters
        for part in _parts(one.created_by):
            await self._walk("ListEngagements", partial(self._store_ids, "engagements"), CreatedBy=part)
        if one.stages or one.changed_since:
            for part in _parts(one.stages) or [[]]:
                store = partial(self._store_ids, "resources")
                await self._walk("ListOpportunities", store, **self._opportunity_filters(part))
        await self._read_pairs(one.sources)
        if one.context_types:
            await self._read_contexts()
        if jobs:
            await self._walk(SNAPSHOT.jobs.name, self._store_running_jobs, Status="Running")
            await self._read_jobs()

    async def _read_pairs(self, sources: Sequence[str]) -> None:
        if "tasks" in sources:
            await self._walk("ListEngagementFromOpportunityTasks", self._store_tasks, **self._named)
            what = "opportunities that were made from engagements"
            await self._unless_refused(what, self._read_opportunity_tasks, OPPORTUNITY_TASKS)
        if "associations" in sources:
            each = self._named.get("EngagementIdentifier") or [None]
            for named in [{"EngagementIdentifier": name} if name else {} for name in each]:
                await self._walk("ListEngagementResourceAssociations", self._store_associations, **named)
        if "invitations" in sources:
            what = "pairs of accepted invitations"
            await self._unless_refused(what, self._read_invitations, ACCEPTING_TASKS, ACCEPTED)

    def _opportunity_filters(self, stages: list[str]) -> dict[str, Any]:
        # By id: opportunities modified during the scan keep their position.
        given: dict[str, Any] = {"Sort": {"SortBy": "Identifier", "SortOrder": "ASCENDING"}}
        if stages:
            given["LifeCycleStage"] = stages
        if self.filters.changed_since:
            # One second earlier: the service leaves out what was modified at the very moment.
            after = since(self.filters.changed_since, self.now).timestamp() - 1
            given["LastModifiedDate"] = {"AfterLastModifiedDate": after}
        return given

    async def _unless_refused(self, what: str, read: Callable[[], Awaitable[None]], *operations: str) -> None:
        """Do without a list that an older IAM policy does not allow, unless it is the only one."""
        try:
            await read()
        except ApiError as error:
            failure = error.failure
            if failure.verdict is not Verdict.REFUSED or self.filters.sources == ("invitations",):
                raise
            way_out = "take them from your CRM"
            if failure.code == "AccessDeniedException":
                way_out = f"allow {' and '.join(map(iam_action, operations))}"
            self.left_out.append(
                f"account {self.reader.name}: {what} are not covered: {self.operation}: {failure.code}: "
                f"{failure.message}; {way_out}"
            )

    async def _read_opportunity_tasks(self) -> None:
        if inputs(OPPORTUNITY_TASKS):
            await self._walk(OPPORTUNITY_TASKS, self._store_tasks, TaskStatus=ENDED, **self._named)
        else:
            self.unknown.add(OPPORTUNITY_TASKS)

    async def _read_invitations(self) -> None:
        await self._walk(ACCEPTING_TASKS, self._store_accepted, TaskStatus=ENDED)
        some = self.db.execute("SELECT 1 FROM accepted WHERE search = ? LIMIT 1", (self.number,))
        if some.fetchone():
            which: dict[str, Any] = {"ParticipantType": "RECEIVER", "Status": ["ACCEPTED"], **self._named}
            await self._walk(ACCEPTED, self._store_invitations, **which)

    async def _walk(self, operation: str, store: Callable[[Items], None], **parameters: Any) -> None:
        """Store each page of a list with the token of the next; a list read anew adds to what was stored."""
        self.operation = operation
        name = json.dumps([self.number, operation, parameters])
        known = self.db.execute("SELECT token, done, items FROM steps WHERE name = ?", (name,)).fetchone()
        token, done, items = known or (None, 0, 0)
        if done:
            return
        catalog = self.filters.catalog
        async for page in self.reader.pages(operation, token, Catalog=catalog, **parameters):
            items = len(page.items) + (0 if page.restarted else items)
            self.db.execute("BEGIN")
            store(page.items)
            step = (name, page.token, page.token is None, items)
            self.db.execute("INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?)", step)
            self.db.execute("COMMIT")
            self.on_progress(f"{operation}: {items:,}")

    def _insert(self, into: str, rows: Iterable[Sequence[Any]], or_else: str = "") -> None:
        """Store rows; the number of the search goes before each."""
        for row in rows:
            self.db.execute(f"INSERT {into} VALUES (?{', ?' * len(row)}) {or_else}", (self.number, *row))  # noqa: S608 - names of our own

    def _store_ids(self, table: str, items: Items, fits: tuple[bool, ...] = ()) -> None:
        self._insert(f"OR REPLACE INTO {table}", [(item.get("Id"), *fits) for item in items])

    def _store_accepted(self, items: Items) -> None:
        accepted = [
            (_id(item, "EngagementInvitationId"), item["OpportunityId"], item.get(_JOB))
            for item in items
            if item.get("OpportunityId")
        ]
        self._insert("OR REPLACE INTO accepted", accepted)

    def _store_invitations(self, items: Items) -> None:
        """Store what the tasks have accepted, as tasks that name the engagement too."""
        of_invitation = "SELECT resource, job FROM accepted WHERE search = ? AND invitation = ?"
        tasks = [
            {"EngagementId": item.get("EngagementId"), "OpportunityId": resource, _JOB: job}
            for item in items
            for resource, job in self.db.execute(of_invitation, (self.number, _id(item, "Id")))
        ]
        self._store_tasks(tasks, INVITATIONS)

    def _store_tasks(self, items: Items, source: int = TASKS) -> None:
        self._store_pairs(items, "EngagementId", "OpportunityId", source)
        jobs = [
            (item[_JOB], item.get("EngagementId"), item.get("OpportunityId"))
            for item in items
            if item.get(_JOB)
        ]
        self._insert("OR IGNORE INTO jobs", [(*job, None, 0) for job in jobs])

    def _store_associations(self, items: Items) -> None:
        wanted = [item for item in items if item.get("ResourceType") == self.filters.resource_type]
        self._store_pairs(wanted, "EngagementId", "ResourceId", ASSOCIATIONS)

    def _store_pairs(self, items: Items, engagement: str, resource: str, source: int) -> None:
        """Store pairs; a task that still runs names no engagement, and an invalid item no id."""
        pairs = [(item.get(engagement) or "", item.get(resource) or "") for item in items]
        is_engagement, is_resource = (
            row_input()[name].regex.fullmatch for name in ("engagement", "resource")
        )
        whole = [(*pair, source) for pair in pairs if is_engagement(pair[0]) and is_resource(pair[1])]
        self._insert("INTO pairs", whole, "ON CONFLICT DO UPDATE SET sources = sources | excluded.sources")

    def _store_running_jobs(self, items: Items) -> None:
        jobs = [(item.get("Id"), item.get("EngagementId"), None, None, 1) for item in items]
        self._insert("INTO jobs", jobs, "ON CONFLICT DO UPDATE SET running = 1")

    async def _read_contexts(self) -> None:
        known = inputs("ListEngagements").get("ContextTypes", ())
        if set(self.filters.context_types) <= set(known):
            # One by one: nobody documents whether an engagement must have all types that a request names.
            store = partial(self._store_ids, "contexts", fits=(True,))
            try:
                for kind in self.filters.context_types:
                    await self._walk("ListEngagements", store, ContextTypes=[kind])
            except ApiError as error:
                if error.failure.verdict is not Verdict.REFUSED:
                    raise
            else:
                return
        await self._read_engagements()

    async def _read_engagements(self) -> None:
        """Read each found engagement of whose contexts nothing is known."""
        self.operation = "GetEngagement"
        names = self.db.execute(
            "SELECT DISTINCT engagement FROM pairs p WHERE search = ? AND NOT EXISTS"
            " (SELECT 1 FROM contexts c WHERE c.search = p.search AND c.engagement = p.engagement)"
            " ORDER BY engagement",
            (self.number,),
        ).fetchall()
        wanted = set(self.filters.context_types)
        done = 0

        async def read_one(row: tuple[str]) -> None:
            nonlocal done
            [name] = row
            answer = await self.reader.read("GetEngagement", Catalog=self.filters.catalog, Identifier=name)
            types = {context.get("Type") for context in answer.get("Contexts") or ()}
            self._store_ids("contexts", [{"Id": name}], fits=(bool(wanted & types),))
            done += 1
            self.on_progress(f"GetEngagement: {done:,} of {len(names):,}")

        await map_concurrently(names, read_one)

    async def _read_jobs(self) -> None:
        """Read each running job of a found engagement that no task has named a pair for."""
        self.operation = SNAPSHOT.get_job
        unknown = self.db.execute(
            "SELECT job FROM jobs j WHERE search = ? AND running AND resource IS NULL AND EXISTS"
            " (SELECT 1 FROM pairs p WHERE p.search = j.search AND p.engagement = j.engagement) ORDER BY job",
            (self.number,),
        ).fetchall()
        catalog = self.filters.catalog
        resource, template = SNAPSHOT.members["resource"], SNAPSHOT.members["template"]

        async def read_one(row: tuple[str]) -> None:
            [job] = row
            answer = await self.reader.read(
                SNAPSHOT.get_job, Catalog=catalog, **{SNAPSHOT.job_parameter: job}
            )
            self.db.execute(
                "UPDATE jobs SET resource = ?, template = ? WHERE search = ? AND job = ?",
                (answer.get(resource), answer.get(template), self.number, job),
            )

        await map_concurrently(unknown, read_one)


#: The member of a task that names the snapshot job which it has started.
_JOB = "ResourceSnapshotJobId"


def _id(item: dict[str, Any], member: str) -> str | None:
    """An id that may be written as an ARN, whose last part it is."""
    value = item.get(member)
    return value.rpartition("/")[2] if isinstance(value, str) else None


def _parts(values: Sequence[str]) -> list[list[str]]:
    return [list(values[at : at + NAMED_AT_ONCE]) for at in range(0, len(values), NAMED_AT_ONCE)]
