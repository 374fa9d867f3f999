"""A signal between tasks that can be sent again and again, at no cost while nothing waits for it."""

import anyio


class Signal:
    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next: anyio.Event | None = None

    def send(self) -> None:
        """Wake everything that waits now."""
        if self._next is not None:
            self._next.set()
            self._next = None

    async def wait(self) -> None:
        """Wait for the next time that it is sent."""
        if self._next is None:
            self._next = anyio.Event()
        await self._next.wait()
