"""`init`: a manifest to start from."""

import click

from batch_snapshot import manifest


@click.command("init")
def init_command() -> None:
    """Print a commented manifest to start from.

    \b
    batch-snapshot init > pairs.yaml
    """
    click.echo(manifest.template(), nl=False)
