"""Services that throttle in different ways. Time is an argument."""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Server(Protocol):
    def admits(self, at: float) -> bool:
        """Whether a call that arrives then is admitted; it counts if it is."""


class Bucket:
    """A token bucket whose rate may change: `changes` are (time, rate)."""

    def __init__(self, rate: float, burst: int, changes: tuple[tuple[float, float], ...] = ()) -> None:
        self.rate, self.burst, self.changes = rate, burst, deque(changes)
        self.level, self.at = float(burst), 0.0

    def admits(self, at: float) -> bool:
        while self.changes and self.changes[0][0] <= at:
            then, rate = self.changes.popleft()
            self._fill(then)
            self.rate = rate
        self._fill(at)
        if self.level < 1 - 1e-9:
            return False
        self.level -= 1
        return True

    def _fill(self, at: float) -> None:
        self.level = min(self.burst, self.level + (at - self.at) * self.rate)
        self.at = at

    def ideal(self, calls: int) -> float:
        """Seconds until the last of this many calls can be admitted."""
        left, at, rate = float(calls - self.burst), 0.0, self.rate
        for then, new in self.changes:
            if left <= (then - at) * rate:
                break
            left, at, rate = left - (then - at) * rate, then, new
        return at + max(0.0, left) / rate


class Sliding:
    """At most `limit` calls in any span of `seconds`."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self.log: deque[float] = deque()

    def admits(self, at: float) -> bool:
        while self.log and self.log[0] + self.seconds <= at:
            self.log.popleft()
        if len(self.log) >= self.limit:
            return False
        self.log.append(at)
        return True

    def ideal(self, calls: int) -> float:
        return (calls - self.limit) * self.seconds / self.limit


class Fixed:
    """At most `limit` calls in each span of `seconds` by the server's clock."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self.span, self.used = -1, 0

    def admits(self, at: float) -> bool:
        span = int((at + 0.37 * self.seconds) / self.seconds)
        if span != self.span:
            self.span, self.used = span, 0
        self.used += 1
        return self.used <= self.limit

    def ideal(self, calls: int) -> float:
        return (calls - self.limit) * self.seconds / self.limit


class Weighted:
    """A leaky window: the calls of this span and, in part, of the span before, as far as it is near."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self.span, self.used, self.before = 0, 0, 0

    def admits(self, at: float) -> bool:
        span, part = divmod(at / self.seconds, 1)
        if span != self.span:
            self.before = self.used if span == self.span + 1 else 0
            self.span, self.used = int(span), 0
        if self.used + self.before * (1 - part) > self.limit - 1 + 1e-9:
            return False
        self.used += 1
        return True

    def ideal(self, calls: int) -> float:
        return (calls - self.limit) * self.seconds / self.limit
