"""Quotas: a token bucket and exact rolling windows. Time is an argument."""

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from itertools import pairwise

#: A rate that changes: (calls a second, from how many seconds after the first call on), the first from 0.
Steps = tuple[tuple[float, float], ...]

#: Float arithmetic may take this much from a whole token.
_DUST = 1e-9


class TokenBucket:
    """A token bucket: `rate` calls a second, `burst` at once after a rest."""

    def __init__(self, rate: float | Steps, burst: int) -> None:
        self._steps = steps(rate)
        self._burst = float(burst)
        self._level = float(burst)
        self._at: float | None = None
        #: Seconds since the first call.
        self._age = 0.0

    def wait(self, at: float) -> float:
        """Seconds until there is a token; a clock that is set back adds none."""
        if self._at is not None:
            self._fill(max(0.0, at - self._at))
        self._at = at
        return 0.0 if self._level >= 1 - _DUST else self._time_for(1 - self._level)

    def take(self, at: float) -> None:
        self._at = at
        self._level -= 1

    def _fill(self, seconds: float) -> None:
        now = self._age + seconds
        added = sum((min(end, now) - start) * rate for start, end, rate in self._ahead() if start < now)
        self._level = min(self._burst, self._level + added)
        self._age = now

    def _time_for(self, tokens: float) -> float:
        for start, end, rate in self._ahead():
            if tokens <= (end - start) * rate:
                return start - self._age + tokens / rate
            tokens -= (end - start) * rate
        raise AssertionError("the last rate holds for ever")

    def _ahead(self) -> Iterator[tuple[float, float, float]]:
        """The rates from now on: (from, until, rate)."""
        for (rate, start), (_, end) in pairwise((*self._steps, (0.0, math.inf))):
            if end > self._age:
                yield max(start, self._age), end, rate


class SlidingWindow:
    """At most `limit` calls in any half-open span of `seconds`: a log of calls, not a leaky bucket."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._log: deque[float] = deque()

    def wait(self, at: float) -> float:
        """Seconds until the oldest call that fills the window leaves it."""
        while self._log and self._log[0] + self._seconds <= at:
            self._log.popleft()
        if len(self._log) < self._limit:
            return 0.0
        return self._log[0] + self._seconds - at

    def take(self, at: float) -> None:
        self._log.append(at)


class Throttle:
    """One set of gates per access key id; a refused call spends nothing."""

    def __init__(
        self, rate: float | Steps | None, burst: int, windows: Sequence[tuple[int, float]] = ()
    ) -> None:
        def gates() -> list[TokenBucket | SlidingWindow]:
            bucket = [] if rate is None else [TokenBucket(rate, burst)]
            return [*bucket, *(SlidingWindow(limit, seconds) for limit, seconds in windows)]

        self._gates = defaultdict[str, list[TokenBucket | SlidingWindow]](gates)

    def admit(self, key: str, at: float) -> float:
        """Count the call and return 0, or return the seconds until it would pass."""
        gates = self._gates[key]
        wait = max((gate.wait(at) for gate in gates), default=0.0)
        if wait == 0.0:
            for gate in gates:
                gate.take(at)
        return wait


def steps(rate: float | Steps) -> Steps:
    return rate if isinstance(rate, tuple) else ((rate, 0.0),)
