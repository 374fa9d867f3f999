"""The service's lists that name pairs, read page by page into the tables of a search.

A task that made an engagement from an opportunity names both, whether or not a snapshot was ever made; an
association is a pair that has at least one snapshot.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from batch_snapshot import sqlite
from batch_snapshot.engine.reader import Reader, map_concurrently
from batch_snapshot.manifest.filters import Filters, since
from batch_snapshot.manifest.service_model import row_input
from batch_snapshot.operations import SNAPSHOT

Items = list[dict[str, Any]]

#: Values that one request may name.
NAMED_AT_ONCE = 10

#: Of each list in `pairs.sources`.
TASKS, ASSOCIATIONS = 1, 2
SOURCE_BITS = {"tasks": TASKS, "associations": ASSOCIATIONS}


class ListReader:
    def __init__(
        self,
        db: sqlite.Connection,
        number: int,
        filters: Filters,
        reader: Reader,
        *,
        now: datetime,
        on_progress: Callable[[str], None],
    ) -> None:
        self.operation = ""
        self._db = db
        self._number = number
        self._filters = filters
        self._reader = reader
        self._now = now
        self._on_progress = on_progress
        shapes = row_input()
        self._patterns = {"engagement": shapes["engagement"].regex, "resource": shapes["resource"].regex}

    async def read(self, *, jobs: bool) -> None:
        one = self._filters
        for part in _parts(one.created_by):
            await self._walk("ListEngagements", partial(self._store_ids, "engagements"), CreatedBy=part)
        if one.stages or one.changed_since:
            for part in _parts(one.stages) or [[]]:
                store = partial(self._store_ids, "resources")
                await self._walk("ListOpportunities", store, **self._opportunity_filters(part))
        few = 0 < len(one.engagements) <= NAMED_AT_ONCE
        named: dict[str, Any]
        if "tasks" in one.sources:
            named = {"EngagementIdentifier": list(one.engagements)} if few else {}
            await self._walk("ListEngagementFromOpportunityTasks", self._store_tasks, **named)
        if "associations" in one.sources:
            each = [{"EngagementIdentifier": name} for name in one.engagements] if few else [{}]
            for named in each:
                await self._walk("ListEngagementResourceAssociations", self._store_associations, **named)
        if one.context_types:
            await self._read_contexts()
        if jobs:
            await self._walk(SNAPSHOT.jobs.listing.name, self._store_running_jobs, Status="Running")
            await self._read_jobs()

    def _opportunity_filters(self, stages: list[str]) -> dict[str, Any]:
        # By id: opportunities modified during the scan keep their position.
        given: dict[str, Any] = {"Sort": {"SortBy": "Identifier", "SortOrder": "ASCENDING"}}
        if stages:
            given["LifeCycleStage"] = stages
        if self._filters.changed_since:
            # One second earlier: the service leaves out what was modified at the very moment.
            after = since(self._filters.changed_since, self._now).timestamp() - 1
            given["LastModifiedDate"] = {"AfterLastModifiedDate": after}
        return given

    async def _walk(self, operation: str, store: Callable[[Items], None], **parameters: Any) -> None:
        """Store each page of a list with the token of the next; a list read anew adds to what was stored."""
        self.operation = operation
        name = json.dumps([self._number, operation, parameters])
        known = self._db.execute("SELECT token, done, items FROM steps WHERE name = ?", (name,)).fetchone()
        token, done, items = known or (None, 0, 0)
        if done:
            return
        catalog = self._filters.catalog
        async for page in self._reader.pages(operation, token, Catalog=catalog, **parameters):
            items = len(page.items) + (0 if page.restarted else items)
            self._db.execute("BEGIN")
            store(page.items)
            step = (name, page.token, page.token is None, items)
            self._db.execute("INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?)", step)
            self._db.execute("COMMIT")
            self._on_progress(f"{operation}: {items:,}")

    def _store_ids(self, table: str, items: Items) -> None:
        ids = [(self._number, item.get("Id")) for item in items]
        self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", ids)  # noqa: S608 - names of our own

    def _store_tasks(self, items: Items) -> None:
        self._store_pairs(items, "EngagementId", "OpportunityId", TASKS)
        jobs = [
            (self._number, item["ResourceSnapshotJobId"], item.get("EngagementId"), item.get("OpportunityId"))
            for item in items
            if item.get("ResourceSnapshotJobId")
        ]
        self._db.executemany("INSERT OR IGNORE INTO jobs VALUES (?, ?, ?, ?, NULL, 0)", jobs)

    def _store_associations(self, items: Items) -> None:
        wanted = [item for item in items if item.get("ResourceType") == self._filters.resource_type]
        self._store_pairs(wanted, "EngagementId", "ResourceId", ASSOCIATIONS)

    def _store_pairs(self, items: Items, engagement: str, resource: str, source: int) -> None:
        """Store pairs; a task that failed or still runs names no engagement, and an invalid item no id."""
        pairs = [(item.get(engagement) or "", item.get(resource) or "") for item in items]
        whole = [
            (self._number, *pair, source)
            for pair in pairs
            if self._patterns["engagement"].fullmatch(pair[0])
            and self._patterns["resource"].fullmatch(pair[1])
        ]
        self._db.executemany(
            "INSERT INTO pairs VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET sources = sources | excluded.sources",
            whole,
        )

    async def _read_contexts(self) -> None:
        """Read each engagement: no list has their contexts."""
        self.operation = "GetEngagement"
        names = self._db.execute(
            "SELECT DISTINCT engagement FROM pairs p WHERE search = ? AND NOT EXISTS"
            " (SELECT 1 FROM contexts c WHERE c.search = p.search AND c.engagement = p.engagement)"
            " ORDER BY engagement",
            (self._number,),
        ).fetchall()
        wanted = set(self._filters.context_types)
        done = 0

        async def read_one(row: tuple[str]) -> None:
            nonlocal done
            [name] = row
            answer = await self._reader.read("GetEngagement", Catalog=self._filters.catalog, Identifier=name)
            types = {context.get("Type") for context in answer.get("Contexts") or ()}
            fits = (self._number, name, bool(wanted & types))
            self._db.execute("INSERT OR REPLACE INTO contexts VALUES (?, ?, ?)", fits)
            done += 1
            self._on_progress(f"GetEngagement: {done:,} of {len(names):,}")

        await map_concurrently(names, read_one)

    def _store_running_jobs(self, items: Items) -> None:
        for item in items:
            self._db.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, NULL, NULL, 1) ON CONFLICT DO UPDATE SET running = 1",
                (self._number, item.get("Id"), item.get("EngagementId")),
            )

    async def _read_jobs(self) -> None:
        """Read each running job of a found engagement that no task has named a pair for."""
        self.operation = SNAPSHOT.jobs.get
        unknown = self._db.execute(
            "SELECT job FROM jobs j WHERE search = ? AND running AND resource IS NULL AND EXISTS"
            " (SELECT 1 FROM pairs p WHERE p.search = j.search AND p.engagement = j.engagement) ORDER BY job",
            (self._number,),
        ).fetchall()
        catalog = self._filters.catalog
        resource, template = SNAPSHOT.members["resource"], SNAPSHOT.members["template"]

        async def read_one(row: tuple[str]) -> None:
            [job] = row
            answer = await self._reader.read(
                SNAPSHOT.jobs.get, Catalog=catalog, **{SNAPSHOT.jobs.parameter: job}
            )
            self._db.execute(
                "UPDATE jobs SET resource = ?, template = ? WHERE search = ? AND job = ?",
                (answer.get(resource), answer.get(template), self._number, job),
            )

        await map_concurrently(unknown, read_one)


def _parts(values: Sequence[str]) -> list[list[str]]:
    return [list(values[at : at + NAMED_AT_ONCE]) for at in range(0, len(values), NAMED_AT_ONCE)]
