"""What is known of the tries of a row."""

from datetime import UTC, datetime

from batch_snapshot.engine.attempts import UNANSWERED, Attempts
from batch_snapshot.failures.retry import ClockReading
from batch_snapshot.models import LONG_AGO, Request
from tests.support.ledgers import row

NOW = ClockReading(datetime(2026, 3, 2, tzinfo=UTC), 0.0)


def in_doubt_since_nobody_knows_when():
    return Attempts(Request(row(1), "token", 0, ambiguous=True, first_sent_at=LONG_AGO), NOW.at, NOW.at)


def test_a_lost_worker_does_not_say_when_a_row_was_first_sent():
    """Another worker must look its snapshot up: the service may have forgotten the token."""
    attempts = in_doubt_since_nobody_knows_when()
    attempts.lost(NOW, UNANSWERED)
    assert attempts.request.ambiguous
    assert attempts.request.first_sent_at == LONG_AGO


def test_a_look_up_that_finds_nothing_makes_the_next_try_the_first():
    attempts = in_doubt_since_nobody_knows_when()
    attempts.known_since = None
    attempts.sent(NOW)
    assert (attempts.request.first_sent_at, attempts.request.clock_skew) == NOW
