"""Virtual time: a wait takes no time, and waits end in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


def in_virtual_time(work: Callable[[], Awaitable[T]]) -> T:
    return trio.run(work, clock=MockClock(autojump_threshold=0))
