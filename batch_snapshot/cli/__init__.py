"""The command line: one short function a command, in a file a kind.

One place turns errors into a line and an exit code. Whatever makes calls is imported by the
commands that make them, so that the others start fast.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import __version__, interrupts, redaction, text
from batch_snapshot.cli import (
    completion,
    nightly,
    reading,
    report,
    sending,
    service,
    simulate,
    terminal,
    unforeseen,
)
from batch_snapshot.cli.terminal import PROG
from batch_snapshot.errors import BatchSnapshotError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cli", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if arguments is None:
        arguments = sys.argv[1:]
        unforeseen.quiet()
    redaction.begin(arguments)
    how = terminal.Reporter()
    with interrupts.handled():
        return _run(arguments, how)


def _run(arguments: Sequence[str], how: terminal.Reporter) -> int:
    try:
        code = cli.main(list(arguments) or ["--help"], prog_name=PROG, standalone_mode=False, obj=how)
    except BaseException as error:  # noqa: BLE001 - the one place that turns errors into lines
        return _failed(unforeseen.unwrapped(error), arguments, how)
    return code if isinstance(code, int) else 0


def _failed(error: BaseException, arguments: Sequence[str], how: terminal.Reporter) -> int:
    """Turn what ended a command into lines and an exit code."""
    if isinstance(error, SystemExit | GeneratorExit):
        raise error
    if terminal.asked_for_json(arguments):
        how.form = "json"
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _interrupted(error, arguments, how)
    if isinstance(error, OSError) and error.filename is None:  # a stream, not a path
        return terminal.unprinted(error, 1)
    kind, message, code = _meant(error, arguments)
    if isinstance(error, click.UsageError) and error.ctx is not None and how.form == "text":
        terminal.write(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.\n\n")
        message = f"Error: {message}"
    return _report(kind, message, code, arguments, how)


def _interrupted(error: BaseException, arguments: Sequence[str], how: terminal.Reporter) -> int:
    """Say that a signal, or the end of the input at a prompt, ended the command; returns the exit code."""
    causes = (error, error.__cause__, error.__context__)
    signalled = next((one for one in causes if isinstance(one, KeyboardInterrupt)), None)
    what = f"interrupted ({interrupts.name(signalled)})" if signalled else "the input ended at a prompt"
    code = interrupts.exit_code(signalled or error)
    with interrupts.listening(lambda _: True):  # this line is the last thing that is done
        return _report("interrupted", f"{what}{how.unfinished}", code, arguments, how)


def _report(kind: str, message: str, code: int, arguments: Sequence[str], how: terminal.Reporter) -> int:
    """Write the line of a command that failed, and with `--format json` the object; returns the exit code."""
    terminal.say(message, event="error", level="error", how=how, exit_code=code)
    if not how.printed and terminal.asked_for_json(arguments, "--format"):
        terminal.print_error(kind, message.removeprefix("Error: "), code)
    return code


def _meant(error: BaseException, arguments: Sequence[str]) -> tuple[str, str, int]:
    """Its kind for programs, its message for people, and the exit code."""
    if isinstance(error, click.ClickException):
        return "usage", text.line(error.format_message()), 2
    if isinstance(error, ManifestError):
        return "manifest", text.lines(str(error)), error.exit_code
    if isinstance(error, BatchSnapshotError):
        return _kind(error), text.lines(str(error)), error.exit_code
    if isinstance(error, OSError):
        why = error.strerror or error
        return "input", text.line(f"{error.filename}: cannot be used ({why}); name another path"), 2
    return "internal", unforeseen.described(error, arguments), unforeseen.exit_code(arguments)


def _kind(error: BatchSnapshotError) -> str:
    """The name of its class: LedgerWriteError is ledger_write."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()


class _OrderedGroup(click.Group):
    """Lists its commands in the order in which they were added: that in which they are met."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself would write an empty line, and not say which signal came."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.Abort from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own
        """The names."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named; where there is none, the nearest and the list."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.commands, 1)
            meant = f". Did you mean {near[0]!r}?" if near else "."
            ctx.fail(f"there is no command {args[0]!r}{meant} There are: {', '.join(self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_OrderedGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
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


@click.command(name="help", short_help="Show the help of a command.")
@click.argument("command", required=False)
@click.pass_context
def help_(context: click.Context, command: str | None) -> None:
    """Show the help of COMMAND, or of all.

    \b
    batch-snapshot help run
    """
    root = context.find_root()
    if command is None:
        click.echo(root.get_help())
        return
    _, found, _ = cli.resolve_command(root, [command])
    if found is not None:
        with click.Context(found, info_name=command, parent=root) as its:
            click.echo(found.get_help(its))


for _command in (
    sending.run,
    sending.plan,
    sending.retry,
    reading.validate,
    reading.status,
    reading.init,
    reading.schema,
    service.discover,
    service.verify,
    service.diff,
    simulate.simulate,
    report.report,
    completion.completion,
    nightly.schedule,
    nightly.prune,
    help_,
):
    cli.add_command(_command)
completion.attach(cli)
