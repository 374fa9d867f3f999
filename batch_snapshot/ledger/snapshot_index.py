"""An index of the snapshots in the ledgers of a machine, so that a pair's last one is found without a call.

It is a cache: after its file is removed, the next command builds it from the ledgers that still exist. Each
ledger is read on from its last known line.
"""

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple, Self

from batch_snapshot import files, sqlite
from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger import reader
from batch_snapshot.ledger.records import Header, Intent, Result
from batch_snapshot.models import SIMULATOR, Row, Status
from batch_snapshot.text import encodable

#: The version of the tables; a file of another version is built again.
SCHEMA = 1

_TABLES = """
CREATE TABLE ledgers (path TEXT PRIMARY KEY, run_id TEXT, offset INTEGER) WITHOUT ROWID;
CREATE TABLE snapshots (world TEXT, pair BLOB, revision INTEGER, at REAL,
    PRIMARY KEY (world, pair, revision)) WITHOUT ROWID;
CREATE TABLE jobs (world TEXT, job TEXT, catalog TEXT, engagement TEXT, resource TEXT, template TEXT,
    PRIMARY KEY (world, catalog, job)) WITHOUT ROWID
"""


class SnapshotJob(NamedTuple):
    """The pair and template of a snapshot job of AWS; they never change."""

    engagement: str
    resource: str
    template: str


def service_of(header: Header) -> str | None:
    """The service that holds a ledger's snapshots (the tables' `world`); None: a simulator that ended."""
    if header.endpoint != SIMULATOR:
        return header.endpoint
    state = header.settings.get("simulator_state")
    return f"{SIMULATOR} {state}" if state else None


class SnapshotIndex:
    """The index, in one SQLite file (mode 0600) that several processes may use."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; a damaged one is replaced."""
        self._path = path
        with self._errors():
            try:
                self._db = self._opened()
            except sqlite.Error as error:
                if not sqlite.is_damaged(error):
                    raise
                path.unlink()
                self._db = self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def _opened(self) -> sqlite.Connection:
        db = sqlite.connect(self._path)
        try:
            db.execute("PRAGMA synchronous = NORMAL")
            with sqlite.transaction(db):
                (version,) = db.execute("PRAGMA user_version").fetchone()
                if version != SCHEMA:
                    sqlite.drop_tables(db)
                    sqlite.execute_all(db, _TABLES)
                    db.execute(f"PRAGMA user_version = {SCHEMA}")
        except BaseException:
            db.close()
            raise
        return db

    def _errors(self) -> AbstractContextManager[None]:
        return sqlite.errors_of(
            self._path,
            "cannot be used",
            elsewhere="name another folder with --state-dir",
            if_damaged="remove it: it is built again from the ledgers",
        )

    def refresh(self, folder: Path) -> list[str]:
        """Add what a folder's ledgers say since they were last read; returns warnings about damaged ones."""
        warnings = []
        for path in sorted(folder.glob("*.ndjson")):
            try:
                with self._errors():
                    self._add_ledger(path)
            except LedgerError as error:
                warnings.append(f"{error}; its snapshots are not known")
        return warnings

    def _add_ledger(self, path: Path) -> None:
        head = reader.head_if_ledger(path)
        world = service_of(head) if head else None
        if head is None or world is None:
            return
        name = encodable(str(files.resolved(path)))
        known = self._db.execute("SELECT run_id, offset FROM ledgers WHERE path = ?", (name,)).fetchone()
        start = known[1] if known and known[0] == head.run_id and reader.line_begins_at(path, known[1]) else 0
        with sqlite.transaction(self._db):
            last, ahead = start, 0.0
            for line in reader.lines(path, start=start):
                last = line.offset
                record = line.record
                if isinstance(record, Intent):
                    # How far our clock was ahead of the service's.
                    ahead = max(0.0, -(record.clock_skew_s or 0.0))
                if isinstance(record, Result) and record.status is Status.SUCCEEDED and record.first_sent_at:
                    at = record.first_sent_at.timestamp() - ahead
                    # A revision that two runs name was made by the first of them, as far as the ledgers show.
                    self._db.execute(
                        "INSERT INTO snapshots VALUES (?, ?, ?, ?)"
                        " ON CONFLICT DO UPDATE SET at = min(at, excluded.at)",
                        (world, _pair(record.row), record.revision or 0, at),
                    )
            self._db.execute("INSERT OR REPLACE INTO ledgers VALUES (?, ?, ?)", (name, head.run_id, last))

    def last(self, world: str, row: Row) -> float | None:
        """The call that made a pair's latest snapshot left no earlier, in seconds since the epoch."""
        found = self._db.execute(
            "SELECT at FROM snapshots WHERE world = ? AND pair = ? ORDER BY revision DESC LIMIT 1",
            (world, _pair(row)),
        ).fetchone()
        return found[0] if found else None

    def revisions(self, world: str, row: Row) -> set[int]:
        found = self._db.execute(
            "SELECT revision FROM snapshots WHERE world = ? AND pair = ?", (world, _pair(row))
        )
        return {revision for (revision,) in found}

    def job(self, world: str, catalog: str, job: str) -> SnapshotJob | None:
        found = self._db.execute(
            "SELECT engagement, resource, template FROM jobs WHERE world = ? AND catalog = ? AND job = ?",
            (world, catalog, job),
        ).fetchone()
        return SnapshotJob(*found) if found else None

    def add_job(self, world: str, catalog: str, name: str, job: SnapshotJob) -> None:
        with suppress(sqlite.Error):  # it can be asked again
            self._db.execute(
                "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?)", (world, name, catalog, *job)
            )


def _pair(row: Row) -> bytes:
    """The key of a pair, the same for every account."""
    return row._replace(account="").key
