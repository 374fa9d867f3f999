"""`init`: a manifest to start from."""

import click

from batch_snapshot import manifest
from batch_snapshot.cli.command import command


@command(
    "init",
    "Print a commented manifest to start from.",
    "batch-snapshot init > pairs.yaml",
)
def init_command() -> None:
    """Print a commented manifest to start from."""
    click.echo(manifest.template(), nl=False)
