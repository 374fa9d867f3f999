"""Algorithms that find an unknown rate, to compare the pace with."""

from math import inf
from typing import Protocol

from batch_snapshot.ratelimit import pace


class Controller(Protocol):
    def opens(self, now: float) -> float:
        """When the next call may leave; inf: not before an answer."""

    def sent(self, now: float) -> None:
        """A call leaves."""

    def answered(self, sent_at: float, now: float) -> None:
        """A call was admitted."""

    def throttled(self, sent_at: float, now: float) -> None:
        """A call was throttled."""


class Ours:
    """`batch_snapshot.ratelimit.pace`."""

    def __init__(self, start: pace.Pace | None = None) -> None:
        self.pace = start or pace.Pace()

    def opens(self, now: float) -> float:
        return self.pace.opens(now)

    def sent(self, now: float) -> None:
        self.pace = self.pace.permitted(now)

    def answered(self, sent_at: float, now: float) -> None:
        self.pace = self.pace.answered(sent_at)

    def throttled(self, sent_at: float, now: float) -> None:
        self.pace = self.pace.throttled(sent_at, now, None)


class Paced:
    """Calls at a rate, one after the other."""

    rate = 10.0

    def __init__(self) -> None:
        self.next_call_at = 0.0

    def opens(self, now: float) -> float:
        return max(now, self.next_call_at)

    def sent(self, now: float) -> None:
        self.next_call_at = max(now, self.next_call_at) + 1 / self.rate


class Steady(Paced):
    """Another program, which calls at its own rate whatever is answered."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def answered(self, sent_at: float, now: float) -> None:
        pass

    def throttled(self, sent_at: float, now: float) -> None:
        pass


class Aimd(Paced):
    """Additive increase, multiplicative decrease, after a search that grows with each success."""

    def __init__(self) -> None:
        super().__init__()
        self.searching, self.cut_at, self.grown_at = True, -inf, 0.0

    def answered(self, sent_at: float, now: float) -> None:
        growth = 0.1 if self.searching else 0.02 * min(1.0, now - self.grown_at)
        self.rate *= 1 + growth
        self.grown_at = now

    def throttled(self, sent_at: float, now: float) -> None:
        if sent_at >= self.cut_at:
            self.rate = max(1 / 12, self.rate * 0.75)
            self.searching, self.cut_at, self.grown_at = False, now, now
            self.next_call_at = max(self.next_call_at, now + 1 / self.rate)


class Cubic(Paced):
    """CUBIC over the rate: back to where the throttle came and on from there by time alone."""

    rate = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.peak, self.cut_at = 10.0, 0.0

    def _unit(self) -> float:
        return float((self.peak * 0.3 / 0.4) ** (1 / 3))

    def answered(self, sent_at: float, now: float) -> None:
        self.rate = max(0.5, 0.4 * (now - self.cut_at - self._unit()) ** 3 + self.peak)

    def throttled(self, sent_at: float, now: float) -> None:
        if sent_at >= self.cut_at:
            self.peak, self.cut_at = self.rate, now
            self.rate = max(0.5, self.rate * 0.7)
            self.next_call_at = max(self.next_call_at, now + 1 / self.rate)


class Delivered(Paced):
    """The rate at which calls were admitted lately, probed in turns, as BBR does."""

    GAINS = (1.25, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.best, self.rounds = 10.0, [0.0] * 10
        self.calls, self.since, self.turn, self.searching = 0, 0.0, 0, True

    def _round(self, now: float) -> None:
        if now - self.since < max(0.5, 8 / self.best):
            return
        self.rounds = [*self.rounds[1:], self.calls / (now - self.since)]
        best = max(self.rounds)
        if self.searching and best < 1.25 * self.best:
            self.searching = self.calls == 0 or best > self.best
        self.best = max(best, 1 / 12)
        self.calls, self.since, self.turn = 0, now, self.turn + 1
        self.rate = self.best * (2 if self.searching else self.GAINS[self.turn % len(self.GAINS)])

    def answered(self, sent_at: float, now: float) -> None:
        self.calls += 1
        self._round(now)

    def throttled(self, sent_at: float, now: float) -> None:
        if self.searching:
            self.searching, self.rounds = False, [0.0] * 10
        self._round(now)


CONTROLLERS = {"ours": Ours, "aimd": Aimd, "cubic": Cubic, "delivered": Delivered}
