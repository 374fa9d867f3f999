"""Times and time spans of filters."""

from datetime import UTC, datetime, timedelta

import pytest

from batch_snapshot.manifest import filters

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("36h", NOW - timedelta(hours=36)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T20:00:00+02:00", datetime(2026, 1, 31, 18, tzinfo=UTC)),
        ("2026-01-31T18:00:00Z", datetime(2026, 1, 31, 18, tzinfo=UTC)),
    ],
)
def test_times_and_spans(text, expected):
    assert filters.since(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "h", "2x", "yesterday", "2026-13-01", "-3h", "9" * 400 + "d"])
def test_an_invalid_time_is_refused(text):
    with pytest.raises(ValueError, match="is not a time: write"):
        filters.since(text, NOW)


def test_a_time_in_the_future_is_refused_but_for_a_clock_that_is_a_little_ahead():
    ahead = NOW + timedelta(minutes=5)
    assert filters.since(ahead.isoformat(), NOW) == ahead
    with pytest.raises(ValueError, match="is in the future: write a time before 2026-06-01T00:00:00Z"):
        filters.since((ahead + timedelta(seconds=1)).isoformat(), NOW)
