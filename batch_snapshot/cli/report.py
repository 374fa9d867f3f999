"""`report`: a page or tables of a ledger."""

from pathlib import Path

from batch_snapshot.cli import options, terminal
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError
from batch_snapshot.text import plural


@options.command("""
    Make a page or tables of a ledger.
    $ batch-snapshot report ledgers/backfill.ndjson --html backfill.html
    $ batch-snapshot report ledgers/backfill.ndjson --csv backfill/
    --html=FILE          Write one page that needs no other file: outcomes, failures, times, and every row.
    --csv=FOLDER folder  Three tables: succeeded.csv, failed.csv (those in doubt too), and unprocessed.csv,
                         which a manifest can include.
    --manifest=FILE      The manifest: it names rows that are not in the ledger yet. Default: the path in the
                         ledger.
""")
@options.LEDGER
def report_command(ledger: Path, html: Path | None, folder: Path | None, manifest: Path | None) -> None:
    """Write LEDGER as a page for a browser, as CSV tables, or both."""
    from batch_snapshot.reporting import page, report

    if html is None and folder is None:
        raise InputError("report: name what to make: --html FILE, --csv FOLDER, or both")
    material = report.load(ledger, manifest)
    terminal.warn(material.notes)
    if html is not None:
        page.write(material, html, utc_now())
        terminal.say(f"{html}: open it in a browser")
    if folder is not None:
        for name, number in report.write_csv(material, folder).items():
            terminal.say(f"{folder / name}.csv: {plural(number, 'row')}")
