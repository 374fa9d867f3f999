"""Times on the wire: ISO 8601 in UTC with milliseconds, as the model's timestamps are written."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def show(at: float) -> str:
    """Write seconds since the epoch."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(text: str) -> float | None:
    """Read a date and time, or None; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def whole_milliseconds(at: float) -> float:
    """Cut a time to what the wire can carry, so that records and answers agree."""
    return math.floor(at * 1000 + 1e-6) / 1000
