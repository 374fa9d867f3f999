"""Requests that wait on disk: what is read ahead of an account that is slower than the others."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from batch_snapshot import sqlite
from batch_snapshot.models import Request, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

_TABLE = "CREATE TABLE waiting (number INTEGER PRIMARY KEY, requests BLOB)"


class Overflow:
    """Lists of requests, put aside and taken back by their numbers; a file is made for the first of them."""

    def __init__(self) -> None:
        """Make nothing yet."""
        self._stack = ExitStack()
        self._tables: sqlite.Connection | None = None

    def close(self) -> None:
        """Forget everything."""
        self._stack.close()
        self._tables = None

    def put(self, requests: Sequence[Request]) -> int:
        """Put requests aside; the number brings them back.

        Raises:
            StorageError: there is no room for them.
        """
        if self._tables is None:
            self._tables = self._stack.enter_context(sqlite.temporary_tables(_TABLE))
        packed = orjson.dumps([_packed(request) for request in requests])
        with sqlite.temporary_errors():
            number = self._tables.execute("INSERT INTO waiting (requests) VALUES (?)", (packed,)).lastrowid
        return int(number or 0)

    def take(self, number: int) -> list[Request]:
        """Take back what was put aside under a number, as it was.

        Raises:
            StorageError: it cannot be read.
        """
        if self._tables is None:
            raise KeyError(number)
        with sqlite.temporary_errors():
            statement = "DELETE FROM waiting WHERE number = ? RETURNING requests"
            ((packed,),) = self._tables.execute(statement, (number,)).fetchall()
        return [_unpacked(fields) for fields in orjson.loads(packed)]


def _packed(request: Request) -> tuple[Any, ...]:
    since = request.first_sent_at
    return (
        *request.row,
        request.client_token,
        request.generation,
        request.ambiguous,
        since.isoformat() if since else None,
        request.clock_skew,
    )


def _unpacked(fields: Sequence[Any]) -> Request:
    *row, token, generation, ambiguous, since, skew = fields
    first_sent_at = datetime.fromisoformat(since) if since else None
    return Request(Row(*row), token, generation, ambiguous, first_sent_at, skew)
