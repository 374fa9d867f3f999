"""Slots of quota windows that a worker holds: claimed by the coordinator, used at the worker.

A slot is claimed before its row is handed out, for only the coordinator keeps the log of calls. What a
worker has claimed and not used is kept from everybody else, and lost with it. So little is claimed
ahead: a small share of what the windows have left, and more of it as soon as the worker has used all.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import TYPE_CHECKING

from batch_snapshot.cluster.lease import CLAIM_HELD, PARCEL, Used
from batch_snapshot.errors import StorageError
from batch_snapshot.ratelimit.windows import QuotaWindow, WindowFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from batch_snapshot.ratelimit.pacer import Pacer

#: At most this part of what the windows have left is claimed at once: accounts may share them, and the
#: nearer they are to their limit, the less an account keeps from the others.
SHARE = 16
#: A slot is asked for again after so many seconds.
ASK_AGAIN = 0.05

#: Stands for the account's windows, which only the coordinator knows.
_GRANTED = QuotaWindow("granted", 0, 0.0)


class Purse:
    """What the coordinator knows of the slots of one kind that an account's worker has."""

    def __init__(self, pacer: Pacer) -> None:
        """None yet; `pacer` has the windows, if there are any."""
        self.pacer = pacer
        #: Those whose calls are not over.
        self.claims: set[int] = set()
        #: The worker has used all of them.
        self.short = False
        #: So many were claimed last, at most.
        self.portion = PARCEL

    @property
    def counted(self) -> bool:
        """Whether the account has windows."""
        return self.pacer.meter is not None

    def claim(self, number: int) -> list[int] | WindowFull:
        """Claim up to `number` slots, as many as there are now and one may have at once.

        Raises:
            StorageError: the log of calls cannot be read or written.
        """
        meter, claimed = self.pacer.meter, list[int]()
        if meter is None or number <= 0:
            return claimed
        try:
            self.portion = min(number, max(1, ceil(meter.free_calls() / SHARE)))
            while len(claimed) < self.portion:
                claim = meter.reserve()
                if isinstance(claim, WindowFull):
                    return claimed or claim
                claimed.append(claim)
        except StorageError:
            self.give_back(claimed)
            raise
        return claimed

    def hand_over(self, claims: Iterable[int]) -> None:
        """They are on their way to the worker."""
        self.claims.update(claims)
        self.short = False

    def told(self, used: Used, *, current: bool) -> None:
        """The worker has told what became of some; `current`: it has all that were handed over."""
        self.claims.difference_update(used.finished, used.unused)
        for claim in used.finished:
            self.pacer.release(claim, left=True)
        self.give_back(used.unused)
        self.short = used.short and current

    def give_back(self, claims: Iterable[int]) -> None:
        """Their calls never left."""
        for claim in claims:
            self.pacer.release(claim, left=False)

    def give_all_back(self) -> None:
        """Nothing is in flight at the worker, nor will be."""
        self.give_back(self.claims)
        self.forget()

    def forget(self) -> None:
        """Nobody can tell of their calls: they are taken for used as long as such a call may last."""
        self.claims.clear()
        self.short = False


class Granted:
    """The slots of one kind that a worker has for an account; takes the place of a meter there."""

    def __init__(self, news: Callable[[], None], clock: Callable[[], float]) -> None:
        """None yet; `news` is told of any change, `clock` is steady and in seconds."""
        self._news = news
        self._clock = clock
        self._free: deque[tuple[int, float]] = deque()
        self._finished: list[int] = []
        self._unused: list[int] = []
        self._short = False

    def add(self, claims: Iterable[int]) -> None:
        """Take more of them."""
        until = self._clock() + CLAIM_HELD
        self._free.extend((claim, until) for claim in claims)
        if self._free:
            self._short = False

    def free_calls(self) -> int:
        """How many are free."""
        return len(self._free)

    def reserve(self) -> int | WindowFull:
        """Use one; where there is none, another may come soon."""
        self._expire()
        found: int | WindowFull = self._free.popleft()[0] if self._free else WindowFull(_GRANTED, ASK_AGAIN)
        if not (self._free or self._short):
            self._short = True
            self._news()
        return found

    def finish(self, reservation: int) -> None:
        """The call is over."""
        self._finished.append(reservation)
        self._news()

    def cancel(self, reservation: int) -> None:
        """The call never left."""
        self._unused.append(reservation)
        self._news()

    def used(self) -> Used:
        """What became of them since it was last asked; those that nobody used in time are given back."""
        self._expire()
        used = Used(tuple(self._finished), tuple(self._unused), self._short)
        self._finished.clear()
        self._unused.clear()
        return used

    def _expire(self) -> None:
        """The log of calls would soon take them for calls that are over; and others may need them."""
        while self._free and self._clock() >= self._free[0][1]:
            self._unused.append(self._free.popleft()[0])
