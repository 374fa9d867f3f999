"""A world of lists for the read operations; every id follows from the numbers asked for.

Engagement 1 is `eng-00000000000001`; its opportunities, tasks and jobs are numbered on through all
engagements. Every catalog shows the same world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: When the oldest of it was made: 2025-01-01T00:00:00Z.
EPOCH: Final = 1735689600.0
#: Opportunities are numbered from here, so that their ids look like the service's.
_FIRST_OPPORTUNITY: Final = 1_000_001


@dataclass(frozen=True, slots=True)
class SeededJob:
    """An engagement's opportunity, the task that joined them and the snapshot job it started."""

    number: int
    engagement: str
    opportunity: str
    created_at: float

    @property
    def task_id(self) -> str:
        """The id of the task that made the engagement from the opportunity."""
        return f"task-{self.number:013d}"

    @property
    def job_id(self) -> str:
        """The id of the snapshot job."""
        return f"job-{self.number:013d}"

    @property
    def status(self) -> str:
        """Every second job was stopped."""
        return "Running" if self.number % 2 else "Stopped"


def engagement_ids(engagements: int) -> list[str]:
    """Name the engagements."""
    return [f"eng-{number:014d}" for number in range(1, engagements + 1)]


def jobs(engagements: int, opportunities: int) -> list[SeededJob]:
    """Make the jobs, one an opportunity, a second apart."""
    return [
        SeededJob(
            number=index + 1,
            engagement=engagement,
            opportunity=f"O{_FIRST_OPPORTUNITY + index}",
            created_at=EPOCH + index,
        )
        for index, engagement in enumerate(
            engagement for engagement in engagement_ids(engagements) for _ in range(opportunities)
        )
    ]
