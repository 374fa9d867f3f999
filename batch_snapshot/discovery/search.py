"""Pairs out of the service's own lists, by page, into a file that outlives a crash; then in one order.

Which list knows what: a task that made an engagement from an opportunity names both, whether or not
a snapshot was ever made; an association is a pair that has at least one snapshot. What was found is
kept in SQLite page by page, with the token of the next one, so that the same search goes on where it
stopped, and memory does not grow with the pairs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from batch_snapshot import sqlite
from batch_snapshot.engine.reader import beside, broken
from batch_snapshot.errors import StorageError
from batch_snapshot.manifest import filters
from batch_snapshot.manifest.service_model import snapshot_input
from batch_snapshot.models import ApiError, Row
from batch_snapshot.operations import SNAPSHOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from batch_snapshot.engine.reader import Reader
    from batch_snapshot.manifest.filters import Filters

    Items = list[dict[str, Any]]

#: Values that one request may name.
NAMED_AT_ONCE = 10

#: A search whose pages are older may have lost its tokens, and the world has moved on.
FRESH_FOR = 24 * 3600.0

TASKS, ASSOCIATIONS = 1, 2
_BITS = {"tasks": TASKS, "associations": ASSOCIATIONS}

BLIND_SPOTS = (
    "pairs that were never snapshotted, of engagements that no task of this account made (invitations "
    "that were accepted, engagements of older days): take those from your CRM, as CSV under include:"
)

_TABLES = """
CREATE TABLE about (text TEXT, at REAL);
CREATE TABLE steps (name TEXT PRIMARY KEY, token TEXT, done INTEGER, items INTEGER);
CREATE TABLE pairs (search INTEGER, engagement TEXT, resource TEXT, sources INTEGER,
    PRIMARY KEY (search, engagement, resource)) WITHOUT ROWID;
CREATE TABLE engagements (search INTEGER, engagement TEXT, PRIMARY KEY (search, engagement)) WITHOUT ROWID;
CREATE TABLE contexts (search INTEGER, engagement TEXT, fits INTEGER,
    PRIMARY KEY (search, engagement)) WITHOUT ROWID;
CREATE TABLE resources (search INTEGER, resource TEXT, PRIMARY KEY (search, resource)) WITHOUT ROWID;
CREATE TABLE jobs (search INTEGER, job TEXT, engagement TEXT, resource TEXT, template TEXT, running INTEGER,
    PRIMARY KEY (search, job)) WITHOUT ROWID;
CREATE INDEX jobs_of_pairs ON jobs (search, engagement, resource)
"""


#: Without being told, SQLite reads all jobs of the search for each of its pairs.
_PAIRS = """
SELECT engagement, resource, EXISTS (
    SELECT 1 FROM jobs j INDEXED BY jobs_of_pairs WHERE j.search = p.search AND running
    AND j.engagement = p.engagement AND j.resource = p.resource AND coalesce(template, ?) = ?
) FROM pairs p WHERE {} ORDER BY engagement, length(resource), resource
"""


class FoundPair(NamedTuple):
    """A pair as it will be listed."""

    row: Row
    #: A snapshot job of AWS's own takes care of it.
    active_job: bool


@dataclass(frozen=True, slots=True)
class SearchCounts:
    """What came of a search."""

    pairs: int
    engagements: int
    #: Pairs by the list that names them, before and after the filters.
    listed: Mapping[str, int]
    taken: Mapping[str, int]
    #: Pairs with a running snapshot job.
    active_jobs: int


class Search:
    """Searches, in one file; those of the same `about` go on where they were left."""

    def __init__(self, path: Path | None, searches: Sequence[Filters], about: str, now: datetime) -> None:
        """Open or begin the file.

        Args:
            path: where it lies; None: nowhere, and it is gone with the process.
            searches: what is looked for.
            about: what else must be the same for pages to be of use: the endpoint, say.
            now: the wall clock.

        Raises:
            StorageError: the file cannot be used.
        """
        self._path = path
        self._searches = searches
        self._now = now
        text = json.dumps([about, [one.as_dict() for one in searches]])
        try:
            self._db = sqlite.connect(path)
            try:
                self._db.execute("PRAGMA synchronous = NORMAL")
                self.resumed = self._same(text, now.timestamp())
                if not self.resumed:
                    self._begin(text, now.timestamp())
            except BaseException:
                self._db.close()
                raise
        except (OSError, sqlite.Error) as error:
            raise StorageError(
                f"{path}: cannot keep what is found ({error}); remove it, or write elsewhere"
            ) from None

    def __enter__(self) -> Self:
        """Use as a context manager: closes the file."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file; it is left where it is."""
        self._db.close()

    def forget(self) -> None:
        """Remove the file: what was found is kept elsewhere now."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _same(self, text: str, now: float) -> bool:
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
            return False
        found = self._db.execute("SELECT text, at FROM about").fetchone()
        return found is not None and found[0] == text and 0 <= now - found[1] < FRESH_FOR

    def _begin(self, text: str, now: float) -> None:
        sqlite.drop_tables(self._db)
        sqlite.create_tables(self._db, _TABLES)
        self._db.execute("INSERT INTO about VALUES (?, ?)", (text, now))

    # -- asking ------------------------------------------------------------------------------------

    async def ask(self, readers: Mapping[str, Reader], *, jobs: bool, told: Callable[[str], None]) -> None:
        """Read every list that the searches need; what was read before is not read again.

        Args:
            readers: by account.
            jobs: whether to find out which pairs have a running snapshot job.
            told: gets a line on how far it is.

        Raises:
            ServiceError: a list cannot be read, or not now.
        """
        for number, one in enumerate(self._searches):
            asking = _ListReader(self._db, number, one, readers[one.account], now=self._now, told=told)
            try:
                await asking.all(jobs=jobs)
            except ApiError as error:
                raise broken(one.account, asking.operation, error.failure) from error

    # -- telling -----------------------------------------------------------------------------------

    def found(self) -> Iterator[FoundPair]:
        """The pairs, in the order of the searches, then of engagements and resources; each once."""
        for number, one in enumerate(self._searches):
            pairs = _PAIRS.format(_taken(one))
            for engagement, resource, active in self._db.execute(pairs, (one.template, one.template, number)):
                row = Row(one.account, one.catalog, engagement, one.resource_type, resource, one.template)
                yield FoundPair(row, bool(active))

    def counts(self) -> SearchCounts:
        """How many there are, and whence."""
        listed, taken = dict.fromkeys(filters.SOURCES, 0), dict.fromkeys(filters.SOURCES, 0)
        pairs = engagements = 0
        for number, one in enumerate(self._searches):
            for source in one.sources:
                sums = f"SELECT count(*), coalesce(sum({_taken(one, bare=True)}), 0) FROM pairs p"  # noqa: S608 - see there
                where = " WHERE search = ? AND sources & ?"
                whole, part = self._db.execute(sums + where, (number, _BITS[source])).fetchone()
                listed[source] += whole
                taken[source] += part
            sums = f"SELECT count(*), count(DISTINCT engagement) FROM pairs p WHERE {_taken(one)}"  # noqa: S608 - see there
            whole, part = self._db.execute(sums, (number,)).fetchone()
            pairs, engagements = pairs + whole, engagements + part
        active = sum(found.active_job for found in self.found())
        return SearchCounts(pairs, engagements, listed, taken, active)


def _taken(one: Filters, *, bare: bool = False) -> str:
    """The SQL that says whether pair `p` passes the filters."""
    conditions = [] if bare else ["p.search = ?"]
    if one.engagements:
        # The ids were checked against the service's pattern: they hold letters and digits.
        names = ", ".join(f"'{name}'" for name in one.engagements)
        conditions.append(f"p.engagement IN ({names})")
    if one.created_by:
        conditions.append(_listed_in("engagements", "engagement"))
    if one.stages or one.changed_since:
        conditions.append(_listed_in("resources", "resource"))
    if one.context_types:
        conditions.append(_listed_in("contexts", "engagement", "x.fits AND"))
    return " AND ".join(conditions) or "1"


def _listed_in(table: str, column: str, also: str = "") -> str:
    same = f"x.search = p.search AND x.{column} = p.{column}"
    return f"EXISTS (SELECT 1 FROM {table} x WHERE {also} {same})"  # noqa: S608 - names of our own


class _ListReader:
    """One search at work."""

    def __init__(
        self,
        db: sqlite.Connection,
        number: int,
        one: Filters,
        reader: Reader,
        *,
        now: datetime,
        told: Callable[[str], None],
    ) -> None:
        self.operation = ""
        self._db = db
        self._number = number
        self._filters = one
        self._reader = reader
        self._now = now
        self._told = told
        shapes = snapshot_input()
        self._patterns = {
            "engagement": shapes["EngagementIdentifier"].regex,
            "resource": shapes["ResourceIdentifier"].regex,
        }

    async def all(self, *, jobs: bool) -> None:
        one = self._filters
        for part in _parts(one.created_by):
            await self._walk("ListEngagements", self._engagements, CreatedBy=part)
        if one.stages or one.changed_since:
            for part in _parts(one.stages) or [[]]:
                await self._walk("ListOpportunities", self._opportunities, **self._opportunity_filters(part))
        if "tasks" in one.sources:
            few = 0 < len(one.engagements) <= NAMED_AT_ONCE
            named = {"EngagementIdentifier": list(one.engagements)} if few else {}
            await self._walk("ListEngagementFromOpportunityTasks", self._tasks, **named)
        if "associations" in one.sources:
            for engagement in one.engagements if len(one.engagements) <= NAMED_AT_ONCE else ():
                await self._walk(
                    "ListEngagementResourceAssociations", self._pairs, EngagementIdentifier=engagement
                )
            if not 0 < len(one.engagements) <= NAMED_AT_ONCE:
                await self._walk("ListEngagementResourceAssociations", self._pairs)
        if one.context_types:
            await self._read_contexts()
        if jobs:
            await self._walk(SNAPSHOT.jobs.listing.name, self._running, Status="Running")
            await self._read_jobs()

    def _opportunity_filters(self, stages: list[str]) -> dict[str, Any]:
        # By id: whoever is modified meanwhile keeps his place.
        given: dict[str, Any] = {"Sort": {"SortBy": "Identifier", "SortOrder": "ASCENDING"}}
        if stages:
            given["LifeCycleStage"] = stages
        if self._filters.changed_since:
            # Of a second more: the service leaves out what was modified at the very moment.
            after = filters.since(self._filters.changed_since, self._now).timestamp() - 1
            given["LastModifiedDate"] = {"AfterLastModifiedDate": after}
        return given

    async def _walk(self, operation: str, keep: Callable[[Items], None], **parameters: Any) -> None:
        """Read a list to its end, each page kept with the token of the next.

        A list that is begun again, because its token was refused, adds to what was kept.
        """
        self.operation = operation
        name = json.dumps([self._number, operation, parameters])
        known = self._db.execute("SELECT token, done, items FROM steps WHERE name = ?", (name,)).fetchone()
        token, done, items = known or (None, 0, 0)
        if done:
            return
        catalog = self._filters.catalog
        async for page in self._reader.pages(operation, token, Catalog=catalog, **parameters):
            items = len(page.items) + (0 if page.anew else items)
            self._db.execute("BEGIN")
            keep(page.items)
            step = (name, page.token, page.token is None, items)
            self._db.execute("INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?)", step)
            self._db.execute("COMMIT")
            self._told(f"{operation}: {items:,}")

    def _insert(self, table: str, rows: Iterator[tuple[Any, ...]]) -> None:
        width = {"engagements": 2, "resources": 2, "jobs": 6, "contexts": 3}[table]
        marks = ", ".join("?" * width)
        self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)  # noqa: S608 - names of our own

    def _engagements(self, items: Items) -> None:
        self._insert("engagements", ((self._number, item.get("Id")) for item in items))

    def _opportunities(self, items: Items) -> None:
        self._insert("resources", ((self._number, item.get("Id")) for item in items))

    def _tasks(self, items: Items) -> None:
        self._keep(items, "EngagementId", "OpportunityId", TASKS)
        known = [item for item in items if item.get("ResourceSnapshotJobId")]
        jobs = (
            (self._number, job["ResourceSnapshotJobId"], job.get("EngagementId"), job.get("OpportunityId"))
            for job in known
        )
        self._db.executemany("INSERT OR IGNORE INTO jobs VALUES (?, ?, ?, ?, NULL, 0)", jobs)

    def _pairs(self, items: Items) -> None:
        wanted = [item for item in items if item.get("ResourceType") == self._filters.resource_type]
        self._keep(wanted, "EngagementId", "ResourceId", ASSOCIATIONS)

    def _keep(self, items: Items, engagement: str, resource: str, source: int) -> None:
        """Keep pairs; a task that failed or goes on names no engagement yet, and garbage no id."""
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
        """Only the engagement itself tells its contexts: a read each."""
        self.operation = "GetEngagement"
        names = self._db.execute(
            "SELECT DISTINCT engagement FROM pairs p WHERE search = ? AND NOT EXISTS"
            " (SELECT 1 FROM contexts c WHERE c.search = p.search AND c.engagement = p.engagement)"
            " ORDER BY engagement",
            (self._number,),
        ).fetchall()
        wanted = set(self._filters.context_types)
        done = 0

        async def one(row: tuple[str]) -> None:
            nonlocal done
            [name] = row
            answer = await self._reader.read("GetEngagement", Catalog=self._filters.catalog, Identifier=name)
            types = {context.get("Type") for context in answer.get("Contexts") or ()}
            self._insert("contexts", iter([(self._number, name, bool(wanted & types))]))
            done += 1
            self._told(f"GetEngagement: {done:,} of {len(names):,}")

        await beside(names, one)

    def _running(self, items: Items) -> None:
        for item in items:
            self._db.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, NULL, NULL, 1) ON CONFLICT DO UPDATE SET running = 1",
                (self._number, item.get("Id"), item.get("EngagementId")),
            )

    async def _read_jobs(self) -> None:
        """What no task told of a running job is asked for, if its engagement is one of ours."""
        self.operation = SNAPSHOT.jobs.get
        unknown = self._db.execute(
            "SELECT job FROM jobs j WHERE search = ? AND running AND resource IS NULL AND EXISTS"
            " (SELECT 1 FROM pairs p WHERE p.search = j.search AND p.engagement = j.engagement) ORDER BY job",
            (self._number,),
        ).fetchall()
        catalog = self._filters.catalog
        resource, template = SNAPSHOT.members["resource"], SNAPSHOT.members["template"]

        async def one(row: tuple[str]) -> None:
            [job] = row
            answer = await self._reader.read(
                SNAPSHOT.jobs.get, Catalog=catalog, **{SNAPSHOT.jobs.parameter: job}
            )
            self._db.execute(
                "UPDATE jobs SET resource = ?, template = ? WHERE search = ? AND job = ?",
                (answer.get(resource), answer.get(template), self._number, job),
            )

        await beside(unknown, one)


def _parts(values: Sequence[str]) -> list[list[str]]:
    """The values in parts that one request may name."""
    return [list(values[at : at + NAMED_AT_ONCE]) for at in range(0, len(values), NAMED_AT_ONCE)]
