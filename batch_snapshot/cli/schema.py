"""`schema`: the JSON Schema of manifests."""

import json

import click


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of manifests, for editors.

    \b
    batch-snapshot schema > manifest.schema.json
    """
    from batch_snapshot import manifest

    click.echo(json.dumps(manifest.schema(), indent=2))
