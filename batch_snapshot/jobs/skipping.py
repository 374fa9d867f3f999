"""The step of a run that leaves rows out, before the first row is sent."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import anyio

from batch_snapshot import paths, sqlite
from batch_snapshot.config.options import state_folder_of
from batch_snapshot.discovery import changes
from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.engine.reader import Reader, map_concurrently, read_failed
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.errors import DeferredError, InputError, ManifestError, ServiceError
from batch_snapshot.jobs.recorder import Recorder
from batch_snapshot.ledger.snapshot_index import SnapshotIndex, SnapshotJob, service_of
from batch_snapshot.manifest import filters
from batch_snapshot.models import ApiError, Row, Skip
from batch_snapshot.operations import NOT_FOUND, SNAPSHOT, create_operation

#: Rows that are decided on together, and that one skip line names at most.
DECIDED_AT_ONCE = 256

#: Rows looked at between two turns of everything else.
ROWS_A_TURN = 1024

#: Seconds between two checks whether the run is to stop.
STOP_CHECK_EVERY = 0.1

_TABLES = """
CREATE TABLE wanted (account TEXT, catalog TEXT, resource TEXT, modified REAL, seen INTEGER,
    PRIMARY KEY (account, catalog, resource)) WITHOUT ROWID;
CREATE TABLE engagements (account TEXT, catalog TEXT, engagement TEXT,
    PRIMARY KEY (account, catalog, engagement)) WITHOUT ROWID
"""


class SkipFilter:
    """Reads what it must know, then decides row by row; an error of one account stops no other."""

    def __init__(self, recorder: Recorder, readers: Mapping[str, Reader], index: SnapshotIndex) -> None:
        now, options = recorder.now(), recorder.job.options
        # Those without any history, each time: what an intent has named may have been sent.
        self._rows = recorder.job.candidates
        self._recorder, self._readers, self._index, self._now = recorder, readers, index, now.timestamp()
        self._active_jobs = options.skip_active_jobs
        #: Leave out what was not modified since its "last" snapshot, or since a time in seconds since the
        #: epoch; None: leave out nothing for this reason.
        self._since: float | str | None = options.changed_since
        if options.changed_since not in {None, "last"}:
            try:
                self._since = filters.since(options.changed_since or "", now).timestamp()
            except ValueError as error:
                raise InputError(f"--changed-since: {error}, or last") from None
        #: The service whose snapshots the index is asked for; None: the index knows none of them.
        self._service = service_of(recorder.header)
        self.warnings = index.refresh(recorder.job.path.parent)
        #: Keys of rows that jobs take care of, without their resource type, which jobs do not name.
        self._active: set[bytes] = set()
        #: Rows that were left out, by account.
        self.skipped: Counter[str] = Counter()
        #: By account: why what must be known of its rows cannot be read; none of them may be sent.
        self.errors: dict[str, ServiceError] = {}

    @property
    def reads(self) -> dict[str, int]:
        return dict(sorted(sum((reader.calls for reader in self._readers.values()), Counter()).items()))

    async def choose(self) -> None:
        with sqlite.temporary_tables(_TABLES) as self._db:
            for number, row in enumerate(self._rows()):
                wanted = (row.account, row.catalog, row.resource)
                self._db.execute("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?, NULL, 0)", wanted)
                where = (row.account, row.catalog, row.engagement)
                self._db.execute("INSERT OR IGNORE INTO engagements VALUES (?, ?, ?)", where)
                if number % ROWS_A_TURN == 0:
                    await anyio.lowlevel.checkpoint()
            for where in self._db.execute("SELECT DISTINCT account, catalog FROM wanted").fetchall():
                await self._read_lists(*where)
            rows = self._rows()
            while batch := list(islice(rows, DECIDED_AT_ONCE)):
                await self._decide(batch)

    async def _read_lists(self, account: str, catalog: str) -> None:
        operation = SNAPSHOT.jobs.name
        reader = self._readers[account]
        try:
            if self._active_jobs:
                await self._read_jobs(reader, account, catalog)
            operation = "ListOpportunities"
            if self._since is not None:
                await self._read_dates(reader, account, catalog)
        except ApiError as error:
            self.errors[account] = read_failed(account, operation, error.failure)
        except ServiceError as error:
            self.errors[account] = error

    async def _read_dates(self, reader: Reader, account: str, catalog: str) -> None:
        where = (account, catalog)
        (wanted,) = self._db.execute(
            "SELECT count(*) FROM wanted WHERE account = ? AND catalog = ?", where
        ).fetchone()
        # By id, so that opportunities modified meanwhile keep their position.
        order = {"SortBy": "Identifier", "SortOrder": "ASCENDING"}
        if left := changes.pages_to_read(wanted):
            async for page in reader.pages("ListOpportunities", Catalog=catalog, Sort=order):
                self._store_dates(account, catalog, page.items)
                left -= 1
                if page.token is None:
                    return
                if not left:
                    break
        unseen = "SELECT resource FROM wanted WHERE account = ? AND catalog = ? AND NOT seen"
        unseen += " ORDER BY resource LIMIT ?"
        while found := self._db.execute(unseen, (*where, changes.NAMED_AT_ONCE)).fetchall():
            names = [resource for (resource,) in found]
            marks = ", ".join("?" * len(names))
            self._db.execute(
                f"UPDATE wanted SET seen = 1 WHERE account = ? AND catalog = ? AND resource IN ({marks})",  # noqa: S608 - marks
                (*where, *names),
            )
            async for page in reader.pages("ListOpportunities", Catalog=catalog, Identifier=names):
                self._store_dates(account, catalog, page.items)

    def _store_dates(self, account: str, catalog: str, items: Sequence[Mapping[str, Any]]) -> None:
        for item in items:
            modified = changes.parse_date(item.get("LastModifiedDate"), self._now)
            self._db.execute(
                "UPDATE wanted SET modified = ?, seen = 1 WHERE account = ? AND catalog = ? AND resource = ?",
                (modified, account, catalog, item.get("Id")),
            )

    async def _read_jobs(self, reader: Reader, account: str, catalog: str) -> None:
        async for page in reader.pages(SNAPSHOT.jobs.name, Catalog=catalog, Status="Running"):
            known = "SELECT 1 FROM engagements WHERE account = ? AND catalog = ? AND engagement = ?"
            ours = [
                str(item.get("Id"))
                for item in page.items
                if self._db.execute(known, (account, catalog, item.get("EngagementId"))).fetchone()
            ]
            await map_concurrently(ours, partial(self._read_job, reader, catalog))

    async def _read_job(self, reader: Reader, catalog: str, name: str) -> None:
        """Read what a job takes care of, once: then the index knows it."""
        job = self._index.job(self._service, catalog, name) if self._service else None
        if not job:
            answer = await reader.read(SNAPSHOT.get_job, Catalog=catalog, **{SNAPSHOT.job_parameter: name})
            members = (SNAPSHOT.members[field] for field in ("engagement", "resource", "template"))
            job = SnapshotJob(*(str(answer.get(member) or "") for member in members))
            if self._service and all(job):
                self._index.add_job(self._service, catalog, name, job)
        self._active.add(Row(reader.name, catalog, job.engagement, "", job.resource, job.template).key)

    async def _decide(self, rows: Sequence[Row]) -> None:
        unknown: list[Row] = []
        verdicts: dict[Row, Skip] = {}
        for row in rows:
            if row.account in self.errors:
                continue
            if row._replace(resource_type="").key in self._active:
                verdicts[row] = Skip.ACTIVE_JOB
            elif self._since is not None:
                modified, since = self._modified(row), self._cutoff(row)
                if changes.unchanged(modified, since):
                    verdicts[row] = Skip.UNCHANGED
                elif modified is not None and since is None:
                    unknown.append(row)
        if unknown:
            await map_concurrently(unknown, partial(self._compare_last_snapshot, verdicts))
        for reason in Skip:
            if some := [row for row in rows if verdicts.get(row) is reason]:
                self.skipped.update(row.account for row in some)
                await self._recorder.skip(reason, some)

    def _modified(self, row: Row) -> float | None:
        found = self._db.execute(
            "SELECT modified FROM wanted WHERE account = ? AND catalog = ? AND resource = ?",
            (row.account, row.catalog, row.resource),
        ).fetchone()
        modified: float | None = found[0] if found else None
        return modified

    def _cutoff(self, row: Row) -> float | None:
        """From when on a change of the row counts, less what clocks may differ; None: no ledger knows.

        A time to come is of a clock that was wrong.
        """
        if isinstance(self._since, float):
            return self._since
        last = self._index.last(self._service, row) if self._service else None
        margin = changes.MARGIN + abs(self._recorder.clock_skew(row.account) or 0.0)
        return None if last is None or last > self._now + margin else last - margin

    async def _compare_last_snapshot(self, verdicts: dict[Row, Skip], row: Row) -> None:
        """Decide by the last snapshot that the service has; its date is by the service's own clock."""
        if row.account in self.errors:
            return
        operation, reader = create_operation(row), self._readers[row.account]
        try:
            answer = await reader.read(operation.look_up, **operation.read_parameters(row))
        except ApiError as error:
            if error.failure.code != NOT_FOUND:
                self.errors[row.account] = read_failed(row.account, operation.look_up, error.failure)
            return
        except ServiceError as error:
            self.errors[row.account] = error
            return
        created = changes.parse_date(answer.get("CreatedAt"), self._now)
        if changes.unchanged(self._modified(row), created):
            verdicts[row] = Skip.UNCHANGED


@contextmanager
def prepare_skipping(recorder: Recorder, readers: Mapping[str, Reader]) -> Iterator[SkipFilter | None]:
    options = recorder.job.options
    if recorder.header.command == "retry" or not (options.changed_since or options.skip_active_jobs):
        yield None
        return
    with SnapshotIndex(paths.snapshot_index_file(state_folder_of(options))) as index:
        yield SkipFilter(recorder, readers, index)


async def skip_rows(engine: RunState, chosen: SkipFilter) -> Counter[str]:
    """Leave out rows, and stop accounts whose state cannot be read; returns how many of each account."""

    async def cancel_when_stopped(scope: anyio.CancelScope) -> None:
        while engine.stop is None:
            await anyio.sleep(STOP_CHECK_EVERY)
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.stop_in_time)
        tasks.start_soon(cancel_when_stopped, tasks.cancel_scope)
        try:
            await chosen.choose()
        except ManifestError as error:
            engine.request_stop(Stop(StopKind.STOPPED, str(error)))
        tasks.cancel_scope.cancel()
    for account, reason in chosen.errors.items():
        kind = StopKind.DEFERRED if isinstance(reason, DeferredError) else StopKind.STOPPED
        engine.stop_account(account, Stop(kind, str(reason)))
    return chosen.skipped
