"""The filters of `discover`, on a command line or in a manifest."""

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from batch_snapshot.operations import SOURCES
from batch_snapshot.text import UNITS

#: The stages of an opportunity, as the service's model names them.
STAGES = (
    "Prospect",
    "Qualified",
    "Technical Validation",
    "Business Validation",
    "Committed",
    "Launched",
    "Closed Lost",
)

#: The contexts of an engagement that are known today; any other is asked for as it is written.
CONTEXT_TYPES = ("CustomerAccount", "CustomerProject", "Document", "Lead", "ProspectingResult")

#: How far another clock may be ahead: a later time is a mistake.
AHEAD = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which pairs to take; an empty filter takes all."""

    account: str
    catalog: str
    resource_type: str
    template: str
    sources: tuple[str, ...] = SOURCES
    engagements: tuple[str, ...] = ()
    #: Numbers of the AWS accounts that made the engagements.
    created_by: tuple[str, ...] = ()
    context_types: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    #: Opportunities modified since: a time, or a span before now (see `since`).
    changed_since: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value}


def since(text: str, now: datetime) -> datetime:
    """Read RFC 3339, a date (both in UTC where they name no zone), or a span before now such as 36h."""
    if span := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return now - timedelta(seconds=int(span[1]) * UNITS[span[2]])
    try:
        moment = datetime.fromisoformat(text)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time: write 2026-01-31, 2026-01-31T18:00:00Z, or 36h") from None
    if moment > now + AHEAD:
        raise ValueError(f"{text!r} is in the future: write a time before {now:%Y-%m-%dT%H:%M:%SZ}")
    return moment
