"""Which pairs have changed, and how to find out at the least cost. Pure.

A pair with a wrong or missing date counts as changed: one snapshot too many costs a call, one too few shows
old data to a partner.
"""

import math
from datetime import datetime
from typing import Any

#: Seconds by which the clocks of two services may differ: a change is compared with this margin.
MARGIN = 60.0

#: Ids that one request may name; a page of the list holds 100 opportunities.
NAMED_AT_ONCE = 20

#: Dates before 2015, in seconds since the epoch, and more than a day from now make no sense.
EARLIEST, AHEAD = 1_420_070_400.0, 86_400.0


def parse_date(value: Any, now: float) -> float | None:
    """A date of the service in seconds since the epoch; None: there is none, or it makes no sense."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        return None
    at = value.timestamp()
    return at if EARLIEST <= at <= now + AHEAD else None


def unchanged(modified: float | None, since: float | None) -> bool:
    """Whether a pair can be left out."""
    return modified is not None and since is not None and modified < since


def pages_to_read(wanted: int) -> int:
    """How many pages of the whole list to read at most to find the `wanted` items in it.

    Only reading the list shows how many others it holds. It is read for at most half of what asking by name
    costs, so that the sum is never more than one and a half times the best.
    """
    return math.ceil(wanted / NAMED_AT_ONCE) // 2
