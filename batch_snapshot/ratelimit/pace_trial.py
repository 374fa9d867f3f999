"""Whether throttles are due to the rate: what `pace` tries where a lower rate does not help. Pure.

Where a limit allows no burst and other programs call too, a slower run is throttled as often as a fast one.
If each such throttle were taken for the limit, the rate would fall to the lowest there is, and stay there.
"""

from typing import NamedTuple, Self

#: This many throttles without a quiet time between them make a trial due; as many in a trial end it.
FEW = 6
#: A trial is due below this share of the best rate: less than half, as a limit that halves is measured again.
FAR_BELOW = 0.45


class PaceTrial(NamedTuple):
    """The answers since a trial began or, without one, since the last quiet time."""

    #: The best rate known: it was measured, or held in a quiet time. A lower one that holds draws it down.
    best: float = 0.0
    #: The rate to return to if the trial of the best one fails; 0: there is no trial.
    retreat: float = 0.0
    calls: int = 0
    throttles: int = 0

    def answered(self, *, throttled: bool) -> Self:
        return self._replace(calls=self.calls + 1, throttles=self.throttles + throttled)

    def quiet(self, rate: float) -> Self:
        """After many calls at about this rate were admitted with no throttle between them."""
        return self._replace(best=max(rate, (self.best * rate) ** 0.5), calls=0, throttles=0)

    def measured(self, rate: float) -> Self:
        """After the limit was measured. Where calls are throttled at any rate, no time is quiet."""
        return self._replace(best=max(self.best, rate))

    def due(self, rate: float) -> bool:
        """Whether throttles go on though the rate is far below the best one."""
        return not self.retreat and self.throttles >= FEW and rate < FAR_BELOW * self.best

    def begun(self, rate: float) -> Self:
        """The best rate is on trial instead of this one."""
        return self._replace(retreat=rate, calls=0, throttles=0)

    @property
    def failed(self) -> bool:
        """Half of the calls on trial were throttled."""
        return self.retreat > 0 and self.throttles >= FEW

    @property
    def passed(self) -> bool:
        """More than half of the calls on trial were admitted."""
        return self.retreat > 0 and self.calls >= 2 * FEW
