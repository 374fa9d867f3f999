"""Sorts requests by account, so that an account that waits never holds up another.

One reader, in the order of the manifest. It reads on while some account that has rows to come has
nothing to do; what it passes over meanwhile waits by account, the first of it in memory and the rest
on disk. So memory stays bounded, and whoever is listed behind a million rows of another waits for the
manifest to be read, not for those rows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from batch_snapshot.engine.overflow import Overflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from batch_snapshot.models import Request

#: Requests that wait in memory at most, shared out among the accounts: some 25 MB.
READ_AHEAD = 50_000

#: Requests that are put on disk at once, and taken back; as many an account wait to be put there.
CHUNK = 32


@dataclass(slots=True)
class _Backlog:
    """What waits of one account: `near` is taken from, then `stored`, then `tail`."""

    near: deque[Request] = field(default_factory=deque)
    #: The numbers of the lists that are on disk.
    stored: deque[int] = field(default_factory=deque)
    #: What will be the next of them.
    tail: list[Request] = field(default_factory=list)
    #: Requests that were read.
    read: int = 0
    changed: anyio.Event = field(default_factory=anyio.Event)

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self.near or self.stored or self.tail)

    def clear(self) -> None:
        self.near.clear()
        self.stored.clear()
        self.tail.clear()

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class RequestQueue:
    """Backlogs by account between one reader and many takers."""

    def __init__(
        self,
        accounts: Iterable[str],
        halted: Callable[[str], bool],
        *,
        read_ahead: int = READ_AHEAD,
        chunk: int = CHUNK,
    ) -> None:
        """Sort for `accounts`.

        Args:
            accounts: their names.
            halted: whether one takes no more (see `poke`).
            read_ahead: requests that wait in memory at most, besides a `chunk` and a list of an account.
            chunk: requests that go to disk at once.
        """
        self._chunk = chunk
        self._backlogs = {name: _Backlog() for name in accounts}
        self._halted = halted
        self._overflow = Overflow()
        self._expected: Mapping[str, int] | None = None
        self._near = max(chunk, read_ahead // max(1, len(self._backlogs)))
        #: Accounts with nothing to do that have requests to come, as far as is known.
        self._hungry = set(self._backlogs)
        self._complete = False
        self._changed = anyio.Event()

    def close(self) -> None:
        """Forget what waits on disk."""
        self._overflow.close()

    def poke(self) -> None:
        """Accounts halted: whoever waits is to look again."""
        self._hungry = {name for name in self._hungry if not self._halted(name)}
        for backlog in self._backlogs.values():
            backlog.wake()
        self._tell_reader()

    @property
    def held(self) -> int:
        """Requests that are in memory now."""
        return sum(len(backlog.near) + len(backlog.tail) for backlog in self._backlogs.values())

    def busy(self) -> int:
        """How many accounts have requests that wait, or to come."""
        return sum(
            (bool(backlog) or self._to_come(name)) and not self._halted(name)
            for name, backlog in self._backlogs.items()
        )

    async def read(
        self, batches: Iterable[Sequence[Request]], expected: Mapping[str, int] | None = None
    ) -> None:
        """Fill the backlogs until nothing is left to read, or nobody takes more.

        Args:
            batches: the requests of all accounts.
            expected: how many there will be of each account, so that nothing is read ahead for one that
                has none to come; what is wrong about it delays requests, and loses none.

        Raises:
            StorageError: there is no room for what must wait on disk.
        """
        self._expected = expected
        self._hungry = {name for name in self._backlogs if self._to_come(name)}
        for batch in batches:
            for request in batch:
                self._put(request)
            await anyio.lowlevel.checkpoint()
            while not self._wanted():
                await self._changed.wait()
            if all(map(self._halted, self._backlogs)):
                break
        self._complete = True
        self.poke()

    async def take(self, name: str, size: int) -> list[Request]:
        """Take the next requests of an account, up to `size`; none: there will be no more.

        Raises:
            StorageError: what waits on disk cannot be read.
        """
        backlog = self._backlogs[name]
        while not backlog and not self._complete and not self._halted(name):
            await backlog.changed.wait()
        if self._halted(name):
            backlog.clear()
        self._bring_near(backlog, size)
        taken = [backlog.near.popleft() for _ in range(min(size, len(backlog.near)))]
        if not backlog:
            if self._to_come(name):
                self._hungry.add(name)
            self._tell_reader()
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
                backlog.stored.append(self._overflow.put(backlog.tail))
                backlog.tail.clear()
        if awaited:
            self._hungry.discard(name)
            backlog.wake()

    def _bring_near(self, backlog: _Backlog, size: int) -> None:
        while len(backlog.near) < size and backlog.stored:
            backlog.near.extend(self._overflow.take(backlog.stored.popleft()))
        if len(backlog.near) < size:
            backlog.near.extend(backlog.tail)
            backlog.tail.clear()

    def _to_come(self, name: str) -> bool:
        if self._complete:
            return False
        return self._expected is None or self._backlogs[name].read < self._expected.get(name, 0)

    def _wanted(self) -> bool:
        """Whether to read on: somebody has nothing to do, nobody has anything, or all has been read."""
        return (
            bool(self._hungry)
            or not any(backlog and not self._halted(name) for name, backlog in self._backlogs.items())
            or not any(map(self._to_come, self._backlogs))
        )

    def _tell_reader(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
