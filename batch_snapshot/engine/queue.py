"""Requests between one reader of the manifest and many workers, by account.

The reader goes on while some account with rows to come has nothing to do. What other accounts cannot
take yet waits: the first of it in memory, the rest on disk. So memory is bounded, and an account listed
behind a million rows of another waits for the manifest to be read, not for those rows.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import anyio
import msgspec

from batch_snapshot import sqlite
from batch_snapshot.engine.signal import Signal
from batch_snapshot.models import Request

#: Requests in memory at most, shared out among the accounts: about 25 MB.
READ_AHEAD = 50_000

_REQUEST = msgspec.json.Decoder(Request)

_TABLE = """
CREATE TABLE requests (account TEXT, number INTEGER, packed BLOB, PRIMARY KEY (account, number)) WITHOUT ROWID
"""


@dataclass(slots=True)
class _Backlog:
    """Requests of one account: `near` in memory, then `stored` ones on disk."""

    name: str
    near: deque[Request] = field(default_factory=deque)
    stored: int = 0
    #: Requests read so far.
    read: int = 0
    changed: Signal = field(default_factory=Signal)

    def __bool__(self) -> bool:
        return bool(self.near or self.stored)


class RequestQueue:
    def __init__(
        self, accounts: Iterable[str], halted: Callable[[str], bool], *, read_ahead: int = READ_AHEAD
    ) -> None:
        """Begin empty.

        `halted` says whether an account takes no more (see `wake`); `read_ahead` is how many requests are in
        memory at most, besides one batch for each account.
        """
        self._backlogs = {name: _Backlog(name) for name in accounts}
        self._halted = halted
        self._expected: Mapping[str, int] | None = None
        self._near = max(1, read_ahead // max(1, len(self._backlogs)))
        self._complete = False
        self._changed = Signal()
        self._files = ExitStack()
        self._disk: sqlite.Connection | None = None

    def close(self) -> None:
        """Drop what waits on disk."""
        self._files.close()

    def wake(self) -> None:
        """Some account halted: tasks that wait look again."""
        for backlog in self._backlogs.values():
            backlog.changed.send()
        self._changed.send()

    def busy(self) -> int:
        """How many accounts have requests, or will have."""
        return sum(bool(backlog) or self._more_to_come(backlog) for backlog in self._active())

    async def read(
        self, batches: Iterable[Sequence[Request]], expected: Mapping[str, int] | None = None
    ) -> None:
        """Fill the backlogs until nothing is left to read, or no account takes more.

        `expected` says how many requests there will be of each account, so that nothing is read ahead for one
        that has none to come; a wrong number delays requests, and loses none. A full disk raises
        `StorageError`.
        """
        self._expected = expected
        for batch in batches:
            for request in batch:
                self._put(request)
            await anyio.lowlevel.checkpoint()
            while not self._reads_on():
                await self._changed.wait()
            if not self._active():
                break
        self._complete = True
        self.wake()

    async def take(self, name: str, size: int) -> list[Request]:
        backlog = self._backlogs[name]
        while not (backlog or self._complete or self._halted(name)):
            await backlog.changed.wait()
        if self._halted(name):
            backlog.near.clear()
            backlog.stored = 0
        if len(backlog.near) < size and backlog.stored:
            self._load(backlog, size)
        taken = [backlog.near.popleft() for _ in range(min(size, len(backlog.near)))]
        if not backlog:
            self._changed.send()
        return taken

    def _put(self, request: Request) -> None:
        name = request.row.account
        if self._halted(name):
            return
        backlog = self._backlogs[name]
        awaited = not backlog
        backlog.read += 1
        if len(backlog.near) < self._near and not backlog.stored:
            backlog.near.append(request)
        else:
            self._store(backlog, request)
        if awaited:
            backlog.changed.send()

    def _active(self) -> list[_Backlog]:
        return [backlog for name, backlog in self._backlogs.items() if not self._halted(name)]

    def _more_to_come(self, backlog: _Backlog) -> bool:
        if self._complete:
            return False
        return self._expected is None or backlog.read < self._expected.get(backlog.name, 0)

    def _reads_on(self) -> bool:
        """Whether some account has nothing to do, none has anything, or all has been read."""
        active = self._active()
        expecting = [backlog for backlog in active if self._more_to_come(backlog)]
        return not (any(active) and expecting and all(expecting))

    def _store(self, backlog: _Backlog, request: Request) -> None:
        if self._disk is None:
            self._disk = self._files.enter_context(sqlite.temporary_tables(_TABLE))
        row = (backlog.name, backlog.read, msgspec.json.encode(request))
        with sqlite.temporary_errors():
            self._disk.execute("INSERT INTO requests VALUES (?, ?, ?)", row)
        backlog.stored += 1

    def _load(self, backlog: _Backlog, most: int) -> None:
        assert self._disk is not None  # noqa: S101 - there are stored requests
        query = "SELECT number, packed FROM requests WHERE account = ? ORDER BY number LIMIT ?"
        with sqlite.temporary_errors():
            found = self._disk.execute(query, (backlog.name, most)).fetchall()
            last = (backlog.name, found[-1][0])
            self._disk.execute("DELETE FROM requests WHERE account = ? AND number <= ?", last)
        backlog.near.extend(_REQUEST.decode(packed) for _, packed in found)
        backlog.stored -= len(found)
