"""SQLite: opens databases, runs transactions, and turns SQLite's errors into ones that people can act on.

No other module imports sqlite3.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batch_snapshot import files
from batch_snapshot.errors import DISK_FULL, SAME_COMMAND, StateFolderError, StorageError, storage_error

Connection = sqlite3.Connection
Error = sqlite3.Error

#: SQLite's primary result codes (https://www.sqlite.org/rescode.html) by what resolves them.
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNUSABLE_PLACE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN}
_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}

#: Closing any descriptor of the file drops the locks of this process's other connections
#: (https://www.sqlite.org/howtocorrupt.html, 2.2): no connection is opened while one is open.
_creating = threading.Lock()


def create(path: Path) -> None:
    """Create an empty database file with mode 0600, and its folder, unless it exists.

    SQLite gives the files that it adds beside it the same mode.
    """
    files.make_folder(path.parent)
    files.refuse_special(path)
    with _creating, suppress(FileExistsError):
        path.touch(0o600, exist_ok=False)


def connect(path: Path | None, *, timeout: float = 30.0, check_same_thread: bool = True) -> Connection:
    """Open the database at `path`, created if need be; None: a temporary one that vanishes when closed.

    It waits for the locks of other processes for `timeout` seconds.
    """
    if path is not None:
        create(path)
    return sqlite3.connect(
        path or "", timeout=timeout, isolation_level=None, check_same_thread=check_same_thread
    )


@contextmanager
def transaction(db: Connection) -> Iterator[None]:
    """Run the block as one transaction that holds the write lock from its beginning."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # after some errors SQLite has rolled back already
            db.execute("ROLLBACK")
        raise


def execute_all(db: Connection, statements: str) -> None:
    for statement in statements.split(";"):
        db.execute(statement)


def drop_tables(db: Connection) -> None:
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        db.execute(f'DROP TABLE "{name}"')


def set_journal_mode(db: Connection, mode: str, timeout: float) -> str:
    """Ask for a journal mode; returns the one that the file system allows."""
    until = time.monotonic() + timeout
    while True:
        try:
            return str(db.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0])
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself where several processes change the mode at once.
            if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


def is_damaged(error: Error) -> bool:
    return _primary_code(error) in _DAMAGED


@contextmanager
def errors_of(path: Path, what: str, *, elsewhere: str, if_damaged: str) -> Iterator[None]:
    """Turn the block's errors of SQLite and of the file system into one line.

    `what` failed, such as "cannot be used"; `elsewhere` says how to use another place, and `if_damaged` what
    to do about a file that is damaged or no database.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = _primary_code(error)
        kind = StateFolderError if code in _UNUSABLE_PLACE else StorageError
        raise kind(f"{path}: {what} ({error}); {_way_out(code, elsewhere, if_damaged)}") from None
    except OSError as error:
        raise storage_error(path, what, error, elsewhere) from None


def _way_out(code: int, elsewhere: str, if_damaged: str) -> str:
    if code in _LOCKED:
        return "wait until the process that has locked it ends, or stop it"
    if code in _UNUSABLE_PLACE:
        return elsewhere
    if code in _DAMAGED:
        return if_damaged
    return f"{DISK_FULL if code == sqlite3.SQLITE_FULL else 'check the disk'}, {SAME_COMMAND}"


def _primary_code(error: Error) -> int:
    # The low byte is the primary code.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


@contextmanager
def temporary_tables(statements: str) -> Iterator[Connection]:
    """A temporary database with these tables, for what must be sorted or looked up and may exceed memory."""
    db = connect(None)
    try:
        with temporary_errors():
            execute_all(db, statements)
            db.execute("BEGIN")
            yield db
    finally:
        db.close()


@contextmanager
def temporary_errors() -> Iterator[None]:
    """Turn SQLite's errors about a temporary database into `StorageError`."""
    try:
        yield
    except sqlite3.Error as error:
        full = _primary_code(error) == sqlite3.SQLITE_FULL
        raise StorageError(
            f"the folder for temporary files cannot be used ({error}); "
            f"{DISK_FULL + ', or ' if full else ''}name another with $TMPDIR"
        ) from None
