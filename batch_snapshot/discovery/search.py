"""Searches: pairs out of the service's lists, kept in a file, so that an interrupted search can continue.

Pages are kept in SQLite with the token of the next one; memory does not grow with the pairs.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Self

from batch_snapshot import sqlite
from batch_snapshot.discovery.lists import SOURCE_BITS, ListReader
from batch_snapshot.discovery.readers import Reads
from batch_snapshot.engine.reader import Reader, read_failed
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.models import ApiError, Row
from batch_snapshot.operations import SOURCES

#: Seconds after which a search begins anew: its tokens may have expired, its pairs may be outdated.
FRESH_FOR = 24 * 3600.0

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
CREATE TABLE accepted (search INTEGER, invitation TEXT, resource TEXT, job TEXT,
    PRIMARY KEY (search, invitation, resource));
CREATE INDEX jobs_of_pairs ON jobs (search, engagement, resource)
"""


#: Without INDEXED BY, SQLite reads all jobs of the search for each of its pairs.
_PAIRS = """
SELECT engagement, resource, EXISTS (
    SELECT 1 FROM jobs j INDEXED BY jobs_of_pairs WHERE j.search = p.search AND running
    AND j.engagement = p.engagement AND j.resource = p.resource AND coalesce(template, ?) = ?
) FROM pairs p WHERE {} ORDER BY engagement, length(resource), resource
"""


class FoundPair(NamedTuple):
    row: Row
    #: A snapshot job of AWS's own covers it.
    active_job: bool


@dataclass(frozen=True, slots=True)
class SearchCounts:
    pairs: int
    engagements: int
    #: Pairs by the list that names them, before and after the filters.
    listed: Mapping[str, int]
    taken: Mapping[str, int]
    active_jobs: int


@dataclass(kw_only=True)
class SearchReport(Reads):
    #: The search continued an interrupted one.
    resumed: bool
    #: Which lists were refused, what is missing for that, and the way out.
    warnings: list[str]
    #: Lists that the SDK does not know.
    unknown: set[str]


@dataclass(kw_only=True)
class Discovery(SearchReport):
    output: str
    counts: SearchCounts
    #: Of an update: pairs that are new, and pairs that are marked.
    added: int = 0
    gone: int = 0


class Search:
    """Searches, kept in one file; the same searches of the same `about` continue where they stopped."""

    def __init__(self, path: Path | None, searches: Sequence[Filters], about: str, now: datetime) -> None:
        self._path = path
        self._searches = searches
        self._now = now
        #: See `SearchReport`, also for `unknown` and `resumed`.
        self.left_out: list[str] = []
        self.unknown: set[str] = set()
        text = json.dumps([about, [one.as_dict() for one in searches]])
        with sqlite.errors_of(
            path or Path(), "cannot keep what is found", elsewhere="write elsewhere", if_damaged="remove it"
        ):
            self._db = sqlite.connect(path)
            try:
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute("CREATE TABLE IF NOT EXISTS about (text TEXT, at REAL)")
                known, at = self._db.execute("SELECT text, at FROM about").fetchone() or (None, 0.0)
                self.resumed = known == text and 0 <= now.timestamp() - at < FRESH_FOR
                if not self.resumed:
                    sqlite.drop_tables(self._db)
                    sqlite.execute_all(self._db, _TABLES)
                    self._db.execute("INSERT INTO about VALUES (?, ?)", (text, now.timestamp()))
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file without removing it."""
        self._db.close()

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def read(
        self, readers: Mapping[str, Reader], *, jobs: bool, on_progress: Callable[[str], None]
    ) -> None:
        """Read every list that the searches need, unless it was read before."""
        for number, one in enumerate(self._searches):
            lists = ListReader(self._db, number, one, readers[one.account], self._now, on_progress)
            try:
                await lists.read(jobs=jobs)
            except ApiError as error:
                raise read_failed(one.account, lists.operation, error.failure) from error
            finally:
                self.left_out += lists.left_out
                self.unknown |= lists.unknown

    def pairs(self, *, skip_active: bool = False) -> Iterator[FoundPair]:
        """The pairs, in the order of the searches, then of engagements and resources; each once."""
        for number, one in enumerate(self._searches):
            found = _PAIRS.format(_passes(one))
            for engagement, resource, active in self._db.execute(found, (one.template, one.template, number)):
                if not (skip_active and active):
                    row = Row(one.account, one.catalog, engagement, one.resource_type, resource, one.template)
                    yield FoundPair(row, bool(active))

    def counts(self) -> SearchCounts:
        listed, taken = dict.fromkeys(SOURCES, 0), dict.fromkeys(SOURCES, 0)
        pairs = engagements = 0
        for number, one in enumerate(self._searches):
            for source in one.sources:
                sums = f"SELECT count(*), coalesce(sum({_passes(one, bare=True)}), 0) FROM pairs p"  # noqa: S608 - checked ids, names of our own
                where = " WHERE search = ? AND sources & ?"
                whole, part = self._db.execute(sums + where, (number, SOURCE_BITS[source])).fetchone()
                listed[source] += whole
                taken[source] += part
            sums = f"SELECT count(*), count(DISTINCT engagement) FROM pairs p WHERE {_passes(one)}"  # noqa: S608 - checked ids, names of our own
            whole, part = self._db.execute(sums, (number,)).fetchone()
            pairs, engagements = pairs + whole, engagements + part
        active = sum(pair.active_job for pair in self.pairs())
        return SearchCounts(pairs, engagements, listed, taken, active)


def _passes(one: Filters, *, bare: bool = False) -> str:
    conditions = [] if bare else ["p.search = ?"]
    if one.engagements:
        # The ids were checked against the service's pattern: they hold letters and digits.
        names = ", ".join(f"'{name}'" for name in one.engagements)
        conditions.append(f"p.engagement IN ({names})")
    if one.created_by:
        conditions.append(_exists_in("engagements", "engagement"))
    if one.stages or one.changed_since:
        conditions.append(_exists_in("resources", "resource"))
    if one.context_types:
        conditions.append(_exists_in("contexts", "engagement", "x.fits AND"))
    return " AND ".join(conditions) or "1"


def _exists_in(table: str, column: str, also: str = "") -> str:
    same = f"x.search = p.search AND x.{column} = p.{column}"
    return f"EXISTS (SELECT 1 FROM {table} x WHERE {also} {same})"  # noqa: S608 - names of our own
