"""`help`: the help of a command."""

import click

from batch_snapshot.cli import options


@options.command("Show the help of a command.", "batch-snapshot help run")
@click.argument("command", required=False)
@click.pass_context
def help_command(context: click.Context, command: str | None) -> None:
    """Show the help of COMMAND, or of all."""
    root = context.find_root()
    if command is None:
        click.echo(root.get_help())
    elif isinstance(root.command, click.Group):
        _, found, _ = root.command.resolve_command(root, [command])
        if found is not None:
            with click.Context(found, info_name=command, parent=root) as inner:
                click.echo(found.get_help(inner))
