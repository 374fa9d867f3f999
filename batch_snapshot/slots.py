"""Calls in flight at most, shared out evenly among the accounts that have calls to make."""

from __future__ import annotations

import anyio


class Slots:
    """Room for so many calls in flight, and how many of them are one account's."""

    def __init__(self, limit: int) -> None:
        """Let `limit` calls be in flight."""
        self._limit = limit
        self._room = anyio.Semaphore(limit, fast_acquire=True)
        #: Accounts among which they are shared out.
        self.accounts = 0

    @property
    def share(self) -> int:
        """Calls in flight of one account at most, so that one whose calls hang takes no other's."""
        return max(1, self._limit // max(1, self.accounts))

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
