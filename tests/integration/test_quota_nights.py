"""Nights whose quota is smaller than their manifest: each night is finished, and no row is made twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot import cli, paths
from batch_snapshot.config import options
from batch_snapshot.config.options import Options
from batch_snapshot.errors import LedgerError
from batch_snapshot.jobs import resume
from batch_snapshot.jobs import run as batch
from batch_snapshot.ledger import reader
from batch_snapshot.models import Quota
from batch_snapshot.ratelimit import forecast, windows
from batch_snapshot.reporting import status
from batch_snapshot.simulator import serve
from tests.support import rewriting
from tests.support.ledgers import Book
from tests.support.processes import move_in, pairs, write_manifest
from tests.support.strategies import patient

if TYPE_CHECKING:
    from batch_snapshot.reporting.summary import Summary

PATTERN = "ledgers/{name}-{date}.ndjson"
DAY = datetime(2026, 3, 1, 2, 17, tzinfo=UTC)
ROWS = pairs(12)
COMMAND = "batch-snapshot run trial.yaml --ledger 'ledgers/{name}-{date}.ndjson'"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working folder, and no AWS configuration but our own."""
    move_in(monkeypatch, tmp_path)
    listed(ROWS)
    return tmp_path


def listed(rows: list[dict[str, Any]], per_day: int = 8) -> None:
    write_manifest(Path("trial.yaml"), rows, accounts={"main": {"quota": {"per_day": per_day}}})


def ledger_of(day: int) -> Path:
    return Path(f"ledgers/trial-2026-03-{day:02}.ndjson")


class Nights:
    """Runs of the same command by a clock of their own."""

    def __init__(self, url: str, simulator: Any) -> None:
        self.simulator = simulator
        self.options = Options(endpoint_url=url, ledger=PATTERN, command_line=COMMAND)

    async def run(self, day: float, *, fresh: bool = True, **more: Any) -> Summary:
        """Run on that day of the month; with `fresh`, the quota windows have opened since the last run."""
        if fresh:
            paths.usage_file(Path("state")).unlink(missing_ok=True)
        hooks = batch.Hooks(now=lambda: DAY + timedelta(days=day - 1))
        return await batch.run("trial.yaml", replace(self.options, **more), hooks)

    @property
    def made(self) -> list[int]:
        """How many snapshots each row has."""
        counts = Counter((one.engagement, one.resource) for one in self.simulator.snapshots)
        return [counts[each["engagement"], each["resource"]] for each in ROWS]


@pytest.mark.asyncio
async def test_a_deferred_night_is_finished_before_the_next_begins_and_no_row_is_made_twice():
    async with serve() as (url, simulator):
        nights = Nights(url, simulator)
        first = await nights.run(1)
        assert (first.exit_code, first.ledger, first.counts) == (4, str(ledger_of(1)), (8, 0, 0, 4))
        # The window is not open yet: at once, and no row is made.
        closed = await nights.run(2, fresh=False)
        assert (closed.exit_code, closed.ledger, closed.calls) == (4, str(ledger_of(1)), 0)
        assert (
            f"today's night ({ledger_of(2)}) has not begun: the same command finishes {ledger_of(1)} first"
            in (closed.warnings)
        )
        assert nights.made == [1] * 8 + [0] * 4

        rest = await nights.run(2.5)
        assert (rest.exit_code, rest.ledger, rest.counts) == (0, str(ledger_of(1)), (12, 0, 0, 0))
        assert nights.made == [1] * 12
        [told] = [text for text in rest.warnings if "has not begun" in text]
        assert f"today's night ({ledger_of(2)}) has not begun: run the same command again for it" in told
        assert list(rest.next_steps) == [COMMAND]

        second = await nights.run(2.6, fresh=False)
        assert (second.exit_code, second.ledger, second.counts) == (4, str(ledger_of(2)), (4, 0, 0, 8))
        # Today's own ledger needs no word about another day.
        assert not [text for text in second.warnings if "has not begun" in text]
        third = await nights.run(4)
        assert (third.exit_code, third.ledger) == (0, str(ledger_of(2)))
        assert nights.made == [2] * 12
    assert [status.check_ledger(ledger_of(day)) for day in (1, 2)] == [12, 12]
    assert not ledger_of(4).exists()


@pytest.mark.asyncio
async def test_a_night_that_its_longest_duration_has_cut_is_finished_too():
    async with serve() as (url, simulator):
        nights = Nights(url, simulator)
        listed(ROWS, per_day=100)
        cut = options.Settings(max_duration=0.4)
        first = await nights.run(1, rate=10.0, engine=cut)
        assert (first.exit_code, first.outcome) == (4, "deferred")
        assert 0 < first.counts.succeeded < 12
        assert (await nights.run(5, rate=1000.0)).ledger == str(ledger_of(1))
        assert nights.made == [1] * 12


@pytest.mark.asyncio
async def test_of_several_deferred_nights_the_oldest_is_finished_first_and_todays_own_before_them():
    async with serve() as (url, simulator):
        nights = Nights(url, simulator)
        for day in (1, 2, 3):
            pattern = replace(nights.options, ledger=str(ledger_of(day)), new_ledger=True)
            nights.options, kept = pattern, nights.options
            assert (await nights.run(day)).exit_code == 4
            nights.options = kept
        ran = [(await nights.run(day)).ledger for day in (3, 5, 6, 7)]
    assert ran == [str(ledger_of(day)) for day in (3, 1, 2, 7)]
    assert nights.made == [4] * 8 + [3] * 4


@pytest.mark.asyncio
async def test_a_manifest_that_was_edited_meanwhile_runs_what_was_added_and_a_night_without_rows_is_over():
    async with serve() as (url, simulator):
        nights = Nights(url, simulator)
        await nights.run(1)
        listed([*ROWS[:8], *pairs(2, first=50)])
        edited = await nights.run(3)
        assert (edited.exit_code, edited.ledger, edited.calls) == (0, str(ledger_of(1)), 2)
        await nights.run(4)  # of ten rows two are left
        listed(ROWS[:8])
        # Of those nothing is left in the manifest: the night is over, and the next run begins a new one.
        over = await nights.run(6)
        assert (over.exit_code, over.ledger, over.calls) == (0, str(ledger_of(4)), 0)
        assert (await nights.run(6)).ledger == str(ledger_of(6))
    assert nights.made == [3] * 8 + [0] * 4


@pytest.mark.parametrize(
    ("ends", "goes_on"),
    [
        (["deferred"], True),
        (["deferred", None], True),
        (["deferred", "interrupted"], True),
        (["deferred", "completed"], False),
        (["deferred", "interrupted", None], True),
        (["deferred", "stopped"], False),
        (["stopped"], False),
        (["interrupted"], False),
        ([None], False),
        (["completed"], False),
        (["stopped", "deferred"], True),
    ],
)
def test_what_was_deferred_stays_so_until_it_is_finished_or_stopped(ends, goes_on):
    """A later end that was interrupted, a crash, and a selection of accounts leave it to the same command."""
    book = Book(rows=3, name="trial", began=DAY, manifest="/srv/trial.yaml", counts={"unattempted": 3})
    for outcome in ends:
        book.begin(accounts={"main": {}}, endpoint="aws")
        if outcome:
            book.end(outcome)
    path = ledger_of(1)
    path.parent.mkdir()
    book.write(path)
    later = DAY + timedelta(days=9)
    assert resume.resumable(path, later) is goes_on
    assert resume.resumable(path, DAY) is True
    chosen, warnings = resume.choose_ledger("trial", Options(ledger=PATTERN), later)
    assert chosen == (path if goes_on else ledger_of(10))
    if goes_on or ends[-1] == "completed":
        assert warnings == []
    else:
        [told] = warnings
        assert told.startswith(f"{path}: that night ")
        assert "left 3 rows unattempted" in told
        assert f"batch-snapshot run /srv/trial.yaml --ledger {path}" in told
        # Once today's ledger is there, it has been said.
        rewriting.write(chosen, b"")
        assert resume.choose_ledger("trial", Options(ledger=PATTERN), later) == (chosen, [])


@pytest.mark.parametrize(
    ("deferred", "completed", "goes_on"),
    [
        (["a"], ["a"], False),
        (["a"], ["a", "b"], False),
        (["a"], ["b"], True),
        (["a"], [], False),
        ([], ["a"], True),
        ([], [], False),
    ],
)
def test_a_night_is_over_when_the_accounts_that_were_put_off_are_through(deferred, completed, goes_on):
    """A ledger for some accounts counts the rows of the others as unattempted for ever."""
    book = Book(rows=3, name="trial", began=DAY, counts={"unattempted": 3})
    book.begin(settings={"accounts": deferred}).end("deferred")
    book.begin(settings={"accounts": completed}).end("completed")
    path = ledger_of(1)
    path.parent.mkdir()
    assert resume.resumable(book.write(path), DAY + timedelta(days=2)) is goes_on
    # A retry goes through, and the rest is where it was.
    book.begin("retry").end("completed")
    assert resume.resumable(book.write(path), DAY + timedelta(days=2)) is goes_on


@pytest.mark.asyncio
async def test_accounts_with_ledgers_of_their_own_have_a_night_every_night():
    write_manifest(
        Path("trial.yaml"),
        [{**each, "account": "main"} for each in ROWS] + pairs(3, first=90, account="other"),
        accounts={"main": {"quota": {"per_day": 8}}, "other": {}},
    )
    async with serve() as (url, simulator):
        nights = Nights(url, simulator)
        ran = [await nights.run(day, accounts=("main",)) for day in (1, 2, 3, 4)]
    assert [one.ledger for one in ran] == [str(ledger_of(day)) for day in (1, 1, 3, 3)]
    assert nights.made == [2] * 12


def test_finished_nights_are_known_by_their_last_line_alone():
    path = ledger_of(1)
    path.parent.mkdir()
    book = Book(rows=1, name="trial", began=DAY, counts={"succeeded": 1}).begin().end("deferred")
    book.lines.insert(1, b"damage\n")
    book.write(path)
    assert resume.choose_ledger("trial", Options(ledger=PATTERN), DAY) == (path, [])
    assert not resume.resumable(path, DAY)
    # Here all of its ends count, and one of them is damaged.
    book = Book(rows=1, name="trial", began=DAY, counts={"unattempted": 1}).begin().end("deferred")
    book.lines[1] = b'{"type":"end"\n'
    book.begin().end("interrupted").write(path)
    chosen, [told] = resume.choose_ledger("trial", Options(ledger=PATTERN), DAY + timedelta(days=1))
    assert chosen == ledger_of(2)
    assert told.startswith(f"passed over: {path}:2: not JSON")
    with pytest.raises(LedgerError, match=r"--repair"):
        reader.ending(path)


def test_many_old_nights_are_not_all_named():
    Path("ledgers").mkdir()
    for day in range(1, 7):
        book = Book(rows=3, name="trial", began=DAY, counts={"unattempted": day})
        book.begin(accounts={"main": {}}).end("interrupted").write(ledger_of(day))
    _, warnings = resume.choose_ledger("trial", Options(ledger=PATTERN), DAY + timedelta(days=20))
    assert [text.partition(":")[0] for text in warnings[:3]] == [str(ledger_of(day)) for day in (6, 5, 4)]
    assert warnings[3:] == ["3 older ledgers are not finished either"]


def test_retry_leaves_a_deferred_ledger_to_run_whatever_its_age(capsys):
    Path("ledgers").mkdir()
    path = ledger_of(1)
    book = Book(rows=3, name="trial", began=DAY - timedelta(days=400), counts={"unattempted": 3})
    book.begin(accounts={"main": {}}).end("deferred").write(path)
    before = path.read_bytes()
    assert cli.main(["retry", "ledgers/trial-{date}.ndjson"]) == 0
    assert f"{path}: is not finished, and run resumes it" in capsys.readouterr().err
    assert path.read_bytes() == before


# -- what such a manifest means -----------------------------------------------------------------------


def test_validate_and_plan_say_what_such_a_manifest_means(capsys):
    words = "its quota is 8 calls a day and it has 12 rows: a run takes 2 days at least"
    assert cli.main(["validate", "trial.yaml"]) == 0
    assert words in capsys.readouterr().err
    assert cli.main(["plan", "trial.yaml"]) == 0
    said = capsys.readouterr().out
    assert words in said
    assert "nights fall behind" in said
    listed(ROWS, per_day=12)
    assert cli.main(["validate", "trial.yaml"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.asyncio
async def test_a_nightly_run_says_so_and_a_backfill_does_not():
    async with serve() as (url, simulator):
        nights = Nights(url, simulator)
        nightly = await nights.run(1)
        backfill = await nights.run(1, ledger="other.ndjson", new_ledger=True)
    assert [text for text in nightly.warnings if "nights fall behind" in text]
    assert not [text for text in backfill.warnings if "nights fall behind" in text]


quotas = st.builds(
    Quota,
    per_minute=st.none() | st.integers(1, 50),
    per_hour=st.none() | st.integers(1, 500),
    per_day=st.none() | st.integers(1, 5000),
    reserve=st.integers(0, 3),
)


@given(quotas, st.integers(1, 10_000))
@patient
def test_a_day_holds_what_its_tightest_window_lets_through(declared, rows):
    a_day = windows.calls_a_day(declared)
    texts = forecast.days_needed({"main": rows}, {"main": a_day})
    bounds_ = [
        (limit - declared.reserve) * times
        for limit, times in ((declared.per_minute, 1440), (declared.per_hour, 24), (declared.per_day, 1))
        if limit is not None
    ]
    fits = all(rows <= max(0, most) for most in bounds_)
    assert bool(texts) is not fits
