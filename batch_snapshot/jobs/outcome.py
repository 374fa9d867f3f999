"""How a run ended: its outcome, its summary, and the commands that come next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_snapshot.engine.account import StopKind
from batch_snapshot.errors import StorageError
from batch_snapshot.models import Status
from batch_snapshot.reporting.next_steps import next_steps
from batch_snapshot.reporting.summary import AccountSummary, Summary, count, exit_code
from batch_snapshot.reporting.view import RunView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_snapshot.engine.account import AccountState
    from batch_snapshot.engine.run_state import RunState
    from batch_snapshot.jobs.job import Job
    from batch_snapshot.ledger.history import FailureGroup

_OUTCOMES = {
    StopKind.DEFERRED: "deferred",
    StopKind.STOPPED: "stopped",
    StopKind.INTERRUPTED: "interrupted",
}


def initial_view(job: Job) -> RunView:
    """The run before its first call."""
    statuses = job.past.counts()
    failures = job.past.failures()
    return RunView(job.name, job.total, statuses, failures, settled_before=statuses.total(), todo=job.todo)


def decide_outcome(engine: RunState, view: RunView) -> str:
    """completed, stopped, deferred or interrupted."""
    stop = engine.ending
    return _OUTCOMES[stop.kind] if stop and not _stopped_after_last_row(engine, view) else "completed"


def _stopped_after_last_row(engine: RunState, view: RunView) -> bool:
    """Whether the run was stopped by its very last row: then every row was sent all the same."""
    stopped = engine.ending is engine.stop and engine.stop and engine.stop.kind is StopKind.STOPPED
    return bool(stopped) and all(view.settled[name] >= rows for name, rows in view.todo.items())


def nothing_to_do_summary(job: Job) -> Summary:
    """The summary of a run that has no row to send, and makes no call."""
    return summarize(job, "completed", initial_view(job), warnings=[*job.warnings, _why_nothing(job)])


def _why_nothing(job: Job) -> str:
    if job.command == "retry":
        return f"{job.path}: no row of this selection failed or is in doubt: nothing to retry"
    counts = count(job.past.counts(), job.total)
    if counts.succeeded == counts.total:
        what = "every row has succeeded"
    elif counts.settled:
        what = "every row has succeeded or was left out"
    else:
        what = "every row has been tried (what failed waits for retry)"
    return f"{job.path}: {what}: nothing left to run. For a new run of the same rows name a new --ledger"


def summarize(
    job: Job,
    outcome: str,
    view: RunView,
    *,
    engine: RunState | None = None,
    signum: int | None = None,
    warnings: Sequence[str] = (),
) -> Summary:
    """The summary of a run.

    Args:
        job: which rows were to be sent.
        outcome: see `decide_outcome`.
        view: the states of the rows.
        engine: the engine that drove the run; None: there was nothing to do.
        signum: the signal that ended the run, if one did.
        warnings: for the summary.
    """
    stops = [engine.stop, *(lane.stop for lane in engine.lanes.values())] if engine else []
    failures = {group: number for group, number in view.failures.items() if number > 0}
    uncounted = engine.uncounted if engine else None
    return Summary(
        outcome=outcome,
        exit_code=StorageError.exit_code if uncounted else exit_code(outcome, view.counts, signum),
        counts=view.counts,
        failures=failures,
        ledger=str(job.path),
        run_id=job.run_id,
        name=job.name,
        command=job.command,
        endpoint=job.endpoint,
        elapsed_s=view.elapsed if engine else 0.0,
        accounts={name: _account_summary(lane, view) for name, lane in engine.lanes.items()}
        if engine
        else {},
        reasons=[stop.reason for stop in stops if stop],
        vanished=job.vanished,
        vanished_rows=job.vanished_rows,
        warnings=[*warnings, *_todays_ledger_warnings(job, finished=outcome == "completed")],
        next_steps=_next_steps(job, outcome, view, failures),
        settings=job.settings,
    )


def _next_steps(job: Job, outcome: str, view: RunView, failures: Mapping[FailureGroup, int]) -> list[str]:
    """The commands for what is left; the one for today's ledger first, where it has not begun."""
    completed = outcome == "completed"
    steps = next_steps(
        view.counts,
        failures,
        run=job.rest_command if completed else job.same_command or job.rest_command,
        ledger=str(job.path),
        settings=job.settings,
    )
    return [job.todays_command, *steps] if job.todays_command and completed else steps


def _todays_ledger_warnings(job: Job, *, finished: bool) -> list[str]:
    if job.todays_ledger is None:
        return []
    not_begun = f"today's night ({job.todays_ledger}) has not begun"
    if finished:
        return [f"{job.path}, of another day, is through now; {not_begun}: run the same command again for it"]
    return [f"{not_begun}: the same command finishes {job.path} first"]


def _account_summary(lane: AccountState, view: RunView) -> AccountSummary:
    statuses = {status.value: view.by_account[lane.name, status] for status in Status}
    left = view.todo.get(lane.name, 0) - sum(statuses.values())
    traffic, known = lane.traffic, lane.pacer.pace.known
    return AccountSummary(
        calls=traffic.calls,
        throttled_calls=traffic.throttled,
        learned_rate=round(known, 3) if known and traffic.calls else None,
        stopped=lane.stop.reason if lane.stop else None,
        counts={**statuses, "unattempted": max(0, left)},
    )
