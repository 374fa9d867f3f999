"""The charts of the HTML page."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.ledger.records import Header
from batch_snapshot.reporting import charts
from batch_snapshot.reporting.stats import Invocation
from tests.support.reports import ledgers, read
from tests.support.strategies import patient

BEGAN = datetime(2026, 3, 1, 12, 0, 7, tzinfo=UTC)


def invocation(seconds, began=BEGAN):
    header = Header(
        run_id="r", command="run", name="n", rows=1, accounts={}, endpoint="aws", started_at=began
    )
    return Invocation(header, began, seconds=seconds)


@given(ledgers())
@patient
def test_chart_over_time_has_every_result_once_within_its_size(tmp_path_factory, ledger):
    stats, _ = read(tmp_path_factory.getbasetemp(), ledger)
    drawn = charts.over_time(stats.invocations, [1.0] * len(stats.invocations))
    results = sum(each.results for each in stats.invocations)
    if not results:
        assert drawn == []
        return
    assert sum(sum(values) for _, values in drawn[0].bars) == results
    assert len(drawn[0].bars) <= charts.BARS + 2 * len(stats.invocations)
    for chart in [*drawn, charts.attempts(stats.attempts), charts.latency(stats.latencies)]:
        for _, pieces in chart.drawn if chart else ():
            for _, x, y, width, height in pieces:
                assert x >= charts.LEFT - 0.01
                assert x + width <= charts.WIDTH
                assert y >= charts.TOP - len(pieces)
                assert y + height <= charts.HEIGHT - charts.BOTTOM + 0.01


@pytest.mark.parametrize("seconds", [30, 3_000, 300_000, 3_000_000])
def test_chart_has_as_many_bars_for_a_minute_as_for_a_month(seconds):
    step, found = charts.time_slots([invocation({seconds * n // 200: [1, 0, 0, 0] for n in range(200)})])
    assert 25 <= len(found) <= charts.BARS + 2, step


def test_bars_begin_at_round_times_and_are_counted_a_minute():
    # 20 rows a second for 10 minutes, from 12:00:07 on.
    (chart,) = charts.over_time([invocation({n: [20, 0, 0, 0] for n in range(600)})], [25.0])
    assert [label[-8:] for label, _ in chart.bars[:3]] == ["12:00:00", "12:00:10", "12:00:20"]
    assert [mark.text for mark in chart.y_marks] == ["0", "500", "1,000", "1,500"]
    assert [mark.text for mark in chart.x_marks] == ["12:00", "12:02", "12:04", "12:06", "12:08"]
    assert set(chart.line) == {1500.0}
    assert (chart.facts["most"], chart.facts["allowed"]) == (1200, [1500])
    assert chart.line_path.startswith(f"M{charts.LEFT}.0 {charts.TOP}.0H")


def test_throttles_are_told_by_the_bar_so_that_no_number_is_above_all_of_them():
    _, chart = charts.over_time([invocation({0: [1, 0, 0, 6], 90: [1, 0, 0, 2]})])
    assert chart.facts == {"total": 8, "worst": 6, "step": "1 second"}


def test_line_of_a_limit_far_above_is_told_and_not_drawn():
    (chart,) = charts.over_time([invocation({0: [1, 0, 0, 0]})], [100.0])
    assert chart.line_path == ""
    assert chart.facts["allowed"] == [6000]


@given(st.floats(0, 1e12))
def test_ticks_are_round_and_reach_the_highest(highest):
    ticks = charts.round_ticks(highest)
    assert 2 <= len(ticks) <= 6
    assert ticks[0] == 0
    assert ticks[-1] >= highest * (1 - 1e-6)
    assert f"{ticks[1]:e}"[0] in "125"


def test_marks_of_several_invocations_do_not_overlap():
    several = [invocation({0: [1, 0, 0, 0], 50: [1, 0, 0, 0]}, BEGAN + timedelta(days=n)) for n in range(9)]
    (chart,) = charts.over_time(several)
    places = [mark.at for mark in chart.x_marks]
    assert min(b - a for a, b in pairwise(places)) >= 100
    assert len(chart.borders) == 8


def test_no_chart_without_values():
    assert charts.latency([]) is None
    assert charts.attempts(Counter()) is None
    assert charts.failures_by_account({}) is None
    drawn = charts.attempts(Counter({0: 1, 1: 5, 12: 2}))
    assert drawn
    assert [title for title, _ in drawn.drawn] == [
        "no try, but a look-up: 1",
        "1 try: 5",
        "9 or more tries: 2",
    ]


MINUTES = st.dictionaries(st.integers(29_000_000, 31_000_000), st.integers(1, 9), min_size=1, max_size=50)


@given(st.dictionaries(st.text("ab", max_size=6), MINUTES.map(Counter), min_size=1, max_size=30))
def test_failures_by_account_are_counted_in_a_bounded_table(minutes):
    found = charts.failures_by_account(minutes)
    assert found
    assert len(found.columns) <= charts.COLUMNS
    assert len(found.rows) == min(len(minutes), charts.MOST_ACCOUNTS)
    for name, values, total in found.rows:
        assert sum(values) == minutes[name].total() == int(total.replace(",", ""))
    assert all(0 <= found.shade(value) <= charts.SHADES for _, values, _ in found.rows for value in values)


def test_calendar_has_a_row_a_day_and_the_share_of_the_quota():
    first = int(BEGAN.timestamp()) // 3600
    hours = {first: 600, first + 11: 200, first + 12: 300, first + 47: 5}
    found = charts.calendar(hours, 1000)
    assert [(label, sum(values), end) for label, values, end in found.rows] == [
        ("Sun 03-01", 800, "800 (80%)"),
        ("Mon 03-02", 300, "300 (30%)"),
        ("Tue 03-03", 5, "5 (0%)"),
    ]
    assert found.facts["most"] == 1100
    assert found.rows[0][1][12] == 600
    assert len(charts.calendar({first + 24 * n: 1 for n in range(400)}, 0).rows) == charts.DAYS


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (0.0123, "0.0123"), (9.876, "9.88"), (99.96, "100"), (72_000, "72,000")]
)
def test_amounts_are_short_and_without_exponents(number, text):
    assert charts.amount(number) == text


def test_latency_marks_are_round():
    chart = charts.latency([0.04 * 1.1**n for n in range(80)])
    assert chart
    assert len(chart.x_marks) >= 4
    assert {mark.text.split()[0].strip("0") for mark in chart.x_marks} <= {"1", "2", "5"}
