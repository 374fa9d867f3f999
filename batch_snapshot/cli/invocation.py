"""What commands share that call the service: options and hooks from flags, progress, and the result.

Commands import it when they are carried out: it brings all that a run needs.
"""

import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import fields, replace
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar

import anyio
import click
from click.core import ParameterSource

from batch_snapshot import models
from batch_snapshot.cli import simulate, terminal, watch
from batch_snapshot.cli.notify import Notifiers
from batch_snapshot.config.options import LONGEST_BUDGET, SHORTEST_BUDGET, ClusterOptions, Options, Settings
from batch_snapshot.discovery.readers import Environment
from batch_snapshot.errors import SAME_COMMAND, BatchSnapshotError, InputError
from batch_snapshot.failures.retry import NO_LIMIT, FailureLimit
from batch_snapshot.jobs import preview
from batch_snapshot.jobs.preview import Preview
from batch_snapshot.jobs.run import Hooks
from batch_snapshot.models import Outcome
from batch_snapshot.reporting import progress, summary
from batch_snapshot.reporting.progress import RunView
from batch_snapshot.reporting.summary import Summary

T = TypeVar("T")

#: After "interrupted (SIGINT)", once the rows are sent.
OVER = ": the run itself was over; `batch-snapshot status` on its ledger shows the result"

#: Flags that a command to run next leaves out, with their values.
_LEFT_OUT = ("--notify-webhook", "--limit")

#: Options that say what is run, where to and into which ledger. A command to run next names them even if they
#: come from the environment: where it is typed, those variables may not be set.
_SPELLED = {"ledger", "name", "catalog", "simulate", "endpoint_url", "simulator_state", "profile", "region"}


def options_of(given: dict[str, Any]) -> Options:
    """The options that flags mean: each has the value of the flag of its name."""
    same = {one.name: given[one.name] for one in fields(Options) if given.get(one.name) is not None}
    if "engine" in given:  # of a command that sends rows
        limit = given["max_failures"]
        settings = {one.name: given[one.name] for one in fields(Settings) if one.name in given}
        same |= {
            "cluster": _cluster(given["engine"], given["scheduler"], given["workers"], given["budget"]),
            "engine": Settings(**settings, failure_limit=FailureLimit.parse(limit) if limit else NO_LIMIT),
            "command_line": _command_line(),
        }
    if given["accounts"] == ():
        raise InputError("--accounts: name at least one account or tag:NAME, or leave it out for all")
    if (text := given["simulate"]) is not None:
        same |= {"simulate": True, "simulator_text": text}
        same["simulator_settings"] = simulate.parse_settings(text)
    return Options(**same)


def _cluster(engine: str, scheduler: str | None, workers: int | None, budget: float) -> ClusterOptions | None:
    if engine != "dask" and (scheduler or workers):
        flag = "--scheduler" if scheduler else "--workers"
        raise InputError(f"{flag} is for Dask: add --engine dask")
    if scheduler and workers:
        raise InputError("--workers is for a cluster on this machine: leave out --workers or --scheduler")
    if scheduler is not None and not re.fullmatch(r"(tcp|tls|ws|wss)://[\w.\-\[\]:]+:\d{1,5}", scheduler):
        raise InputError(f"--scheduler {scheduler}: give its address, such as tcp://10.0.0.5:8786")
    if not SHORTEST_BUDGET <= budget <= LONGEST_BUDGET:
        raise InputError(f"--budget: give {SHORTEST_BUDGET:g} to {LONGEST_BUDGET:g} seconds")
    dask = ClusterOptions(scheduler=scheduler, workers=workers, budget=budget)
    return dask if engine == "dask" else None


def _command_line() -> str:
    """The command line of this process; options of `_SPELLED` from environment variables become flags."""
    context = click.get_current_context(silent=True)
    flags = context and [
        f"{one.opts[0]}={one.resolve_envvar_value(context)}"
        for one in context.command.params
        if one.name in _SPELLED
        and context.get_parameter_source(one.name) is ParameterSource.ENVIRONMENT
        and context.params[one.name] is not None
    ]
    return shlex.join([terminal.PROG, *shareable(sys.argv[1:]), *(flags or [])])


def shareable(words: list[str]) -> list[str]:
    """A command line to print as the next step: without secrets, --new-ledger and --limit.

    --new-ledger is refused once that ledger exists, and the next step sends what --limit has left.
    """
    kept: list[str] = []
    for word in words:
        if word == "--new-ledger" and kept[-1:] != ["--ledger"]:
            continue
        if kept and kept[-1] in _LEFT_OUT:
            kept.pop()
        elif not word.startswith(tuple(f"{flag}=" for flag in _LEFT_OUT)):
            kept.append(word)
    return kept


# -- commands that send rows ----------------------------------------------------------------------------


def carry_out(
    given: dict[str, Any],
    notifiers: Notifiers,
    start: Callable[[Hooks], Coroutine[Any, Any, Summary]],
    plan: Callable[[], Preview],
) -> int:
    """Send rows, or with --dry-run show what would be sent; returns the exit code."""
    if given["dry_run"]:
        terminal.print_result(preview.as_json, preview.as_text, plan())
        return 0
    views: list[RunView] = []
    page: AbstractAsyncContextManager[None] = nullcontext()
    if given["control"] and not given["serve"]:
        raise InputError("--control: adds buttons to the page of --serve: add --serve")
    if given["serve"]:
        page = watch.live_page(
            lambda: views[0].ledger if views else None,
            given["serve"],
            partial(terminal.log, event="live"),
            control=given["control"],
            state_dir=given["state_dir"],
        )

    async def served() -> Summary:
        async with page:
            return await start(_hooks(given, notifiers, views))

    try:
        ended = terminal.run(served(), use_uvloop=find_spec("uvloop") is not None)
    except BatchSnapshotError as error:
        if str(error).endswith(SAME_COMMAND):
            error.args = (f"{error}: {_command_line()}",)
        notifiers.run_failed(error)
        raise
    try:
        try:
            code = print_summary(ended)
        except OSError:  # what is sent elsewhere may arrive
            notifiers.run_ended(ended)
            raise
        notifiers.run_ended(ended)
    except KeyboardInterrupt:
        terminal.log("interrupted while the result was written: the run itself was over", level="warning")
        return ended.exit_code
    return code


def _hooks(given: dict[str, Any], notifiers: Notifiers, views: list[RunView]) -> Hooks:
    """What shows a run and steers it; `views` gets the view of the run once its rows are sent."""
    ask = not given["yes"] and sys.stdin is not None and sys.stdin.isatty()
    shown = given["progress"] != "none"

    async def follow(view: RunView) -> None:
        views.append(view)
        terminal.current_reporter().interrupt_note = OVER
        async with anyio.create_task_group() as tasks:
            if shown:
                tasks.start_soon(_show_progress, view, given["progress"], given["progress_interval"])
            tasks.start_soon(notifiers.send_progress, view)

    def confirm(plan: Preview) -> bool:
        """Show the plan; on a terminal, ask before real snapshots are made."""
        simulated = plan.endpoint == models.SIMULATOR
        if shown and simulated:
            note_simulator(given["simulate"] or "")
        if ask and "AWS" in plan.catalogs and not simulated:
            terminal.log(preview.as_text(plan))
            return terminal.confirm("Snapshots cannot be deleted and notify the partners. Continue?")
        if shown:
            terminal.log(preview.brief(plan), event="plan", **preview.as_json(plan))
        return True

    return Hooks(
        watch=follow,
        outcome=_log_outcome if given["verbose"] else None,
        confirm=confirm,
        warn=None if ask else lambda text: terminal.warn([text]),
        on_wait=partial(terminal.log, event="waiting"),
        stopping=lambda text, facts: terminal.log(text, event="stopping", level="warning", **facts),
        control=lambda text, facts: terminal.log(text, event="control", **facts),
        signals=True,
    )


async def _show_progress(view: RunView, kind: str, interval: float | None) -> None:
    as_lines = kind == "lines" or (kind == "auto" and not terminal.can_draw())
    if as_lines or terminal.current_reporter().log_format == "json":
        await progress.watch(view, terminal.log_frame, every=interval)
        return
    with terminal.screen() as screen:
        await progress.watch(view, screen.show, first=0.0, every=progress.REDRAW_EVERY)


def _log_outcome(outcome: Outcome) -> None:
    error = outcome.error
    terminal.log(
        progress.outcome_line(outcome),
        event="outcome",
        level="warning" if error else "info",
        **outcome.request.row._asdict(),
        **{name: getattr(outcome, name) for name in ("status", "attempts", "throttles", "arn", "revision")},
        kind=error and error.kind,
        code=error and error.code,
    )


def note_simulator(settings: str | None) -> None:
    """Say what is simulated instead of called; None: nothing is."""
    if settings is not None:
        from batch_snapshot.simulator import DEMO

        chosen = replace(DEMO, **simulate.parse_settings(settings))
        terminal.log(f"simulated: {chosen.describe()}; AWS is not called", event="simulator")


def print_summary(ended: Summary) -> int:
    terminal.warn(ended.warnings)
    if terminal.current_reporter().log_format == "json":
        line = f"{ended.result}: {summary.states(ended.counts)}"
        terminal.log(line, event="summary", exit_code=ended.exit_code, **summary.as_json(ended))
    return terminal.print_result(summary.as_json, summary.as_text, ended, exit_code=ended.exit_code)


# -- commands that only read from the service -----------------------------------------------------------

#: Seconds between two lines in a log, and between two frames on a terminal.
LINES_EVERY, REDRAW_EVERY = 5.0, 0.2


def read(given: dict[str, Any], work: Callable[[Options, Environment], Coroutine[Any, Any, T]]) -> T:
    note_simulator(given["simulate"] if given["progress"] != "none" else None)
    with _progress(given["progress"]) as show:
        environment = Environment(on_progress=show, warn=lambda text: terminal.warn([text]))
        return terminal.run(work(options_of(given), environment))


@contextmanager
def _progress(kind: str) -> Iterator[Callable[[str], None]]:
    """Shows texts on standard error: as a line every few seconds, or as one that is redrawn in place."""
    as_bar = kind == "bar" or (kind == "auto" and terminal.can_draw())
    every = REDRAW_EVERY if as_bar else LINES_EVERY
    width = shutil.get_terminal_size().columns - 1
    last, drawn = time.monotonic(), False

    def show(text: str) -> None:
        nonlocal last, drawn
        if kind == "none" or time.monotonic() - last < every:
            return
        last, drawn = time.monotonic(), as_bar
        if as_bar:
            terminal.write("\r" + terminal.shown(text)[:width].ljust(width))
        else:
            terminal.log(text)

    try:
        yield show
    finally:
        if drawn:
            terminal.write("\r" + " " * width + "\r")
