"""When a row is tried again, when its snapshot is looked up first, and how many rows may fail. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import NamedTuple, Self

from batch_snapshot.errors import InputError
from batch_snapshot.models import LONG_AGO, ErrorKind, Failure, Verdict

#: Attempts of a row that meets a conflict without an ambiguous try before: such a conflict rarely passes.
CONFLICT_ATTEMPTS = 3

#: First and largest upper bound of the backoff, in seconds; it doubles from attempt to attempt ("full
#: jitter"): https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
BACKOFF_BASE = 0.5
BACKOFF_CAP = 20.0

#: Seconds by which a clock skew can be wrong that was read from a Date header, which has whole seconds.
SKEW_ERROR = 1.5

#: Seconds after a call before its snapshot is sure to show in reads: 3 s have been reported.
READ_LAG = 4.0


def should_retry(failure: Failure, *, attempt: int, ambiguous: bool) -> bool:
    """Whether the row is tried again after attempt number `attempt` (from 1) failed in this way.

    After an ambiguous try a conflict means that the earlier try landed or is still running, so the same
    token will be answered in time. Without one the conflict passes soon or not at all.
    """
    if failure.verdict is not Verdict.RETRY:
        return False
    return failure.kind is not ErrorKind.CONFLICT or ambiguous or attempt < CONFLICT_ATTEMPTS


def backoff(attempt: int, rng: Random) -> float:
    """Seconds to wait after attempt number `attempt` (from 1): exponential, full jitter."""
    bound = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt - 1, 30))
    return rng.uniform(0, bound)


class ClockReading(NamedTuple):
    """A time by this machine's clock, and how far the service's clock was ahead of it then."""

    at: datetime
    #: The service's clock less ours, in seconds; None: not known.
    skew: float | None = None


def service_times(then: ClockReading, skew_now: float | None) -> tuple[datetime, ...]:
    """Possible times of the service's clock at a moment of our clock, earliest first.

    Our clock may have been set since, so only the skew of that moment counts. If that skew is not known,
    our clock was either as far off as it is now, or right.
    """
    skews = {skew_now or 0.0, 0.0} if then.skew is None else {then.skew}
    return tuple(then.at + timedelta(seconds=skew) for skew in sorted(skews))


def may_be_forgotten(known_since: ClockReading | None, now: ClockReading, token_ttl: float) -> bool:
    """Whether the service may have forgotten a token.

    The service does not document how long it remembers a token. It is trusted to do so for `token_ttl`
    seconds by our clock and by the service's, since ours may have been set meanwhile. The age of a token
    from the future is unknown.
    """
    if known_since is None:
        return False
    waited = (now.at - known_since.at).total_seconds()
    today = now.at + timedelta(seconds=now.skew or 0.0)
    passed = [(today - since).total_seconds() for since in service_times(known_since, now.skew)]
    young = all(-2 * SKEW_ERROR <= age <= token_ttl for age in passed)
    return not (0 <= waited <= token_ttl and young)


def created_after(created_at: datetime, first: ClockReading, skew_now: float | None) -> bool | None:
    """Whether a snapshot was created after the first try, by the service's clock; None: unknown."""
    if first.at == LONG_AGO:
        return None
    margin = timedelta(seconds=SKEW_ERROR)
    answers = {created_at >= since - margin for since in service_times(first, skew_now)}
    return answers.pop() if len(answers) == 1 else None


#: A snapshot was found, and it is unknown whether it existed before the first try.
CLOCKS_DISAGREE = Failure(
    kind=ErrorKind.TRANSIENT,
    code="ClocksDisagree",
    message="a snapshot exists, but it may be older than this row's first try: this machine's clock is "
    "wrong, and how wrong it was at that try is not known; if the snapshot is not of this run, send the "
    "row again with --resend-in-doubt",
    verdict=Verdict.REFUSED,
    may_have_landed=False,
)


#: The same, where the lines of the ledger that said when the row was first tried are lost.
FIRST_TRY_LOST = replace(
    CLOCKS_DISAGREE,
    code="FirstTryLost",
    message="a snapshot exists, but it may be older than this row's first try: the ledger lines with the "
    "time of that try are lost; if the snapshot is older than the run, send the row again with "
    "--resend-in-doubt",
)


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """`--max-failures N|P%`: more rows than this failed or in doubt stop the run."""

    count: int | None = None
    #: Applies from `PERCENT_FROM` rows on, so that one early failure is not 100 %.
    percent: float | None = None

    PERCENT_FROM = 100

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `50` or `5%`; anything else is an `InputError`."""
        number = text.removesuffix("%").strip()
        try:
            if text.endswith("%"):
                if 0 <= float(number) < 100:
                    return cls(percent=float(number))
            elif int(number) >= 0:
                return cls(count=int(number))
        except ValueError:
            pass
        raise InputError(f"--max-failures {text}: give a number of rows (50) or a share under 100 % (5%)")

    def exceeded(self, *, bad: int, done: int) -> bool:
        if self.count is not None:
            return bad > self.count
        if self.percent is not None:
            return done >= self.PERCENT_FROM and bad * 100 > self.percent * done
        return False


#: Failed rows never stop the run.
NO_LIMIT = FailureLimit()
