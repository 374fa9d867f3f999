"""`export`: what the snapshots of ledgers say, as files."""

from pathlib import Path
from typing import Any

import click

from batch_snapshot.cli import options, terminal
from batch_snapshot.cli.command import command, option
from batch_snapshot.cli.invocation import note_simulator
from batch_snapshot.cli.params import FILE, LEDGER, words
from batch_snapshot.cli.progress import ProgressLine, environment
from batch_snapshot.errors import InputError


@command(
    "export",
    "Fetch what snapshots say, as NDJSON, CSV or Parquet.",
    "batch-snapshot export ledgers/backfill.ndjson --output snapshots.ndjson",
    "batch-snapshot export ledgers/*.ndjson --output snapshots --format csv",
    interrupt_note=": what was fetched is kept, and the same command continues",
)
@click.argument("ledgers", type=LEDGER, nargs=-1, required=True)
@option(
    "--output",
    type=FILE,
    required=True,
    metavar="FILE|FOLDER",
    help="A file that ends in .ndjson, .csv or .parquet, or a folder that gets a file for each ledger.",
)
@option(
    "--format",
    "form",
    type=click.Choice(["ndjson", "csv", "parquet"]),
    help="Of the files in a folder. Default: ndjson. A file has the format of its ending.",
)
@option(
    "--fields",
    type=words,
    metavar="NAME,…",
    help="Only these fields of the payload, such as Lifecycle.Stage, or parts of it, such as "
    "Customer.Account; others are never written.",
)
@options.reading_files
def export_command(
    ledgers: tuple[Path, ...], output: Path, form: str | None, *, fields: tuple[str, ...] | None, **given: Any
) -> int:
    """Fetch what the snapshots in LEDGERS say: one record for each row that succeeded.

    It takes one read for each snapshot that is not in the file yet. CSV and Parquet are made from an NDJSON
    file beside them, which is kept. Files are readable by you alone. Exit code 1 if a snapshot is missing
    or cannot be read.
    """
    from batch_snapshot.discovery.output import calls_text
    from batch_snapshot.export import fetch

    if fields == ():
        raise InputError("--fields: name at least one field, or leave it out for all")
    note_simulator(given["simulate"] if given["progress"] != "none" else None)
    with ProgressLine(given["progress"]) as progress:
        chosen = options.options_of(given)
        work = fetch.export(ledgers, output, chosen, environment(progress), form=form, fields=fields or ())
        done = terminal.run(work)

    def as_text() -> str:
        return f"{fetch.as_text(done)}\n{calls_text(done.calls, done.throttled, done.elapsed_s)}"

    return terminal.print_outcome("text", dict, as_text, done.exit_code)
