"""`completion`: scripts that let a shell complete commands, flags, files and names."""

import click

from batch_snapshot.cli import options
from batch_snapshot.cli.terminal import PROG


@options.command("""
    Print completions for bash, zsh or fish.
    $ batch-snapshot completion bash > ~/.local/share/bash-completion/completions/batch-snapshot
    $ batch-snapshot completion zsh > "${fpath[1]}/_batch-snapshot"
    $ batch-snapshot completion fish > ~/.config/fish/completions/batch-snapshot.fish
""")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print a script with which your shell completes commands, flags, files, accounts and error kinds."""
    from click.shell_completion import shell_complete

    variable = f"_{PROG.replace('-', '_').upper()}_COMPLETE"
    shell_complete(context.find_root().command, {}, PROG, variable, f"{shell}_source")
