"""The hallway: wires the rooms into `run` and `retry`. The library's entry.

Both make a `Job` (which rows, under which ledger) and carry it out in the same way.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

from batch_snapshot import (
    __version__,
    codec,
    discovering,
    history,
    identity,
    leaving,
    ledger,
    places,
    plan,
    preview,
    report,
    service,
    unfinished,
)
from batch_snapshot.allowance import READ_RATE, Allowances
from batch_snapshot.client import Clients
from batch_snapshot.cluster import Coordinator
from batch_snapshot.display import Window
from batch_snapshot.engine import Engine
from batch_snapshot.errors import InputError, ManifestError, StorageError
from batch_snapshot.flags import LONGEST_LEASE
from batch_snapshot.history import FailureGroup
from batch_snapshot.job import Job, for_retry, of_run, reserved
from batch_snapshot.lane import Lane, Stop, StopKind
from batch_snapshot.lease import LEASE, Term
from batch_snapshot.model import Status
from batch_snapshot.options import Options, extras_of, state_of
from batch_snapshot.quota import Usage, windows
from batch_snapshot.resumption import load

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from anyio.abc import TaskStatus

    from batch_snapshot.allowance import Outlook
    from batch_snapshot.client import Target
    from batch_snapshot.course import Course
    from batch_snapshot.history import History
    from batch_snapshot.leaving import Leaving
    from batch_snapshot.model import Outcome, Request, Skip
    from batch_snapshot.posts import Posts
    from batch_snapshot.preview import Preview

#: Rows looked at between two turns of everything else.
BATCH = 64

#: Seconds between two fsyncs of the ledger.
SYNC_EVERY = 1.0

#: Seconds for which a forecast of the end holds.
FORECAST_EVERY = 10.0

#: Seconds of calls after which the measured rate tells more than a known one that is higher.
TELLING = 10.0


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


@dataclass(slots=True)
class View:
    """A run as it goes, for whoever watches it."""

    name: str
    total: int
    statuses: Counter[Status | Skip]
    failures: Counter[FailureGroup]
    #: Rows that had a state before this invocation.
    settled_before: int
    #: Rows that this invocation is to send, by account, and those that it has settled.
    todo: Mapping[str, int] = field(default_factory=dict)
    settled: Counter[str] = field(default_factory=Counter)
    #: The latter by account and status.
    by_account: Counter[tuple[str, Status]] = field(default_factory=Counter)
    #: By the row's key: outcomes of rows that are about to be sent again.
    provisional: dict[bytes, Outcome] = field(default_factory=dict)
    lanes: Mapping[str, Lane] = field(default_factory=dict)
    allowances: Allowances | None = None
    #: By the run's monotonic clock, in seconds.
    started: float = 0.0

    @property
    def counts(self) -> report.Counts:
        """The states of all rows by now."""
        return report.count(self.statuses, self.total)

    @property
    def elapsed(self) -> float:
        """Seconds since the first row was taken up."""
        return anyio.current_time() - self.started

    @property
    def left(self) -> float | None:
        """Seconds until the end, waits for quota windows included; None: too early to say."""
        if self.allowances is None or self.elapsed <= 0:
            return None
        if self._forecast is None or self.elapsed - self._forecast[0] >= FORECAST_EVERY:
            self._forecast = None
            # A display ends no run: if the log of calls can't be read, the next permit says so.
            with suppress(StorageError):
                ends = [self._ends_in(name, self.allowances) for name in self.lanes]
                known = [seconds for seconds in ends if seconds is not None]
                if len(known) == len(ends):
                    self._forecast = (self.elapsed, max(known))
        return None if self._forecast is None else max(0.0, sum(self._forecast) - self.elapsed)

    def windows(self, name: str) -> list[Window]:
        """How much of an account's quota windows is used: as counted last, and by calls made since."""
        if name not in self._used:
            return []
        outlook, calls = self._used[name]
        since = self.lanes[name].traffic.calls - calls
        return [
            Window(window.name, min(used + since, window.limit), window.limit)
            for window, used in zip(outlook.windows, outlook.used, strict=True)
            if window.limit
        ]

    def _ends_in(self, name: str, allowances: Allowances) -> float | None:
        """Seconds until an account's rows are settled, at the rate that is known or, if lower, measured."""
        rows = self.todo.get(name, 0) - self.settled[name]
        lane = self.lanes[name]
        if rows <= 0 or lane.stop is not None:
            return 0.0
        rate = _rate(lane.pacer.pace.known, self.settled[name], self.elapsed - lane.pacer.waited)
        if not rate:
            return None
        outlook = allowances.outlook(name, rows, rate)
        self._used[name] = (outlook, lane.traffic.calls)
        return outlook.forecast.ends_in

    _forecast: tuple[float, float] | None = None
    #: What is used of the windows by account, and how many calls it had made when that was counted.
    _used: dict[str, tuple[Outlook, int]] = field(default_factory=dict)


def _rate(known: float | None, settled: int, seconds: float) -> float:
    """Rows a second: as known, unless so many in so many seconds were fewer for long enough to tell."""
    measured = settled / seconds if seconds > 0 else 0.0
    if known is None:
        return measured
    return min(known, measured) if seconds >= TELLING and measured else known


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the caller wants to see and say. The library prints nothing and takes no signals unasked."""

    #: Runs beside the calls until they are over.
    watch: Callable[[View], Coroutine[Any, Any, None]] | None = None
    #: Told of every outcome, after it was recorded.
    outcome: Callable[[Outcome], None] | None = None
    #: Asked once before the first call; False: nothing is called.
    confirm: Callable[[Preview], bool] | None = None
    #: Told what the run waits for before it begins.
    tell: Callable[[str], None] | None = None
    #: Whether SIGINT and SIGTERM end the run in good order.
    signals: bool = False
    now: Callable[[], datetime] = utc_now
    rng: Random = field(default_factory=Random)


async def run(path: Path | str, options: Options | None = None, hooks: Hooks | None = None) -> report.Summary:
    """Create the snapshots that the manifest at `path` lists, or go on where an earlier run stopped.

    Raises:
        InputError: manifest, ledger or options are not valid or don't fit together; nothing was called.
        StorageError: a lock is held, or the ledger cannot be written; no call follows the failure.
    """
    options, hooks = options or Options(), hooks or Hooks()
    listed, recalled = load(Path(path), options, hooks.now())
    with reserved(listed, options, hooks.now(), recalled=recalled) as held:
        around = discovering.Surroundings(now=hooks.now, rng=hooks.rng, clock=anyio.current_time)
        listed = await discovering.freeze(held, options, around)
        return await _carry_out(of_run(held, listed), options, hooks)


def dry_run(path: Path, options: Options | None = None, hooks: Hooks | None = None) -> Preview:
    """Tell what `run` would do; nothing is called or written.

    Raises:
        InputError: manifest, ledger or options are not valid or don't fit together.
        StorageError: the ledger is in use.
    """
    options, hooks = options or Options(), hooks or Hooks()
    listed, _ = load(path, options, hooks.now(), touch=False)
    with reserved(listed, options, hooks.now(), touch=False) as held:
        return _preview(of_run(held, discovering.frozen(held)), options, hooks)


def _preview(job: Job, options: Options, hooks: Hooks) -> Preview:
    file = _usage_file(options)
    with Usage(file) if places.there(file) else nullcontext() as usage:
        return preview.of(job, _allowances(job, usage, options), hooks.now())


def dry_retry(
    path: Path,
    selection: Callable[[History], plan.Selection] | None = None,
    options: Options | None = None,
    hooks: Hooks | None = None,
) -> Preview:
    """Tell what `retry` would do; nothing is called or written.

    Raises:
        InputError: ledger or options are not valid or don't fit together.
        StorageError: the log of calls cannot be read.
    """
    options, hooks = options or Options(), hooks or Hooks()
    selection = selection or (lambda _: plan.Selection())
    with for_retry(path, selection, options, hooks.now(), touch=False) as job:
        return _preview(job, options, hooks)


async def retry(
    path: Path | str,
    selection: Callable[[History], plan.Selection] | plan.Selection | None = None,
    options: Options | None = None,
    hooks: Hooks | None = None,
) -> report.Summary:
    """Try the failed and doubtful rows of the ledger at `path` again, out of the ledger alone.

    Args:
        path: the ledger.
        selection: which rows, or what chooses from the history, so that it can know the codes there are;
            none: those that another try can cure.
        options: as for `run`; where the ledger says otherwise, they are refused.
        hooks: as for `run`.

    Raises:
        InputError: ledger or options are not valid or don't fit together; nothing was called.
        StorageError: a lock is held, or the ledger cannot be written; no call follows the failure.
    """
    options, hooks = options or Options(), hooks or Hooks()
    chosen = selection or plan.Selection()
    choose = chosen if callable(chosen) else lambda _: chosen
    with for_retry(Path(path), choose, options, hooks.now()) as job:
        return await _carry_out(job, options, hooks)


def _usage(job: Job, options: Options, stack: AsyncExitStack) -> tuple[Usage | None, list[str]]:
    """Open the log of calls; only windows cannot do without it."""
    try:
        return stack.enter_context(Usage(_usage_file(options))), []
    except StorageError as error:
        if any(map(windows, job.quotas.values())):
            raise
        return None, [f"the pace is not shared with other runs, nor kept for the next: {error}"]


def _allowances(job: Job, usage: Usage | None, options: Options) -> Allowances:
    accounts = {name: replace(account, quota=job.quotas[name]) for name, account in job.accounts.items()}
    return Allowances(accounts, job.endpoint, usage, os.environ, read_rate=options.read_rate)


def _usage_file(options: Options) -> Path:
    return places.usage_file(state_of(options))


async def _carry_out(job: Job, options: Options, hooks: Hooks) -> report.Summary:
    """Send what the job asks for: the one path of run, resume and retry."""
    if not any(job.todo.values()) and job.past.end:
        return _summary(job, "completed", _tally(job), warnings=[*job.warnings, _nothing_to_do(job)])
    async with AsyncExitStack() as stack:
        usage, warnings = _usage(job, options, stack)
        allowances = _allowances(job, usage, options)
        if hooks.confirm and not hooks.confirm(preview.of(job, allowances, hooks.now())):
            raise InputError("not confirmed: nothing was called")
        target = await service.target(job.endpoint, options, stack)
        book = stack.enter_context(ledger.Ledger(job.path))
        await _outlive(job, hooks)
        clients = await _callers(job, target, options, hooks, stack)
        await identity.check(job, clients.whose)
        await identity.check_apart(job, clients.whose)
        tally = _tally(job)
        engine = _engine(job, clients, allowances, options=options, hooks=hooks, book=book, tally=tally)
        tally.lanes, tally.allowances = engine.lanes, allowances
        header = _header(job, options, hooks)
        leave_out = stack.enter_context(
            leaving.prepared(
                job,
                options,
                header,
                service.over(engine.lanes, allowances, clients, hooks.now, hooks.rng),
                skew=clients.skew,
                now=hooks.now,
                append=book.append,
                statuses=tally.statuses,
            )
        )
        book.append(codec.encode_run(header, __version__, vanished=job.vanished))
        await anyio.to_thread.run_sync(book.sync)
        for file in job.reminders:
            unfinished.note(file, job.path, job.run_id)
        signum = await _drive(engine, job, book, tally, hooks, leave_out=leave_out)
        stop = engine.ending
        outcome = _OUTCOMES[stop.kind] if stop and not _went_through(engine, tally) else "completed"
        end = history.End(outcome, tally.counts.as_dict(), hooks.now())
        book.append(codec.encode_end(job.run_id, end))
        await anyio.to_thread.run_sync(book.sync)
        warnings += [*_forgotten(job, tally), *(leave_out.warnings if leave_out else [])]
        warnings += [*job.warnings, *(text for lane in engine.lanes.values() for text in lane.warnings)]
        summary = _summary(job, outcome, tally, engine=engine, signum=signum, warnings=warnings)
        return replace(summary, reads=leave_out.reads) if leave_out else summary


async def _outlive(job: Job, hooks: Hooks) -> None:
    """Wait until the workers of a coordinator that crashed must have stopped calling."""
    last = job.past.last
    if last is None or job.past.end is not None or last.settings.get("engine") != "dask":
        return
    seconds = last.settings.get("lease_s")
    term = Term(seconds if isinstance(seconds, int | float) and 0 < seconds <= LONGEST_LEASE else LEASE)
    term.renew(0.0)
    if hooks.tell:
        hooks.tell(
            f"waiting {term.left(0.0):.0f} s: workers of the run before, which crashed, may call until then"
        )
    await anyio.sleep(term.left(0.0))


async def _callers(
    job: Job, target: Target, options: Options, hooks: Hooks, stack: AsyncExitStack
) -> Clients | Posts:
    """What makes the calls: this process, or the workers of a cluster."""
    if options.placing is None:
        return await stack.enter_async_context(Clients(job.accounts, target, hooks.now))
    try:
        from batch_snapshot.posts import Posts  # noqa: PLC0415 - Dask is there only where it is wanted
    except ImportError as error:
        if (error.name or "").startswith("batch_snapshot"):
            raise
        raise InputError("--engine dask needs Dask: pip install 'batch-snapshot[dask]'") from None
    posts = Posts(
        job.accounts,
        target,
        options.engine,
        options.placing,
        read_rate=options.read_rate or READ_RATE,
    )
    return await stack.enter_async_context(posts)


def _engine(
    job: Job,
    clients: Clients | Posts,
    allowances: Allowances,
    *,
    options: Options,
    hooks: Hooks,
    book: ledger.Ledger,
    tally: View,
) -> Engine | Coordinator:
    """What drives the run, by whoever makes the calls."""
    signers: dict[str, str] = {}
    lanes = {name: allowances.lane(name, wait=options.wait) for name in job.accounts}
    identify = partial(identity.settle, job, signers, allowances, clients.identify)
    intend = partial(_intend, book, clients, signers, hooks)
    record = partial(_record, book, job, tally, hooks)
    if isinstance(clients, Clients):
        return Engine(
            lanes=lanes,
            identify=identify,
            send=clients.send,
            look_up=clients.look_up,
            probe=clients.probe,
            intend=intend,
            record=record,
            clock_skew=clients.clock_skew,
            now=hooks.now,
            rng=hooks.rng,
            settings=options.engine,
        )
    return Coordinator(
        lanes=lanes,
        posts=clients,
        identify=identify,
        intend=intend,
        record=record,
        suspend=partial(record, provisional=True),
        now=hooks.now,
        settings=options.engine,
    )


def _forgotten(job: Job, view: View) -> list[str]:
    """A finished ledger need not be missed; returns what is to be told if that cannot be noted."""
    if view.counts.unattempted or view.counts.in_doubt:
        return []
    try:
        for file in job.reminders:
            unfinished.forget(file, job.path)
    except StorageError as error:
        return [str(error)]
    return []


def _went_through(engine: Engine | Coordinator, view: View) -> bool:
    """Whether the run was stopped by its very last row: then nothing was kept from it."""
    stopped = engine.ending is engine.stop and engine.stop and engine.stop.kind is StopKind.STOPPED
    return bool(stopped) and all(view.settled[name] >= rows for name, rows in view.todo.items())


_OUTCOMES = {
    StopKind.DEFERRED: "deferred",
    StopKind.STOPPED: "stopped",
    StopKind.INTERRUPTED: "interrupted",
}


async def _drive(
    engine: Engine | Coordinator,
    job: Job,
    book: ledger.Ledger,
    view: View,
    hooks: Hooks,
    *,
    leave_out: Leaving | None = None,
) -> int | None:
    """Run the engine with what goes on beside it; returns the signal that ended it, if one did."""
    caught: list[int] = []
    view.started = anyio.current_time()
    try:
        async with anyio.create_task_group() as beside:
            beside.start_soon(_sync_regularly, book)
            if hooks.signals:
                await beside.start(_heed_signals, engine, caught)
            if hooks.watch:
                beside.start_soon(hooks.watch, view)
            if leave_out:
                left = await leaving.carry_out(engine, leave_out)
                view.todo = {name: rows - left[name] for name, rows in view.todo.items()}
            await engine.run(_while_unchanged(engine, plan.batches(job.requests, BATCH)), view.todo)
            beside.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        storage = group.subgroup(StorageError)
        if storage is None:
            raise
        raise _first(storage) from None
    return caught[0] if caught else None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _sync_regularly(book: ledger.Ledger) -> None:
    while True:
        await anyio.sleep(SYNC_EVERY)
        await anyio.to_thread.run_sync(book.sync)


async def _heed_signals(
    engine: Engine | Coordinator,
    caught: list[int],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """The first signal drains, the second drops the calls in flight."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for signum in signals:
            caught.append(signum)
            if len(caught) == 1:
                engine.request_stop(Stop(StopKind.INTERRUPTED, f"{signal.Signals(signum).name} received"))
            else:
                engine.abort()


def _while_unchanged(engine: Course, batches: Iterator[list[Request]]) -> Iterator[list[Request]]:
    """A manifest that changes under the run ends it in good order."""
    try:
        yield from batches
    except ManifestError as error:
        engine.request_stop(Stop(StopKind.STOPPED, str(error)))


async def _intend(
    book: ledger.Ledger,
    clients: Clients | Posts,
    signers: Mapping[str, str],
    hooks: Hooks,
    requests: Sequence[Request],
) -> None:
    """Name rows of one account on disk."""
    account = requests[0].row.account
    line = codec.encode_intent(hooks.now(), requests, clients.clock_skew(account), signers.get(account))
    book.append(line)
    await anyio.to_thread.run_sync(book.sync)


def _record(
    book: ledger.Ledger, job: Job, view: View, hooks: Hooks, outcome: Outcome, *, provisional: bool = False
) -> None:
    """Write an outcome down and count it; a `provisional` one is of a row that is about to be sent again."""
    book.append(codec.encode_result(job.run_id, outcome))
    key = outcome.request.row.key
    if earlier := view.provisional.pop(key, None):
        view.statuses[earlier.status] -= 1
        view.failures.subtract(_groups(earlier))
        view.by_account[outcome.request.row.account, earlier.status] -= 1
    else:
        if before := job.past.status(key):
            view.statuses[before] -= 1
        if past := job.past.unfinished.get(key):
            view.failures[history.group(past)] -= 1
    view.statuses[outcome.status] += 1
    view.failures.update(_groups(outcome))
    account = outcome.request.row.account
    view.by_account[account, outcome.status] += 1
    if provisional:
        view.provisional[key] = outcome
        return
    view.settled[account] += 1
    if hooks.outcome:
        hooks.outcome(outcome)


def _groups(outcome: Outcome) -> list[FailureGroup]:
    error = outcome.error
    return [FailureGroup(outcome.status, error.kind, error.code)] if error else []


def _tally(job: Job) -> View:
    statuses = job.past.counts()
    failures = job.past.failures()
    return View(job.name, job.total, statuses, failures, settled_before=statuses.total(), todo=job.todo)


def _header(job: Job, options: Options, hooks: Hooks) -> history.Header:
    known = job.past.last.accounts if job.past.last else {}
    called = {name: codec.encode_account(account) for name, account in job.accounts.items()}
    return history.Header(
        run_id=job.run_id,
        command=job.command,
        name=job.name,
        manifest=job.manifest,
        manifest_sha256=job.manifest_sha256,
        rows=job.total,
        accounts={**known, **called},
        endpoint=job.endpoint,
        started_at=hooks.now(),
        settings={**job.settings, **extras_of(options)},
        discovered_sha256=job.discovered_sha256,
    )


def _nothing_to_do(job: Job) -> str:
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


def _summary(
    job: Job,
    outcome: str,
    tally: View,
    *,
    engine: Course | None = None,
    signum: int | None = None,
    warnings: Sequence[str] = (),
) -> report.Summary:
    stops = [engine.stop, *(lane.stop for lane in engine.lanes.values())] if engine else []
    failures = {group: number for group, number in tally.failures.items() if number > 0}
    uncounted = engine.uncounted if engine else None
    return report.Summary(
        outcome=outcome,
        exit_code=uncounted.exit_code if uncounted else report.exit_code(outcome, tally.counts, signum),
        counts=tally.counts,
        failures=failures,
        ledger=str(job.path),
        run_id=job.run_id,
        name=job.name,
        command=job.command,
        endpoint=job.endpoint,
        elapsed_s=tally.elapsed if engine else 0.0,
        accounts={name: _account_summary(lane, tally) for name, lane in engine.lanes.items()}
        if engine
        else {},
        reasons=[stop.reason for stop in stops if stop],
        vanished=job.vanished,
        vanished_rows=job.vanished_rows,
        warnings=warnings,
        next_steps=report.next_steps(
            tally.counts,
            failures,
            run=job.rest if outcome == "completed" else job.again or job.rest,
            ledger=str(job.path),
            settings=job.settings,
        ),
    )


def _account_summary(lane: Lane, tally: View) -> report.AccountSummary:
    """An account's part in this run: what became of its rows, and what they took."""
    statuses = {status.value: tally.by_account[lane.name, status] for status in Status}
    left = tally.todo.get(lane.name, 0) - sum(statuses.values())
    traffic, known = lane.traffic, lane.pacer.pace.known
    return report.AccountSummary(
        calls=traffic.calls,
        throttled_calls=traffic.throttled,
        learned_rate=round(known, 3) if known and traffic.calls else None,
        stopped=lane.stop.reason if lane.stop else None,
        counts={**statuses, "unattempted": max(0, left)},
    )
