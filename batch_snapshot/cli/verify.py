"""`verify`: compare a ledger with the service."""

from pathlib import Path
from typing import Any

from batch_snapshot.cli import options, terminal


@options.command(
    """
    Compare a ledger with the service.
    $ batch-snapshot verify ledgers/backfill.ndjson
    $ batch-snapshot verify ledgers/backfill.ndjson --sample 100 --format json
    --sample=N  Check only N rows, the same ones each time.
    --format
    """,
    options.reading,
)
@options.LEDGER
def verify_command(ledger: Path, sample: int | None, **given: Any) -> int:
    """Compare LEDGER with the service: name snapshots that are missing, different, or extra.

    The exit code is 1 if there are any. It takes one read for each engagement, and one for each revision
    that no ledger of the folder names.
    """
    from batch_snapshot import verify
    from batch_snapshot.cli import invocation

    found = invocation.read(given, lambda chosen, around: verify.verify(ledger, chosen, around, sample))
    terminal.warn(found.warnings)
    return terminal.print_result(verify.as_json, verify.as_text, found, exit_code=found.exit_code)
