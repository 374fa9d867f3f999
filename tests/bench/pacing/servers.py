"""Services that throttle in different ways. Time is an argument."""

from collections import deque
from typing import Protocol

#: Seconds by which a call comes after the moment at which there is room, so that rounding does not matter.
TINY = 1e-9


class Server(Protocol):
    """The times of the calls of one server never decrease."""

    def admits(self, at: float) -> bool:
        """Whether a call that arrives then is admitted; it counts if it is."""


class Predictable(Protocol):
    """A server of which one can see what it will admit."""

    def opens(self, at: float) -> float:
        """From `at` on, the first time at which a call is admitted if none comes before."""

    def take(self, at: float) -> None:
        """Count a call whether or not there is room for it."""


class Bucket:
    """A token bucket whose rate may change: `changes` are (time, rate)."""

    def __init__(self, rate: float, burst: int, changes: tuple[tuple[float, float], ...] = ()) -> None:
        self.rate, self.burst, self.changes = rate, burst, deque(changes)
        self.level, self.at = float(burst), 0.0

    def admits(self, at: float) -> bool:
        self._fill(at)
        if self.level < 1 - TINY:
            return False
        self.level -= 1
        return True

    def opens(self, at: float) -> float:
        self._fill(at)
        lacks, rate = max(0.0, 1 - self.level), self.rate
        for then, new in self.changes:
            if lacks <= (then - at) * rate:
                break
            lacks, at, rate = lacks - (then - at) * rate, then, new
        return at + lacks / rate

    def take(self, at: float) -> None:
        self._fill(at)
        self.level -= 1

    def _fill(self, at: float) -> None:
        while self.changes and self.changes[0][0] <= at:
            then, rate = self.changes.popleft()
            self._fill_by(then)
            self.rate = rate
        self._fill_by(at)

    def _fill_by(self, at: float) -> None:
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
        if self.opens(at) > at:
            return False
        self.log.append(at)
        return True

    def opens(self, at: float) -> float:
        while self.log and self.log[0] + self.seconds <= at:
            self.log.popleft()
        return at if len(self.log) < self.limit else self.log[-self.limit] + self.seconds

    def take(self, at: float) -> None:
        self.log.append(at)

    def ideal(self, calls: int) -> float:
        return (calls - self.limit) * self.seconds / self.limit


class Fixed:
    """At most `limit` calls in each span of `seconds` by the server's clock."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self.span, self.used = -1, 0

    def admits(self, at: float) -> bool:
        self.take(at)
        return self.used <= self.limit

    def opens(self, at: float) -> float:
        span = self._span(at)
        return at if span != self.span or self.used < self.limit else (span + 1 - 0.37) * self.seconds + TINY

    def take(self, at: float) -> None:
        if (span := self._span(at)) != self.span:
            self.span, self.used = span, 0
        self.used += 1

    def _span(self, at: float) -> int:
        return int((at + 0.37 * self.seconds) / self.seconds)

    def ideal(self, calls: int) -> float:
        return (calls - self.limit) * self.seconds / self.limit


class Weighted:
    """A leaky window: the calls of this span and, in part, of the span before, as far as it is near."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self.span, self.used, self.before = 0, 0, 0

    def admits(self, at: float) -> bool:
        before, used = self._counts(at)
        if used + before * (1 - at / self.seconds % 1) > self.limit - 1 + 1e-6:
            return False
        self.take(at)
        return True

    def opens(self, at: float) -> float:
        while True:
            before, used = self._counts(at)
            span, part = divmod(at / self.seconds, 1)
            room = self.limit - 1 - used
            if before * (1 - part) <= room + 1e-6:
                return at
            part = 1 - room / before if room >= 0 and before else 1.0
            at = (span + part) * self.seconds + TINY

    def take(self, at: float) -> None:
        self.before, self.used = self._counts(at)
        self.span, self.used = int(at / self.seconds), self.used + 1

    def _counts(self, at: float) -> tuple[int, int]:
        """Calls of the span before, and of this one."""
        later = int(at / self.seconds) - self.span
        return (self.before, self.used) if not later else (self.used, 0) if later == 1 else (0, 0)

    def ideal(self, calls: int) -> float:
        return (calls - self.limit) * self.seconds / self.limit
