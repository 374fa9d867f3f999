"""What was tried for one request in this run, and the outcome it makes."""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from batch_snapshot.failures.retry import ClockReading
from batch_snapshot.models import (
    LONG_AGO,
    ErrorKind,
    Failure,
    Outcome,
    Receipt,
    Request,
    RowError,
    Status,
    Verdict,
)

if TYPE_CHECKING:
    from batch_snapshot.engine.signal import Signal

#: The failure of a try whose call was dropped.
UNANSWERED = Failure(
    kind=ErrorKind.TRANSIENT,
    code="Interrupted",
    message="the run ended before the service had answered",
    verdict=Verdict.REFUSED,
    may_have_landed=True,
)


class Attempts:
    def __init__(self, request: Request, now: datetime, run_began: datetime) -> None:
        """Start `now`; an earlier run may have sent the request until `run_began`."""
        #: It says what was tried so far: another engine of the same run can continue with it.
        self.request = request
        self.started_at = now
        first = request.first_sent_at
        #: Since when the service should know the token; None after a look-up that found nothing.
        self.known_since = ClockReading(first, request.clock_skew) if first else None
        #: The last try left no later than this.
        self.last_sent_at = run_began
        self.in_flight = False
        #: Sent when another row of the pair may be sent again; None: it may be sent now.
        self.claim: Signal | None = None
        #: Of the last answered try of this run.
        self.failure: Failure | None = None
        self._before_try = (request, self.known_since, run_began)

    def sent(self, now: ClockReading) -> None:
        self.in_flight = True
        self._before_try = (self.request, self.known_since, self.last_sent_at)
        self.last_sent_at = now.at
        # An unknown time stays until a look-up has found nothing: a lost worker may not have made one.
        if self.known_since is None and self.request.first_sent_at in {None, LONG_AGO}:
            self._note(first_sent_at=now.at, clock_skew=now.skew)
        self.known_since = self.known_since or now

    def answered(self, failure: Failure | None = None) -> None:
        """Note how the try ended; None: it succeeded."""
        self.in_flight = False
        if failure is not None and failure.never_left:
            self.request, self.known_since, self.last_sent_at = self._before_try
            if failure.unreachable:
                return
        if failure is None or failure.verdict in {Verdict.RETRY, Verdict.REFUSED}:
            self._note(attempts=self.request.attempts + 1)
            self.failure = failure
        elif failure.verdict is Verdict.THROTTLED:
            self._note(throttles=self.request.throttles + 1)
        if failure is not None and failure.may_have_landed:
            # Even a throttle, if it came as a 5xx: the row must not count as unattempted.
            self._note(ambiguous=True)
            self.failure = failure

    def _note(self, **changes: Any) -> None:
        self.request = replace(self.request, **changes)

    def lost(self, sent: ClockReading, failure: Failure) -> None:
        """Another machine may have sent it since then, and nobody knows how often."""
        self.sent(sent)
        self._note(ambiguous=True)
        self.in_flight, self.failure = False, failure

    def succeeded(self, receipt: Receipt, now: datetime, *, reconciled: bool = False) -> Outcome:
        """The outcome with a snapshot, named by an answer or found by a look-up."""
        return self._outcome(Status.SUCCEEDED, now, **receipt._asdict(), reconciled=reconciled)

    def unsettled(self, failure: Failure, now: datetime) -> Outcome:
        """The outcome without one: in doubt after an ambiguous try, else failed."""
        return self._outcome(
            Status.IN_DOUBT if self.request.ambiguous else Status.FAILED,
            now,
            request_id=failure.request_id,
            error=RowError(failure.kind, failure.code, failure.message, failure.reason, failure.http_status),
        )

    def _outcome(self, status: Status, now: datetime, **more: Any) -> Outcome:
        request = self.request
        return Outcome(
            request=request,
            status=status,
            attempts=request.attempts,
            throttles=request.throttles,
            ambiguous=request.ambiguous,
            first_sent_at=request.first_sent_at,
            started_at=self.started_at,
            finished_at=now,
            clock_skew=request.clock_skew,
            **more,
        )
