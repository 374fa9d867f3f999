"""`run`, `plan` and `retry`: what sends rows, or would."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot.cli import options as flags
from batch_snapshot.cli import telling, terminal
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import SAME_COMMAND, BatchSnapshotError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from batch_snapshot.config.options import ClusterOptions, Options
    from batch_snapshot.jobs.plan import Selection
    from batch_snapshot.jobs.preview import Preview
    from batch_snapshot.jobs.run import Hooks
    from batch_snapshot.ledger.history import History
    from batch_snapshot.models import Outcome
    from batch_snapshot.reporting.progress import RunView
    from batch_snapshot.reporting.summary import Summary


_DRY_RUN = click.option("--dry-run", is_flag=True, help="Tell what would be sent; call nothing.")
_YES = click.option("--yes", is_flag=True, help="Don't ask before the first call to catalog AWS.")


#: What is said of a run that a signal ended before its first row, and of one that had just ended.
NOTHING_SENT = ": nothing was sent; the same command starts again"
OVER = ": the run itself was over; `batch-snapshot status` on its ledger shows the result"


@click.command(short_help="Create the snapshots that a manifest lists, or go on.")
@click.argument("manifest", type=flags.FILE)
@click.option(
    "--ledger",
    metavar="PATH",
    help="The record of what became of each row; may hold {name} and {date}. "
    "Default: ledgers/{name}.ndjson. With --simulate the name gets .simulated before its ending.",
)
@click.option(
    "--run-id", metavar="ID", help="For a new ledger: the tokens are made from it. Default: random."
)
@click.option(
    "--resume-within",
    type=flags.DurationParam(),
    default="20h",
    show_default=True,
    metavar="TIME",
    help="With {date}: an unfinished ledger that began so lately is resumed before a new one is opened; "
    "one that was deferred always is.",
)
@click.option(
    "--changed-since",
    metavar="last|TIME",
    help="Leave out pairs whose opportunity was not modified since their last snapshot, or since a time "
    "(2026-01-31, 36h).",
)
@click.option(
    "--skip-active-jobs", is_flag=True, help="Leave out pairs that a running snapshot job takes care of."
)
@_DRY_RUN
@click.option(
    "--new-ledger",
    is_flag=True,
    help="Begin anew though an unfinished ledger has vanished, or lies elsewhere: makes its snapshots again.",
)
@_YES
@flags.shared
@terminal.LOG_FORMAT
def run(manifest: Path, *, dry_run: bool, yes: bool, **given: Any) -> int:
    """Create the snapshots that MANIFEST lists, or go on where an earlier run stopped.

    \b
    batch-snapshot run backfill.yaml --max-duration 6h
    batch-snapshot run nightly.yaml --ledger 'ledgers/{name}-{date}.ndjson' --format json
    """
    terminal.telling().unfinished = NOTHING_SENT
    from batch_snapshot.jobs import run as batch

    others = telling.others("run", manifest, given)
    options = _options(given)
    if dry_run:
        _print_preview(batch.dry_run(manifest, options), given["form"])
        return 0
    hooks = _hooks(given, ask=not yes)
    return _finish(batch.run(manifest, options, hooks), given["form"], others)


@click.command(short_help="Tell how a run would go; call nothing.")
@click.argument("manifest", type=flags.FILE)
@click.option(
    "--ledger",
    metavar="PATH",
    help="Plan what is left of it. Default: the ledger that run would write, if it is there.",
)
@flags.planning
def plan(manifest: Path, **given: Any) -> int:
    """Tell how a run of MANIFEST would go: rows, calls, quota windows, and when it would end.

    Nothing is called. What is used of the windows is what runs on this machine have logged.

    \b
    batch-snapshot plan backfill.yaml --daily-quota 10000 --rate 1
    """
    from batch_snapshot.config.options import Options
    from batch_snapshot.jobs import run as batch

    options = Options(ledger=given["ledger"], **_where(given))
    _print_preview(batch.dry_run(manifest, options), given["form"])
    return 0


@click.command(short_help="Try what failed again, out of the ledger alone.")
@click.argument("ledger", metavar="LEDGER", type=flags.FILE)
@click.option(
    "--only",
    metavar="WORD,…",
    help="Only rows with these error kinds (transient, conflict, quota, denied, not_found, invalid, "
    "unknown) or error codes, or in_doubt.",
)
@click.option("--all", "everything", is_flag=True, help="Whatever failed or is in doubt.")
@click.option("--run-id", metavar="ID", help="The ledger's own; another one is refused.")
@_DRY_RUN
@_YES
@flags.shared
@terminal.LOG_FORMAT
def retry(ledger: Path, *, only: str | None, everything: bool, dry_run: bool, yes: bool, **given: Any) -> int:
    """Try failed rows of LEDGER again; no manifest is needed.

    By default those that another try can cure: kinds transient, conflict and quota, and rows in
    doubt. With {date} in its name LEDGER is the newest there is. Where there is none yet, or one that
    run goes on with because it was deferred, or is not finished and began less than 20 hours ago,
    nothing is done, with exit code 0.

    \b
    batch-snapshot retry ledgers/backfill.ndjson
    batch-snapshot retry ledgers/backfill.ndjson --only denied
    batch-snapshot retry 'ledgers/nightly-{date}.ndjson'
    """
    terminal.telling().unfinished = NOTHING_SENT
    from batch_snapshot import paths
    from batch_snapshot.jobs import resume
    from batch_snapshot.jobs import run as batch

    selection = partial(_selection, only=only, everything=everything)
    options = _options(given)
    others = telling.others("retry", ledger, given)
    if "{" in str(ledger) and not ledger.exists():
        newest, passed_over = resume.newest_ledger(str(ledger), options)
        terminal.warn(passed_over, len(passed_over))
        if newest is None:
            why = f"{ledger}: there is no such ledger yet: nothing to retry"
            return _print_summary(_nothing_to_retry(ledger, why), given["form"])
        if resume.resumable(newest, utc_now()):
            why = f"{newest}: is not finished, and run goes on with it, whatever its age if it was deferred: "
            why += "nothing to retry before that"
            return _print_summary(_nothing_to_retry(newest, why), given["form"])
        ledger = newest
    elif options.simulate and not ledger.exists():
        simulated = Path(paths.simulated_name(str(ledger)))
        ledger = simulated if simulated.exists() else ledger
    if dry_run:
        _print_preview(batch.dry_retry(ledger, selection, options), given["form"])
        return 0
    work = batch.retry(ledger, selection, options, _hooks(given, ask=not yes))
    return _finish(work, given["form"], others)


def _nothing_to_retry(ledger: Path, why: str) -> Summary:
    from batch_snapshot.reporting.stats import summarize
    from batch_snapshot.reporting.summary import Counts

    found = summarize("completed", Counts(), {}, ledger=str(ledger), run_id="")
    return replace(found, command="retry", warnings=[why])


def _selection(past: History, *, only: str | None, everything: bool) -> Selection:
    from batch_snapshot.jobs import plan

    if only is not None and everything:
        raise InputError("--only and --all exclude each other: choose one")
    if everything:
        return plan.all_unfinished()
    if only is None:
        return plan.Selection()
    return plan.parse_only(only, (group.code for group in past.failures()))


def _options(given: dict[str, Any]) -> Options:
    from batch_snapshot.config.options import Options, Settings
    from batch_snapshot.failures.retry import NO_LIMIT, FailureLimit

    limit = given["max_failures"]
    return Options(
        ledger=given.get("ledger"),
        run_id=flags.run_id(given.get("run_id")),
        new_ledger=given.get("new_ledger", False),
        resume_within=given.get("resume_within", 0.0),
        changed_since=flags.changed_since(given.get("changed_since")),
        skip_active_jobs=given.get("skip_active_jobs", False),
        wait=given["wait"],
        **_where(given),
        cluster=_cluster_options(given),
        engine=Settings(
            concurrency=given["concurrency"],
            max_attempts=given["max_attempts"],
            max_duration=given["max_duration"],
            token_ttl=given["token_ttl"],
            resend_in_doubt=given["resend_in_doubt"],
            drain_timeout=given["drain_timeout"],
            failure_limit=FailureLimit.parse(limit) if limit else NO_LIMIT,
        ),
        command_line=_command_line(),
    )


def _command_line() -> str:
    return shlex.join([terminal.PROG, *telling.shareable(sys.argv[1:])])


def _cluster_options(given: dict[str, Any]) -> ClusterOptions | None:
    from batch_snapshot.config.options import ClusterOptions

    address = flags.scheduler(given["engine"], given["scheduler"], given["workers"])
    seconds = flags.lease(given["lease"])
    if given["engine"] == "local":
        return None
    return ClusterOptions(scheduler=address, workers=given["workers"], lease=seconds)


def _where(given: dict[str, Any]) -> dict[str, Any]:
    """The options that say for whom and where, and under which quotas."""
    return {
        "accounts": flags.account_names(given["accounts"]),
        "rate": given["rate"],
        "daily_quota": given["daily_quota"],
        "read_rate": given["read_rate"],
        "simulate": given["simulate"],
        "simulator_state": given["state"],
        "endpoint_url": flags.endpoint_url(given["endpoint_url"]),
        "region": flags.region(given["region"]),
        "profile": given["profile"],
        "state_dir": given["state_dir"],
    }


def _hooks(given: dict[str, Any], *, ask: bool = False) -> Hooks:
    from batch_snapshot.jobs import run as batch

    return batch.Hooks(
        watch=_watch(given["progress"]),
        outcome=_tell if given["verbose"] else None,
        confirm=partial(_confirm, ask=ask, tell=given["progress"] != "none"),
        tell=partial(terminal.say, event="waiting"),
        stopping=lambda text, facts: terminal.say(text, event="stopping", level="warning", **facts),
        signals=True,
    )


def _watch(kind: str) -> Callable[[RunView], Coroutine[Any, Any, None]]:
    """What shows how far the run is; rows are sent from then on."""
    show = _shown_by(kind)

    async def watch(view: RunView) -> None:
        terminal.telling().unfinished = OVER
        if show:
            await show(view)

    return watch


def _shown_by(kind: str) -> Callable[[RunView], Coroutine[Any, Any, None]] | None:
    """What shows how far the run is; an object a line takes no display."""
    from batch_snapshot.reporting import progress

    if kind == "none":
        return None
    if kind == "lines" or terminal.telling().form == "json" or (kind == "auto" and not terminal.can_draw()):
        return partial(progress.watch, show=terminal.tell_frame, every=progress.LINES_EVERY)
    return _draw


async def _draw(view: RunView) -> None:
    """Keep a display up to date; lines that are told meanwhile stand above it."""
    from batch_snapshot.reporting import progress

    with terminal.screen() as screen:
        await progress.watch(view, screen.show, first=0.0, every=progress.REDRAW_EVERY)


def _tell(outcome: Outcome) -> None:
    from batch_snapshot.reporting import progress

    error = outcome.error
    terminal.say(
        progress.outcome_line(outcome),
        event="outcome",
        level="info" if error is None else "warning",
        **outcome.request.row._asdict(),
        status=outcome.status,
        attempts=outcome.attempts,
        throttles=outcome.throttles,
        arn=outcome.arn,
        revision=outcome.revision,
        kind=error.kind if error else None,
        code=error.code if error else None,
    )


def _confirm(preview: Preview, *, ask: bool, tell: bool) -> bool:
    """Tell the plan, and ask before real snapshots are made, where there is somebody to ask."""
    from batch_snapshot import models
    from batch_snapshot.jobs import preview as room

    real = "AWS" in preview.catalogs and preview.endpoint != models.SIMULATOR
    if ask and real and sys.stdin is not None and sys.stdin.isatty():
        terminal.say(room.as_text(preview))
        return click.confirm("Snapshots cannot be deleted and notify the partners. Go on?", err=True)
    if tell:
        terminal.say(room.brief(preview), event="plan", **room.as_json(preview))
    return True


def _finish(work: Coroutine[Any, Any, Summary], form: str, others: telling.Notifiers) -> int:
    try:
        summary = terminal.run(work, use_uvloop=find_spec("uvloop") is not None)
    except BatchSnapshotError as error:
        if str(error).endswith(SAME_COMMAND):
            error.args = (f"{error}: {_command_line()}",)
        others.of_error(error)
        raise
    try:
        code = _print_summary(summary, form)
        others.of_summary(summary)
    except KeyboardInterrupt:
        terminal.say("interrupted while the result was written: the run itself was over", level="warning")
        return summary.exit_code
    return code


def _print_summary(summary: Summary, form: str) -> int:
    from batch_snapshot.reporting import summary as report
    from batch_snapshot.reporting.text import as_text, states

    terminal.warn(summary.warnings, len(summary.warnings))
    if terminal.telling().form == "json":
        told = f"{summary.outcome}: {states(summary.counts)}"
        terminal.say(told, event="summary", exit_code=summary.exit_code, **report.as_json(summary))
    try:
        if form == "json":
            terminal.print_json(report.as_json(summary))
        else:
            click.echo(terminal.shown(as_text(summary)))
    except OSError as error:
        return terminal.unprinted(error, summary.exit_code)
    return summary.exit_code


def _print_preview(preview: Preview, form: str) -> None:
    from batch_snapshot.jobs import preview as room

    if form == "json":
        terminal.print_json(room.as_json(preview))
    else:
        click.echo(terminal.shown(room.as_text(preview)))
