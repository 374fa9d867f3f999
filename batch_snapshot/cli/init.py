"""`init`: a manifest to start from."""

import re
from pathlib import Path

import click

from batch_snapshot import files
from batch_snapshot.cli import options, params, terminal
from batch_snapshot.errors import InputError
from batch_snapshot.text import shell_argument


@options.command("""
    Write a commented manifest to start from.
    $ batch-snapshot init backfill.yaml
    $ batch-snapshot init backfill.yaml --from pairs.csv
    $ batch-snapshot init > backfill.yaml
    --name=NAME        Name of the manifest. Default: the file's name without its ending.
    --from=FILE pairs  A CSV or NDJSON file of pairs for the manifest to include.
""")
@click.argument("file", type=params.FILE, required=False)
def init_command(file: Path | None, name: str | None, pairs: Path | None) -> None:
    """Write a commented manifest to FILE, or print it.

    FILE is never overwritten. With --from, the columns of that file are checked. If they have other names,
    as in a CRM export, they are recognised by their values.
    """
    from batch_snapshot import manifest

    if name is not None and (wrong := manifest.keys.check_name(name)):
        raise InputError(f"--name: {wrong}")
    if file is not None and file.suffix not in {".yaml", ".yml"}:
        raise InputError(f"{file}: a manifest is YAML: name a file that ends with .yaml")
    entry = manifest.include_entry(pairs, file.parent if file else Path()) if pairs else None
    named_after = file or pairs
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", named_after.stem).strip("-.") if named_after else ""
    text = manifest.template(name or stem[:64] or "my-snapshots", entry)
    if file is None:
        click.echo(text, nl=False)
        return
    files.write_new(file, text, "name another file")
    trial = f"batch-snapshot run {shell_argument(file)} --simulate"
    terminal.log(f"{file}: written; try it without AWS: {trial}")
