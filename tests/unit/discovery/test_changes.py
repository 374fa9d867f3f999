"""Which opportunities count as unchanged, and how their dates are found."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.discovery import changes
from tests.support.strategies import patient

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@given(st.none() | st.floats(0, 1e10), st.none() | st.floats(0, 1e10))
@patient
def test_a_row_without_known_dates_is_sent(modified, since):
    left_out = changes.unchanged(modified, since)
    assert left_out == (modified is not None and since is not None and modified < since)


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (NOW, True),
        (NOW + timedelta(hours=23), True),
        (NOW + timedelta(hours=25), False),
        (datetime(1970, 1, 1, tzinfo=UTC), False),
        (NOW.replace(tzinfo=None), False),
        ("2026-06-01T00:00:00Z", False),
        (None, False),
    ],
)
def test_an_impossible_date_counts_as_none(value, known):
    assert (changes.parse_date(value, NOW.timestamp()) is not None) is known


@given(st.integers(0, 10**6))
def test_finding_the_dates_never_costs_much_more_than_the_best_way(wanted):
    pages, named = changes.pages_to_read(wanted), math.ceil(wanted / changes.NAMED_AT_ONCE)
    assert pages + named <= 1.5 * named
