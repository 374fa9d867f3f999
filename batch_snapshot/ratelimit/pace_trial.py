"""Whether throttles are due to the rate: what `pace` tries where a lower rate does not help. Pure.

Where a limit has no burst and other programs call too, who calls less is throttled no less. If each such
throttle were taken for the limit, they would bring the rate down to the lowest there is, and keep it there.
"""

from typing import NamedTuple, Self

#: Throttles with no quiet time between them from which a trial is due, and those of a trial that end it.
FEW = 6


class PaceTrial(NamedTuple):
    """The answers since a trial began or, without one, since the last quiet time."""

    #: The rate that held in quiet times; a lower one that held draws it down.
    best: float = 0.0
    #: The rate to return to if the best one, on trial, is throttled as often as not; 0: no trial.
    retreat: float = 0.0
    calls: int = 0
    throttles: int = 0

    def answered(self, *, throttled: bool) -> Self:
        return self._replace(calls=self.calls + 1, throttles=self.throttles + throttled)

    def quiet(self, rate: float) -> Self:
        """After many calls at about this rate were admitted with no throttle between them."""
        return self._replace(best=max(rate, (self.best * rate) ** 0.5), calls=0, throttles=0)

    def due(self, rate: float) -> bool:
        """Whether throttles go on though the rate is less than half of the best one."""
        return not self.retreat and self.throttles >= FEW and rate < self.best / 2

    def begun(self, rate: float) -> Self:
        """The best rate is on trial instead of this one."""
        return self._replace(retreat=rate, calls=0, throttles=0)

    @property
    def failed(self) -> bool:
        """Half of the calls on trial were throttled."""
        return self.retreat > 0 and self.throttles >= FEW

    @property
    def passed(self) -> bool:
        return self.retreat > 0 and self.calls >= 2 * FEW
