"""How a run ended: its outcome, and what it comes to in a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_snapshot.engine.account import StopKind
from batch_snapshot.errors import StorageError
from batch_snapshot.models import Status
from batch_snapshot.reporting import next_steps
from batch_snapshot.reporting import summary as report
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


def outcome_of(engine: RunState, view: RunView) -> str:
    """In a word how the run went, now that it is over."""
    stop = engine.ending
    return _OUTCOMES[stop.kind] if stop and not _stopped_after_last_row(engine, view) else "completed"


def _stopped_after_last_row(engine: RunState, view: RunView) -> bool:
    """Whether the run was stopped by its very last row: then nothing was kept from it."""
    stopped = engine.ending is engine.stop and engine.stop and engine.stop.kind is StopKind.STOPPED
    return bool(stopped) and all(view.settled[name] >= rows for name, rows in view.todo.items())


def nothing_to_do_summary(job: Job) -> report.Summary:
    """The summary of a run that has no row to send, and no call made."""
    return summary(job, "completed", initial_view(job), warnings=[*job.warnings, _why_nothing(job)])


def _why_nothing(job: Job) -> str:
    if job.command == "retry":
        return f"{job.path}: no row of this selection failed or is in doubt: nothing to retry"
    counts = report.count(job.past.counts(), job.total)
    if counts.succeeded == counts.total:
        what = "every row has succeeded"
    elif counts.settled:
        what = "every row has succeeded or was left out"
    else:
        what = "every row has been tried (what failed waits for retry)"
    return f"{job.path}: {what}: nothing left to run. For a new run of the same rows name a new --ledger"


def summary(
    job: Job,
    outcome: str,
    view: RunView,
    *,
    engine: RunState | None = None,
    signum: int | None = None,
    warnings: Sequence[str] = (),
) -> report.Summary:
    """What a run comes to.

    Args:
        job: what was to be done.
        outcome: as of `outcome_of`.
        view: what became of the rows.
        engine: that drove it; None: there was nothing to do.
        signum: the signal that ended it, if one did.
        warnings: for whoever reads it.
    """
    stops = [engine.stop, *(lane.stop for lane in engine.lanes.values())] if engine else []
    failures = {group: number for group, number in view.failures.items() if number > 0}
    uncounted = engine.uncounted if engine else None
    return report.Summary(
        outcome=outcome,
        exit_code=StorageError.exit_code if uncounted else report.exit_code(outcome, view.counts, signum),
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
        warnings=[*warnings, *_tonight(job, finished=outcome == "completed")],
        next_steps=_next_steps(job, outcome, view, failures),
        settings=job.settings,
    )


def _next_steps(job: Job, outcome: str, view: RunView, failures: Mapping[FailureGroup, int]) -> list[str]:
    """The commands that go on from here; the one for today's night first, where it has not begun."""
    through = outcome == "completed"
    steps = next_steps.next_steps(
        view.counts,
        failures,
        run=job.rest if through else job.again or job.rest,
        ledger=str(job.path),
        settings=job.settings,
    )
    return [job.tonights, *steps] if job.tonights and through else steps


def _tonight(job: Job, *, finished: bool) -> list[str]:
    """What is to be said of today's ledger, where one of another day came first."""
    if job.tonight is None:
        return []
    not_begun = f"today's night ({job.tonight}) has not begun"
    if finished:
        return [f"{job.path}, of another day, is through now; {not_begun}: run the same command again for it"]
    return [f"{not_begun}: the same command finishes {job.path} first"]


def _account_summary(lane: AccountState, view: RunView) -> report.AccountSummary:
    """An account's part in this run: what became of its rows, and what they took."""
    statuses = {status.value: view.by_account[lane.name, status] for status in Status}
    left = view.todo.get(lane.name, 0) - sum(statuses.values())
    traffic, known = lane.traffic, lane.pacer.pace.known
    return report.AccountSummary(
        calls=traffic.calls,
        throttled_calls=traffic.throttled,
        learned_rate=round(known, 3) if known and traffic.calls else None,
        stopped=lane.stop.reason if lane.stop else None,
        counts={**statuses, "unattempted": max(0, left)},
    )
