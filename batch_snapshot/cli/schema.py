"""`schema`: the JSON Schema of manifests."""

import json

import click

from batch_snapshot import manifest


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of manifests, for editors.

    \b
    batch-snapshot schema > manifest.schema.json
    """
    click.echo(json.dumps(manifest.schema(), indent=2))
