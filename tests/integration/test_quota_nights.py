"""Nightly runs whose quota is smaller than their manifest: each ledger is finished, no row is sent twice."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot import cli, paths
from batch_snapshot.config.options import Options
from batch_snapshot.errors import LedgerError
from batch_snapshot.jobs import resume, run
from batch_snapshot.ledger import reader
from batch_snapshot.models import Quota
from batch_snapshot.ratelimit import forecast, windows
from batch_snapshot.reporting import status
from batch_snapshot.reporting.summary import Summary
from batch_snapshot.simulator import serve
from tests.support import rewriting
from tests.support.ledgers import LedgerBuilder
from tests.support.processes import pairs, write_manifest
from tests.support.strategies import patient

PATTERN = "ledgers/{name}-{date}.ndjson"
DAY = datetime(2026, 3, 1, 2, 17, tzinfo=UTC)
ROWS = pairs(12)
COMMAND = "batch-snapshot run trial.yaml --ledger 'ledgers/{name}-{date}.ndjson'"


@pytest.fixture(autouse=True)
def place(cwd):
    write(ROWS)
    return cwd


def write(rows: list[dict[str, Any]], per_day: int = 8) -> None:
    write_manifest(Path("trial.yaml"), rows, accounts={"main": {"quota": {"per_day": per_day}}})


def ledger_of(day: int) -> Path:
    return Path(f"ledgers/trial-2026-03-{day:02}.ndjson")


class NightlyRuns:
    """Runs of the same command by a clock of their own."""

    def __init__(self, url: str, simulator: Any) -> None:
        self.simulator = simulator
        self.options = Options(endpoint_url=url, ledger=PATTERN, command_line=COMMAND)

    async def run(self, day: float, *, fresh: bool = True, **more: Any) -> Summary:
        """Run on that day of the month; with `fresh`, the quota windows have opened since the last run."""
        if fresh:
            paths.call_log_file(Path("state")).unlink(missing_ok=True)
        hooks = run.Hooks(now=lambda: DAY + timedelta(days=day - 1))
        return await run.run("trial.yaml", replace(self.options, **more), hooks)

    @property
    def made(self) -> list[int]:
        """How many snapshots each row has."""
        counts = Counter((one.engagement, one.resource) for one in self.simulator.snapshots)
        return [counts[each["engagement"], each["resource"]] for each in ROWS]


@pytest.mark.asyncio
async def test_a_deferred_ledger_is_finished_before_the_next_begins_and_no_row_is_made_twice():
    async with serve() as (url, simulator):
        runs = NightlyRuns(url, simulator)
        first = await runs.run(1)
        assert (first.exit_code, first.ledger, first.counts) == (4, str(ledger_of(1)), (8, 0, 0, 4))
        # The window is not open yet: at once, and no row is made.
        closed = await runs.run(2, fresh=False)
        assert (closed.exit_code, closed.ledger, closed.calls) == (4, str(ledger_of(1)), 0)
        assert (
            f"today's ledger ({ledger_of(2)}) has not begun: the same command finishes {ledger_of(1)} first"
            in (closed.warnings)
        )
        assert runs.made == [1] * 8 + [0] * 4

        rest = await runs.run(2.5)
        assert (rest.exit_code, rest.ledger, rest.counts) == (0, str(ledger_of(1)), (12, 0, 0, 0))
        assert runs.made == [1] * 12
        [warning] = [text for text in rest.warnings if "has not begun" in text]
        assert f"today's ledger ({ledger_of(2)}) has not begun: run the same command again for it" in warning
        assert list(rest.next_steps) == [COMMAND]

        second = await runs.run(2.6, fresh=False)
        assert (second.exit_code, second.ledger, second.counts) == (4, str(ledger_of(2)), (4, 0, 0, 8))
        # About today's own ledger there is nothing to say.
        assert not [text for text in second.warnings if "has not begun" in text]
        third = await runs.run(4)
        assert (third.exit_code, third.ledger) == (0, str(ledger_of(2)))
        assert runs.made == [2] * 12
    assert [status.check_ledger(ledger_of(day)) for day in (1, 2)] == [12, 12]
    assert not ledger_of(4).exists()


@pytest.mark.asyncio
async def test_of_several_deferred_ledgers_todays_is_finished_first_and_then_the_oldest():
    async with serve() as (url, simulator):
        runs = NightlyRuns(url, simulator)
        for day in (1, 2, 3):
            pattern = replace(runs.options, ledger=str(ledger_of(day)), new_ledger=True)
            runs.options, kept = pattern, runs.options
            assert (await runs.run(day)).exit_code == 4
            runs.options = kept
        ran = [(await runs.run(day)).ledger for day in (3, 5, 6, 7)]
    assert ran == [str(ledger_of(day)) for day in (3, 1, 2, 7)]
    assert runs.made == [4] * 8 + [3] * 4


@pytest.mark.asyncio
async def test_an_edited_manifest_runs_added_rows_and_a_ledger_without_rows_left_is_finished():
    async with serve() as (url, simulator):
        runs = NightlyRuns(url, simulator)
        await runs.run(1)
        write([*ROWS[:8], *pairs(2, first=50)])
        edited = await runs.run(3)
        assert (edited.exit_code, edited.ledger, edited.calls) == (0, str(ledger_of(1)), 2)
        await runs.run(4)  # of ten rows two are left
        write(ROWS[:8])
        # The manifest lists none of those: the ledger is finished, and the next run begins a new one.
        over = await runs.run(6)
        assert (over.exit_code, over.ledger, over.calls) == (0, str(ledger_of(4)), 0)
        assert (await runs.run(6)).ledger == str(ledger_of(6))
    assert runs.made == [3] * 8 + [0] * 4


@pytest.mark.parametrize(
    ("ends", "resumes"),
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
def test_a_ledger_stays_deferred_until_it_is_finished_or_stopped(ends, resumes):
    """After a later interruption, a crash or a run of some accounts the same command still resumes it."""
    ledger = LedgerBuilder(
        rows=3, name="trial", began=DAY, manifest="/srv/trial.yaml", counts={"unattempted": 3}
    )
    for outcome in ends:
        ledger.begin(accounts={"main": {}}, endpoint="aws")
        if outcome:
            ledger.end(outcome)
    path = ledger_of(1)
    path.parent.mkdir()
    ledger.write(path)
    later = DAY + timedelta(days=9)
    assert resume.resumable(path, later) is resumes
    assert resume.resumable(path, DAY) is True
    chosen, today, warnings = resume.choose_ledger("trial", Options(ledger=PATTERN), later)
    assert (chosen, today) == (path if resumes else ledger_of(10), ledger_of(10))
    if resumes or ends[-1] == "completed":
        assert warnings == []
    else:
        [warning] = warnings
        assert warning.startswith(f"{path}: that run ")
        assert "left 3 rows unattempted" in warning
        assert f"batch-snapshot run /srv/trial.yaml --ledger {path}" in warning
        # Once today's ledger exists, the warning has been given.
        rewriting.write(chosen, b"")
        assert resume.choose_ledger("trial", Options(ledger=PATTERN), later) == (chosen, chosen, [])


@pytest.mark.parametrize(
    ("deferred", "completed", "resumes"),
    [
        (["a"], ["a"], False),
        (["a"], ["a", "b"], False),
        (["a"], ["b"], True),
        (["a"], [], False),
        ([], ["a"], True),
        ([], [], False),
    ],
)
def test_a_ledger_is_finished_when_its_deferred_accounts_are(deferred, completed, resumes):
    """A ledger of some accounts always counts the rows of the others as unattempted."""
    ledger = LedgerBuilder(rows=3, name="trial", began=DAY, counts={"unattempted": 3})
    ledger.begin(settings={"accounts": deferred}).end("deferred")
    ledger.begin(settings={"accounts": completed}).end("completed")
    path = ledger_of(1)
    path.parent.mkdir()
    assert resume.resumable(ledger.write(path), DAY + timedelta(days=2)) is resumes
    # A retry that completes changes nothing about the rest.
    ledger.begin("retry").end("completed")
    assert resume.resumable(ledger.write(path), DAY + timedelta(days=2)) is resumes


@pytest.mark.parametrize("crashed", [False, True])
@pytest.mark.parametrize(("outcome", "how"), [(None, "crashed"), ("interrupted", "was interrupted")])
def test_rows_that_an_old_night_left_are_named_after_a_retry_of_it_too(outcome, how, crashed):
    """The retry that begins the next night completes, and leaves unattempted rows as they are."""
    ledger = LedgerBuilder(rows=3, name="trial", began=DAY, counts={"unattempted": 3}).begin()
    ledger = ledger.end(outcome) if outcome else ledger
    ledger = ledger.begin("retry") if crashed else ledger
    path = ledger_of(1)
    path.parent.mkdir()
    ledger.begin("retry").end("completed").write(path)
    [warning] = resume.choose_ledger("trial", Options(ledger=PATTERN), DAY + timedelta(days=1))[2]
    assert warning.startswith(f"{path}: that run {how} and left 3 rows unattempted")


def test_a_finished_ledger_is_recognised_by_its_last_line_alone():
    path = ledger_of(1)
    path.parent.mkdir()
    ledger = LedgerBuilder(rows=1, name="trial", began=DAY, counts={"succeeded": 1}).begin().end("deferred")
    ledger.lines.insert(1, b"damage\n")
    ledger.write(path)
    assert resume.choose_ledger("trial", Options(ledger=PATTERN), DAY) == (path, path, [])
    assert not resume.resumable(path, DAY)
    # Here all of its end lines count, and one of them is damaged.
    ledger = LedgerBuilder(rows=1, name="trial", began=DAY, counts={"unattempted": 1}).begin().end("deferred")
    ledger.lines[1] = b'{"type":"end"\n'
    ledger.begin().end("interrupted").write(path)
    chosen, _, [warning] = resume.choose_ledger("trial", Options(ledger=PATTERN), DAY + timedelta(days=1))
    assert chosen == ledger_of(2)
    assert warning.startswith(f"ignored: {path}:2: not JSON")
    with pytest.raises(LedgerError, match=r"--repair"):
        reader.ending(path)


def test_of_many_old_ledgers_three_are_named():
    Path("ledgers").mkdir()
    for day in range(1, 7):
        ledger = LedgerBuilder(rows=3, name="trial", began=DAY, counts={"unattempted": day})
        ledger.begin(accounts={"main": {}}).end("interrupted").write(ledger_of(day))
    _, _, warnings = resume.choose_ledger("trial", Options(ledger=PATTERN), DAY + timedelta(days=20))
    assert [text.partition(":")[0] for text in warnings[:3]] == [str(ledger_of(day)) for day in (6, 5, 4)]
    assert warnings[3:] == ["3 older ledgers not finished either"]


# -- more rows than a day's quota ---------------------------------------------------------------------


def test_validate_and_plan_warn_of_more_rows_than_a_days_quota(capsys):
    words = "its quota is 8 calls a day and it has 12 rows: a run takes at least 2 days"
    assert cli.main(["validate", "trial.yaml"]) == 0
    assert words in capsys.readouterr().err
    assert cli.main(["plan", "trial.yaml"]) == 0
    printed = capsys.readouterr().out
    assert words in printed
    assert "so it falls behind" in printed
    assert cli.main(["run", "trial.yaml", "--simulate", "--progress", "none"]) == 4
    assert cli.main(["plan", "trial.yaml", "--simulate"]) == 0
    # Of the rows of this ledger 4 are left.
    assert "falls behind" not in capsys.readouterr().out
    write(ROWS, per_day=12)
    assert cli.main(["validate", "trial.yaml"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.asyncio
async def test_a_nightly_run_warns_of_more_rows_than_a_days_quota_and_a_backfill_does_not():
    async with serve() as (url, simulator):
        runs = NightlyRuns(url, simulator)
        nightly = await runs.run(1)
        backfill = await runs.run(1, ledger="other.ndjson", new_ledger=True)
    assert [text for text in nightly.warnings if "so it falls behind" in text]
    assert not [text for text in backfill.warnings if "so it falls behind" in text]


quotas = st.builds(
    Quota,
    per_minute=st.none() | st.integers(1, 50),
    per_hour=st.none() | st.integers(1, 500),
    per_day=st.none() | st.integers(1, 5000),
    reserve=st.integers(0, 3),
)


@given(quotas, st.integers(1, 10_000))
@patient
def test_calls_a_day_are_those_of_the_tightest_window(declared, rows):
    a_day = windows.calls_a_day(declared)
    texts = forecast.days_needed({"main": rows}, {"main": a_day})
    limits = [
        (limit - declared.reserve) * times
        for limit, times in ((declared.per_minute, 1440), (declared.per_hour, 24), (declared.per_day, 1))
        if limit is not None
    ]
    fits = all(rows <= max(0, most) for most in limits)
    assert bool(texts) is not fits
