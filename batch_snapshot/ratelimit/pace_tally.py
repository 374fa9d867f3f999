"""What a service admitted and throttled since a throttle: the measure that `pace` decides by. Pure."""

from typing import NamedTuple, Self


class PaceTally(NamedTuple):
    """The outcomes of calls sent since a throttle."""

    #: When the throttled call was sent.
    start: float = 0.0
    admitted: int = 0
    throttled: int = 0
    #: Throttles beyond what strays explain; the first is the one that the tally began with.
    excess: float = 1.0
    #: (Calls admitted, time) at the latest power of two, and at the one before.
    mark: tuple[int, float] = (0, 0.0)
    earlier: tuple[int, float] = (0, 0.0)

    def with_admitted(self, sent_at: float, explained: float) -> Self:
        """After a call sent at `sent_at` was admitted; strays explain the share `explained` of throttles."""
        excess = max(0.0, self.excess - explained)
        if sent_at <= self.start:
            return self._replace(excess=excess)
        count = self.admitted + 1
        if count >= 2 and count >= 2 * self.mark[0]:
            return self._replace(admitted=count, excess=excess, earlier=self.mark, mark=(count, sent_at))
        return self._replace(admitted=count, excess=excess)

    def rate(self, at: float) -> float:
        """Calls per second that the service admitted, until it throttled a call sent at `at`.

        Measured over about the last half of the calls: tokens that were lost earlier don't count.
        """
        late = 3 * (self.admitted - self.mark[0]) >= self.admitted
        count, since = self.mark if late else self.earlier
        return (self.admitted - count + 0.5) / max(at - since, 1e-3)

    def later(self, idle: float) -> Self:
        """The tally moved by `idle` seconds in which nothing was sent."""
        (count, at), (before, then) = self.mark, self.earlier
        return self._replace(start=self.start + idle, mark=(count, at + idle), earlier=(before, then + idle))


def new_tally(start: float) -> PaceTally:
    """A tally that begins with a throttle of a call sent at `start`."""
    return PaceTally(start, mark=(0, start), earlier=(0, start))
