"""Calls in flight at most, shared out evenly among the accounts that have calls to make."""

from __future__ import annotations

import anyio


class ConcurrencyLimit:
    """Room for so many calls in flight, whichever engines make them."""

    def __init__(self, limit: int) -> None:
        """Let `limit` calls be in flight."""
        self._limit = limit
        self._room = anyio.Semaphore(limit, fast_acquire=True)
        #: Accounts with calls to make, by engine, and all of them.
        self._busy: dict[object, int] = {}
        self._accounts = 0
        #: About so many are to come, those included.
        self.expected = 1

    def share(self, engine: object, busy: int) -> int:
        """Calls in flight of one account at most, now that so many of an engine are `busy`.

        So one whose calls hang takes no other's. It is rounded up: no slot is left over.
        """
        self._accounts += busy - self._busy.get(engine, 0)
        self._busy[engine] = busy
        return -(-self._limit // max(1, self._accounts, self.expected))

    def leave(self, engine: object) -> None:
        """An engine has no more calls to make."""
        self._accounts -= self._busy.pop(engine, 0)

    @property
    def taken(self) -> int:
        """How many calls are in flight."""
        return self._limit - self._room.value

    def take_nowait(self) -> bool:
        """Take a slot if one is free."""
        try:
            self._room.acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    async def take(self) -> None:
        """Wait for a slot and take it."""
        await self._room.acquire()

    def give_back(self) -> None:
        """The call is over."""
        self._room.release()
