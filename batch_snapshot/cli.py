"""The command line: one short function a command.

Results go to stdout, everything else to stderr. One place turns errors into a line and an exit
code. Whatever makes calls is imported by the commands that make them, so that the others start
fast.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import __version__, flags
from batch_snapshot.errors import BatchSnapshotError, InputError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from batch_snapshot.batch import Hooks
    from batch_snapshot.history import History
    from batch_snapshot.job import Options
    from batch_snapshot.model import Outcome
    from batch_snapshot.plan import Selection
    from batch_snapshot.preview import Preview
    from batch_snapshot.report import Summary

PROG = "batch-snapshot"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        code = cli.main(arguments, prog_name=PROG, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BatchSnapshotError as error:
        _say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted; nothing is in flight")
        return 130
    except OSError as error:
        return _unprinted(error, 1)
    return code if isinstance(code, int) else 0


def _unprinted(error: OSError, code: int) -> int:
    """Standard output takes no more: say so if anybody reads, and keep the exit code of the work."""
    if not isinstance(error, BrokenPipeError):
        _say(f"standard output cannot be written ({error.strerror or error})")
    _silence(1)
    return code


def _say(text: str) -> None:
    _write(_shown(text) + "\n")


def _write(text: str) -> None:
    """Write to standard error; where nobody can read it, the work goes on all the same."""
    if sys.stderr is None:
        return
    try:
        click.echo(text, err=True, nl=False)
    except OSError:
        _silence(2)


def _silence(stream: int) -> None:
    """Let a stream that takes no more take all: Python writes what is left of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _shown(text: str) -> str:
    """The text with nothing in it that drives a terminal: ledgers and answers can hold anything."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=PROG, message="%(prog)s %(version)s")
def cli() -> None:
    """Create AWS Partner Central resource snapshots in bulk: exactly one a row.

    \b
    Without an AWS account:
      batch-snapshot init > demo.yaml
      batch-snapshot run demo.yaml --simulate

    \b
    Exit codes:
      0    every row of the ledger succeeded
      1    the run went through; some rows failed or are in doubt
      2    usage, manifest or ledger not valid; nothing was called
      3    stopped early: failures, denials, credentials
      4    deferred: the same command continues it
      5    locked by another run, or the ledger cannot be written
      130, 143  SIGINT, SIGTERM: all in good order, the same command continues it
    """


@cli.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "--ledger",
    metavar="PATH",
    help="The record of what became of each row; may hold {name} and {date}. "
    "Default: ledgers/{name}.ndjson, with --simulate ledgers/{name}.simulated.ndjson.",
)
@click.option(
    "--run-id", metavar="ID", help="For a new ledger: the tokens are made from it. Default: random."
)
@click.option(
    "--resume-within",
    type=flags.Duration(),
    default="20h",
    show_default=True,
    metavar="TIME",
    help="With {date}: an unfinished ledger that began so lately is resumed before a new one is opened.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be sent; call nothing.")
@click.option("--yes", is_flag=True, help="Don't ask before the first call to catalog AWS.")
@flags.shared
def run(manifest: Path, *, dry_run: bool, yes: bool, **given: Any) -> int:
    """Create the snapshots that MANIFEST lists, or go on where an earlier run stopped.

    \b
    batch-snapshot run backfill.yaml --max-duration 6h
    batch-snapshot run nightly.yaml --ledger 'ledgers/{name}-{date}.ndjson' --format json
    """
    from batch_snapshot import batch

    options = _options(given)
    if dry_run:
        _print_preview(batch.dry_run(manifest, options), given["form"])
        return 0
    hooks = _hooks(given, ask=not yes)
    return _finish(batch.run(manifest, options, hooks), given["form"])


@cli.command()
@click.argument("manifest", type=click.Path(path_type=Path))
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
    from batch_snapshot import batch
    from batch_snapshot.job import Options

    options = Options(ledger=given["ledger"], **_where(given))
    _print_preview(batch.dry_run(manifest, options), given["form"])
    return 0


@cli.command()
@click.argument("ledger", type=click.Path(path_type=Path))
@click.option(
    "--only",
    metavar="WORD,…",
    help="Only rows with these error kinds (transient, conflict, quota, denied, not_found, invalid, "
    "unknown) or error codes, or in_doubt.",
)
@click.option("--all", "everything", is_flag=True, help="Whatever failed or is in doubt.")
@flags.shared
def retry(ledger: Path, *, only: str | None, everything: bool, **given: Any) -> int:
    """Try failed rows of LEDGER again; no manifest is needed.

    By default those that another try can cure: kinds transient, conflict and quota, and rows in
    doubt.

    \b
    batch-snapshot retry ledgers/backfill.ndjson
    batch-snapshot retry ledgers/backfill.ndjson --only denied
    """
    from batch_snapshot import batch

    selection = partial(_selection, only=only, everything=everything)
    return _finish(batch.retry(ledger, selection, _options(given), _hooks(given)), given["form"])


def _selection(past: History, *, only: str | None, everything: bool) -> Selection:
    from batch_snapshot import plan

    if only is not None and everything:
        raise InputError("--only and --all exclude each other: choose one")
    if everything:
        return plan.everything()
    if only is None:
        return plan.Selection()
    return plan.only(only, (group.code for group in past.failures()))


@cli.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@flags.FORMAT
def validate(manifest: Path, form: str) -> int:
    """Check MANIFEST and all that it includes, offline and without credentials.

    Every problem is named with its file and line; exit code 2 if there is one.
    """
    from batch_snapshot import manifest as room
    from batch_snapshot.errors import ManifestError

    try:
        listed = room.load(manifest)
    except ManifestError as error:
        if form == "text":
            raise
        _print_json({"valid": False, "problems": error.problems, "problem_count": error.total})
        return error.exit_code
    _warn(listed.warnings, listed.warning_count)
    if form == "json":
        _print_json(
            {
                "valid": True,
                "name": listed.name,
                "rows": listed.rows,
                "rows_by_account": listed.rows_by_account,
                "catalogs": sorted(listed.catalogs),
                "sha256": listed.sha256,
                "warnings": listed.warnings,
                "warning_count": listed.warning_count,
            }
        )
        return 0
    accounts = ", ".join(f"{name} ({number:,})" for name, number in listed.rows_by_account.items())
    click.echo(f"{manifest}: valid: {listed.rows:,} rows, catalog {', '.join(sorted(listed.catalogs))}")
    click.echo(f"accounts: {accounts}")
    return 0


@cli.command()
@click.argument("ledger", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Prove the ledger whole, or name the first line that is not.")
@flags.FORMAT
def status(ledger: Path, form: str, *, check: bool) -> int:
    """Tell what became of the rows of LEDGER, also while a run is writing it.

    With --check: exit code 0 if every line follows from those before it, every intent is settled
    and the sums are right; else 2 and the line.
    """
    from batch_snapshot import overview, report

    if check:
        rows = overview.check(ledger)
        if form == "text":
            click.echo(f"{ledger}: whole: {rows:,} rows, each in one state")
    summary = overview.of(ledger)
    if form == "json":
        _print_json(report.as_json(summary))
    else:
        click.echo(_shown(report.as_text(summary)))
    return 0


@cli.command()
def init() -> None:
    """Print a commented manifest to start from: batch-snapshot init > pairs.yaml."""
    from batch_snapshot import manifest

    click.echo(manifest.template(), nl=False)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of manifests, for editors: batch-snapshot schema > manifest.schema.json."""
    from batch_snapshot import manifest

    click.echo(json.dumps(manifest.schema(), indent=2))


def _change(text: str) -> tuple[float, float]:
    """Read RATE@TIME as (calls a second, seconds)."""
    rate, at, moment = text.partition("@")
    try:
        return float(rate), flags.Duration().convert(moment if at else "", None, None)
    except ValueError:
        raise click.BadParameter(f"{rate!r} is no rate; write RATE@TIME, such as 10@20s") from None


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: any free one.")
@click.option(
    "--rate", type=float, help="Writes a second and access key (a token bucket). Default: no limit."
)
@click.option("--burst", type=int, default=1, show_default=True, help="Size of that bucket.")
@click.option(
    "--then",
    "changes",
    type=_change,
    multiple=True,
    metavar="RATE@TIME",
    help="Another rate from TIME after the first write on, such as 10@20s; may be repeated.",
)
@click.option(
    "--window",
    "windows",
    type=flags.Window(),
    multiple=True,
    metavar="N/TIME",
    help="A rolling window for writes, such as 100/1m; may be given more than once.",
)
@click.option("--read-rate", type=float, help="Reads a second and key. Default: no limit.")
@click.option(
    "--retry-hint/--no-retry-hint",
    "retry_after",
    default=True,
    show_default=True,
    help="Whether throttles tell how long to wait.",
)
@click.option("--latency", type=flags.Duration(), default="0", metavar="TIME", help="Added to each answer.")
@click.option(
    "--forget-after",
    type=flags.Duration(),
    metavar="TIME",
    help="For so long a ClientToken is remembered. Default: for ever.",
)
@click.option(
    "--faults",
    metavar="KIND=SHARE,…",
    help="Faults and how often they happen, such as internal=0.05,reset-after=0.1; "
    "an unknown kind lists those there are.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which calls meet a fault.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep the world in this file, from one start to the next.",
)
@click.option("--engagements", type=int, default=0, help="Engagements for the lists to show.")
@click.option("--opportunities", "opportunities_per_engagement", type=int, default=0, help="And of each.")
def simulate(
    host: str,
    port: int,
    *,
    rate: float | None,
    changes: tuple[tuple[float, float], ...],
    faults: str | None,
    **settings: Any,
) -> None:
    """Serve the API on loopback, until interrupted; prints its URL.

    \b
    batch-snapshot simulate --rate 20 --burst 20 --faults internal=0.05 --state world.ndjson
    GET URL/_simulator/record tells every snapshot made.
    """
    import asyncio

    from batch_snapshot import simulator

    if changes and rate is None:
        raise InputError("simulate: --then changes a rate; give the first with --rate")
    rates = rate if rate is None else ((rate, 0.0), *changes)
    try:
        plan = simulator.Faults.parse(faults) if faults else simulator.Faults()
        chosen = simulator.Settings(rate=rates, faults=plan, **settings)
        asyncio.run(simulator.run_forever(chosen, host, port, click.echo))
    except ValueError as error:
        raise InputError(f"simulate: {error}") from None
    except OSError as error:
        raise InputError(
            f"simulate: cannot serve ({error.strerror or error}); choose another --port"
        ) from None


def _options(given: dict[str, Any]) -> Options:
    from batch_snapshot import engine, policy
    from batch_snapshot.job import Options

    limit = given["max_failures"]
    return Options(
        ledger=given.get("ledger"),
        run_id=flags.run_id(given.get("run_id")),
        resume_within=given.get("resume_within", 0.0),
        wait=given["wait"],
        **_where(given),
        engine=engine.Settings(
            concurrency=given["concurrency"],
            max_attempts=given["max_attempts"],
            max_duration=given["max_duration"],
            token_ttl=given["token_ttl"],
            resend_in_doubt=given["resend_in_doubt"],
            drain_timeout=given["drain_timeout"],
            failure_limit=policy.FailureLimit.parse(limit) if limit else policy.NO_LIMIT,
        ),
        command_line=shlex.join([PROG, *sys.argv[1:]]),
    )


def _where(given: dict[str, Any]) -> dict[str, Any]:
    """The options that say for whom and where, and under which quotas."""
    return {
        "accounts": flags.account_names(given["accounts"]),
        "rate": given["rate"],
        "daily_quota": given["daily_quota"],
        "simulate": given["simulate"],
        "endpoint_url": flags.endpoint_url(given["endpoint_url"]),
        "region": flags.region(given["region"]),
        "profile": given["profile"],
        "state_dir": given["state_dir"],
    }


def _hooks(given: dict[str, Any], *, ask: bool = False) -> Hooks:
    from batch_snapshot import batch, progress

    kind = given["progress"]
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if kind == "auto":
        kind = "bar" if terminal else "lines"
    watch = None
    if kind == "bar":
        watch = partial(progress.redrawn, write=_write, width=shutil.get_terminal_size().columns)
    elif kind == "lines":
        watch = partial(progress.lines, write=_write)
    return batch.Hooks(
        watch=watch,
        outcome=_tell if given["verbose"] else None,
        confirm=partial(_confirm, ask=ask, tell=kind != "none"),
        signals=True,
    )


def _tell(outcome: Outcome) -> None:
    from batch_snapshot import progress

    _say(progress.outcome_line(outcome))


def _confirm(preview: Preview, *, ask: bool, tell: bool) -> bool:
    """Tell the plan, and ask before real snapshots are made, where there is somebody to ask."""
    from batch_snapshot import model
    from batch_snapshot import preview as room

    real = "AWS" in preview.catalogs and preview.endpoint != model.SIMULATOR
    if ask and real and sys.stdin.isatty():
        _say(room.as_text(preview))
        return click.confirm("Snapshots cannot be deleted and notify the partners. Go on?", err=True)
    if tell:
        _say(room.brief(preview))
    return True


def _finish(work: Coroutine[Any, Any, Summary], form: str) -> int:
    import anyio

    from batch_snapshot import report

    async def carry_out() -> Summary:
        return await work

    summary = anyio.run(carry_out)
    _warn(summary.warnings, len(summary.warnings))
    try:
        if form == "json":
            _print_json(report.as_json(summary))
        else:
            click.echo(_shown(report.as_text(summary)))
    except OSError as error:
        return _unprinted(error, summary.exit_code)
    return summary.exit_code


def _print_preview(preview: Preview, form: str) -> None:
    from batch_snapshot import preview as room

    if form == "json":
        _print_json(room.as_json(preview))
    else:
        click.echo(_shown(room.as_text(preview)))


def _warn(warnings: Sequence[str], total: int) -> None:
    for warning in warnings:
        _say(f"warning: {warning}")
    if total > len(warnings):
        _say(f"warning: … and {total - len(warnings):,} more")


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2))
