"""`export`: what the snapshots of ledgers say, as files."""

from pathlib import Path
from typing import Any

import click

from batch_snapshot.cli import options, params, terminal


@options.command(
    """
    Fetch what snapshots say, as NDJSON, CSV or Parquet.
    $ batch-snapshot export ledgers/backfill.ndjson --output snapshots.ndjson
    $ batch-snapshot export ledgers/*.ndjson --output snapshots --format csv
    --output=FILE|FOLDER    A file that ends in .ndjson, .csv or .parquet, or a folder that gets a file for
                            each ledger.
    --format=[ndjson|csv|parquet] kind  Format of the files in a folder. Default: ndjson. The ending of a
                            single file decides its format.
    --fields --summary
    """,
    options.reading,
    interrupt_note=": what was fetched is kept, and the same command continues",
    output={"required": True},
)
@click.argument("ledgers", type=params.LEDGER, nargs=-1, required=True)
def export_command(ledgers: tuple[Path, ...], output: Path, kind: str | None, **given: Any) -> int:
    """Fetch what the snapshots in LEDGERS say: one record for each row that succeeded.

    It takes one read for each snapshot that is not in the file yet. CSV and Parquet are made from an NDJSON
    file beside them, which is kept. Files are readable by you alone. Exit code 1 if a snapshot is missing
    or cannot be read.
    """
    from batch_snapshot.cli import invocation
    from batch_snapshot.export import fetch

    done = invocation.read(
        given, lambda *around: fetch.export(ledgers, output, *around, form=kind, fields=given["fields"])
    )
    return terminal.print_result(fetch.as_json, fetch.as_text, done, exit_code=done.exit_code)
