"""A run while it goes: time left, rates, frames."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import inf
from pathlib import Path

import anyio
import pytest
import trio.testing

from batch_snapshot.config.options import DEFAULT_SETTINGS
from batch_snapshot.engine.account import AccountState, Stop, StopKind
from batch_snapshot.engine.limits import AccountForecast, AccountLimits
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.failures.breakers import Pause
from batch_snapshot.failures.error_codes import service_failure
from batch_snapshot.ledger import history
from batch_snapshot.models import Account, Quota, Status
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.forecast import Forecast
from batch_snapshot.ratelimit.pacer import Pacer
from batch_snapshot.ratelimit.windows import DAY, CallLog, QuotaWindow, WindowFull, windows
from batch_snapshot.reporting import display, progress
from batch_snapshot.reporting.display import Frame, WindowUse
from batch_snapshot.reporting.progress import RunView
from batch_snapshot.reporting.stats import RunStats
from tests.support.reports import outcome
from tests.support.strategies import POOL, START
from tests.support.virtual_time import in_virtual_time


def states_of(*names: str, start: pace.Pace | None = None) -> dict[str, AccountState]:
    return {
        name: AccountState(name, Pacer(start or pace.Pace()), Pacer(pace.declared(10)))
        for name in names or ["main"]
    }


def limits_of(usage: CallLog | None = None, /, **quotas: Quota) -> AccountLimits:
    quotas = quotas or {"main": Quota()}
    return AccountLimits(
        {name: Account(name, quota=each) for name, each in quotas.items()}, "aws", usage, environ={}
    )


def view(
    settled: Mapping[str, int],
    todo: Mapping[str, int],
    running: dict[str, AccountState] | None = None,
    limits: AccountLimits | None = None,
) -> RunView:
    """A run that begins now."""
    stats = RunStats(history.History(), 1000, todo)
    stats.settled.update(settled)
    state = RunState(running or states_of(*todo), lambda _: None, lambda: START, DEFAULT_SETTINGS)
    limits = limits or limits_of(None, **dict.fromkeys(todo, Quota()))
    return RunView("nightly", stats, state, limits, Path("l.ndjson"), started=anyio.current_time())


def left(
    settled: Mapping[str, int],
    todo: Mapping[str, int],
    *steps: tuple[float, Callable[[RunView], object]],
    start: pace.Pace | None = None,
    at: float = 20.0,
) -> list[float | None]:
    """The seconds that are left, as forecast after so many seconds, and so long after each step."""

    async def look() -> list[float | None]:
        seen = view(settled, todo, states_of(*todo, start=start))
        await anyio.sleep(at)
        found = [seen.left]
        for seconds, step in steps:
            step(seen)
            await anyio.sleep(seconds)
            found.append(seen.left)
        return found

    return in_virtual_time(look)


FAST = pace.learned(50.0, 0.0)


@pytest.mark.parametrize(
    ("settled", "todo", "at", "start", "seconds"),
    [
        # 200 rows in 20 seconds: those settled before do not count.
        ({"main": 200}, {"main": 950}, 20, None, 75),
        ({"main": 200, "acme": 20, "done": 5}, {"main": 400, "acme": 100, "done": 5}, 20, None, 80),
        # One row in the first seconds would promise hours for a run of seconds.
        ({"main": 1}, {"main": 950}, 5, None, None),
        ({"main": 1}, {"main": 951}, 5, FAST, 19),
        ({"main": 200}, {"main": 950}, 0, None, None),
        ({"main": 100}, {"main": 950, "acme": 5}, 20, None, None),
    ],
)
def test_time_left_is_that_of_the_slowest_account_once_a_rate_of_each_is_known(
    settled, todo, at, start, seconds
):
    assert left(settled, todo, at=at, start=start) == [seconds and pytest.approx(seconds, rel=0.02)]


@pytest.mark.parametrize(
    ("settled", "at", "waited", "rate"),
    [
        (20, 2.0, 0.0, 50.0),  # too early to tell
        (1000, 20.0, 0.0, 50.0),  # as fast as known
        (200, 20.0, 0.0, 10.0),  # its calls take too long, or are too few at once
        (200, 20.0, 16.0, 50.0),  # it waited for a window
        (500, 40.0, 20.0, 25.0),
    ],
)
def test_time_left_follows_the_known_rate_unless_the_run_is_slower(settled, at, waited, rate):
    def have_waited(seen: RunView) -> None:
        seen.accounts["main"].pacer.waited = waited

    _, found = left({"main": settled}, {"main": settled + 750}, (at, have_waited), start=FAST, at=0)
    assert found == pytest.approx(750 / rate, rel=0.02)


def test_time_left_ignores_accounts_that_stopped():
    def stop(seen: RunView) -> None:
        seen.accounts["acme"].stop = Stop(StopKind.DEFERRED, "spent")

    _, found = left({"main": 200, "acme": 20}, {"main": 400, "acme": 100}, (20, stop), at=0)
    assert found == pytest.approx(20, abs=0.2)


def test_time_left_includes_waits_for_quota_windows(tmp_path):
    """Ten in any hour, of which eight are used: two now, ten in an hour, and one more in two."""
    quota = Quota(per_hour=10)
    usage_clock = [1e6]
    with CallLog((tmp_path / "usage.sqlite"), clock=lambda: usage_clock[0]) as usage:
        limits = limits_of(usage, main=quota)
        trio.run(limits.apply, states_of()["main"], identified)
        for _ in range(8):
            reservation = usage.reserve("aws/1 writes", windows(quota))
            assert isinstance(reservation, int)
            usage.finish(reservation)
        fast = states_of(start=pace.learned(10.0, 0.0))
        without = AccountLimits({"main": Account("main", quota=quota)}, "aws", usage, {}, wait=False)
        trio.run(without.apply, states_of()["main"], identified)

        async def look() -> list[Frame]:
            views = [view({"main": 7}, {"main": 20}, fast, one) for one in (limits, without)]
            await anyio.sleep(20)
            return [progress.ProgressMeter(each).frame(START) for each in views]

        waiting, ending = in_virtual_time(look)
    assert waiting.left == pytest.approx(7200, abs=2)
    # Without --wait it sends two, and ends.
    assert ending.left == pytest.approx(20 / 7)
    assert (waiting.deferred, ending.deferred) == (0, 11)
    assert "left; 11 rows will be deferred" in display.line(ending)
    assert display.as_json(ending)["deferred_rows"] == 11


def settle(rows: int) -> Callable[[RunView], None]:
    return lambda seen: seen.stats.settled.update(main=rows)


def change(event: Callable[[pace.Pace, float], pace.Pace]) -> Callable[[RunView], None]:
    return lambda seen: seen.accounts["main"].pacer.change(lambda now: event(now, anyio.current_time()))


def test_time_left_is_known_soon_where_a_window_is_waited_for():
    """A few seconds of calls say enough then: the window decides."""
    full = WindowFull(QuotaWindow("per_minute", 10, 60.0), 55.0), 60.0
    waiting = (0, lambda seen: setattr(seen.accounts["main"].pacer, "waiting", full))
    assert left({"main": 10}, {"main": 50}, waiting, at=5.0) == [None, pytest.approx(20, abs=1)]


def test_time_left_counts_down_between_forecasts():
    """It is made anew every few seconds, not with every line."""
    found = left({"main": 100}, {"main": 1000}, (5, settle(200)), (5, lambda _: None), at=10)
    assert found == pytest.approx([90, 85, 700 / 15], abs=0.2)


def test_time_left_follows_another_declared_rate_at_once():
    slower = (0, change(lambda known, now: pace.redeclared(known, 2, now)))
    found = left({"main": 100}, {"main": 1000}, slower, start=pace.declared(10), at=10)
    assert found == pytest.approx([90, 450], rel=0.05)


def test_a_pause_counts_neither_for_the_rate_nor_for_the_time_left():
    """Ten rows a second for 20 seconds, then a pause of an hour: 750 rows take 75 seconds after it, too."""
    steps = [(3595, lambda seen: seen.state.pause()), (5, bool), (0, lambda seen: seen.state.resume())]
    first, *_, last = left({"main": 200}, {"main": 950}, *steps)
    assert [first, last] == pytest.approx([75, 75], abs=0.2)


def test_time_left_follows_the_rate_that_is_measured_under_a_declared_one_that_is_too_high():
    """Then the run's average says nothing; the service allows 30 a second, which its throttles show."""
    higher = (0, change(lambda known, now: pace.redeclared(known, 100, now)))
    throttled = (0, change(lambda known, _: known._replace(known=30.0)))
    steps = [higher, throttled, (10, settle(250))]
    found = left({"main": 100}, {"main": 1000}, *steps, start=pace.declared(10), at=10)
    assert found == pytest.approx([90, 9, 30, 26], rel=0.05)


async def identified(name: str) -> str:
    return "aws/1"


def test_unreadable_call_log_does_not_end_the_display(tmp_path):
    async def main() -> str:
        usage = CallLog((tmp_path / "usage.sqlite"), clock=lambda: 1e6)
        limits = limits_of(usage, main=Quota(per_day=10))
        await limits.apply(states_of()["main"], identified)
        (tmp_path / "usage.sqlite").unlink()
        seen = view({"main": 100}, {"main": 1000}, limits=limits)
        await anyio.sleep(10)
        line = display.line(progress.ProgressMeter(seen).frame(START))
        usage.close()
        return line

    assert "left" not in str(in_virtual_time(main))


def test_outcome_line():
    assert progress.outcome_line(outcome(POOL[0], Status.SUCCEEDED)) == "eng-0/O0 succeeded: revision 1"
    assert progress.outcome_line(outcome(POOL[1], Status.IN_DOUBT)) == "eng-1/O1 in doubt: C: denied"


def watched(look):
    """What a look at a run says whose account has a declared rate of ten."""

    async def main():
        return await look(view({}, {"main": 950}, states_of(start=pace.declared(10))))

    return in_virtual_time(main)


def test_present_rate_of_a_run_is_measured_over_the_last_seconds():
    """A hundred calls a second for a minute, then one."""

    async def look(view):
        view.accounts["main"].pacer.change(lambda _: pace.declared(100))
        meter = progress.ProgressMeter(view)
        rates = []
        for second in range(100):
            await anyio.sleep(1)
            view.accounts["main"].traffic.calls += 100 if second < 60 else 1
            rates.append(meter.frame(START).rate)
        return rates

    rates = watched(look)
    assert rates[:60] == pytest.approx([100] * 60)
    assert rates[70:] == pytest.approx([1] * 30)


def test_frame_has_rows_rates_windows_and_stops_of_accounts():
    async def look(view):
        main, acme = view.accounts["main"], states_of("acme")["acme"]
        view.state.accounts["acme"] = acme
        view.stats.settled["main"] = 20
        windows = (QuotaWindow("per_hour", 50, 3600.0), QuotaWindow("per_day", 100, DAY))
        view._forecast = (5.0, 100.0)
        view._forecasts["main"] = (AccountForecast(Forecast((), 0.0), 10.0, "declared", windows, (10, 60)), 0)
        main.traffic.calls, main.traffic.throttled = 5, 1
        acme.pacer.waiting = (WindowFull(windows[1], 7200.0), anyio.current_time() + 7200)
        acme.stop = Stop(StopKind.DEFERRED, "spent")
        await anyio.sleep(10)
        return progress.ProgressMeter(view).frame(START)

    frame = watched(look)
    main, acme = frame.parts
    assert (frame.calls, frame.throttled, main.done, main.rows) == (5, 1, 20, 950)
    assert main.windows == [WindowUse("per_hour", 15, 50), WindowUse("per_day", 65, 100)]
    assert main.fullest == main.windows[1]
    assert main.allowed == pytest.approx(10, rel=0.1)
    assert acme.allowed == inf
    assert acme.waiting
    assert acme.waiting.seconds == pytest.approx(7190)
    assert acme.stopped == "spent"
    # What cannot call allows nothing: the others' rate is what is left.
    assert frame.allowed == pytest.approx(main.allowed)


@pytest.mark.parametrize(
    ("now_allowed", "shown"),
    [
        (pace.learned(33.3, 0.0)._replace(cut_at=8.0), "36.8/s of 36.8/s measured"),  # cut, or a probe above
        (pace.learned(40.0, 0.0)._replace(cut_at=8.0), "36.8/s of 40.0/s measured"),
        (pace.learned(30.0, 0.0), "36.8/s of 36.8/s from the last run"),
        (pace.declared(5.0), "5.00/s of 5.00/s declared"),  # lowered by `control`
        (pace.Pace(), "36.8/s (measuring the limit)"),
    ],
)
def test_the_rate_of_the_last_seconds_is_never_shown_above_the_allowed_one(now_allowed, shown):
    async def look(view):
        meter = progress.ProgressMeter(view)
        view.accounts["main"].traffic.calls += 368
        await anyio.sleep(10)
        view.accounts["main"].pacer.change(lambda _: now_allowed)
        return meter.frame(START)

    frame = watched(look)
    assert frame.rate <= frame.allowed
    assert f"  {shown}" in display.line(frame)


def test_the_limit_of_an_account_that_just_stopped_counts_as_long_as_its_calls():
    async def look(view):
        view.state.accounts["acme"] = states_of("acme", start=pace.declared(10))["acme"]
        meter = progress.ProgressMeter(view)
        for account in view.accounts.values():
            account.traffic.calls += 90
        await anyio.sleep(10)
        view.accounts["acme"].stop = Stop(StopKind.DEFERRED, "spent")
        just_stopped = meter.frame(START)
        await anyio.sleep(10)
        return just_stopped, meter.frame(START)

    just_stopped, later = watched(look)
    assert (just_stopped.rate, just_stopped.allowed) == (18, pytest.approx(20))
    assert (later.rate, later.allowed) == (0, pytest.approx(10))


@pytest.mark.parametrize("every", [5.0, None])
def test_lines_of_a_log_are_regular_or_become_rare_in_a_long_run(every):
    shown: list[Frame] = []

    async def look(view):
        with anyio.move_on_after(3600):
            await progress.watch(view, shown.append, every=every)

    watched(look)
    times = [frame.elapsed for frame in shown]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[:20] == [5.0 * number for number in range(1, 21)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == (every or progress.LONGEST_GAP)


def test_frame_has_failures_and_the_last_error():
    async def look(view):
        for number, status in enumerate([Status.FAILED, Status.SUCCEEDED, Status.IN_DOUBT]):
            view.stats.add(outcome(POOL[number], status))
        return progress.ProgressMeter(view).frame(START)

    frame = watched(look)
    assert {group.status: number for group, number in frame.failures.items()} == {"failed": 1, "in_doubt": 1}
    assert frame.last_error == "eng-2/O2 C: denied"
    assert frame.at == START


def test_frame_shows_a_pause_and_rows_that_all_fail():
    async def look(view):
        main = view.accounts["main"]
        before = progress.ProgressMeter(view).frame(START).parts[0].failure
        main.pause = Pause.begin("unreachable", "cannot reach api:443: refused", anyio.current_time(), 120)
        await anyio.sleep(0.4)
        paused = progress.ProgressMeter(view).frame(START).parts[0].failure
        main.pause = None
        for _ in range(12):
            main.breaker = main.breaker.after(service_failure(code="403", message="<html>", http_status=403))
        return before, paused, progress.ProgressMeter(view).frame(START).parts[0].failure

    before, paused, failing = watched(look)
    assert before is None
    assert paused == ("cannot reach api:443: refused", 950, pytest.approx(0.6))
    assert failing == ("12 answers in a row were HTML with status 403", 950, None)
