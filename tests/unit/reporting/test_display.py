"""What a person sees of a run that goes on: lines, a block in place, an object a line."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from math import inf

import anyio
import pytest
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from batch_snapshot.engine.account import AccountState, Stop, StopKind
from batch_snapshot.engine.limits import AccountForecast, AccountLimits
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.failures.breakers import Pause
from batch_snapshot.failures.error_codes import ErrorResponse, service_failure
from batch_snapshot.failures.retry import NO_LIMIT
from batch_snapshot.ledger.history import History
from batch_snapshot.models import Account
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.forecast import Forecast
from batch_snapshot.ratelimit.pacer import Pacer
from batch_snapshot.ratelimit.windows import DAY, QuotaWindow, WindowFull
from batch_snapshot.reporting import display, progress
from batch_snapshot.reporting.display import DisplayPart, Frame, ShownFailure, Waiting, WindowUse
from batch_snapshot.reporting.progress import RunView
from batch_snapshot.reporting.screen import Screen
from batch_snapshot.reporting.stats import RunStats
from batch_snapshot.reporting.summary import Counts
from tests.support.strategies import patient

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MAIN = DisplayPart(
    name="main",
    done=1000,
    rows=9000,
    rate=0.98,
    allowed=1.0,
    throttled=3,
    window=WindowUse("per_day", 4774, 9500),
)
FRAME = Frame(
    name="nightly",
    counts=Counts(14_201, 61, 12, 9_126),
    elapsed=14_531.2,
    left=97_920.0,
    ends="Thu 03:24",
    calls=14_290,
    throttled=3,
    parts=[MAIN],
)
SPENT = replace(MAIN, name="acme", waiting=Waiting("per_day", 7200.0))
STOPPED = replace(MAIN, name="globex", stopped="account globex: 20 denials in a row")


def drawn(frame: Frame, width: int = 80, *, color: bool = False, **more: bool) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=width, force_terminal=color, no_color=not color, legacy_windows=False)
    console.print(display.block(frame, width, **more))
    return out.getvalue().rstrip("\n").split("\n")


# ---- a line


def test_line_shows_the_progress_of_a_run():
    assert display.line(FRAME) == (
        "4:02:11  14,274/23,400 rows (61%)  61 failed  12 in doubt  0.98/s of 1.00/s allowed  3 throttled  "
        "1 day, 3:12:00 left"
    )


def test_line_omits_zero_counts():
    quiet = Frame(name="n", counts=Counts(250, 0, 0, 750), elapsed=20.0)
    assert display.line(quiet) == "0:00:20  250/1,000 rows (25%)  0.0/s"
    assert "0/0 rows (100%)" in display.line(replace(quiet, counts=Counts()))


def test_line_names_accounts_that_wait_or_have_stopped():
    assert display.line(replace(FRAME, parts=[SPENT])).count("per_day spent, opens in 2:00:00") == 1
    many = display.line(replace(FRAME, parts=[MAIN, SPENT, STOPPED]))
    assert "acme: per_day spent, opens in 2:00:00  1 of 3 accounts stopped" in many
    assert "main" not in many


def test_percentage_is_100_only_after_the_last_row():
    nearly = Frame(name="n", counts=Counts(99_999, 0, 0, 1), elapsed=1.0)
    assert "(99%)" in display.line(nearly)
    assert "(29%)" in display.line(replace(nearly, counts=Counts(29, 0, 0, 71)))


@pytest.mark.parametrize("left", [inf, None])
def test_unknown_or_endless_time_left_is_said_in_words(left):
    frame = replace(FRAME, left=left, ends=None)
    assert "left" not in display.line(frame)
    assert any(("no end" if left else "not known") in line for line in drawn(frame))
    assert display.as_json(frame)["left_s"] is None


# ---- an object


def test_json_has_every_field_of_a_frame():
    told = display.as_json(replace(FRAME, parts=[replace(MAIN, allowed=inf), SPENT, STOPPED]))
    assert (told["rows"], told["succeeded"], told["unattempted"]) == (23_400, 14_201, 9_126)
    assert told["accounts"]["main"]["allowed_rate"] is None
    assert told["accounts"]["main"]["window"] == {"name": "per_day", "used": 4774, "limit": 9500}
    assert told["accounts"]["acme"]["waiting"] == {"window": "per_day", "seconds": 7200.0}
    assert told["accounts"]["globex"]["stopped"] == "account globex: 20 denials in a row"


# ---- a block


def test_block_of_one_account_without_colour():
    assert drawn(FRAME, 81) == [
        "nightly  ━━━━━━━━━━━━━━━━━━━━━━━━━━─────────────────  61%  14,274 of 23,400 rows",
        "  14,201 succeeded   61 failed   12 in doubt   9,126 to do",
        "  0.98/s of 1.00/s allowed   3 of 14,290 calls throttled (0.0%)   per_day 4,774 …",
        "  4:02:11 elapsed   1 day, 3:12:00 left, until Thu 03:24",
    ]


def test_wide_terminal_shows_text_that_a_narrow_one_cuts():
    assert any("per_day 4,774 of 9,500 used" in line for line in drawn(FRAME, 200))
    assert max(map(len, drawn(FRAME, 200))) <= 120


def test_terminal_without_unicode_gets_an_ascii_bar():
    assert "###" in drawn(FRAME, ascii_only=True)[0]
    assert "\n".join(drawn(replace(FRAME, left=None), 200, ascii_only=True)).isascii()


def test_accounts_have_a_line_each_and_further_ones_are_summed_up():
    lines = drawn(replace(FRAME, parts=[MAIN, SPENT, STOPPED]), 100)
    assert lines[4].split() == ["account", "rows", "calls/s", "throttled", "quota"]
    assert "1,000/9,000" in lines[5]
    assert "per_day 4,774 of 9,500 used" in lines[5]
    assert "per_day spent, opens in 2:00:00" in lines[6]
    assert "stopped: 20 denials in a row" in lines[7]
    many = drawn(replace(FRAME, parts=[replace(MAIN, name=f"a{n}") for n in range(40)]))
    assert len(many) == 4 + 1 + display.SHOWN_ACCOUNTS + 1
    assert many[-1].split()[:3] == ["31", "more", "31,000/279,000"]


def test_long_quota_text_does_not_cut_the_numbers():
    lines = drawn(replace(FRAME, parts=[replace(MAIN, stopped="why " * 60), replace(MAIN, name="n" * 64)]))
    for line in lines[5:]:
        assert line.split()[1:5] == ["1,000/9,000", "0.98", "of", "1"]
    assert lines[5].endswith("…")


def test_text_is_the_same_with_and_without_colours():
    plain, coloured = drawn(FRAME), drawn(FRAME, color=True)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain
    assert plain != coloured


names = st.text(st.sampled_from("abc.-_X9"), min_size=1, max_size=64)
numbers = st.integers(0, 10**7)
parts = st.builds(
    DisplayPart,
    name=names,
    done=numbers,
    rows=numbers | st.none(),
    rate=st.floats(0, 1e5),
    allowed=st.none() | st.just(inf) | st.floats(0.01, 1e5),
    throttled=numbers,
    window=st.none() | st.builds(WindowUse, st.just("per_minute"), numbers, st.integers(1, 10**7)),
    waiting=st.none() | st.builds(Waiting, st.just("per_day"), st.floats(0, 1e6)),
    failure=st.none()
    | st.builds(
        ShownFailure, st.text(max_size=200).filter(str.isprintable), numbers, st.none() | st.floats(0, 1e6)
    ),
    stopped=st.none() | st.text(max_size=200).filter(str.isprintable),
)
frames = st.builds(
    Frame,
    name=names,
    counts=st.builds(Counts, numbers, numbers, numbers, numbers),
    elapsed=st.floats(0, 1e8),
    left=st.none() | st.just(inf) | st.floats(0, 1e8),
    ends=st.none() | st.just("2026-03-01 12:00"),
    calls=numbers,
    throttled=numbers,
    parts=st.lists(parts, max_size=14),
)


@given(frames, st.integers(20, 250))
@example(replace(FRAME, parts=[replace(STOPPED, stopped=f"0{'0' * 80}{chr(0x93A) * 60}"), MAIN]), 59)
@example(replace(FRAME, parts=[replace(STOPPED, stopped=f"{chr(0x93A) * 60}{chr(0x5B57) * 40}"), MAIN]), 59)
@patient
def test_no_line_is_wider_than_the_terminal_and_none_wraps(frame, width):
    lines = drawn(frame, width)
    assert all(cell_len(line) <= width for line in lines), "in columns: a mark above another sign takes none"
    several = min(len(frame.parts), display.SHOWN_ACCOUNTS) + 1 + (len(frame.parts) > display.SHOWN_ACCOUNTS)
    assert len(lines) <= 4 + max(2, several)
    assert "\n" not in display.line(frame)


HOST = "partnercentral-selling.us-east-1.api.aws:443"
UNREACHED = replace(MAIN, failure=ShownFailure(f"cannot reach {HOST}: connection refused", 8000, 8.2))


def test_unreachable_host_is_named_in_full_on_a_narrow_terminal():
    lines = drawn(replace(FRAME, parts=[UNREACHED]), 80)
    assert lines[4:] == [
        f"  cannot reach {HOST}: connection refused",
        "  8,000 rows waiting, next try in 8 s",
    ]


def test_unreachable_host_is_named_in_line_and_json():
    frame = replace(FRAME, parts=[UNREACHED])
    what = f"cannot reach {HOST}: connection refused"
    assert f"  {what}, 8,000 rows waiting, next try in 8 s  " in display.line(frame)
    assert display.as_json(frame)["accounts"]["main"]["trouble"] == {
        "what": what,
        "rows_waiting": 8000,
        "next_try_s": 8.2,
    }
    several = replace(FRAME, parts=[replace(UNREACHED, name="acme"), MAIN])
    assert f"acme: {what}, 8,000 rows waiting" in display.line(several)


def test_stopped_account_shows_only_its_reason():
    frame = replace(FRAME, parts=[replace(UNREACHED, stopped="account main: 20 denials in a row")])
    assert "  stopped  " in display.line(frame)
    assert drawn(frame)[4:] == ["  stopped: 20 denials in a row"]


# ---- what is read off a run


def lane(name: str, start: pace.Pace | None = None) -> AccountState:
    return AccountState(name, Pacer(start or pace.declared(10.0)), Pacer(pace.declared(10)))


def no_record(outcome):
    raise AssertionError


def in_virtual_time(look):
    async def main():
        state = RunState({"main": lane("main")}, no_record, lambda: NOW, NO_LIMIT)
        limits = AccountLimits({"main": Account("main")}, "aws", None, {})
        stats = RunStats(History(), 1000, {"main": 950})
        view = RunView("nightly", stats, state, limits, started=anyio.current_time())
        return await look(view)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_present_rate_of_a_run_is_measured_over_the_last_seconds():
    """A hundred calls a second for a minute, then one."""

    async def look(view):
        gauge = progress.ProgressMeter(view)
        rates = []
        for second in range(100):
            await anyio.sleep(1)
            view.accounts["main"].traffic.calls += 100 if second < 60 else 1
            rates.append(gauge.frame(NOW).rate)
        return rates

    rates = in_virtual_time(look)
    assert rates[:60] == pytest.approx([100] * 60)
    assert rates[70:] == pytest.approx([1] * 30)


def test_frame_has_rows_rates_windows_and_stops_of_accounts():
    async def look(view):
        main, acme = view.accounts["main"], lane("acme", pace.Pace())
        view.state.accounts["acme"] = acme
        view.stats.settled["main"] = 20
        windows = (QuotaWindow("per_hour", 50, 3600.0), QuotaWindow("per_day", 100, DAY))
        view._forecast = (5.0, 100.0)
        view._forecasts["main"] = (AccountForecast(Forecast((), 0.0), 10.0, "declared", windows, (10, 60)), 0)
        main.traffic.calls, main.traffic.throttled = 5, 1
        acme.pacer.waiting = (WindowFull(windows[1], 7200.0), anyio.current_time() + 7200)
        acme.stop = Stop(StopKind.DEFERRED, "spent")
        await anyio.sleep(10)
        return progress.ProgressMeter(view).frame(NOW)

    frame = in_virtual_time(look)
    main, acme = frame.parts
    assert (frame.calls, frame.throttled, main.done, main.rows) == (5, 1, 20, 950)
    assert main.window == WindowUse("per_day", 65, 100)
    assert main.allowed == pytest.approx(10, rel=0.1)
    assert acme.allowed == inf
    assert acme.waiting
    assert acme.waiting.seconds == pytest.approx(7190)
    assert acme.stopped == "spent"
    # What cannot call allows nothing: the others' rate is what is left.
    assert frame.allowed == pytest.approx(main.allowed)


def test_watch_shows_frames_at_regular_intervals():
    shown: list[Frame] = []

    async def look(view):
        with anyio.move_on_after(26):
            await progress.watch(view, shown.append, every=5.0, now=lambda: NOW)

    in_virtual_time(look)
    assert [frame.elapsed for frame in shown] == [5, 10, 15, 20, 25]


# ---- a terminal


class Terminal:
    """What stands on a terminal that heeds returns, moves upwards and wipes."""

    def __init__(self) -> None:
        self.lines, self.row, self.column = [""], 0, 0
        self.writes: list[str] = []

    def write(self, text: str) -> None:
        self.writes.append(text)
        for piece in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|.|\n", text):
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif piece == "\x1b[2K":
                self.lines[self.row] = ""
            elif piece.endswith("A"):
                self.row -= int(piece[2:-1] or 1)
            elif not piece.startswith("\x1b"):
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + piece + line[self.column + 1 :]
                self.column += 1


def test_block_is_redrawn_in_place_under_lines_and_erased_at_the_end():
    terminal = Terminal()
    with Screen(terminal.write, width=80) as screen:
        screen.print_above("before the first frame")
        for second in range(3):
            screen.show(replace(FRAME, elapsed=second))
        screen.print_above("eng-1/O1 failed: [red]it said[/red] :smile:")
        screen.show(replace(FRAME, elapsed=9))
        assert terminal.lines[:2] == ["before the first frame", "eng-1/O1 failed: [red]it said[/red] :smile:"]
        assert terminal.lines[2].startswith("nightly  ━")
        assert terminal.lines[5].startswith("  0:00:09 elapsed")
        assert sum("elapsed" in line for line in terminal.lines) == 1
    assert [line for line in terminal.lines if line] == terminal.lines[:2]
    assert terminal.writes[-1].endswith("\x1b[?25h") or any("\x1b[?25h" in text for text in terminal.writes)


def test_frame_is_drawn_with_one_write():
    """Nothing is seen half drawn."""
    terminal = Terminal()
    with Screen(terminal.write, width=80) as screen:
        screen.show(FRAME)
        before = len(terminal.writes)
        screen.show(FRAME)
        assert len([text for text in terminal.writes[before:] if text.strip()]) == 1


def test_no_color_variable_turns_colours_off(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    with Screen(terminal.write, width=80) as screen:
        screen.show(FRAME)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][;0-9]*m", "".join(terminal.writes))


def test_frame_shows_a_pause_and_rows_that_all_fail():
    async def look(view):
        main = view.accounts["main"]
        before = progress.ProgressMeter(view).frame(NOW).parts[0].failure
        main.pause = Pause.begin("unreachable", "cannot reach api:443: refused", anyio.current_time(), 120)
        await anyio.sleep(0.4)
        paused = progress.ProgressMeter(view).frame(NOW).parts[0].failure
        main.pause = None
        for _ in range(12):
            main.breaker = main.breaker.after(
                service_failure(ErrorResponse(code="403", message="<html>", http_status=403))
            )
        return before, paused, progress.ProgressMeter(view).frame(NOW).parts[0].failure

    before, paused, failing = in_virtual_time(look)
    assert before is None
    assert paused == ("cannot reach api:443: refused", 950, pytest.approx(0.6))
    assert failing == ("12 answers in a row were HTML with status 403", 950, None)
