"""SQLite files: closed in any case, and what is said about those that cannot be used."""

import gc
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path, PosixPath

import pytest

from batch_snapshot import sqlite
from batch_snapshot.discovery.search import Search
from batch_snapshot.errors import StorageError
from batch_snapshot.ledger.snapshot_index import SnapshotIndex
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.ratelimit.windows import CallLog

NOW = datetime(2026, 3, 2, tzinfo=UTC)
SEARCH = Filters(account="main", catalog="Sandbox", template="T", resource_type="Opportunity")


@pytest.fixture(autouse=True)
def collections_look_at_new_objects_alone():
    gc.freeze()


def search(path: Path) -> Search:
    return Search(path, [SEARCH], "", NOW)


def opened(path: Path) -> list[str]:
    """The descriptors of this process for the file and those beside it; an error's frames hold none up."""
    gc.collect()
    found = []
    for one in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            target = str(one.readlink())
            found += [target] if target.startswith(str(path)) else []
    return found


@pytest.mark.parametrize("make", [SnapshotIndex, search, CallLog])
@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_file_that_is_no_database_is_closed(tmp_path, make, content):
    path = tmp_path / "x.sqlite"
    path.write_bytes(content)
    kept = []
    try:
        with make(path):
            # The index is created again: it holds nothing that the ledgers do not.
            assert make is SnapshotIndex
    except StorageError as error:
        kept.append(error)  # with its frames, which would keep a connection alive
    assert opened(path) == []


class Stuck(PosixPath):
    """A file that cannot be removed."""

    def unlink(self, *_: object, **__: object) -> None:
        raise PermissionError("no")


def test_index_that_cannot_be_created_again_is_closed(tmp_path):
    path = Stuck(tmp_path / "x.sqlite")
    path.write_bytes(b"no database" * 100)
    try:
        SnapshotIndex(path)
    except StorageError as error:
        kept = error  # with the error that it came from, and its frames
    assert opened(path) == []
    assert kept


@pytest.mark.parametrize("make", [SnapshotIndex, search, CallLog])
def test_used_database_is_closed(tmp_path, make):
    path = tmp_path / "x.sqlite"
    for _ in range(2):
        with make(path):
            assert opened(path)
        assert opened(path) == []


def test_a_locked_database_is_not_a_damaged_one(tmp_path):
    """A damaged index is built again, so a locked one must not be taken for damaged."""
    path = tmp_path / "x.sqlite"
    with closing(sqlite.connect(path)) as first, closing(sqlite.connect(path, timeout=0)) as second:
        with sqlite.transaction(first), pytest.raises(sqlite.Error) as locked:
            second.execute("BEGIN IMMEDIATE")
        assert not sqlite.is_damaged(locked.value)
    path.write_bytes(b"no database" * 100)
    with closing(sqlite.connect(path)) as third, pytest.raises(sqlite.Error) as damaged:
        third.execute("SELECT count(*) FROM sqlite_master")
    assert sqlite.is_damaged(damaged.value)


def test_a_failed_transaction_changes_nothing(tmp_path):
    with closing(sqlite.connect(tmp_path / "x.sqlite")) as db:
        sqlite.execute_all(db, "CREATE TABLE a (b); CREATE TABLE c (d)")
        with pytest.raises(ZeroDivisionError), sqlite.transaction(db):
            db.execute("INSERT INTO a VALUES (?)", (1 // len(db.execute("SELECT * FROM a").fetchall()),))
        with sqlite.transaction(db):
            db.execute("INSERT INTO c VALUES (1)")
        assert db.execute("SELECT * FROM a").fetchall() == []
        assert db.execute("SELECT * FROM c").fetchall() == [(1,)]
