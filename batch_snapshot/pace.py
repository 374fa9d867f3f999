"""How fast one account may call: a pure state machine and a thin async shell around it.

The limit is unknown and shared with other programs. The state starts modestly, grows with every
success until the first throttle, then creeps up and steps down once a round trip at most
(additive increase, multiplicative decrease, as in TCP). With a declared rate it starts there and
only ever adapts downwards. All times are seconds of a monotonic clock, all rates calls a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

#: Where the search for an unknown limit starts.
FIRST_RATE = 10.0
#: The lowest rate: five tries a minute keep probing without being noise.
FLOOR_RATE = 1 / 12
#: No service is known to allow more; it only bounds the arithmetic.
TOP_RATE = 100_000.0
#: Growth a success before the first throttle, as a share of the rate.
SEARCH_GROWTH = 0.1
#: Growth a second after it, as a share of the rate; never less than this many calls a second.
CREEP_GROWTH = 0.02
#: What a throttle leaves of the rate.
CUT = 0.75
#: A hint beyond this is taken for nonsense and bounded, in seconds.
LONGEST_HINT = 300.0


@dataclass(frozen=True, slots=True)
class Pace:
    """The rate and what it was learned from."""

    rate: float = FIRST_RATE
    #: The declared rate, which is never exceeded.
    ceiling: float = TOP_RATE
    #: No call leaves before this time.
    next_slot: float = 0.0
    #: No throttle yet: the limit is still being looked for.
    searching: bool = True
    #: When the rate was last cut; throttles of calls sent before say nothing new.
    cut_at: float = float("-inf")
    #: When the rate last grew.
    grown_at: float = 0.0
    #: Since when every answer has been a throttle at the lowest rate.
    starved_since: float | None = None

    def permitted(self, now: float) -> Pace:
        """After one call took its slot."""
        return replace(self, next_slot=max(now, self.next_slot) + 1 / self.rate)

    def answered(self, now: float) -> Pace:
        """After a call was answered without a throttle: room to grow."""
        if self.searching:
            rate = self.rate * (1 + SEARCH_GROWTH)
        else:
            rate = self.rate * (1 + CREEP_GROWTH * min(1.0, max(0.0, now - self.grown_at)))
        rate = min(rate, self.ceiling, TOP_RATE)
        return replace(self, rate=rate, grown_at=now, starved_since=None)

    def throttled(self, sent_at: float, now: float, hint: float | None) -> Pace:
        """After a call sent at `sent_at` was throttled, perhaps with a hint when to come back."""
        rest = min(hint or 0.0, LONGEST_HINT)
        if sent_at < self.cut_at:
            return replace(self, next_slot=max(self.next_slot, now + rest))
        floor = min(FLOOR_RATE, self.ceiling)
        rate = max(floor, self.rate * CUT)
        starved = self.starved_since
        if starved is None and rate <= floor:
            starved = now
        return replace(
            self,
            rate=rate,
            searching=False,
            cut_at=now,
            grown_at=now,
            next_slot=max(self.next_slot, now + max(rest, 1 / rate)),
            starved_since=starved,
        )

    def starved(self, now: float, patience: float) -> bool:
        """Whether nothing but throttles came at the lowest rate for `patience` seconds."""
        return self.starved_since is not None and now - self.starved_since >= patience


def declared(rate: float) -> Pace:
    """The pace under a declared rate: start there, adapt downwards only."""
    return Pace(rate=rate, ceiling=rate, searching=False)


class Pacer:
    """Hands out slots one at a time, in the order of asking.

    Waiters queue behind a lock and only the first sleeps, so a rate that changes meanwhile holds
    for everybody behind it: no stampede, no slot handed out at a rate that is history.
    """

    def __init__(self, pace: Pace, clock: Callable[[], float] = anyio.current_time) -> None:
        """Start from `pace`; `clock` is monotonic, in seconds."""
        self.pace = pace
        self._clock = clock
        self._turn = anyio.Lock(fast_acquire=True)

    async def acquire(self) -> float:
        """Wait for the next slot and take it; returns the time it was taken."""
        async with self._turn:
            while (delay := self.pace.next_slot - self._clock()) > 0:
                await anyio.sleep(delay)
            now = self._clock()
            self.pace = self.pace.permitted(now)
            return now

    def answered(self) -> None:
        """A call was answered, whatever it said, and not throttled."""
        self.pace = self.pace.answered(self._clock())

    def throttled(self, sent_at: float, hint: float | None) -> None:
        """A call that took its slot at `sent_at` was throttled."""
        self.pace = self.pace.throttled(sent_at, self._clock(), hint)

    def starved(self, patience: float) -> bool:
        """Whether nothing but throttles came at the lowest rate for `patience` seconds."""
        return self.pace.starved(self._clock(), patience)
