"""What the last line of each row says, in tables of a temporary database: ledgers may exceed memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batch_snapshot import sqlite
from batch_snapshot.ledger import reader
from batch_snapshot.ledger.records import Result, Skipped
from batch_snapshot.models import Row

#: The columns that identify a row, in the order of its fields.
KEY = ", ".join(Row._fields)


@contextmanager
def row_tables(**ledgers: Path) -> Iterator[sqlite.Connection]:
    """A database with a table for each ledger, of the columns `KEY`, status, arn, revision and code.

    A row that was left out has the reason as its status. The code is that of its error.
    """
    columns = f"{KEY}, status, arn, revision, code, PRIMARY KEY ({KEY})"
    create = ";".join(f"CREATE TABLE {name} ({columns}) WITHOUT ROWID" for name in ledgers)
    with sqlite.temporary_tables(create) as db:
        for name, path in ledgers.items():
            reader.run_line(path)
            insert = f"INSERT OR REPLACE INTO {name} VALUES ({', '.join('?' * 10)})"  # noqa: S608 - a name of ours
            for line in reader.lines(path):
                one = line.record
                if isinstance(one, Result):
                    code = one.error.code if one.error else None
                    db.execute(insert, (*one.row, one.status, one.arn, one.revision, code))
                elif isinstance(one, Skipped):
                    db.executemany(insert, [(*row, one.reason, None, None, None) for row in one.rows])
        yield db
