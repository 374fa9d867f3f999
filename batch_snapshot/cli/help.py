"""`help`: the help of a command."""

import click

from batch_snapshot.cli import options
from batch_snapshot.cli.terminal import PROG


@options.command("""
    Show the help of a command.
    $ batch-snapshot help run
""")
@click.argument("command", required=False)
@click.pass_context
def help_command(context: click.Context, command: str | None) -> None:
    """Show the help of COMMAND, or of all."""
    words = [command, "--help"] if command else ["--help"]
    context.find_root().command.main(words, PROG, standalone_mode=False, obj=context.obj)
