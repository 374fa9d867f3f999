"""`validate`, `status`, `init`, `schema`: what reads files and calls nothing."""

from __future__ import annotations

import json
from pathlib import Path

import click

from batch_snapshot import flags
from batch_snapshot.cli import terminal


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@flags.FORMAT
def validate(manifest: Path, form: str) -> int:
    """Check MANIFEST and all that it includes, offline and without credentials.

    Every problem is named with its file and line; exit code 2 if there is one.
    """
    from batch_snapshot import manifest as room
    from batch_snapshot.errors import ManifestError

    try:
        listed = room.load(manifest)
    except ManifestError as error:
        if form == "text":
            raise
        terminal.print_json({"valid": False, "problems": error.problems, "problem_count": error.total})
        return error.exit_code
    terminal.warn(listed.warnings, listed.warning_count)
    if form == "json":
        terminal.print_json(
            {
                "valid": True,
                "name": listed.name,
                "rows": listed.rows,
                "rows_by_account": listed.rows_by_account,
                "catalogs": sorted(listed.catalogs),
                "sha256": listed.sha256,
                "warnings": listed.warnings,
                "warning_count": listed.warning_count,
                **({"discover": [one.as_dict() for one in listed.discover]} if listed.discover else {}),
            }
        )
        return 0
    accounts = ", ".join(f"{name} ({number:,})" for name, number in listed.rows_by_account.items())
    catalogs = sorted(listed.catalogs | {one.catalog for one in listed.discover})
    more = ", and those of discover:, known only when it is run" if listed.discover else ""
    click.echo(f"{manifest}: valid: {listed.rows:,} rows{more}, catalog {', '.join(catalogs)}")
    if accounts:
        click.echo(f"accounts: {accounts}")
    return 0


@click.command()
@click.argument("ledger", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Prove the ledger whole, or name the first line that is not.")
@flags.FORMAT
def status(ledger: Path, form: str, *, check: bool) -> int:
    """Tell what became of the rows of LEDGER, also while a run is writing it.

    With --check: exit code 0 if every line follows from those before it, every intent is settled
    and the sums are right; else 2 and the line.
    """
    from batch_snapshot import overview, report

    if check:
        rows = overview.check(ledger)
        if form == "text":
            click.echo(f"{ledger}: whole: {rows:,} rows, each in one state")
    summary = overview.of(ledger)
    if form == "json":
        terminal.print_json(report.as_json(summary))
    else:
        click.echo(terminal.shown(report.as_text(summary)))
    return 0


@click.command()
def init() -> None:
    """Print a commented manifest to start from: batch-snapshot init > pairs.yaml."""
    from batch_snapshot import manifest

    click.echo(manifest.template(), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON Schema of manifests, for editors: batch-snapshot schema > manifest.schema.json."""
    from batch_snapshot import manifest

    click.echo(json.dumps(manifest.schema(), indent=2))
