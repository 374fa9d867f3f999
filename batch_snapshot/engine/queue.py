"""Requests between one reader of the manifest and many workers, by account.

The reader goes on while some account with rows to come has nothing to do. What other accounts cannot
take yet waits: the first of it in memory, the rest on disk. So memory is bounded, and an account listed
behind a million rows of another waits for the manifest to be read, not for those rows.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import orjson

from batch_snapshot import sqlite
from batch_snapshot.models import Request, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

#: Requests in memory at most, shared out among the accounts: about 25 MB.
READ_AHEAD = 50_000

#: Requests that go to disk at once.
CHUNK = 32

_TABLE = "CREATE TABLE chunks (number INTEGER PRIMARY KEY, requests BLOB)"


class RequestSource(Protocol):
    """Hands out requests by account."""

    async def read(
        self, batches: Iterable[Sequence[Request]], expected: Mapping[str, int] | None = None
    ) -> None:
        """Read `batches` until there are no more, or no account takes any; so many are `expected` of each."""

    async def take(self, name: str, size: int) -> list[Request]:
        """Take the next requests of an account, up to `size`; empty: there will be no more."""

    def busy(self) -> int:
        """How many accounts have requests, or will have."""

    def wake(self) -> None:
        """Some account halted: tasks that wait look again."""

    def close(self) -> None:
        """Drop what waits."""


@dataclass(slots=True)
class _Backlog:
    """Requests of one account, in this order: `near`, `stored`, `tail`."""

    near: deque[Request] = field(default_factory=deque)
    #: Numbers of chunks on disk.
    stored: deque[int] = field(default_factory=deque)
    #: The next chunk.
    tail: list[Request] = field(default_factory=list)
    #: Requests read so far.
    read: int = 0
    changed: anyio.Event = field(default_factory=anyio.Event)

    def __bool__(self) -> bool:
        return bool(self.near or self.stored or self.tail)

    def clear(self) -> None:
        self.near.clear()
        self.stored.clear()
        self.tail.clear()

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class RequestQueue:
    """A fair and bounded queue."""

    def __init__(
        self,
        accounts: Iterable[str],
        halted: Callable[[str], bool],
        *,
        read_ahead: int = READ_AHEAD,
        chunk: int = CHUNK,
    ) -> None:
        """Begin empty.

        Args:
            accounts: names.
            halted: whether an account takes no more (see `wake`).
            read_ahead: requests in memory at most, besides a `chunk` and one batch for each account.
            chunk: requests that go to disk at once.
        """
        self._chunk = chunk
        self._backlogs = {name: _Backlog() for name in accounts}
        self._halted = halted
        self._expected: Mapping[str, int] | None = None
        self._near = max(chunk, read_ahead // max(1, len(self._backlogs)))
        #: Accounts with nothing to do and requests to come, as far as is known.
        self._idle = set(self._backlogs)
        self._complete = False
        self._changed = anyio.Event()
        self._files = ExitStack()
        self._chunks: sqlite.Connection | None = None

    def close(self) -> None:
        """Drop what waits on disk."""
        self._files.close()

    def wake(self) -> None:
        """Some account halted: tasks that wait look again."""
        self._idle = {name for name in self._idle if not self._halted(name)}
        for backlog in self._backlogs.values():
            backlog.wake()
        self._wake_reader()

    @property
    def in_memory(self) -> int:
        """Requests in memory now."""
        return sum(len(backlog.near) + len(backlog.tail) for backlog in self._backlogs.values())

    def busy(self) -> int:
        """How many accounts have requests, or will have."""
        return sum(
            (bool(backlog) or self._more_to_come(name)) and not self._halted(name)
            for name, backlog in self._backlogs.items()
        )

    async def read(
        self, batches: Iterable[Sequence[Request]], expected: Mapping[str, int] | None = None
    ) -> None:
        """Fill the backlogs until nothing is left to read, or no account takes more.

        Args:
            batches: the requests of all accounts.
            expected: how many there will be of each account, so that nothing is read ahead for one that
                has none to come. A wrong number delays requests, and loses none.

        Raises:
            StorageError: no space on disk.
        """
        self._expected = expected
        self._idle = {name for name in self._backlogs if self._more_to_come(name)}
        for batch in batches:
            for request in batch:
                self._put(request)
            await anyio.lowlevel.checkpoint()
            while not self._reads_on():
                await self._changed.wait()
            if all(map(self._halted, self._backlogs)):
                break
        self._complete = True
        self.wake()

    async def take(self, name: str, size: int) -> list[Request]:
        """Take the next requests of an account, up to `size`; empty: there will be no more.

        Raises:
            StorageError: what waits on disk cannot be read.
        """
        backlog = self._backlogs[name]
        while not backlog and not self._complete and not self._halted(name):
            await backlog.changed.wait()
        if self._halted(name):
            backlog.clear()
        while len(backlog.near) < size and backlog.stored:
            backlog.near.extend(self._load(backlog.stored.popleft()))
        if len(backlog.near) < size:
            backlog.near.extend(backlog.tail)
            backlog.tail.clear()
        taken = [backlog.near.popleft() for _ in range(min(size, len(backlog.near)))]
        if not backlog:
            if self._more_to_come(name):
                self._idle.add(name)
            self._wake_reader()
        return taken

    def _put(self, request: Request) -> None:
        name = request.row.account
        if self._halted(name):
            return
        backlog = self._backlogs[name]
        awaited = not backlog
        backlog.read += 1
        if len(backlog.near) < self._near and not (backlog.stored or backlog.tail):
            backlog.near.append(request)
        else:
            backlog.tail.append(request)
            if len(backlog.tail) >= self._chunk:
                backlog.stored.append(self._store(backlog.tail))
                backlog.tail.clear()
        if awaited:
            self._idle.discard(name)
            backlog.wake()

    def _more_to_come(self, name: str) -> bool:
        if self._complete:
            return False
        return self._expected is None or self._backlogs[name].read < self._expected.get(name, 0)

    def _reads_on(self) -> bool:
        """Whether some account has nothing to do, none has anything, or all has been read."""
        return (
            bool(self._idle)
            or not any(backlog and not self._halted(name) for name, backlog in self._backlogs.items())
            or not any(map(self._more_to_come, self._backlogs))
        )

    def _wake_reader(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _store(self, requests: Sequence[Request]) -> int:
        if self._chunks is None:
            self._chunks = self._files.enter_context(sqlite.temporary_tables(_TABLE))
        packed = orjson.dumps([_packed(request) for request in requests])
        with sqlite.temporary_errors():
            number = self._chunks.execute("INSERT INTO chunks (requests) VALUES (?)", (packed,)).lastrowid
        return number or 0

    def _load(self, number: int) -> list[Request]:
        assert self._chunks is not None  # noqa: S101 - `number` is of a stored chunk
        with sqlite.temporary_errors():
            statement = "DELETE FROM chunks WHERE number = ? RETURNING requests"
            ((packed,),) = self._chunks.execute(statement, (number,)).fetchall()
        return [_unpacked(fields) for fields in orjson.loads(packed)]


def _packed(request: Request) -> tuple[Any, ...]:
    since = request.first_sent_at
    return (
        *request.row,
        request.client_token,
        request.generation,
        request.ambiguous,
        since,
        request.clock_skew,
    )


def _unpacked(fields: Sequence[Any]) -> Request:
    *row, token, generation, ambiguous, since, skew = fields
    first_sent_at = datetime.fromisoformat(since) if since else None
    return Request(Row(*row), token, generation, ambiguous, first_sent_at, skew)
