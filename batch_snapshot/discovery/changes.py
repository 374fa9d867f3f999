"""Which pairs have changed, and how to find out at the least cost. Pure.

A pair with a wrong or missing date counts as changed: one snapshot too many costs a call, one too few shows
old data to a partner.
"""

import math
from datetime import datetime
from typing import Any, NamedTuple

#: Seconds by which the clocks of two services may differ: a change is compared with this margin.
MARGIN = 60.0

#: Opportunities of a page of the list, and ids that one request may name.
PAGE, NAMED_AT_ONCE = 100, 20

#: Dates before 2015, in seconds since the epoch, and more than a day from now make no sense.
EARLIEST, AHEAD = 1_420_070_400.0, 86_400.0


def parse_date(value: Any, now: float) -> float | None:
    """A date of the service in seconds since the epoch; None: there is none, or it makes no sense."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        return None
    at = value.timestamp()
    return at if EARLIEST <= at <= now + AHEAD else None


def unchanged(modified: float | None, since: float | None, margin: float = 0.0) -> bool:
    """Whether a pair can be left out; `margin` is by how many seconds the two clocks may differ."""
    return modified is not None and since is not None and modified < since - margin


class SearchPlan(NamedTuple):
    """How the dates of opportunities are to be asked for."""

    #: Pages of the whole list that are read at most; 0: the list is not read.
    pages: int
    #: Requests needed if all wanted opportunities are asked for by name.
    named: int


def plan_search(wanted: int) -> SearchPlan:
    """The cheapest way to the dates of `wanted` opportunities.

    Only reading the list shows how many others it holds. It is read for at most half of what asking by name
    costs, so that the sum is never more than one and a half times the best.
    """
    named = math.ceil(wanted / NAMED_AT_ONCE)
    return SearchPlan(named // 2, named)
