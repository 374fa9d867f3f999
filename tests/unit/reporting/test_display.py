"""Frames as lines, JSON and blocks for terminals."""

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from io import StringIO
from math import inf
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from batch_snapshot.reporting import display
from batch_snapshot.reporting.display import DisplayPart, Frame, ShownFailure, Waiting, WindowUse
from batch_snapshot.reporting.summary import Counts
from tests.support.reports import BROKEN, DENIED, DOUBT, FRAME, MAIN
from tests.support.strategies import patient

SPENT = replace(MAIN, name="acme", waiting=Waiting("per_day", 7200.0))
STOPPED = replace(MAIN, name="globex", stopped="account globex: 20 denials in a row")


def drawn(frame: Frame, width: int = 80, *, color: bool = False, **more: Any) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=width, force_terminal=color, no_color=not color, legacy_windows=False)
    console.print(*display.block(frame, width, **more), sep="\n", soft_wrap=True)
    return out.getvalue().rstrip("\n").split("\n")


NOON = datetime(2026, 3, 1, 13, tzinfo=timezone(timedelta(hours=1)))
PROGRESS = "4:02:11  14,274/23,400 rows (61%)  61 failed  12 in doubt  0.98/s of 1.00/s"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, f"{PROGRESS} allowed  3 throttled  1 day, 3:12:00 left"),
        ({"at": NOON}, f"2026-03-01T12:00:00Z  {PROGRESS}"),
        ({"counts": Counts(99_999, 0, 0, 1)}, "(99%)"),
        ({"counts": Counts(29, 0, 0, 71)}, "(29%)"),
        ({"parts": [SPENT]}, "2:00:00 until per_day opens"),
        ({"parts": [MAIN, SPENT, STOPPED]}, "acme: 2:00:00 until per_day opens  1 of 3 accounts stopped"),
        # Where sources differ, none is named for the sum.
        (
            {"parts": [replace(MAIN, source="declared"), replace(MAIN, name="a", source="b")]},
            "2.00/s allowed",
        ),
        ({"parts": [replace(MAIN, source="declared")]}, "0.98/s of 1.00/s declared"),
        ({"parts": [replace(MAIN, source="from the last run")]}, "0.98/s of 1.00/s from the last run"),
        ({"parts": [replace(MAIN, allowed=inf, source="measuring")]}, "0.98/s (measuring the limit)"),
    ],
)
def test_line_shows_the_progress_of_a_run(changes, words):
    frame = replace(FRAME, **changes)
    assert display.line(frame).count(words) == 1
    assert not changes.get("at") or display.line(frame).startswith(words)
    sources = {name: each["rate_source"] for name, each in display.as_json(frame)["accounts"].items()}
    assert sources == {part.name: part.source for part in frame.parts}


def test_line_omits_zero_counts():
    quiet = Frame(name="n", counts=Counts(250, 0, 0, 750), elapsed=20.0)
    assert display.line(quiet) == "0:00:20  250/1,000 rows (25%)  0.0/s"
    assert "0/0 rows (100%)" in display.line(replace(quiet, counts=Counts()))


def test_a_paused_run_says_so_instead_of_the_time_left():
    command = "batch-snapshot control ledgers/nightly.ndjson resume"
    paused = replace(FRAME, resume=command)
    for text in (display.line(paused), "\n".join(drawn(paused, 80))):
        assert "paused; this continues it:" in text
        assert "left" not in text
    assert display.line(paused).endswith(f":  {command}")
    assert display.as_json(paused)["paused"] is True
    assert "waiting for 3 calls" in display.line(replace(paused, stopping="waiting for 3 calls"))
    assert f"  {command}" in drawn(paused, 80)


@pytest.mark.parametrize("height", [4, 25])
def test_the_command_that_resumes_a_paused_run_is_never_cut(height):
    command = f"batch-snapshot control {'/very-long' * 30} resume"
    lines = drawn(replace(FRAME, resume=command), 80, height=height)
    assert (f"  {command}" in lines) is (height == 25)
    assert sum(-(-len(line) // 80) for line in lines) < max(height, 2)


@pytest.mark.parametrize("left", [inf, None])
def test_unknown_or_endless_time_left_is_said_in_words(left):
    frame = replace(FRAME, left=left, ends=None)
    assert "left" not in display.line(frame)
    assert any(("never ends" if left else "not known") in line for line in drawn(frame))
    assert display.as_json(frame)["left_s"] is None


def test_json_has_every_field_of_a_frame():
    fields = display.as_json(replace(FRAME, parts=[replace(MAIN, allowed=inf), SPENT, STOPPED]))
    assert (fields["rows"], fields["succeeded"], fields["unattempted"]) == (23_400, 14_201, 9_126)
    assert fields["accounts"]["main"]["allowed_rate"] is None
    assert fields["accounts"]["main"]["window"] == {"name": "per_day", "used": 4774, "limit": 9500}
    assert fields["accounts"]["acme"]["waiting"] == {"window": "per_day", "seconds": 7200.0}
    assert fields["accounts"]["globex"]["stopped"] == "account globex: 20 denials in a row"


def test_block_of_one_account_without_colour():
    assert drawn(FRAME, 81) == [
        "nightly  ━━━━━━━━━━━━━━━━━━━━━━━━━━─────────────────  61%  14,274 of 23,400 rows",
        "  14,201 succeeded  61 failed  12 in doubt  9,126 to do",
        "  0.98/s of 1.00/s allowed  3 of 14,290 calls throttled (0.0%)",
        "  4:02:11 elapsed  1 day, 3:12:00 left, until Thu 03:24",
        "  per_day 4,774 of 9,500 used",
    ]


def test_wide_terminal_is_filled():
    lines = drawn(FRAME, 200)
    assert len(lines) == 3
    assert len(lines[0]) == 199
    assert lines[1].endswith("(0.0%)  4:02:11 elapsed  1 day, 3:12:00 left, until Thu 03:24")
    several = replace(MAIN, windows=[WindowUse("per_hour", 1, 50), WindowUse("per_day", 2, 95)], failed=7)
    lines = drawn(replace(FRAME, parts=[several, SPENT]), 200)
    assert lines[-3].split() == ["account", "rows", "calls/s", "problems", "throttled", "quota"]
    assert lines[-2].split()[5:7] == ["7", "3"]
    assert lines[-2].endswith("per_hour 1 of 50 used, per_day 2 of 95 used")


FAILED = replace(
    FRAME,
    failures={DENIED: 41, BROKEN: 20, DOUBT: 12},
    last_error="eng-1/O1 AccessDeniedException: User arn:aws:iam::123456789012:user/x is not authorized",
)


def test_failures_are_shown_by_kind_with_the_last_error():
    assert drawn(FAILED, 80)[5:] == [
        "  41 failed: denied AccessDeniedException",
        "  20 failed: transient InternalServerException",
        "  12 in doubt: denied AccessDeniedException",
        "  last error: eng-1/O1 AccessDeniedException: User arn:aws:iam::123456789012:u…",
    ]
    assert "  61 failed (denied, transient)  " in display.line(FAILED)
    assert any(line.endswith("is not authorized") for line in drawn(FAILED, 200))
    fields = display.as_json(FAILED)
    assert fields["failures"][0] == {**DENIED._asdict(), "count": 41}
    assert fields["last_error"] == FAILED.last_error


def test_of_many_kinds_of_failures_the_most_frequent_are_named():
    many = {DENIED._replace(code=f"Code{number}"): 100 - number for number in range(9)}
    lines = drawn(replace(FRAME, failures=many), 80)
    assert lines[5].startswith("  100 failed: denied Code0  99 failed: denied Code1  98")
    assert lines[6] == "  … and 6 other kinds"


def test_low_terminal_gets_no_more_lines_than_it_has():
    parts = [replace(MAIN, name=f"a{n}") for n in range(40)]
    assert len(drawn(replace(FAILED, parts=parts), height=12)) == 11
    assert len(drawn(replace(FRAME, parts=parts), height=60)) == 4 + 1 + 40


def test_terminal_without_unicode_gets_an_ascii_bar():
    assert "###" in drawn(FRAME, ascii_only=True)[0]
    assert "\n".join(drawn(replace(FRAME, left=None), 200, ascii_only=True)).isascii()


def test_accounts_have_a_line_each_and_further_ones_are_summed_up():
    lines = drawn(replace(FRAME, parts=[MAIN, SPENT, STOPPED]), 101)
    assert lines[4].split() == ["account", "rows", "calls/s", "problems", "throttled", "quota"]
    assert "1,000/9,000" in lines[5]
    assert "per_day 4,774 of 9,500 used" in lines[5]
    assert "2:00:00 until per_day opens" in lines[6]
    assert "stopped: 20 denials in a row" in lines[7]
    many = drawn(replace(FRAME, parts=[replace(MAIN, name=f"a{n}") for n in range(40)]))
    assert len(many) == 4 + 1 + display.SHOWN_ACCOUNTS + 4 + 1
    assert many[-1].split()[:3] == ["27", "more", "27,000/243,000"]


def test_long_quota_text_does_not_cut_the_numbers():
    lines = drawn(replace(FRAME, parts=[replace(MAIN, stopped="why " * 60), replace(MAIN, name="n" * 64)]))
    for line in lines[5:]:
        assert line.split()[1:5] == ["1,000/9,000", "0.98", "of", "1.00"]
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
    windows=st.lists(st.builds(WindowUse, st.just("per_minute"), numbers, st.integers(1, 10**7)), max_size=2),
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
    parts=st.lists(parts, max_size=24),
    failures=st.dictionaries(st.sampled_from([DENIED, BROKEN, DOUBT]), numbers),
    last_error=st.none() | st.text(max_size=300),
)


@given(frames, st.integers(20, 250))
@example(replace(FRAME, parts=[replace(STOPPED, stopped=f"0{'0' * 80}{chr(0x93A) * 60}"), MAIN]), 59)
@example(replace(FRAME, parts=[replace(STOPPED, stopped=f"{chr(0x93A) * 60}{chr(0x5B57) * 40}"), MAIN]), 59)
@patient
def test_no_line_is_wider_than_the_terminal_and_none_wraps(frame, width):
    lines = drawn(frame, width)
    assert all(cell_len(line) <= width for line in lines), "in columns: a mark above another sign takes none"
    assert len(lines) < 25
    assert "\n" not in display.line(frame)


HOST = "partnercentral-selling.us-east-1.api.aws:443"
UNREACHED = replace(MAIN, failure=ShownFailure(f"cannot reach {HOST}: connection refused", 8000, 8.2))


def test_unreachable_host_is_named_with_the_time_of_the_next_try_first():
    frame, what = replace(FRAME, parts=[UNREACHED]), f"cannot reach {HOST}: connection refused"
    assert drawn(frame, 80)[5:] == [f"  next try in 8 s: cannot reach {HOST}: …"]
    assert drawn(frame, 100)[-1] == f"  next try in 8 s: {what}"
    assert f"  next try in 8 s: {what}  " in display.line(frame)
    trouble = {"what": what, "rows_waiting": 8000, "next_try_s": 8.2}
    assert display.as_json(frame)["accounts"]["main"]["trouble"] == trouble
    several = replace(FRAME, parts=[replace(UNREACHED, name="acme"), MAIN])
    assert f"acme: next try in 8 s: {what}" in display.line(several)
    assert any("  next try in 8 s: cannot reach partner" in line for line in drawn(several))
    # An account that has stopped shows only that.
    frame = replace(FRAME, parts=[replace(UNREACHED, stopped="account main: 20 denials in a row")])
    assert "  stopped  " in display.line(frame)
    assert drawn(frame)[5:] == ["  stopped: 20 denials in a row"]
