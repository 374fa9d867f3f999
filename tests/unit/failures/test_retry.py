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


def test_the_backoff_uses_the_whole_range():
    drawn = sorted(retry.backoff(4, Random(seed)) for seed in range(2000))
    assert drawn[0] < 0.05
    assert drawn[-1] > 3.95
    assert sum(drawn) / len(drawn) == pytest.approx(2.0, rel=0.05)


def test_the_backoff_doubles():
    bounds = [max(retry.backoff(attempt, Random(seed)) for seed in range(500)) for attempt in (1, 2, 3)]
    assert bounds == pytest.approx([0.5, 1.0, 2.0], rel=0.02)


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


def test_an_unknown_skew_leaves_a_found_snapshot_undecided():
    first = retry.ClockReading(NOON)
    for created, answer in ((-3700, False), (-1800, None), (5, True)):
        found = retry.created_after(NOON + timedelta(seconds=created), first, -3600.0)
        assert found is answer


def test_a_first_try_that_nobody_knows_leaves_a_found_snapshot_undecided_and_its_token_forgotten():
    lost = retry.ClockReading(LONG_AGO)
    assert retry.created_after(NOON, lost, 0.0) is None
    assert retry.may_be_forgotten(lost, retry.ClockReading(NOON, 0.0), 3600.0)


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
    ],
)
def test_the_failure_limit(limit, bad, done, exceeded):
    assert limit.exceeded(bad=bad, done=done) is exceeded


@pytest.mark.parametrize(
    ("text", "limit"),
    [("50", FailureLimit(count=50)), ("0", FailureLimit(count=0)), ("2.5%", FailureLimit(percent=2.5))],
)
def test_the_failure_limit_is_parsed(text, limit):
    assert FailureLimit.parse(text) == limit


@pytest.mark.parametrize("text", ["", "%", "many", "-1", "100%", "1.5", "nan%", "inf%"])
def test_an_invalid_failure_limit_is_refused(text):
    with pytest.raises(InputError, match="--max-failures"):
        FailureLimit.parse(text)
