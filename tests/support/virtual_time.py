"""Virtual time: a wait takes no time, and waits end in their order."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from trio.testing import MockClock

T = TypeVar("T")


def in_virtual_time(work: Callable[[], Awaitable[T]]) -> T:
    return trio.run(work, clock=MockClock(autojump_threshold=0))
