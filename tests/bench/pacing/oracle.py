"""What clients can reach that know more than a pace can know: bounds for its score.

* `soonest` knows everything but the future of chance: each row waits at the server's door, and is admitted at
  the first moment with room. No client is faster, however many throttles it accepts. It is the ideal.
* `Informed` knows the kind of the limit, its rate and its burst, but sees neither the other programs' calls
  nor the jitter of its own.
"""

import heapq
from collections.abc import Sequence
from random import Random

from tests.bench.pacing.servers import Predictable
from tests.bench.pacing.simulation import JITTER, WORKERS


def soonest(
    server: Predictable, rows: int, latency: float, stray: float, others: Sequence[float], seed: int
) -> float:
    """Seconds until the last of `rows` can be settled.

    The calls of `others` were admitted at these times in the run to compare with; they are here too.
    """
    rng, taken = Random(seed), 0

    def half() -> float:
        return latency / 2 * (1 + rng.uniform(-JITTER, JITTER))

    door = [half() for _ in range(WORKERS)]
    now = end = 0.0
    while rows:
        now = max(now, heapq.heappop(door))
        while taken < len(others) and (others[taken] <= now or others[taken] <= server.opens(now)):
            now = max(now, others[taken])
            server.take(now)
            taken += 1
        now = server.opens(now)
        server.take(now)
        settled = now + half()
        if rng.random() >= stray:
            rows, end = rows - 1, max(end, settled)
        heapq.heappush(door, settled + half())
    return end


class Informed:
    """A client with a copy of the server, by which it predicts which calls are admitted."""

    def __init__(self, copy: Predictable, latency: float) -> None:
        self.copy, self.travel = copy, latency / 2
        #: The next call may arrive early by this much, or the last one late.
        self.margin = JITTER * latency / 2
        self.last = 0.0

    def opens(self, now: float) -> float:
        arrives = max(self.last, now + self.travel)
        opens = self.copy.opens(arrives)
        return max(now, opens + self.margin - self.travel) if opens > arrives else now

    def sent(self, now: float) -> None:
        self.last = max(self.last, now + self.travel)
        self.copy.take(self.last)

    def answered(self, sent_at: float, now: float) -> None:
        pass

    def throttled(self, sent_at: float, now: float) -> None:
        """The copy has counted the call although the server did not: that makes up for a call of others."""
