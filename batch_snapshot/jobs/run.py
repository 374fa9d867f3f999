"""`run` and `retry`, the library's entry, and their dry runs: each makes a `Job`; all jobs run alike.

This process makes the calls, or the workers of a Dask cluster do. `run_sync` and `retry_sync` are for
programs that are not asynchronous. Where an event loop runs already, as in a notebook, they run in a thread
of their own, and the callbacks of `Hooks` are called from there.
"""

import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Union

import anyio
from anyio.from_thread import start_blocking_portal

from batch_snapshot import files, interrupts, paths
from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target, open_target
from batch_snapshot.clock import utc_now
from batch_snapshot.cluster.coordinator import Coordinator
from batch_snapshot.config.options import Options, recorded_silence, state_folder_of
from batch_snapshot.discovery.readers import Environment, readers_over
from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.engine.limits import AccountLimits
from batch_snapshot.engine.pool import Engine
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.engine.seams import Seams
from batch_snapshot.errors import (
    SAME_COMMAND,
    InputError,
    ManifestError,
    StateFolderError,
    StorageError,
    install_command,
)
from batch_snapshot.jobs import identity_check, outcome, plan
from batch_snapshot.jobs.control import Controller
from batch_snapshot.jobs.job import Job, Selecting, open_retry, open_run
from batch_snapshot.jobs.locked import discover_pairs, load_discovered, lock_ledger, lock_retried_ledger
from batch_snapshot.jobs.preview import Preview, preview_job
from batch_snapshot.jobs.recorder import Recorder
from batch_snapshot.jobs.skipping import SkipFilter, prepare_skipping, skip_rows
from batch_snapshot.ledger import writer
from batch_snapshot.manifest import LoadOptions, Manifest, load
from batch_snapshot.models import Account, Outcome, Request
from batch_snapshot.ratelimit.windows import CallLog, Machine, windows
from batch_snapshot.reporting.progress import RunView
from batch_snapshot.reporting.summary import Summary

if TYPE_CHECKING:
    from batch_snapshot.cluster.dask_client import Workers  # may not be installed

Callers = Union[Clients, "Workers"]

#: Rows looked at between two turns of everything else.
BATCH = 64


def open_callers(
    accounts: Mapping[str, Account], target: Target, options: Options, now: Callable[[], datetime]
) -> AbstractAsyncContextManager[Callers]:
    if options.cluster is None:
        return Clients(accounts, target, now)
    try:
        from batch_snapshot.cluster.dask_client import open_workers  # may not be installed
    except ImportError as error:
        if (error.name or "").startswith("batch_snapshot"):
            raise
        raise InputError(f"--engine dask needs Dask: {install_command('dask')}") from None
    return open_workers(accounts, target, options.engine, options.cluster, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Callbacks and settings of the caller. The library prints nothing, and handles no signals unasked."""

    #: Runs in parallel with the calls until they are over.
    watch: Callable[[RunView], Coroutine[Any, Any, None]] | None = None
    outcome: Callable[[Outcome], None] | None = None
    #: Called once before the first call; False: nothing is called.
    confirm: Callable[[Preview], bool] | None = None
    #: Called with what the run waits for before it begins.
    on_wait: Callable[[str], None] | None = None
    #: Called before the first call with a warning: snapshots of catalog AWS cannot be undone.
    warn: Callable[[str], None] | None = None
    #: Called when the run begins to stop early, with a sentence and its facts by name.
    stopping: Callable[[str, Mapping[str, Any]], None] | None = None
    #: Called with each command of `control` that took effect; None: the run takes no commands.
    control: Callable[[str, Mapping[str, Any]], None] | None = None
    #: Whether SIGINT, SIGTERM and SIGHUP end the run gracefully.
    signals: bool = False
    now: Callable[[], datetime] = utc_now
    rng: Random = field(default_factory=Random)
    #: What a run reaches outside this process; a simulation brings its own.
    open_callers: Callable[..., AbstractAsyncContextManager[Any]] = open_callers
    machine: Machine = field(default_factory=Machine)
    #: Runs what blocks, such as an fsync, while everything else goes on.
    in_thread: Callable[[Callable[[], None]], Awaitable[None]] = anyio.to_thread.run_sync


async def run(path: Path | str, options: Options | None = None, hooks: Hooks | None = None) -> Summary:
    """Create the snapshots that the manifest at `path` lists, or resume an earlier run of it.

    Raises:
        InputError: manifest, ledger or options are not valid or don't fit together; nothing was called.
        StorageError: a lock is held, or the ledger cannot be written; no call follows the failure.
    """
    options, hooks = options or Options(), hooks or Hooks()
    loaded = _manifest(path, options)
    with lock_ledger(loaded, options, hooks.now()) as locked:
        environment = Environment(now=hooks.now, rng=hooks.rng, clock=anyio.current_time)
        manifest = await discover_pairs(loaded, locked, environment)
        return await _carry_out(open_run(locked, manifest), hooks)


def _manifest(path: Path | str, options: Options) -> Manifest:
    return load(Path(path), options=LoadOptions(options.name, options.catalog, options.all_problems))


def dry_run(path: Path, options: Options, now: Callable[[], datetime] = utc_now) -> Preview:
    """Show what `run` would do; nothing is called or written."""
    loaded = _manifest(path, options)
    with lock_ledger(loaded, options, now(), read_only=True) as locked:
        return _preview(open_run(locked, load_discovered(loaded, locked)), now())


async def retry(
    path: Path | str,
    selection: Selecting | None = None,
    options: Options | None = None,
    hooks: Hooks | None = None,
) -> Summary:
    """Try rows of the ledger at `path` again that failed or are in doubt; no manifest is needed.

    `selection` says which, or chooses from the history; without it, those that another try can fix. Options
    are refused where the ledger says otherwise. Raises as `run` does.
    """
    options, hooks = options or Options(), hooks or Hooks()
    with lock_retried_ledger(Path(path), options, hooks.now()) as locked:
        return await _carry_out(open_retry(*locked, selection), hooks)


def dry_retry(path: Path, selection: Selecting | None, options: Options) -> Preview:
    with lock_retried_ledger(path, options, utc_now(), read_only=True) as locked:
        return _preview(open_retry(*locked, selection), utc_now())


def _preview(job: Job, now: datetime) -> Preview:
    file = _call_log_path(job.options)
    with CallLog(file) if files.exists(file) else nullcontext() as call_log:
        return preview_job(job, _account_limits(job, call_log), now)


async def _carry_out(job: Job, hooks: Hooks) -> Summary:
    """Send what the job asks for: the one path of run, resume and retry."""
    if job.nothing_to_do:
        return outcome.nothing_to_do_summary(job)
    options, stop_handler = job.options, outcome.StopHandler(hooks.stopping)
    async with AsyncExitStack() as stack:
        if hooks.signals:
            stack.enter_context(interrupts.listen(stop_handler))
        call_log, warnings = _open_call_log(job, hooks, stack)
        limits = _account_limits(job, call_log)
        if hooks.confirm and not hooks.confirm(preview_job(job, limits, hooks.now())):
            raise InputError("not confirmed: nothing was called")
        target = await open_target(job.endpoint, stack, options.simulated, options.engine.concurrency)
        ledger = stack.enter_context(writer.Ledger(job.path))
        last, end = job.past.last, job.past.end
        if last and end is None and (silence := recorded_silence(last.settings)):
            if hooks.on_wait:
                hooks.on_wait(f"waiting {silence:.0f} s: the workers of the crashed run may still make calls")
            await anyio.sleep(silence)
        opening = hooks.open_callers(job.accounts, target, options, hooks.now)
        callers = await stack.enter_async_context(opening)
        await identity_check.check_accounts(job, callers.quota_owner, hooks.warn)
        recorder = Recorder(ledger, job, callers.clock_skew, hooks.now, hooks.outcome, hooks.in_thread)
        engine, stats = build_engine(callers, limits, recorder, hooks.rng), recorder.stats
        accounts = engine.accounts
        view = RunView(job.header.name, stats, engine, limits, job.path, job.endpoint)
        readers = readers_over(accounts, limits, callers.identify, callers.read, now=hooks.now, rng=hooks.rng)
        skipping = stack.enter_context(prepare_skipping(recorder, readers))
        if hooks.signals:
            stack.enter_context(interrupts.handle_signals())
        stop_handler.begin(engine, signals=hooks.signals)
        await recorder.begin()
        await _run_engine(engine, view, recorder, hooks, skipping)
        stop_handler.end()
        result = outcome.decide_outcome(engine, stats)
        await recorder.end(result)
        warnings += [*recorder.clear_reminders(), *(skipping.warnings if skipping else ()), *job.warnings]
        warnings += [text for account in accounts.values() for text in account.warnings]
        reads = skipping.reads if skipping else {}
        signum = stop_handler.signum
        return outcome.summarize(job, result, stats, view=view, signum=signum, warnings=warnings, reads=reads)


def build_engine(callers: Callers, limits: AccountLimits, recorder: Recorder, rng: Random) -> Engine:
    job, settings = recorder.job, recorder.job.options.engine
    accounts = {name: limits.new_state(name, wait=job.options.wait) for name in job.accounts}
    identify = partial(identity_check.identify_signer, job, recorder.signers, limits, callers.identify)
    seams = Seams(
        intend=recorder.intend,
        record=recorder.record,
        identify=identify,
        probe=callers.probe,
        clock_skew=callers.clock_skew,
        now=recorder.now,
        rng=rng,
    )
    if isinstance(callers, Clients):
        identify = partial(identify, accounts=accounts.values())
        seams = replace(seams, identify=identify, send=callers.send, look_up=callers.look_up)
        return Engine(accounts, seams, settings)
    return Coordinator(accounts, seams, settings, callers)


def _open_call_log(job: Job, hooks: Hooks, stack: AsyncExitStack) -> tuple[CallLog | None, list[str]]:
    """The log of calls, and warnings; only quota windows cannot do without it."""
    try:
        return stack.enter_context(CallLog(_call_log_path(job.options), machine=hooks.machine)), []
    except StorageError as error:
        if any(map(windows, job.targets.quotas.values())):
            raise
        return None, [f"the pace is not shared with other runs, nor kept for the next: {error}"]


def _call_log_path(options: Options) -> Path:
    return paths.call_log_file(state_folder_of(options))


def _account_limits(job: Job, call_log: CallLog | None) -> AccountLimits:
    accounts, rate, wait = job.targets.limited_accounts, job.options.read_rate, job.options.wait
    return AccountLimits(accounts, job.endpoint, call_log, os.environ, read_rate=rate, wait=wait)


async def _run_engine(
    engine: Engine, view: RunView, recorder: Recorder, hooks: Hooks, skipping: SkipFilter | None
) -> None:
    stats = view.stats
    view.started = anyio.current_time()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recorder.sync_regularly)
            if hooks.control:
                tasks.start_soon(Controller(engine, view.limits, recorder, hooks.control).serve)
            if hooks.watch:
                tasks.start_soon(hooks.watch, view)
            if skipping:
                skipped = await skip_rows(engine, skipping)
                stats.todo = {name: rows - skipped[name] for name, rows in stats.todo.items()}
            job = recorder.job
            view.planned = job.planned() if job.options.limit else None
            batches = plan.batches(job.requests(), BATCH)
            await engine.run(_stop_if_manifest_changes(engine, batches), view.todo)
            outcome.defer_rest(engine, stats, job.options.limit)
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        first: BaseException | None = group.subgroup(StorageError)
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if first is None:
            raise
        # Calls were made, so no argument is refused any more.
        late = StorageError(f"{first}, {SAME_COMMAND}") if isinstance(first, StateFolderError) else first
        raise late from None


def _stop_if_manifest_changes(engine: RunState, batches: Iterator[list[Request]]) -> Iterator[list[Request]]:
    try:
        yield from batches
    except ManifestError as error:
        engine.request_stop(Stop(StopKind.STOPPED, str(error)))


def run_sync(path: Path | str, options: Options | None = None, hooks: Hooks | None = None) -> Summary:
    """Do what `run` does, and return when it is over.

    Inside a running loop it works too, without `Hooks(signals=True)`, but blocks that loop; `await run(…)`
    does not.
    """
    return _run_to_end(partial(run, path, options, hooks), hooks)


def retry_sync(
    path: Path | str,
    selection: Selecting | None = None,
    options: Options | None = None,
    hooks: Hooks | None = None,
) -> Summary:
    """Do what `retry` does, and return when it is over; see `run_sync`."""
    return _run_to_end(partial(retry, path, selection, options, hooks), hooks)


def _run_to_end(work: Callable[[], Awaitable[Summary]], hooks: Hooks | None) -> Summary:
    try:
        anyio.get_current_task()
    except RuntimeError:  # no loop is running
        return anyio.run(work)
    if hooks and hooks.signals:
        raise InputError(
            "Hooks(signals=True): a loop is running here, and only the main thread's own run can handle "
            "signals; leave signals out, or await batch_snapshot.run"
        )
    # An exception in the block, such as an interrupt, ends the work before it is raised further.
    with start_blocking_portal() as portal:
        return portal.call(work)
