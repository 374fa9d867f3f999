"""The command line: one short function a command, in a file a kind.

One place turns errors into a line and an exit code. Whatever makes calls is imported by the
commands that make them, so that the others start fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batch_snapshot import __version__
from batch_snapshot.cli import reading, sending, simulate, terminal
from batch_snapshot.cli.terminal import PROG
from batch_snapshot.errors import BatchSnapshotError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        code = cli.main(arguments, prog_name=PROG, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BatchSnapshotError as error:
        terminal.say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        terminal.say("interrupted; nothing is in flight")
        return 130
    except OSError as error:
        if error.filename is None:  # a stream, not a path
            return terminal.unprinted(error, 1)
        terminal.say(f"{error.filename}: cannot be used ({error.strerror or error}); name another path")
        return 2
    return code if isinstance(code, int) else 0


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


for _command in (
    sending.run,
    sending.plan,
    sending.retry,
    reading.validate,
    reading.status,
    reading.init,
    reading.schema,
    simulate.simulate,
):
    cli.add_command(_command)
