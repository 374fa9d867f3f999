"""Forecasts: as the windows will have it, call for call, and in words."""

import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from math import inf, nextafter
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_snapshot.ratelimit.forecast import Forecast, ForecastSpan, describe, forecast
from batch_snapshot.ratelimit.windows import CallLog, QuotaWindow, WindowFull
from tests.support.strategies import patient

DAY = 86_400.0
NOTHING = Forecast((), 0.0)
#: Memory where there is any.
SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None
#: A Wednesday, two hours east of Greenwich.
NOW = datetime(2026, 11, 25, 2, 10, tzinfo=timezone(timedelta(hours=2), "EET"))

# ---- by examples


def test_a_window_with_a_limit_of_zero_never_opens():
    assert forecast(5, 1, [(60, 10), (DAY, 0)], []) == Forecast((ForecastSpan(inf, 5),), inf)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_of_zero_or_less_is_refused(rate):
    with pytest.raises(ValueError, match="a rate of"):
        forecast(5, rate, [], [])


def test_many_calls_are_forecast_quickly():
    """A loose bound: these take a third of a second."""
    ages = [index / 2 for index in range(100_000)]
    begun = time.process_time()
    assert forecast(300_000, 15, [(60, 800), (3600, 40_000), (DAY, 100_000)], ages).ends_in > 2 * DAY
    assert time.process_time() - begun < 5


# ---- by the plainest model


def plain(
    calls: int, rate: float, windows: Sequence[tuple[float, int]], ages: Sequence[float]
) -> list[float]:
    """When each call leaves: of all times at which something may become free, the first that will do."""
    over = [-age for age in ages]
    times: list[float] = []
    for _ in range(calls):
        earliest = times[-1] + 1 / rate if times else 0.0
        candidates = [earliest, *(at + seconds for at in over for seconds, _ in windows)]
        times.append(
            min(
                at
                for at in candidates
                if at >= earliest
                and all(sum(one + seconds > at for one in over) < limit for seconds, limit in windows)
            )
        )
        over.append(times[-1])
    return times


#: Quarters of seconds: sums are exact, and things happen at the same time.
quarters = st.integers(0, 600).map(lambda number: number / 4)
some_windows = st.lists(st.tuples(st.integers(1, 400).map(lambda n: n / 4), st.integers(1, 6)), max_size=3)
rates = st.sampled_from([0.125, 0.5, 1.0, 2.0, 4.0])
some_ages = st.lists(quarters, max_size=12)


@given(st.integers(0, 25), rates, some_windows, some_ages, st.sampled_from([0.0, 1.0, 10.0, 60.0]))
@settings(patient, max_examples=150)
def test_a_forecast_equals_that_of_a_plain_model(calls, rate, windows, ages, pause):
    times = plain(calls, rate, windows, ages)
    pause = max(pause, 1 / rate)
    begins = [*[0][:calls], *(k for k in range(1, calls) if times[k] - times[k - 1] > pause), calls]
    assert forecast(calls, rate, windows, ages, pause) == Forecast(
        tuple(ForecastSpan(times[first], end - first) for first, end in pairwise(begins)),
        times[-1] if times else 0.0,
    )


tight = st.lists(st.tuples(st.integers(1, 100), st.integers(1, 4)), min_size=1, max_size=3)


@given(st.integers(1, 15), tight)
@settings(patient, max_examples=50)
def test_the_log_grants_what_was_forecast_and_nothing_earlier(calls, limits):
    windows = [(float(seconds), limit) for seconds, limit in limits]
    logged = [QuotaWindow("any", limit, seconds) for seconds, limit in windows]
    now = start = 1000.0
    last = 0.0
    with tempfile.TemporaryDirectory(dir=SHM) as folder, CallLog(Path(folder) / "u.db", lambda: now) as usage:
        for number, at in enumerate(plain(calls, 4.0, windows, [])):
            if at > last + 0.26:
                now = start + at - 0.001
                assert isinstance(usage.reserve("a", logged), WindowFull)
            # The log is exact to a few microseconds, which add up from window to window.
            now = start + at + number * 5e-6
            reservation = usage.reserve("a", logged)
            assert not isinstance(reservation, WindowFull)
            usage.finish(reservation)
            last = at


@given(st.integers(1, 25), rates, some_windows, some_ages)
@settings(patient, max_examples=150)
def test_a_run_that_waits_for_no_window_ends_before_the_first_wait(calls, rate, windows, ages):
    """A call that could leave the moment a window opens would wait: calls count from their end."""
    over = [-age for age in ages]
    times: list[float] = []
    for at in (number / rate for number in range(calls)):
        if any(sum(one + seconds >= at for one in over) >= limit for seconds, limit in windows):
            break
        times.append(at)
        over.append(at)
    found = forecast(calls, rate, windows, ages)
    ended = found.unwaited or found
    assert (sum(span.rows for span in ended.spans), ended.ends_in) == (len(times), max(times, default=0.0))
    assert ended.deferred == calls - len(times)
    if ended.deferred:
        assert ended.opens_in == plain(len(times) + 1, rate, windows, ages)[-1]


# ---- in words

A_DAY = [(DAY, 10_000)]
SATURDAY = datetime(2026, 10, 24, 12, 0, tzinfo=ZoneInfo("Europe/Berlin"))
LATE = NOW.replace(second=30, microsecond=400_000)


@pytest.mark.parametrize(
    ("calls", "rate", "windows", "now", "words"),
    [
        (0, 1, [], NOW, "0 rows: nothing to do"),
        (1, 1, [], NOW, "1 row: now; ends 02:10 EET"),
        (400, 1, [], NOW, "400 rows: now; ends 02:17 EET"),
        (100_000, 1, [], NOW, "100,000 rows: now; ends Thu 05:57 EET"),
        (10**7, 1e-6, [], NOW, "10,000,000 rows: now; ends after the year 9999"),
        (4000, 1, [(DAY, 0)], NOW, "4,000 rows: never, as a quota window leaves room for no call"),
        # Pauses of less than a minute are not worth a word.
        (250, 100, [(60, 100)], NOW, "250 rows: now; ends 02:12 EET"),
        (250, 100, [(120, 100)], NOW, "250 rows: 100 now, 100 from 02:12, 50 from 02:14; ends 02:14 EET"),
        (20_000, 1, A_DAY, SATURDAY, "20,000 rows: 10,000 now, 10,000 from Sun 11:00; ends Sun 13:47 CET"),
        # Rounded up, so that they hold.
        (20_000, 1, A_DAY, LATE, "20,000 rows: 10,000 now, 10,000 from Thu 02:11; ends Thu 04:58 EET"),
    ],
)
def test_a_forecast_in_words_names_times_days_and_dates(calls, rate, windows, now, words):
    assert describe(forecast(calls, rate, windows, []), now) == words


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (7200.0, 7204.0, "from 04:10; ends 04:11 EET"),
        (DAY, DAY + 4, "from Thu 02:10; ends Thu 02:11 EET"),
        (6 * DAY - 60, 6 * DAY, "from Tue 02:09; ends 2026-12-01 02:10 EET"),
        (0.0, 7 * DAY, "now; ends 2026-12-02 02:10 EET"),
        (0.0, nextafter(inf, 0), "now; ends after the year 9999"),
    ],
)
def test_a_span_may_begin_and_end_on_another_day(begins, ends, words):
    assert describe(Forecast((ForecastSpan(begins, 5),), ends), NOW) == f"5 rows: {words}"


def test_of_many_spans_the_first_three_and_the_last_are_named():
    assert describe(forecast(6, 1, [(DAY, 1)], []), NOW).count("from") == 5
    assert describe(forecast(85_000, 1, A_DAY, []), NOW) == (
        "85,000 rows: 10,000 now, 10,000 from Thu 02:10, 10,000 from Fri 02:10, …, "
        "5,000 from 2026-12-03 02:10; ends 2026-12-03 03:34 EET"
    )


def test_a_run_that_would_have_to_wait_ends_deferred():
    def ended(ages: Sequence[float]) -> str:
        return describe(forecast(250, 100, [(60, 100)], ages).unwaited or NOTHING, NOW)

    end = "its quota is spent until 02:11 EET: the run ends deferred (exit code 4); --wait waits for it"
    assert ended([]) == f"250 rows: 100 now, then {end}"
    assert ended([30.0] * 100) == f"250 rows: none now, as {end}"


any_time = st.datetimes(datetime(2000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - it is drawn beside it


@given(st.integers(1, 10_000), st.floats(0.01, 1000), any_time)
@settings(patient, max_examples=30)
def test_any_forecast_is_one_line(calls, rate, now):
    line = describe(forecast(calls, rate, [(DAY, 4_000)], []), now)
    assert line.startswith(f"{calls:,} row")
    assert "\n" not in line
