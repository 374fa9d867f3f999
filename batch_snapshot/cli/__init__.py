"""The command line: one short function a command, in a file a kind.

One place turns errors into a line and an exit code. Whatever makes calls is imported by the
commands that make them, so that the others start fast.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import __version__, interrupts
from batch_snapshot.cli import completion, nightly, reading, report, sending, service, simulate, terminal
from batch_snapshot.cli.terminal import PROG
from batch_snapshot.errors import BatchSnapshotError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    how = terminal.Telling()
    with interrupts.handled():
        return _run(arguments, how)


def _run(arguments: Sequence[str], how: terminal.Telling) -> int:
    try:
        code = cli.main(list(arguments), prog_name=PROG, standalone_mode=False, obj=how)
    except click.ClickException as error:
        how.form = "json" if terminal.asked_for_json(arguments) else how.form
        if how.form == "text":
            error.show()
        else:
            _tell_error(error.format_message(), error.exit_code, how)
        return error.exit_code
    except BatchSnapshotError as error:
        _tell_error(str(error), error.exit_code, how)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        return _interrupted(error, how)
    except OSError as error:
        if error.filename is None:  # a stream, not a path
            return terminal.unprinted(error, 1)
        terminal.say(f"{error.filename}: cannot be used ({error.strerror or error}); name another path")
        return 2
    return code if isinstance(code, int) else 0


def _interrupted(error: BaseException, how: terminal.Telling) -> int:
    """Say that a signal, or the end of the input at a prompt, ended the command; returns the exit code."""
    causes = (error, error.__cause__, error.__context__)
    signalled = next((one for one in causes if isinstance(one, KeyboardInterrupt)), None)
    what = f"interrupted ({interrupts.name(signalled)})" if signalled else "the input ended at a prompt"
    code = interrupts.exit_code(signalled or error)
    with interrupts.listening(lambda _: True):  # this line is the last thing that is done
        _tell_error(f"{what}{how.unfinished}", code, how)
    return code


def _tell_error(text: str, code: int, how: terminal.Telling) -> None:
    terminal.say(text, event="error", level="error", how=how, exit_code=code)


class _InOrder(click.Group):
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


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
      130, 143  SIGINT, SIGTERM or SIGHUP: calls in flight were recorded, the same command continues it
    """


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
):
    cli.add_command(_command)
completion.attach(cli)
