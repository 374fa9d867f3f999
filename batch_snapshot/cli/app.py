"""The group of all commands, and the entry point that turns how they end into an exit code."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from batch_snapshot import __version__, interrupts, redaction
from batch_snapshot.cli import (
    completion,
    diff,
    discover,
    errors,
    help,  # noqa: A004 - named as its command
    init,
    plan,
    prune,
    report,
    retry,
    run,
    schedule,
    schema,
    simulate,
    status,
    validate,
    verify,
)
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


class CommandGroup(click.Group):
    """Lists its commands in the order in which they were added, and suggests the nearest name."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself would write an empty line, and not name the signal."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.Abort from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.commands, 1)
            meant = f". Did you mean {near[0]!r}?" if near else "."
            ctx.fail(f"there is no command {args[0]!r}{meant} There are: {', '.join(self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, "-V", "--version", prog_name=PROG, message="%(prog)s %(version)s")
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
      3    stopped early: rows that all fail, credentials
      4    deferred: the same command continues it
      5    locked by another run, or the ledger cannot be written
      130, 143  SIGINT, SIGTERM or SIGHUP: calls in flight were recorded, the same command continues it
    """


for command in (
    run.run_command,
    plan.plan_command,
    retry.retry_command,
    validate.validate_command,
    status.status_command,
    init.init_command,
    schema.schema_command,
    discover.discover_command,
    verify.verify_command,
    diff.diff_command,
    simulate.simulate_command,
    report.report_command,
    completion.completion_command,
    schedule.schedule_command,
    prune.prune_command,
    help.help_command,
):
    cli.add_command(command)
