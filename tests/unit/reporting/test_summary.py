"""What a run comes to, in exit codes, text and JSON; what a ledger says by itself; what a person sees."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING

import anyio
import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot import paths
from batch_snapshot.engine.account import AccountState, Stop, StopKind
from batch_snapshot.engine.limits import AccountLimits
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.errors import LedgerError
from batch_snapshot.failures.retry import NO_LIMIT
from batch_snapshot.jobs import plan
from batch_snapshot.ledger import codec, history, locks
from batch_snapshot.ledger.history import FailureGroup, RowState
from batch_snapshot.ledger.records import End
from batch_snapshot.ledger.writer import Ledger
from batch_snapshot.models import (
    Account,
    ErrorKind,
    Outcome,
    Quota,
    Request,
    RowError,
    Skip,
    Status,
    client_token,
)
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.pacer import Pacer
from batch_snapshot.ratelimit.windows import CallLog, windows
from batch_snapshot.reporting import display, next_steps, progress, text
from batch_snapshot.reporting.progress import RunView
from batch_snapshot.reporting.stats import RunStats
from batch_snapshot.reporting.status import read_status
from batch_snapshot.reporting.summary import AccountSummary, Counts, Summary, as_json, count, exit_code
from tests.support.strategies import (
    POOL,
    RUN_ID,
    START,
    header,
    histories,
    lines_of,
    numbered,
    patient,
    pool_rows,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from batch_snapshot.ledger.records import Record
    from batch_snapshot.models import Row

DENIED = FailureGroup(Status.FAILED, ErrorKind.DENIED, "AccessDeniedException")
BROKEN = FailureGroup(Status.FAILED, ErrorKind.TRANSIENT, "InternalServerException")
DOUBT = FailureGroup(Status.IN_DOUBT, ErrorKind.DENIED, "AccessDeniedException")

# ---- exit codes

DONE = Counts(succeeded=3)
SOME_FAILED = Counts(succeeded=2, failed=1)
SOME_IN_DOUBT = Counts(succeeded=2, in_doubt=1)
SOME_LEFT = Counts(succeeded=2, unattempted=1)


@pytest.mark.parametrize(
    ("outcome", "counts", "signum", "code"),
    [
        ("completed", DONE, None, 0),
        ("completed", Counts(), None, 0),
        ("completed", SOME_FAILED, None, 1),
        ("completed", SOME_IN_DOUBT, None, 1),
        ("completed", SOME_LEFT, None, 1),
        ("deferred", SOME_LEFT, None, 4),
        ("deferred", SOME_FAILED, None, 4),
        ("stopped", SOME_LEFT, None, 3),
        ("stopped", SOME_FAILED, None, 3),
        ("interrupted", SOME_LEFT, 2, 130),
        ("interrupted", SOME_LEFT, 15, 143),
        ("interrupted", SOME_FAILED, 15, 143),
        ("interrupted", SOME_LEFT, None, 130),
    ],
)
def test_most_serious_reason_gives_the_exit_code(outcome, counts, signum, code):
    assert exit_code(outcome, counts, signum) == code


@pytest.mark.parametrize("outcome", ["completed", "stopped", "deferred", "interrupted"])
@given(st.builds(Counts, *[st.integers(0, 3)] * 4, unchanged=st.integers(0, 3), active_job=st.integers(0, 3)))
@patient
def test_only_a_completed_run_without_other_rows_exits_0(outcome, counts):
    perfect = outcome == "completed" and not (counts.failed or counts.in_doubt or counts.unattempted)
    assert (exit_code(outcome, counts) == 0) is perfect


# ---- counts


@given(st.dictionaries(st.sampled_from([*Status, *Skip]), st.integers(0, 9)), st.integers(0, 40))
@patient
def test_counts_sum_to_the_rows(statuses, more):
    counted = sum(statuses.values())
    counts = count(statuses, counted + more)
    assert counts.total == counted + more
    assert counts.unattempted == more
    assert (counts.succeeded, counts.failed, counts.in_doubt) == tuple(
        statuses.get(status, 0) for status in Status
    )
    assert (counts.unchanged, counts.active_job) == tuple(statuses.get(reason, 0) for reason in Skip)


def test_counts_are_never_negative():
    assert count({Status.SUCCEEDED: 3}, 2) == Counts(succeeded=3)


def test_states_in_words_omit_zeros_except_successes():
    assert text.states(Counts(1200, 0, 3, 0)) == "1,203 rows: 1,200 succeeded, 3 in doubt"
    assert text.states(Counts()) == "0 rows: 0 succeeded"


# ---- what to do next


RUN, RETRY = "batch-snapshot run m.yaml", "batch-snapshot retry l.ndjson"


@pytest.mark.parametrize(
    ("counts", "failures", "steps"),
    [
        (DONE, {}, []),
        (SOME_LEFT, {}, [RUN]),
        (SOME_FAILED, {DENIED: 1}, []),
        (SOME_FAILED, {BROKEN: 1}, [RETRY]),
        (SOME_IN_DOUBT, {DOUBT: 1}, [RETRY]),
        (Counts(0, 1, 0, 1), {BROKEN: 1}, [RUN, RETRY]),
    ],
)
def test_next_steps_run_what_is_left_and_retry_curable_failures(counts, failures, steps):
    assert next_steps.next_steps(counts, failures, run=RUN, ledger="l.ndjson") == steps


def test_next_steps_without_a_manifest_have_no_run():
    assert next_steps.next_steps(SOME_LEFT, {}, run=None, ledger="l.ndjson") == []


def test_next_step_quotes_the_ledger_path_for_a_shell():
    steps = next_steps.next_steps(SOME_IN_DOUBT, {DOUBT: 1}, run=None, ledger="my ledger's.ndjson")
    assert steps == ["""batch-snapshot retry 'my ledger'"'"'s.ndjson'"""]


@pytest.mark.parametrize(
    ("group", "word"),
    [
        (DENIED, "AccessDeniedException"),
        (DOUBT, "in_doubt"),
        (DENIED._replace(code=""), "denied"),
        (DENIED._replace(code="a,b"), "denied"),
        (DENIED._replace(code=" odd"), "denied"),
        (DENIED._replace(code="it's $odd"), """'it'"'"'s $odd'"""),
    ],
)
def test_remedy_selects_exactly_its_group(group, word):
    assert next_steps.remedy(group, "l.ndjson") == f"batch-snapshot retry l.ndjson --only {word}"
    chosen = shlex.split(next_steps.remedy(group, "l.ndjson"))[-1]
    past = RowState(
        group.status, "t", 0, ambiguous=False, first_sent_at=None, kind=group.kind, code=group.code
    )
    assert plan.parse_only(chosen, [group.code]).takes(past)


def test_every_error_kind_has_advice():
    assert set(text.ADVICE) == set(ErrorKind)


# ---- the summary

AGAIN = "batch-snapshot retry ledgers/nightly.ndjson --only"

SUMMARY = Summary(
    outcome="stopped",
    exit_code=3,
    counts=Counts(1000, 30, 2, 5),
    failures={BROKEN: 8, DENIED: 22, DOUBT: 2},
    ledger="ledgers/nightly.ndjson",
    run_id="night-1",
    elapsed_s=12.34567,
    accounts={
        "main": AccountSummary(1000, 50, 12.5, None),
        "acme": AccountSummary(250, 0, 7.5, "20 denials in a row"),
        "idle": AccountSummary(0, 0, None, None),
    },
    reasons=["account acme: 20 denials in a row"],
    vanished=3,
    vanished_rows=["eng-1/O1", "eng-2/O2"],
    warnings=["a warning"],
    next_steps=[RUN, RETRY],
)


def test_summary_as_json():
    assert json.loads(json.dumps(as_json(SUMMARY))) == {
        "outcome": "stopped",
        "counts": {"succeeded": 1000, "failed": 30, "in_doubt": 2, "unattempted": 5},
        "failures": [
            {
                "status": "failed",
                "kind": "denied",
                "code": "AccessDeniedException",
                "count": 22,
                "next": f"{AGAIN} AccessDeniedException",
            },
            {
                "status": "failed",
                "kind": "transient",
                "code": "InternalServerException",
                "count": 8,
                "next": f"{AGAIN} InternalServerException",
            },
            {
                "status": "in_doubt",
                "kind": "denied",
                "code": "AccessDeniedException",
                "count": 2,
                "next": f"{AGAIN} in_doubt",
            },
        ],
        "ledger": "ledgers/nightly.ndjson",
        "run_id": "night-1",
        "elapsed_s": 12.346,
        "calls": 1250,
        "throttled_calls": 50,
        "learned_rate": 20.0,
        "accounts": {
            "main": {"calls": 1000, "throttled_calls": 50, "learned_rate": 12.5, "stopped": None},
            "acme": {
                "calls": 250,
                "throttled_calls": 0,
                "learned_rate": 7.5,
                "stopped": "20 denials in a row",
            },
            "idle": {"calls": 0, "throttled_calls": 0, "learned_rate": None, "stopped": None},
        },
        "reasons": ["account acme: 20 denials in a row"],
        "vanished": 3,
        "vanished_rows": ["eng-1/O1", "eng-2/O2"],
        "warnings": ["a warning"],
        "next_steps": [RUN, RETRY],
    }


def test_summary_as_text():
    assert text.as_text(SUMMARY).splitlines() == [
        "stopped: 1,037 rows: 1,000 succeeded, 30 failed, 2 in doubt, 5 unattempted",
        "  account acme: 20 denials in a row",
        "",
        "     22 failed, denied, AccessDeniedException",
        f"        {text.ADVICE[ErrorKind.DENIED]}",
        f"        $ {AGAIN} AccessDeniedException",
        "      8 failed, transient, InternalServerException",
        f"        {text.ADVICE[ErrorKind.TRANSIENT]}",
        f"        $ {AGAIN} InternalServerException",
        "      2 in doubt, denied, AccessDeniedException",
        f"        {text.DOUBT_ADVICE}",
        f"        $ {AGAIN} in_doubt",
        "",
        "no longer in the manifest: 3 rows (eng-1/O1, eng-2/O2 …)",
        "",
        "account main  1,000 calls, 50 throttled, pace at the end 12.5/s",
        "account acme  250 calls, 0 throttled, pace at the end 7.5/s, stopped early",
        "account idle  0 calls, 0 throttled",
        "",
        "ledger  ledgers/nightly.ndjson",
        "run id  night-1",
        "calls   1,250 in 12.3 s, 50 throttled (4.0%); pace at the end 20/s",
        f"next    {RUN}",
        f"next    {RETRY}",
    ]


def test_groups_with_the_same_advice_share_it():
    slow = FailureGroup(Status.IN_DOUBT, ErrorKind.TRANSIENT, "ReadTimeout")
    lines = text.as_text(replace(SUMMARY, failures={DOUBT: 2, BROKEN: 1, slow: 4})).splitlines()
    assert lines[3:9] == [
        "      4 in doubt, transient, ReadTimeout",
        "      2 in doubt, denied, AccessDeniedException",
        f"        {text.DOUBT_ADVICE}",
        f"        $ {AGAIN} in_doubt",
        "      1 failed, transient, InternalServerException",
        f"        {text.ADVICE[ErrorKind.TRANSIENT]}",
    ]


def test_summary_without_calls_omits_them():
    plain = Summary(outcome="completed", exit_code=0, counts=DONE, failures={}, ledger="l.ndjson", run_id="r")
    assert text.as_text(plain).splitlines() == [
        "completed: 3 rows: 3 succeeded",
        "",
        "ledger  l.ndjson",
        "run id  r",
    ]
    found = as_json(plain)
    assert (found["calls"], found["throttled_calls"], found["learned_rate"]) == (0, 0, None)


def test_few_vanished_rows_are_all_named():
    named = replace(SUMMARY, vanished=2)
    assert "no longer in the manifest: 2 rows (eng-1/O1, eng-2/O2)" in text.as_text(named).splitlines()


# ---- a ledger by itself


def outcome(row: Row, status: Status, kind: ErrorKind = ErrorKind.DENIED, code: str = "C") -> Outcome:
    done = status is Status.SUCCEEDED
    return Outcome(
        request=Request(row, client_token(RUN_ID, row, 0)),
        status=status,
        attempts=1,
        throttles=0,
        ambiguous=status is Status.IN_DOUBT,
        first_sent_at=START,
        started_at=START,
        finished_at=START,
        arn="arn" if done else None,
        revision=1 if done else None,
        error=None if done else RowError(kind, code, "told"),
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "nightly.ndjson"


def write(path: Path, *outcomes: Outcome, end: str | None = "completed", manifest: str | None = "m.yaml"):
    """A ledger whose one invocation intended all rows of the pool."""
    with Ledger(path) as book:
        book.append(codec.encode_run(header(manifest=manifest), "0"))
        book.append(codec.encode_intent(START, [Request(row, client_token(RUN_ID, row, 0)) for row in POOL]))
        for each in outcomes:
            book.append(codec.encode_result(RUN_ID, each))
        if end:
            book.append(codec.encode_end(RUN_ID, End(end, {}, START + timedelta(seconds=90))))


def commands(path: Path, *names: str) -> list[str]:
    known: Mapping[str, str] = {
        "run": f"batch-snapshot run m.yaml --ledger {path}",
        "retry": f"batch-snapshot retry {path}",
    }
    return [known[name] for name in names]


def test_status_of_a_completed_ledger(path):
    write(path, *(outcome(row, Status.SUCCEEDED) for row in POOL))
    summary = read_status(path)
    assert replace(summary, next_steps=()) == Summary(
        outcome="completed",
        exit_code=0,
        counts=Counts(5),
        failures={},
        ledger=str(path),
        run_id=RUN_ID,
        elapsed_s=90.0,
        accounts={"main": AccountSummary(5, 0, None, None, {"succeeded": 5})},
    )
    assert not summary.next_steps


@pytest.mark.parametrize("end", ["stopped", "deferred", "interrupted"])
def test_status_of_a_ledger_that_ended_early_has_next_steps(path, end):
    write(
        path,
        outcome(POOL[0], Status.SUCCEEDED),
        outcome(POOL[1], Status.FAILED, ErrorKind.TRANSIENT, "X"),
        outcome(POOL[2], Status.FAILED),
        outcome(POOL[3], Status.IN_DOUBT),
        end=end,
    )
    summary = read_status(path)
    assert summary.outcome == end
    assert summary.counts == Counts(1, 2, 1, 1)
    assert summary.failures == {
        FailureGroup(Status.FAILED, ErrorKind.TRANSIENT, "X"): 1,
        FailureGroup(Status.FAILED, ErrorKind.DENIED, "C"): 1,
        FailureGroup(Status.IN_DOUBT, ErrorKind.DENIED, "C"): 1,
    }
    assert summary.next_steps == commands(path, "run", "retry")


def test_status_of_a_crashed_ledger_counts_rows_in_doubt(path):
    write(path, outcome(POOL[0], Status.SUCCEEDED), end=None)
    summary = read_status(path)
    assert summary.outcome == "crashed"
    assert summary.counts == Counts(1, 0, 4, 0)
    assert summary.elapsed_s == 0
    assert summary.failures == {FailureGroup(Status.IN_DOUBT, ErrorKind.TRANSIENT, "RunCrashed"): 4}
    assert summary.next_steps == commands(path, "retry")


def test_status_of_a_running_ledger_has_no_rows_in_doubt(path):
    write(path, outcome(POOL[0], Status.SUCCEEDED), end=None)
    with locks.hold(paths.ledger_lock(path), what="it", since="now"):
        summary = read_status(path)
    assert summary.outcome == "running"
    assert summary.counts == Counts(1, 0, 0, 4)
    assert not summary.failures
    assert summary.next_steps == []


def test_status_changes_nothing_and_skips_a_torn_line(path):
    write(path, outcome(POOL[0], Status.SUCCEEDED))
    content = path.read_bytes() + b'{"type":"ru'
    path.write_bytes(content)
    assert read_status(path).counts.succeeded == 1
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_status_without_a_manifest_path_has_no_next_steps(path):
    write(path, end="deferred", manifest=None)
    assert read_status(path).next_steps == []


@pytest.mark.parametrize("content", [None, b"", b'{"type":"novel"}\n', b'{"type":"ru'])
def test_status_of_a_file_without_run_line_is_refused(path, content):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LedgerError) as caught:
        read_status(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert ("no such file" if content is None else "no run") in str(caught.value)


# ---- what a person sees


@given(
    histories,
    st.lists(
        st.tuples(pool_rows, st.integers(0, 2), st.none() | st.sampled_from(Status)),
        unique_by=lambda one: one[0],
    ),
)
@patient
def test_run_stats_agree_with_the_history_of_the_ledger(before, sent):
    """Whatever was known of a row, and however often its worker was lost on the way."""
    past = history.fold(lines_of(before))
    seen = RunStats(past, len(POOL), {})
    told = []
    for row, losses, status in sent:
        if past.status(row.key) is Status.SUCCEEDED:
            continue
        lost = [outcome(row, Status.IN_DOUBT, ErrorKind.TRANSIENT, "WorkerLost")] * losses
        final = [outcome(row, status)] if status else []
        for each in lost:
            seen.add(each, provisional=True)
        for each in final:
            seen.add(each)
        told.append((lost, final))
    written: list[Record | None] = [
        codec.decode(codec.encode_result(RUN_ID, each)) for pair in told for each in chain(*pair)
    ]
    records: list[Record] = [line.record for line in lines_of(before)]
    records.append(header())
    records.extend(record for record in written if record)
    found = history.fold(numbered(records), live=True)
    assert seen.counts == count(found.counts(), len(POOL))
    assert seen.rows.failures == found.failures()
    assert seen.settled.total() == sum(len(final) for _, final in told)
    assert sum(rows.statuses.total() for rows in seen.accounts.values()) == sum(
        bool(lost or final) for lost, final in told
    )


def lanes(*names: str, start: pace.Pace | None = None) -> dict[str, AccountState]:
    return {
        name: AccountState(name, Pacer(start or pace.Pace()), Pacer(pace.declared(10)))
        for name in names or ["main"]
    }


def allowances(usage: CallLog | None = None, /, **quotas: Quota) -> AccountLimits:
    quotas = quotas or {"main": Quota()}
    return AccountLimits(
        {name: Account(name, quota=each) for name, each in quotas.items()}, "aws", usage, environ={}
    )


# ---- until when


def view(
    settled: Mapping[str, int],
    todo: Mapping[str, int],
    running: dict[str, AccountState] | None = None,
    limits: AccountLimits | None = None,
) -> RunView:
    """A run that begins now."""
    stats = RunStats(history.History(), 1000, todo)
    stats.settled.update(settled)
    state = RunState(running or lanes(*todo), lambda _: None, lambda: START, NO_LIMIT)
    limits = limits or allowances(None, **dict.fromkeys(todo, Quota()))
    return RunView("nightly", stats, state, limits, started=anyio.current_time())


def in_virtual_time(look: Callable[[], Awaitable[object]]) -> object:
    return trio.run(look, clock=trio.testing.MockClock(autojump_threshold=0))


def left(
    settled: Mapping[str, int],
    todo: Mapping[str, int],
    running: dict[str, AccountState] | None = None,
    limits: AccountLimits | None = None,
    *,
    at: float = 20.0,
) -> object:
    """The seconds that are left, as forecast after so many seconds."""

    async def look() -> float | None:
        seen = view(settled, todo, running, limits)
        await anyio.sleep(at)
        return seen.left

    return in_virtual_time(look)


def test_time_left_follows_the_rows_of_this_run():
    """200 rows in 20 seconds: those settled before do not count."""
    assert left({"main": 200}, {"main": 950}) == pytest.approx(75, abs=0.2)


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
    running = lanes(start=pace.learned(50.0, 0.0))
    running["main"].pacer.waited = waited
    found = left({"main": settled}, {"main": settled + 750}, running, at=at)
    assert found == pytest.approx(750 / rate, rel=0.02)


def test_time_left_is_that_of_the_slowest_account():
    settled, todo = {"main": 200, "acme": 20}, {"main": 400, "acme": 100}
    assert left(settled, todo) == pytest.approx(80, abs=1.1)


def test_time_left_ignores_accounts_that_stopped_or_are_done():
    settled, todo = {"main": 200, "acme": 20, "done": 5}, {"main": 400, "acme": 100, "done": 5}
    running = lanes(*todo)
    running["acme"].stop = Stop(StopKind.DEFERRED, "spent")
    assert left(settled, todo, running) == pytest.approx(20, abs=0.2)


def test_time_left_is_unknown_until_each_account_has_settled_a_row():
    assert left({}, {"main": 950}) is None
    assert left({"main": 100}, {"main": 950, "acme": 5}) is None
    assert left({"main": 200}, {"main": 950}, at=0) is None


def test_time_left_includes_waits_for_quota_windows(path):
    """Ten in any hour, of which eight are used: two now, ten in an hour, and one more in two."""
    quota = Quota(per_hour=10)
    usage_clock = [1e6]
    with CallLog(path.with_suffix(".sqlite"), clock=lambda: usage_clock[0]) as usage:
        room = allowances(usage, main=quota)
        trio.run(room.apply, lanes()["main"], identified)
        for _ in range(8):
            reservation = usage.reserve("aws/1 writes", windows(quota))
            assert isinstance(reservation, int)
            usage.finish(reservation)
        fast = lanes(start=pace.learned(10.0, 0.0))
        found = left({"main": 7}, {"main": 20}, fast, room)
    assert found == pytest.approx(7200, abs=2)


async def identified(name: str) -> str:
    return "aws/1"


def test_time_left_counts_down_between_forecasts():
    """It is made anew every few seconds, not with every line."""

    async def main() -> list[float | None]:
        seen = view({"main": 100}, {"main": 1000})
        told = []
        await anyio.sleep(10)
        told.append(seen.left)
        seen.stats.settled["main"] = 300
        await anyio.sleep(5)
        told.append(seen.left)
        await anyio.sleep(5)
        told.append(seen.left)
        return told

    found = in_virtual_time(main)
    assert found == pytest.approx([90, 85, 700 / 15], abs=0.2)


def test_unreadable_call_log_does_not_end_the_display(path):
    async def main() -> str:
        usage = CallLog(path.with_suffix(".sqlite"), clock=lambda: 1e6)
        room = allowances(usage, main=Quota(per_day=10))
        await room.apply(lanes()["main"], identified)
        path.with_suffix(".sqlite").unlink()
        seen = view({"main": 100}, {"main": 1000}, limits=room)
        await anyio.sleep(10)
        line = display.line(progress.ProgressMeter(seen).frame(START))
        usage.close()
        return line

    assert "left" not in str(in_virtual_time(main))


def test_outcome_line():
    assert progress.outcome_line(outcome(POOL[0], Status.SUCCEEDED)) == "eng-0/O0 succeeded: revision 1"
    assert progress.outcome_line(outcome(POOL[1], Status.IN_DOUBT)) == "eng-1/O1 in doubt: C: told"
