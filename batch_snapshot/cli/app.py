"""The group of all commands, and the entry point that turns how they end into an exit code."""

import sys
from collections.abc import Sequence

import click

from batch_snapshot import __version__, interrupts, redaction
from batch_snapshot.cli import (
    completion,
    control,
    diff,
    discover,
    errors,
    export,
    help,  # noqa: A004 - named as its command
    init,
    ls,
    plan,
    prune,
    report,
    retry,
    rows,
    run,
    schedule,
    schema,
    simulate,
    status,
    validate,
    verify,
    watch,
)
from batch_snapshot.cli.command import SectionedGroup
from batch_snapshot.cli.terminal import PROG, Reporter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if arguments is None:
        arguments = sys.argv[1:]
        errors.hide_python_warnings()
    redaction.begin(arguments)
    reporter = Reporter()
    with interrupts.handle_signals():
        try:
            code = cli.main(
                list(arguments) or ["--help"], prog_name=PROG, standalone_mode=False, obj=reporter
            )
        except BaseException as error:  # noqa: BLE001 - the one place that turns errors into lines
            return errors.report(error, arguments, reporter)
        return code if isinstance(code, int) else 0


def _show_versions(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's
    if wanted and not ctx.resilient_parsing:
        import platform
        from importlib.metadata import version

        libraries = ", ".join(f"{name} {version(name)}" for name in ("aioboto3", "aiobotocore", "botocore"))
        click.echo(f"{PROG} {__version__}\nPython {platform.python_version()}, {libraries}")
        ctx.exit()


@click.group(
    cls=SectionedGroup,
    sections={
        "Prepare": [
            init.init_command,
            validate.validate_command,
            plan.plan_command,
            discover.discover_command,
            schema.schema_command,
        ],
        "Run": [
            run.run_command,
            retry.retry_command,
            control.control_command,
            schedule.schedule_command,
            simulate.simulate_command,
        ],
        "Inspect": [
            status.status_command,
            watch.watch_command,
            rows.rows_command,
            ls.ls_command,
            report.report_command,
            diff.diff_command,
            verify.verify_command,
            export.export_command,
        ],
        "Maintain": [prune.prune_command, completion.completion_command, help.help_command],
    },
    examples=["batch-snapshot init demo.yaml", "batch-snapshot run demo.yaml --simulate"],
    exit_codes={
        "0": "every row succeeded, or was left out as asked",
        "1": "the run went through; some rows failed or are in doubt",
        "2": "usage, manifest or ledger not valid; nothing was called",
        "3": "stopped early: too many failures, or credentials",
        "4": "deferred: the same command continues",
        "5": "another run holds the lock, or the ledger cannot be written",
        "130, 143": "interrupted: calls in flight were recorded, the same command continues",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_versions,
    help="Show the version, and those of Python and the AWS libraries.",
)
def cli() -> None:
    """Create AWS Partner Central resource snapshots in bulk: exactly one for each row."""
