"""`rows`: the rows of a ledger with their last state."""

import json
import sys
from pathlib import Path

from batch_snapshot import redaction
from batch_snapshot.cli import options, terminal
from batch_snapshot.errors import InputError
from batch_snapshot.models import Skip, Status

STATUSES = (*(status.value for status in Status), "unattempted", *(reason.value for reason in Skip))


@options.command(
    f"""
    Print the rows of a ledger with their last state.
    $ batch-snapshot rows ledgers/backfill.ndjson > rows.csv
    $ batch-snapshot rows ledgers/backfill.ndjson --status failed,in_doubt --format ndjson | jq .message
    --status=STATUS,…       Only rows in these states: {", ".join(STATUSES)}.
    --format=[csv|ndjson] form  CSV with a header, or one JSON object a line.
    """,
    form={"default": "csv"},
)
@options.LEDGER
def rows_command(ledger: Path, status: tuple[str, ...] | None, form: str) -> None:
    """Print each row of LEDGER once, with its last state, also while a run is writing it.

    Rows that are not in the ledger yet are read from the manifest.
    """
    from batch_snapshot.reporting import entries, report

    if unknown := [word for word in status or () if word not in STATUSES]:
        raise InputError(f"--status {unknown[0]}: there is no such state; there are: {', '.join(STATUSES)}")
    data = report.load(ledger)
    terminal.warn(data.notes)
    if sys.stdout is None:
        return
    chosen = (entry for entry in data.entries() if not status or entry.status in status)

    if form == "csv":
        entries.write_table(chosen, sys.stdout)
    else:
        records = (redaction.redacted_all(entries.as_json(one)) for one in chosen)
        sys.stdout.writelines(json.dumps(one) + "\n" for one in records)
    sys.stdout.flush()
