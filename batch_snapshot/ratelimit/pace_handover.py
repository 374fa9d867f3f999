"""A pace handed over: to the processes of a machine as text, to another machine by its clock. Pure."""

import json

from batch_snapshot.ratelimit.pace import Pace, Phase
from batch_snapshot.ratelimit.pace_tally import PaceTally
from batch_snapshot.ratelimit.pace_trial import PaceTrial

#: The version of the text that `dump` writes; raised when a field's meaning changes.
_FORMAT = 5


def shifted(pace: Pace, seconds: float) -> Pace:
    """The pace for a clock that is `seconds` ahead, on a machine that has no call in flight."""
    return pace._replace(
        since=pace.since + seconds,
        next_call_at=pace.next_call_at + seconds,
        began=None if pace.began is None else pace.began + seconds,
        tally=pace.tally.later(seconds),
        cut_at=pace.cut_at + seconds,
        starved_since=None if pace.starved_since is None else pace.starved_since + seconds,
        in_flight=0,
    )


def dump(pace: Pace) -> str:
    """The pace as text, for other processes that call for the same account."""
    return json.dumps([_FORMAT, *pace])


def load(text: str | None) -> Pace | None:
    """Read a pace that `dump` wrote; None: there is none, or another version wrote it."""
    try:
        layout, phase, *values = json.loads(text or "null")
        found = dict(zip(Pace._fields, [Phase(phase), *values], strict=True))
        start, admitted, throttled, excess, mark, earlier = found.pop("tally")
        tally = PaceTally(start, admitted, throttled, excess, tuple(mark), tuple(earlier))
        best, retreat, calls, throttles = found.pop("trial")
    except (ValueError, TypeError, KeyError):
        return None
    trial = PaceTrial(best, retreat, calls, throttles)
    return Pace(**found, tally=tally, trial=trial) if layout == _FORMAT else None
