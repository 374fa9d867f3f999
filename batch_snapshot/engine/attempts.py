"""What was tried for one request in this run, and the outcome it makes."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from batch_snapshot.failures.retry import ClockReading
from batch_snapshot.models import ErrorKind, Failure, Outcome, Receipt, Request, RowError, Status, Verdict

#: The failure of a try whose call was dropped.
UNANSWERED = Failure(
    kind=ErrorKind.TRANSIENT,
    code="Interrupted",
    message="the run ended before the service had answered",
    verdict=Verdict.REFUSED,
    may_have_landed=True,
)


class Attempts:
    """The tries of one request, one after the other."""

    def __init__(self, request: Request, now: datetime, run_began: datetime) -> None:
        """Start `now`; an earlier run may have sent the request until `run_began`."""
        self.request = request
        self.started_at = now
        #: Tries that cost an attempt, and those that were throttled.
        self.attempts, self.throttles = request.attempts, request.throttles
        #: A try may have been carried out, and no answer has settled it. Sticky.
        self.ambiguous = request.ambiguous
        #: When the first try under the token may have left, by our clock, and the service's clock less ours
        #: then, in seconds; None: not known.
        self.first_sent_at, self.clock_skew = request.first_sent_at, request.clock_skew
        #: Since when the service should know the token; None after a look-up that found nothing.
        self.known_since = ClockReading(self.first_sent_at, self.clock_skew) if self.first_sent_at else None
        #: The last try left no later than this.
        self.last_sent_at = run_began
        self.in_flight = False
        #: Of the last answered try of this run.
        self.failure: Failure | None = None
        self._before_try = self._times

    @property
    def _times(self) -> tuple[datetime | None, float | None, ClockReading | None, datetime]:
        return self.first_sent_at, self.clock_skew, self.known_since, self.last_sent_at

    def sent(self, now: ClockReading) -> None:
        self.in_flight = True
        self._before_try = self._times
        self.last_sent_at = now.at
        if self.first_sent_at is None:
            self.first_sent_at, self.clock_skew = now
        self.known_since = self.known_since or now

    def answered(self, failure: Failure | None = None) -> None:
        """Note how the try ended; None: it succeeded."""
        self.in_flight = False
        if failure is not None and failure.never_left:
            self.first_sent_at, self.clock_skew, self.known_since, self.last_sent_at = self._before_try
            if failure.unreachable:
                return
        if failure is None or failure.verdict in {Verdict.RETRY, Verdict.REFUSED}:
            self.attempts += 1
            self.failure = failure
        elif failure.verdict is Verdict.THROTTLED:
            self.throttles += 1
        if failure is not None and failure.may_have_landed:
            # Even a throttle, if it came as a 5xx: the row must not count as unattempted.
            self.ambiguous, self.failure = True, failure

    def dropped(self) -> None:
        self.answered(UNANSWERED)

    def lost(self, sent: ClockReading, failure: Failure) -> None:
        """Another machine may have sent it since then, and nobody knows how often."""
        self.sent(sent)
        self.in_flight, self.ambiguous, self.failure = False, True, failure

    def outcome_if_left(self, now: datetime) -> Outcome | None:
        """The outcome if the row is tried no more; None: no try of this run left it in doubt."""
        return self.unsettled(self.failure, now) if self.ambiguous and self.failure else None

    def resend(self) -> Request:
        """The row as another engine of the same run is to continue with it."""
        return replace(
            self.request,
            ambiguous=self.ambiguous,
            first_sent_at=self.first_sent_at,
            clock_skew=self.clock_skew,
            attempts=self.attempts,
            throttles=self.throttles,
        )

    def succeeded(self, receipt: Receipt, now: datetime, *, reconciled: bool = False) -> Outcome:
        """The outcome with a snapshot, named by an answer or found by a look-up."""
        return self._outcome(
            Status.SUCCEEDED,
            now,
            arn=receipt.arn,
            revision=receipt.revision,
            request_id=receipt.request_id,
            reconciled=reconciled,
        )

    def unsettled(self, failure: Failure, now: datetime) -> Outcome:
        """The outcome without one: in doubt after an ambiguous try, else failed."""
        return self._outcome(
            Status.IN_DOUBT if self.ambiguous else Status.FAILED,
            now,
            request_id=failure.request_id,
            error=RowError(failure.kind, failure.code, failure.message, failure.reason, failure.http_status),
        )

    def _outcome(self, status: Status, now: datetime, **more: Any) -> Outcome:
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
            **more,
        )
