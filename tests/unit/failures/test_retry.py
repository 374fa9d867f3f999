"""Backoff, when a look-up comes before a retry, and the failure limit."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.errors import InputError
from batch_snapshot.failures import retry
from batch_snapshot.failures.retry import FailureLimit
from batch_snapshot.models import LONG_AGO


@given(st.integers(1, 10_000), st.integers())
def test_the_backoff_is_bounded_and_never_negative(attempt, seed):
    assert 0 <= retry.backoff(attempt, Random(seed)) <= retry.BACKOFF_CAP


def test_the_backoff_doubles_and_uses_the_whole_range():
    for attempt, bound in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0)):
        drawn = [retry.backoff(attempt, Random(seed)) for seed in range(1000)]
        middle = sum(drawn) / len(drawn)
        assert [min(drawn) + bound, middle, max(drawn)] == pytest.approx([bound, bound / 2, bound], rel=0.05)


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(("age", "forgotten"), [(601, True), (600, False), (None, False)])
def test_an_old_token_may_be_forgotten(age, forgotten):
    first = None if age is None else retry.ClockReading(NOON - timedelta(seconds=age))
    assert retry.may_be_forgotten(first, retry.ClockReading(NOON), 600) is forgotten


@pytest.mark.parametrize(
    ("age", "then", "now", "look"),
    [
        # Ours was set back since: by the service's clock two hours are over, or five minutes.
        (300, -6900.0, 0.0, True),
        (-6900, -7200.0, 0.0, True),
        (600, 7200.0, 7200.0, False),
        # What was not known then: as now, or none.
        (600, None, 0.0, False),
        (600, None, 120.0, True),
        (0, None, -7200.0, True),
        # The age of a token from the future is unknown; a skew can be wrong by a second or two.
        (-60, None, None, True),
        (1, 2.0, 0.0, False),
        (598, 0.0, 2.0, False),
        (1, 5.0, 0.0, True),
    ],
)
def test_a_token_ages_by_both_clocks(age, then, now, look):
    sent = retry.ClockReading(NOON - timedelta(seconds=age), then)
    today = retry.ClockReading(NOON, now)
    assert retry.may_be_forgotten(sent, today, 600) is look


moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001
errors = st.floats(-10_000, 10_000)


@given(sent=moments, made=st.floats(-20_000, 20_000), then=errors, now=st.none() | errors)
def test_a_snapshot_is_ours_if_created_after_the_first_try_whatever_the_clock_skew(sent, made, then, now):
    """`sent` and `made` by the service's clock; ours was off by `then` and is by `now`."""
    first = retry.ClockReading(sent - timedelta(seconds=then), then)
    created_at = sent + timedelta(seconds=made)
    ours = made >= -retry.SKEW_ERROR
    assert retry.created_after(created_at, first, now) is ours or abs(made + 1.5) < 0.01
    unknown = retry.created_after(created_at, first._replace(skew=None), now)
    if unknown is not None and now in {then, None} and then == 0:
        assert unknown is ours or abs(made + 1.5) < 0.01


@pytest.mark.parametrize(
    ("first", "seconds", "now", "answer"),
    [
        *((NOON, seconds, -3600.0, answer) for seconds, answer in ((-3700, False), (-1800, None), (5, True))),
        # Nobody knows when it was first sent.
        (LONG_AGO, 0, 0.0, None),
    ],
)
def test_an_unknown_skew_or_first_try_leaves_a_found_snapshot_undecided(first, seconds, now, answer):
    reading = retry.ClockReading(first)
    assert retry.created_after(NOON + timedelta(seconds=seconds), reading, now) is answer
    assert retry.may_be_forgotten(reading, retry.ClockReading(NOON, 0.0), 3600.0) is (first == LONG_AGO)


@pytest.mark.parametrize(
    ("limit", "bad", "done", "exceeded"),
    [
        (FailureLimit(), 1000, 1000, False),
        (FailureLimit(count=0), 1, 1, True),
        (FailureLimit(count=3), 3, 3, False),
        (FailureLimit(count=3), 4, 400, True),
        (FailureLimit(percent=10), 50, 99, False),
        (FailureLimit(percent=10), 10, 100, False),
        (FailureLimit(percent=10), 11, 100, True),
        (FailureLimit(percent=0), 1, 100, True),
        (FailureLimit(percent=2.5), 2, 100, False),
    ],
)
def test_the_failure_limit(limit, bad, done, exceeded):
    assert limit.exceeded(bad=bad, done=done) is exceeded
    text = f"{limit.percent}%" if limit.percent is not None else limit.count
    assert text is None or FailureLimit.parse(str(text)) == limit


@pytest.mark.parametrize("text", ["", "%", "many", "-1", "100%", "1.5", "nan%", "inf%"])
def test_an_invalid_failure_limit_is_refused(text):
    with pytest.raises(InputError, match="--max-failures"):
        FailureLimit.parse(text)
