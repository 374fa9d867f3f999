"""The end of a run: signals that stop it, its outcome, its summary, and the next commands."""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from batch_snapshot import interrupts
from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.engine.pool import Engine
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.errors import LedgerError, StorageError
from batch_snapshot.jobs.job import Job
from batch_snapshot.ledger import history, reader
from batch_snapshot.reporting import next_steps
from batch_snapshot.reporting.progress import RunView
from batch_snapshot.reporting.stats import RunStats
from batch_snapshot.reporting.status import find_examples
from batch_snapshot.reporting.summary import Summary, exit_code
from batch_snapshot.text import plural

#: Vanished rows that the summary names.
NAMED_ROWS = 20


def decide_outcome(engine: RunState, stats: RunStats) -> str:
    stop = engine.ending
    if stop is None:
        return "completed"
    # A run that was stopped by its very last row has sent every row all the same.
    by_a_row = stop is engine.stop and stop.kind is StopKind.STOPPED
    all_sent = all(stats.settled[name] >= rows for name, rows in stats.todo.items())
    return "completed" if by_a_row and all_sent else stop.kind.name.lower()


def defer_rest(engine: RunState, stats: RunStats, limit: int | None) -> None:
    """Defer what is left where `--limit` is why nothing more is sent."""
    sent, left = stats.settled.total(), sum(stats.todo.values()) - stats.settled.total()
    if limit is not None and left > 0 and engine.ending is None:
        reason = f"--limit {limit:,}: {plural(sent, 'row')} sent, {left:,} left for the next run"
        engine.stop = Stop(StopKind.DEFERRED, reason)


def nothing_to_do_summary(job: Job) -> Summary:
    stats = job.new_stats()
    if stats.counts.succeeded == stats.counts.total:
        what = "every row has succeeded"
    elif stats.counts.settled:
        what = "every row has succeeded or was left out"
    else:
        what = "every row has a result (retry sends failed rows again)"
    why = f"{what}: nothing left to run. For a new run of the same rows name a new --ledger"
    if job.header.command == "retry":
        why = "nothing to retry: no row failed or is in doubt"
        if stats.counts.failed or stats.counts.in_doubt:
            of = " of these accounts" if job.options.accounts else ""
            what = f"no failed row{of} is of the kinds that this retry takes"
            why = f"nothing to retry: {what}; fix the cause, then name the kind with --only"
    return summarize(job, "completed", stats, warnings=[*job.warnings, f"{job.path}: {why}"])


def summarize(
    job: Job,
    outcome: str,
    stats: RunStats,
    *,
    view: RunView | None = None,
    signum: int | None = None,
    warnings: Sequence[str] = (),
    reads: Mapping[str, int] = MappingProxyType({}),
) -> Summary:
    """The summary of a run; without `view` there was nothing to do. `reads` were made to leave rows out."""
    engine, path = view.state if view else None, str(job.path)
    accounts = engine.accounts.values() if engine else ()
    stops = [engine.stop, *(account.stop for account in accounts)] if engine else []
    completed = outcome == "completed"
    failures = stats.rows.failures
    examples = stats.examples
    older = find_examples(job.path, job.past, failures.keys() - examples.keys(), stats.sent_again)
    uncounted = engine.call_log_error if engine else None
    if job.todays_ledger:
        today = f"today's ledger ({job.todays_ledger}) has not begun"
        done = f"{job.path}, of another day, is finished now; {today}: run the same command again for it"
        warnings = [*warnings, done if completed else f"{today}: the same command finishes {job.path} first"]
    rest, same = job.rest_command, job.options.command_line if job.header.command == "run" else None
    vanished: Sequence[str] = ()
    with suppress(LedgerError):  # they take too long to read before the first call
        vanished = history.row_names(reader.lines(job.path), job.vanished_keys, NAMED_ROWS)
    return Summary(
        counts=stats.counts,
        failures=failures,
        outcome=outcome,
        exit_code=StorageError.exit_code if uncounted else exit_code(outcome, stats.counts, signum),
        name=job.header.name,
        command=job.header.command,
        endpoint=job.endpoint,
        ledger=path,
        run_id=job.header.run_id,
        elapsed_s=view.elapsed if view else 0.0,
        accounts={one.name: stats.account_summary(one) for one in accounts},
        reasons=[stop.reason for stop in stops if stop],
        vanished=len(job.vanished_keys),
        vanished_rows=vanished,
        warnings=warnings,
        run_again=rest if completed else next_steps.pinned(same, path) or rest,
        todays_command=job.options.command_line if completed and job.todays_ledger else None,
        settings=job.header.settings,
        reads=reads,
        this_run=stats.this_run,
        examples={**older, **examples},
    )


class StopHandler:
    """Signals while rows are sent: the first lets calls in flight finish, the second drops them."""

    def __init__(self, notify: Callable[[str, Mapping[str, Any]], None] | None) -> None:
        self._notify = notify or (lambda _, __: None)
        self._engine: Engine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False
        #: Signals of this run, in their order.
        self.caught: list[int] = []

    @property
    def signum(self) -> int | None:
        """The signal that the exit code names; None: no signal ended the run."""
        return interrupts.equivalent_signal(self.caught[0]) if self.caught else None

    def begin(self, engine: Engine, *, signals: bool) -> None:
        """Announce how the engine stops, and with `signals` let them stop it; then the loop is asyncio's."""
        self._engine, self._loop = engine, asyncio.get_running_loop() if signals else None
        engine.announce = self._announce

    def end(self) -> None:
        """Ignore signals from now on, so that the end line is written."""
        self._over = True

    def __call__(self, number: int) -> bool:
        """Take a signal between any two steps of the program; the event loop handles it."""
        if self._loop is None:
            return False
        self._loop.call_soon_threadsafe(self._handle, number)
        return True

    def _handle(self, number: int) -> None:
        if self._over:
            return
        engine = self._engine
        self.caught.append(number)
        name = signal.Signals(number).name
        if len(self.caught) == 1:
            engine.request_stop(Stop(StopKind.INTERRUPTED, f"{name} received"))
            return
        dropped = engine.in_flight
        engine.abort()
        what = "no call was in flight"
        if dropped:
            calls = plural(dropped, "call")
            what = f"dropped {calls}: their rows are in doubt, and the same command settles them"
        reason = f"{name} received again"
        self._notify(f"{reason}: {what}", {"reason": reason, "in_flight": 0, "dropped": dropped})

    def _announce(self, stop: Stop) -> None:
        waiting, seconds = self._engine.in_flight, self._engine.drain_left or 0.0
        facts = {"reason": stop.reason, "in_flight": waiting, "drain_s": round(seconds, 3)}
        if not waiting:
            self._notify(f"{stop.reason}: no further row is sent, and no call is in flight", facts)
            return
        again = "again, or send another signal" if self.caught else "twice, or send two signals"
        wait = f"waiting for {plural(waiting, 'call')} in flight, {seconds:.0f} s at most (--drain-timeout)"
        drop = f"press Ctrl-C {again}, to drop them: their rows are then in doubt"
        self._notify(f"{stop.reason}: no further row is sent; {wait}; {drop}", facts)
