"""Tables for the length of one command: SQLite that spills to a file nobody else sees.

Whatever must be sorted, or looked up by more than a million keys, is held here and not in memory.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from batch_snapshot.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A database, for whoever is given one.
Tables = sqlite3.Connection


@contextmanager
def tables(statements: str) -> Iterator[sqlite3.Connection]:
    """A database with these tables, gone at the end of the block.

    Args:
        statements: that make the tables, separated by semicolons.

    Raises:
        StorageError: there is no room for it.
    """
    # The empty name means a private file that is removed when it is closed.
    db = sqlite3.connect("", isolation_level=None)
    try:
        with trouble():
            for statement in statements.split(";"):
                db.execute(statement)
            db.execute("BEGIN")
            yield db
    finally:
        db.close()


@contextmanager
def trouble() -> Iterator[None]:
    """Tell what SQLite says in the block as people can act on it.

    Raises:
        StorageError: there is no room.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"the folder for temporary files cannot be used ({error}); make room there, "
            "or name another with $TMPDIR"
        ) from None
