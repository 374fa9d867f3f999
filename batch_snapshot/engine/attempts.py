"""What was tried for one request in this run, and the outcome it makes. Pure but for its own state."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from batch_snapshot.failures import retry
from batch_snapshot.models import ErrorKind, Failure, Outcome, RowError, Status, Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from batch_snapshot.models import Receipt, Request

#: The failure of a try whose call was dropped.
UNANSWERED = Failure(
    kind=ErrorKind.TRANSIENT,
    code="Interrupted",
    message="the run ended before the service had answered",
    verdict=Verdict.REFUSED,
    may_have_landed=True,
)


class Attempts:
    """The tries for one request, one after the other."""

    def __init__(self, request: Request, now: datetime, began: datetime) -> None:
        """None yet in this run: it `began` then, and the row is taken up `now`."""
        self.request = request
        self.started_at = now
        self.attempts = 0
        self.throttles = 0
        #: A try may have been carried out and no answer has settled it: sticky.
        self.ambiguous = request.ambiguous
        self.first_sent_at = request.first_sent_at
        #: The service's clock less ours then, in seconds; None: not known.
        self.clock_skew = request.clock_skew
        #: Since when the service should know the token; a look that found nothing starts it anew.
        self.known_since = self._first
        #: The last try left no later than this; an earlier run's just before this one, for all we know.
        self.last_sent_at = began
        self.in_flight = False
        #: Of the last try of this run that was answered, if it failed.
        self.failure: Failure | None = None
        #: When earlier tries left, as it was before the one in flight.
        self._before = (self.first_sent_at, self.clock_skew, self.known_since, self.last_sent_at)

    @property
    def _first(self) -> retry.ClockReading | None:
        return retry.ClockReading(self.first_sent_at, self.clock_skew) if self.first_sent_at else None

    def left(self, now: retry.ClockReading) -> None:
        """A try is about to leave."""
        self.in_flight = True
        self._before = (self.first_sent_at, self.clock_skew, self.known_since, self.last_sent_at)
        self.last_sent_at = now.at
        if self.first_sent_at is None:
            self.first_sent_at, self.clock_skew = now
        self.known_since = self.known_since or now

    def answered(self, failure: Failure | None = None) -> None:
        """The try is over: it failed so, or succeeded."""
        self.in_flight = False
        if failure is not None and failure.never_left:
            self.first_sent_at, self.clock_skew, self.known_since, self.last_sent_at = self._before
            if failure.unreachable:
                return
        if failure is None or failure.verdict in {Verdict.RETRY, Verdict.REFUSED}:
            self.attempts += 1
            self.failure = failure
        elif failure.verdict is Verdict.THROTTLED:
            self.throttles += 1
        if failure is not None and failure.may_have_landed:
            # Even a throttle, where it came as a 5xx: the row must not pass for unattempted.
            self.ambiguous, self.failure = True, failure

    def dropped(self) -> None:
        """The try in flight will not be waited for."""
        self.answered(UNANSWERED)

    @property
    def unsettled_failure(self) -> Failure | None:
        """The failure by which a try of this run left the row in doubt."""
        return self.failure if self.ambiguous else None

    def succeeded(self, receipt: Receipt, now: datetime, *, reconciled: bool = False) -> Outcome:
        """The snapshot is there: by an answer, or by a look."""
        return replace(
            self._outcome(Status.SUCCEEDED, now),
            arn=receipt.arn,
            revision=receipt.revision,
            request_id=receipt.request_id,
            reconciled=reconciled,
        )

    def unsettled(self, failure: Failure, now: datetime) -> Outcome:
        """No further try: refused for good, or in doubt."""
        return replace(
            self._outcome(Status.IN_DOUBT if self.ambiguous else Status.FAILED, now),
            request_id=failure.request_id,
            error=RowError(failure.kind, failure.code, failure.message, failure.reason, failure.http_status),
        )

    def _outcome(self, status: Status, now: datetime) -> Outcome:
        return Outcome(
            request=self.request,
            status=status,
            attempts=self.attempts,
            throttles=self.throttles,
            ambiguous=self.ambiguous,
            first_sent_at=self.first_sent_at,
            started_at=self.started_at,
            finished_at=now,
            clock_skew=self.clock_skew,
        )
