"""`schema`: the JSON Schema of manifests."""

import json

import click

from batch_snapshot.cli import options


@options.command("""
    Print the JSON Schema of manifests.
    $ batch-snapshot schema > manifest.schema.json
""")
def schema_command() -> None:
    """Print the JSON Schema of manifests, for editors."""
    from batch_snapshot import manifest

    click.echo(json.dumps(manifest.schema(), indent=2))
