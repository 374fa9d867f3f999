"""Leaves out the rows that a run was asked to leave out: unchanged ones, and those of AWS's own jobs.

It costs pages of lists, and a read a row only where no ledger knows the row's last snapshot.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from batch_snapshot import sqlite
from batch_snapshot.discovery import changes
from batch_snapshot.engine.reader import beside, broken
from batch_snapshot.errors import ServiceError
from batch_snapshot.ledger.snapshot_index import SnapshotJob
from batch_snapshot.models import ApiError, Skip
from batch_snapshot.operations import NOT_FOUND, SNAPSHOT, create_operation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from batch_snapshot.engine.reader import Reader
    from batch_snapshot.ledger.snapshot_index import SnapshotIndex
    from batch_snapshot.models import Row
    from batch_snapshot.sqlite import Connection

#: Rows that one skip line names, and rows that are judged together.
SKIPPED_AT_ONCE, JUDGED_AT_ONCE = 256, 64

#: Rows looked at between two turns of everything else.
BREATH = 1024

_TABLES = """
CREATE TABLE wanted (account TEXT, catalog TEXT, resource TEXT, modified REAL, seen INTEGER,
    PRIMARY KEY (account, catalog, resource)) WITHOUT ROWID;
CREATE TABLE engagements (account TEXT, catalog TEXT, engagement TEXT,
    PRIMARY KEY (account, catalog, engagement)) WITHOUT ROWID;
CREATE TABLE active (account TEXT, catalog TEXT, engagement TEXT, resource TEXT, template TEXT,
    PRIMARY KEY (account, catalog, engagement, resource, template)) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipRules:
    """What is to be left out, and what that is found out with."""

    #: Leave out what was not modified since its "last" snapshot, or since a time in seconds since the
    #: epoch; None: leave out nothing for that.
    since: float | str | None
    #: Leave out what a running snapshot job takes care of.
    active_jobs: bool
    readers: Mapping[str, Reader]
    index: SnapshotIndex
    #: Whose snapshots the index is asked for; None: it knows none of them.
    world: str | None
    #: The service's clock less ours.
    skew: Callable[[str], timedelta]
    #: Seconds since the epoch.
    now: float
    #: Records rows that are left out.
    skip: Callable[[Skip, Sequence[Row]], Awaitable[None]]


@dataclass(slots=True)
class SkippedRows:
    """What came of it."""

    #: Rows that were left out, by account.
    left_out: Counter[str] = field(default_factory=Counter)
    #: Accounts of which what must be known cannot be read, or not now, and why; none of their rows
    #: may be sent.
    troubles: dict[str, ServiceError] = field(default_factory=dict)


async def choose_skipped_rows(rows: Callable[[], Iterator[Row]], choice: SkipRules) -> SkippedRows:
    """Leave out rows; the trouble of one account is no other's.

    Args:
        rows: those without any history, as often as they are asked for: what an intent has named may
            have been sent, and is not to be left out.
        choice: what is to be left out.

    Raises:
        ManifestError: the manifest changed meanwhile.
        StorageError: there is no room for it, or a row cannot be recorded.
    """
    with sqlite.temporary_tables(_TABLES) as db:
        for number, row in enumerate(rows()):
            wanted = (row.account, row.catalog, row.resource)
            db.execute("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?, NULL, 0)", wanted)
            where = (row.account, row.catalog, row.engagement)
            db.execute("INSERT OR IGNORE INTO engagements VALUES (?, ?, ?)", where)
            if number % BREATH == 0:
                await anyio.lowlevel.checkpoint()
        chooser = SkipFilter(db, choice)
        for account, catalog in db.execute("SELECT DISTINCT account, catalog FROM wanted").fetchall():
            await chooser.learn(account, catalog)
        await chooser.leave_out(rows())
        return chooser.chosen


class SkipFilter:
    """Finds out, then decides row by row."""

    def __init__(self, db: Connection, choice: SkipRules) -> None:
        self.chosen = SkippedRows()
        self._db = db
        self._choice = choice
        self._left: dict[Skip, list[Row]] = {reason: [] for reason in Skip}

    async def learn(self, account: str, catalog: str) -> None:
        """Know the dates of one account's opportunities, and its running jobs."""
        operation = SNAPSHOT.jobs.listing.name
        reader = self._choice.readers[account]
        try:
            if self._choice.active_jobs:
                await self._learn_jobs(reader, account, catalog)
            operation = "ListOpportunities"
            if self._choice.since is not None:
                await self._learn_dates(reader, account, catalog)
        except ApiError as error:
            self.chosen.troubles[account] = broken(account, operation, error.failure)
        except ServiceError as error:
            self.chosen.troubles[account] = error

    # -- dates -------------------------------------------------------------------------------------

    async def _learn_dates(self, reader: Reader, account: str, catalog: str) -> None:
        where = (account, catalog)
        (wanted,) = self._db.execute(
            "SELECT count(*) FROM wanted WHERE account = ? AND catalog = ?", where
        ).fetchone()
        limit = changes.approach(wanted).pages
        # By id: whoever is modified meanwhile keeps his place.
        order = {"SortBy": "Identifier", "SortOrder": "ASCENDING"}
        if limit:
            pages = 0
            async for page in reader.pages("ListOpportunities", Catalog=catalog, Sort=order):
                self._take(account, catalog, page.items)
                pages += 1
                if page.token is None:
                    return
                if pages >= limit:
                    break
        while names := self._unseen(where):
            marks = ", ".join("?" * len(names))
            self._db.execute(
                f"UPDATE wanted SET seen = 1 WHERE account = ? AND catalog = ? AND resource IN ({marks})",  # noqa: S608 - marks
                (*where, *names),
            )
            async for page in reader.pages("ListOpportunities", Catalog=catalog, Identifier=names):
                self._take(account, catalog, page.items)

    def _unseen(self, where: tuple[str, str]) -> list[str]:
        found = self._db.execute(
            "SELECT resource FROM wanted WHERE account = ? AND catalog = ? AND NOT seen"
            " ORDER BY resource LIMIT ?",
            (*where, changes.NAMED_AT_ONCE),
        )
        return [resource for (resource,) in found]

    def _take(self, account: str, catalog: str, items: Sequence[Mapping[str, Any]]) -> None:
        now = self._choice.now
        self._db.executemany(
            "UPDATE wanted SET modified = ?, seen = 1 WHERE account = ? AND catalog = ? AND resource = ?",
            [
                (changes.moment(item.get("LastModifiedDate"), now), account, catalog, item.get("Id"))
                for item in items
            ],
        )

    # -- jobs --------------------------------------------------------------------------------------

    async def _learn_jobs(self, reader: Reader, account: str, catalog: str) -> None:
        async for page in reader.pages(SNAPSHOT.jobs.listing.name, Catalog=catalog, Status="Running"):
            asked = "SELECT 1 FROM engagements WHERE account = ? AND catalog = ? AND engagement = ?"
            ours = [
                str(item.get("Id"))
                for item in page.items
                if self._db.execute(asked, (account, catalog, item.get("EngagementId"))).fetchone()
            ]
            await beside(ours, partial(self._learn_job, reader, catalog))

    async def _learn_job(self, reader: Reader, catalog: str, name: str) -> None:
        job = await self._job(reader, catalog, name)
        self._db.execute("INSERT OR IGNORE INTO active VALUES (?, ?, ?, ?, ?)", (reader.name, catalog, *job))

    async def _job(self, reader: Reader, catalog: str, name: str) -> SnapshotJob:
        """What a job takes care of: asked once, and kept."""
        world = self._choice.world
        known = self._choice.index.job(world, catalog, name) if world else None
        if known:
            return known
        answer = await reader.read(SNAPSHOT.jobs.get, Catalog=catalog, **{SNAPSHOT.jobs.parameter: name})
        members = (SNAPSHOT.members[field] for field in ("engagement", "resource", "template"))
        job = SnapshotJob(*(str(answer.get(member) or "") for member in members))
        if world and all(job):
            self._choice.index.keep_job(world, catalog, name, job)
        return job

    # -- deciding ----------------------------------------------------------------------------------

    async def leave_out(self, rows: Iterator[Row]) -> None:
        """Decide on every row, and record those that are left out."""
        batch: list[Row] = []
        for row in rows:
            batch.append(row)
            if len(batch) == JUDGED_AT_ONCE:
                await self._judge(batch)
                batch = []
        await self._judge(batch)
        await self._record(at_least=1)

    async def _judge(self, rows: Sequence[Row]) -> None:
        unknown: list[Row] = []
        verdicts: dict[Row, Skip | None] = {}
        for row in rows:
            if row.account in self.chosen.troubles:
                continue
            if self._active(row):
                verdicts[row] = Skip.ACTIVE_JOB
            elif (since := self._since(row)) is not None:
                verdicts[row] = self._verdict(row, since)
            elif self._choice.since is not None and self._modified(row) is not None:
                unknown.append(row)
        if unknown:
            await beside(unknown, partial(self._look, verdicts))
        for row in rows:
            if reason := verdicts.get(row):
                self._left[reason].append(row)
                self.chosen.left_out[row.account] += 1
        await self._record(at_least=SKIPPED_AT_ONCE)

    def _verdict(self, row: Row, since: float) -> Skip | None:
        margin = 0.0
        if self._choice.since == "last":
            margin = changes.MARGIN + abs(self._choice.skew(row.account).total_seconds())
        return Skip.UNCHANGED if changes.unchanged(self._modified(row), since, margin) else None

    def _active(self, row: Row) -> bool:
        found = self._db.execute(
            "SELECT 1 FROM active WHERE account = ? AND catalog = ? AND engagement = ? AND resource = ?"
            " AND template = ?",
            (row.account, row.catalog, row.engagement, row.resource, row.template),
        )
        return found.fetchone() is not None

    def _modified(self, row: Row) -> float | None:
        found = self._db.execute(
            "SELECT modified FROM wanted WHERE account = ? AND catalog = ? AND resource = ?",
            (row.account, row.catalog, row.resource),
        ).fetchone()
        modified: float | None = found[0] if found else None
        return modified

    def _since(self, row: Row) -> float | None:
        """From when on a change of the row counts; None: no ledger knows, or nobody asks."""
        since, world = self._choice.since, self._choice.world
        if isinstance(since, float):
            return since
        last = self._choice.index.last(world, row) if since and world else None
        return last.at if last else None

    async def _look(self, verdicts: dict[Row, Skip | None], row: Row) -> None:
        """Ask the service for the row's last snapshot; its date is by the service's own clock."""
        if row.account in self.chosen.troubles:
            return
        operation = create_operation(row)
        try:
            answer = await self._choice.readers[row.account].read(
                operation.look_up, **operation.read_parameters(row)
            )
        except ApiError as error:
            if error.failure.code != NOT_FOUND:
                self.chosen.troubles[row.account] = broken(row.account, operation.look_up, error.failure)
            return
        except ServiceError as error:
            self.chosen.troubles[row.account] = error
            return
        created = changes.moment(answer.get("CreatedAt"), self._choice.now)
        if changes.unchanged(self._modified(row), created):
            verdicts[row] = Skip.UNCHANGED

    async def _record(self, *, at_least: int) -> None:
        for reason, rows in self._left.items():
            while len(rows) >= at_least:
                await self._choice.skip(reason, rows[:SKIPPED_AT_ONCE])
                del rows[:SKIPPED_AT_ONCE]
