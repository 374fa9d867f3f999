"""What the last line of each row says, in tables of a temporary database: ledgers may exceed memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from batch_snapshot import paths, sqlite
from batch_snapshot.ledger import locks, reader
from batch_snapshot.ledger.history import CRASHED
from batch_snapshot.ledger.records import End, Header, Intent, Result, Skipped, named_rows
from batch_snapshot.models import Row, Status

#: The columns that identify a row, in the order of its fields.
KEY = ", ".join(Row._fields)


@contextmanager
def row_tables(**ledgers: Path) -> Iterator[sqlite.Connection]:
    """A database with a table for each ledger, of the columns `KEY`, status, arn, revision and code.

    A row that was left out has the reason as its status. The code is that of its error. Rows that a crash
    left without a result are in doubt.
    """
    columns = f"{KEY}, status, arn, revision, code, PRIMARY KEY ({KEY})"
    create = ";".join(f"CREATE TABLE {name} ({columns}) WITHOUT ROWID" for name in ledgers)
    with sqlite.temporary_tables(create) as db:
        for name, path in ledgers.items():
            reader.run_line(path)
            insert = f"INSERT OR REPLACE INTO {name} VALUES ({', '.join('?' * 10)})"  # noqa: S608 - a name of ours
            sent: set[Row] = set()
            running = locks.is_held(paths.ledger_lock(path))
            for one in chain((line.record for line in reader.lines(path)), [None]):
                if isinstance(one, Header) or (one is None and not running):
                    crashed = (Status.IN_DOUBT, None, None, CRASHED)
                    db.executemany(insert, [(*row, *crashed) for row in sent])
                if isinstance(one, Header | End):
                    sent.clear()
                elif isinstance(one, Intent):
                    sent.update(named_rows(one))
                elif isinstance(one, Result):
                    sent.discard(one.row)
                    code = one.error.code if one.error else None
                    db.execute(insert, (*one.row, one.status, one.arn, one.revision, code))
                elif isinstance(one, Skipped):
                    db.executemany(insert, [(*row, one.reason, None, None, None) for row in one.rows])
        yield db
