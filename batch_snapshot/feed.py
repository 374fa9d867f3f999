"""Sorts requests by account, so that an account that waits never holds up another.

One reader, in the order of the manifest; it reads on while some account has nothing to do, and no
further ahead than `READ_AHEAD`: memory stays bounded whatever one account's quota says.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from batch_snapshot.model import Request

#: Requests that wait in memory at most, over all accounts: some 25 MB.
READ_AHEAD = 50_000


class Feed:
    """Backlogs by account between one reader and many takers."""

    def __init__(self, accounts: Iterable[str], halted: Callable[[str], bool]) -> None:
        """Serve `accounts`; `halted` says whether one takes no more (see `poke`)."""
        self._backlogs: dict[str, deque[Request]] = {name: deque() for name in accounts}
        self._halted = halted
        self._complete = False
        self._changed = anyio.Event()

    def poke(self) -> None:
        """Something changed: an account halted, a backlog grew or shrank."""
        self._changed.set()
        self._changed = anyio.Event()

    async def read(self, batches: Iterable[Sequence[Request]]) -> None:
        """Fill the backlogs until nothing is left to read, or nobody takes more."""
        for batch in batches:
            for request in batch:
                name = request.row.account
                if not self._halted(name):
                    self._backlogs[name].append(request)
            self.poke()
            await anyio.lowlevel.checkpoint()
            while not self._hungry():
                await self._changed.wait()
            if not self._live():
                break
        self._complete = True
        self.poke()

    async def take(self, name: str, size: int) -> list[Request]:
        """Take the next requests of an account, up to `size`; none: there will be no more."""
        backlog = self._backlogs[name]
        while not backlog and not self._complete and not self._halted(name):
            await self._changed.wait()
        if self._halted(name):
            backlog.clear()
        taken = [backlog.popleft() for _ in range(min(size, len(backlog)))]
        if taken:
            self.poke()
        return taken

    def _live(self) -> list[deque[Request]]:
        return [backlog for name, backlog in self._backlogs.items() if not self._halted(name)]

    def _hungry(self) -> bool:
        live = self._live()
        return not live or (not all(live) and sum(map(len, live)) < READ_AHEAD)
