"""Runs that wait for little: backoffs of next to nothing, and a wall clock that can be put forward."""

import time
from datetime import datetime, timedelta
from random import Random

from batch_snapshot.clock import utc_now


class Hasty(Random):
    """Backs off in the same steps, fifty times shorter."""

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) / 50


class WallClock:
    """The wall clock, for a run and for the simulator alike; `ahead` puts it forward by so many seconds."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def now(self) -> datetime:
        return utc_now() + timedelta(seconds=self.ahead)
