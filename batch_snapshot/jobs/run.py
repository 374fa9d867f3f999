"""The hallway: wires the rooms into `run` and `retry`. The library's entry.

Both make a `Job` (which rows, under which ledger) and carry it out in the same way.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

from batch_snapshot import __version__, files, interrupts, manifest, paths
from batch_snapshot.aws.target import open_target
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options, extras_of, isolate_simulated_state, state_folder_of
from batch_snapshot.discovery import readers
from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.engine.allowance import AccountLimits
from batch_snapshot.errors import InputError, ManifestError, StorageError
from batch_snapshot.jobs import discovered, engines, identity_check, plan, preview, skipping
from batch_snapshot.jobs import outcome as ending
from batch_snapshot.jobs.job import Job, lock_ledger, open_retry, open_run
from batch_snapshot.jobs.signals import StopHandler
from batch_snapshot.ledger import codec, history, open_runs, writer
from batch_snapshot.models import SIMULATOR, Status
from batch_snapshot.ratelimit.windows import CallLog, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
    from datetime import datetime

    from batch_snapshot.engine.run_state import RunState
    from batch_snapshot.jobs.engines import Callers, Driver, Intend
    from batch_snapshot.jobs.preview import Preview
    from batch_snapshot.jobs.skipping import SkipStep
    from batch_snapshot.ledger.history import History
    from batch_snapshot.models import Outcome, Request
    from batch_snapshot.reporting.summary import Summary
    from batch_snapshot.reporting.view import RunView

#: Rows looked at between two turns of everything else.
BATCH = 64

#: Seconds between two fsyncs of the ledger.
SYNC_EVERY = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the caller wants to see and say. The library prints nothing and takes no signals unasked."""

    #: Runs beside the calls until they are over.
    watch: Callable[[RunView], Coroutine[Any, Any, None]] | None = None
    #: Told of every outcome, after it was recorded.
    outcome: Callable[[Outcome], None] | None = None
    #: Asked once before the first call; False: nothing is called.
    confirm: Callable[[Preview], bool] | None = None
    #: Told what the run waits for before it begins.
    tell: Callable[[str], None] | None = None
    #: Told when the run begins to stop early: a sentence, and its facts by name.
    stopping: Callable[[str, Mapping[str, Any]], None] | None = None
    #: Whether SIGINT, SIGTERM and SIGHUP end the run gracefully.
    signals: bool = False
    now: Callable[[], datetime] = utc_now
    rng: Random = field(default_factory=Random)


async def run(path: Path | str, options: Options | None = None, hooks: Hooks | None = None) -> Summary:
    """Create the snapshots that the manifest at `path` lists, or go on where an earlier run stopped.

    Raises:
        InputError: manifest, ledger or options are not valid or don't fit together; nothing was called.
        StorageError: a lock is held, or the ledger cannot be written; no call follows the failure.
    """
    options, hooks = options or Options(), hooks or Hooks()
    with isolate_simulated_state(options, simulated=options.simulate) as own:
        listed = manifest.load(Path(path))
        with lock_ledger(listed, own, hooks.now()) as held:
            around = readers.Environment(now=hooks.now, rng=hooks.rng, clock=anyio.current_time)
            listed = await discovered.discover_pairs(held, own, around)
            return await _carry_out(open_run(held, listed), own, hooks)


def dry_run(path: Path, options: Options | None = None, hooks: Hooks | None = None) -> Preview:
    """Tell what `run` would do; nothing is called or written.

    Raises:
        InputError: manifest, ledger or options are not valid or don't fit together.
        StorageError: the ledger is in use.
    """
    options, hooks = options or Options(), hooks or Hooks()
    with isolate_simulated_state(options, simulated=options.simulate) as own:
        listed = manifest.load(path)
        with lock_ledger(listed, own, hooks.now(), touch=False) as held:
            return _preview(open_run(held, discovered.load_discovered(held)), own, hooks)


def _preview(job: Job, options: Options, hooks: Hooks) -> Preview:
    file = _call_log_path(options)
    with CallLog(file) if files.exists(file) else nullcontext() as usage:
        return preview.preview_job(job, _account_limits(job, usage, options), hooks.now())


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
    with (
        isolate_simulated_state(options, simulated=_simulated(path, options)) as own,
        open_retry(path, selection, own, hooks.now(), touch=False) as job,
    ):
        return _preview(job, own, hooks)


def _simulated(path: Path, options: Options) -> bool:
    """Whether a ledger is gone on with in a simulated world."""
    head = writer.head(path)
    return options.simulate or (head is not None and head.endpoint == SIMULATOR)


async def retry(
    path: Path | str,
    selection: Callable[[History], plan.Selection] | plan.Selection | None = None,
    options: Options | None = None,
    hooks: Hooks | None = None,
) -> Summary:
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
    with (
        isolate_simulated_state(options, simulated=_simulated(Path(path), options)) as own,
        open_retry(Path(path), choose, own, hooks.now()) as job,
    ):
        return await _carry_out(job, own, hooks)


def _open_call_log(job: Job, options: Options, stack: AsyncExitStack) -> tuple[CallLog | None, list[str]]:
    """Open the log of calls; only windows cannot do without it."""
    try:
        return stack.enter_context(CallLog(_call_log_path(options))), []
    except StorageError as error:
        if any(map(windows, job.quotas.values())):
            raise
        return None, [f"the pace is not shared with other runs, nor kept for the next: {error}"]


def _account_limits(job: Job, usage: CallLog | None, options: Options) -> AccountLimits:
    accounts = {name: replace(account, quota=job.quotas[name]) for name, account in job.accounts.items()}
    return AccountLimits(accounts, job.endpoint, usage, os.environ, read_rate=options.read_rate)


def _call_log_path(options: Options) -> Path:
    return paths.usage_file(state_folder_of(options))


async def _carry_out(job: Job, options: Options, hooks: Hooks) -> Summary:
    """Send what the job asks for: the one path of run, resume and retry."""
    if not any(job.todo.values()) and job.past.end and not job.closes:
        return ending.nothing_to_do_summary(job)
    stopping = StopHandler(hooks.stopping)
    async with AsyncExitStack() as stack:
        if hooks.signals:
            stack.enter_context(interrupts.listening(stopping))
        usage, warnings = _open_call_log(job, options, stack)
        allowances = _account_limits(job, usage, options)
        if hooks.confirm and not hooks.confirm(preview.preview_job(job, allowances, hooks.now())):
            raise InputError("not confirmed: nothing was called")
        target = await open_target(
            job.endpoint, stack, state=options.simulator_state, concurrency=options.engine.concurrency
        )
        book = stack.enter_context(writer.Ledger(job.path))
        await engines.wait_for_lost_workers(job.past, hooks.tell)
        clients = await stack.enter_async_context(
            engines.open_callers(job.accounts, target, options, hooks.now)
        )
        await identity_check.check_signers(job, clients.quota_owner)
        await identity_check.check_duplicates(job, clients.quota_owner)
        await identity_check.check_renamed(job, clients.quota_owner)
        view = ending.initial_view(job)
        engine = _build_engine(job, clients, allowances, options=options, hooks=hooks, book=book, view=view)
        view.lanes, view.allowances, view.course = engine.lanes, allowances, engine
        header = _header(job, options, hooks)
        leave_out = stack.enter_context(
            skipping.prepare_skipping(
                job,
                options,
                header,
                readers.readers_over(
                    engine.lanes, allowances, clients.identify, clients.read, now=hooks.now, rng=hooks.rng
                ),
                skew=clients.skew,
                now=hooks.now,
                append=book.append,
                statuses=view.statuses,
            )
        )
        if hooks.signals:
            stack.enter_context(interrupts.handled())
        stopping.begin(engine)
        book.append(codec.encode_run(header, __version__, vanished=job.vanished))
        await anyio.to_thread.run_sync(book.sync)
        await _run_engine(engine, job, book, view, hooks, leave_out=leave_out)
        stopping.end()
        outcome = ending.outcome_of(engine, view)
        end = history.End(outcome, view.counts.as_dict(), hooks.now())
        book.append(codec.encode_end(job.run_id, end))
        await anyio.to_thread.run_sync(book.sync)
        warnings += [*_clear_reminders(job, view), *(leave_out.warnings if leave_out else [])]
        warnings += [*job.warnings, *(text for lane in engine.lanes.values() for text in lane.warnings)]
        summary = ending.summary(job, outcome, view, engine=engine, signum=stopping.signum, warnings=warnings)
        return replace(summary, reads=leave_out.reads) if leave_out else summary


def _build_engine(
    job: Job,
    clients: Callers,
    allowances: AccountLimits,
    *,
    options: Options,
    hooks: Hooks,
    book: writer.Ledger,
    view: RunView,
) -> Driver:
    """What drives the run, with what it tells the ledger."""
    signers: dict[str, str] = {}
    record = partial(_record, book, job, view, hooks)
    return engines.build_engine(
        clients,
        {name: allowances.lane(name, wait=options.wait) for name in job.accounts},
        options,
        identify=partial(identity_check.identify_signer, job, signers, allowances, clients.identify),
        intend=_note_before_intend(job, partial(_intend, book, clients, signers, hooks)),
        record=record,
        suspend=partial(record, provisional=True),
        now=hooks.now,
        rng=hooks.rng,
    )


def _clear_reminders(job: Job, view: RunView) -> list[str]:
    """A finished ledger need not be missed; returns what is to be told if that cannot be noted.

    It may be finished for some accounts and wait for others, which nobody has asked to send.
    """
    settled = not (view.counts.unattempted or view.counts.in_doubt)
    try:
        for name, file in job.reminders.items():
            if settled or _finished_for(name, job, view):
                open_runs.forget(file, job.path, job.run_id)
    except StorageError as error:
        return [str(error)]
    return []


def _finished_for(name: str, job: Job, view: RunView) -> bool:
    """Whether a run has nothing left to do for an account; what vanished from the manifest is not known."""
    if job.command != "run" or job.gone:
        return False
    return view.settled[name] >= view.todo.get(name, 0) and not view.by_account[name, Status.IN_DOUBT]


async def _run_engine(
    engine: Driver,
    job: Job,
    book: writer.Ledger,
    view: RunView,
    hooks: Hooks,
    *,
    leave_out: SkipStep | None = None,
) -> None:
    """Run the engine with what goes on beside it."""
    view.started = anyio.current_time()
    try:
        async with anyio.create_task_group() as beside:
            beside.start_soon(_sync_regularly, book)
            if hooks.watch:
                beside.start_soon(hooks.watch, view)
            if leave_out:
                left = await skipping.skip_rows(engine, leave_out)
                view.todo = {name: rows - left[name] for name, rows in view.todo.items()}
            await engine.run(_stop_if_manifest_changes(engine, plan.batches(job.requests, BATCH)), view.todo)
            beside.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        storage = group.subgroup(StorageError)
        if storage is None:
            raise
        raise _first(storage) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _sync_regularly(book: writer.Ledger) -> None:
    while True:
        await anyio.sleep(SYNC_EVERY)
        await anyio.to_thread.run_sync(book.sync)


def _stop_if_manifest_changes(engine: RunState, batches: Iterator[list[Request]]) -> Iterator[list[Request]]:
    """A manifest that changes under the run ends it in good order."""
    try:
        yield from batches
    except ManifestError as error:
        engine.request_stop(Stop(StopKind.STOPPED, str(error)))


def _note_before_intend(job: Job, intend: Intend) -> Intend:
    """Record that the ledger is not finished before it names the first row of an account, and not earlier."""
    noted: set[str] = set()

    async def note_and_intend(requests: Sequence[Request]) -> None:
        account = requests[0].row.account
        if account in job.reminders.keys() - noted:
            open_runs.note(job.reminders[account], job.path, job.run_id, job.instead_of)
            noted.add(account)
        await intend(requests)

    return note_and_intend


async def _intend(
    book: writer.Ledger,
    clients: Callers,
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
    book: writer.Ledger, job: Job, view: RunView, hooks: Hooks, outcome: Outcome, *, provisional: bool = False
) -> None:
    """Write an outcome down and count it; a `provisional` one is of a row that is about to be sent again."""
    book.append(codec.encode_result(job.run_id, outcome))
    view.add(outcome, job.past, provisional=provisional)
    if hooks.outcome and not provisional:
        hooks.outcome(outcome)


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
