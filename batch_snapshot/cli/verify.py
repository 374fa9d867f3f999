"""`verify`: compare a ledger with the service."""

from pathlib import Path
from typing import Any

import click

from batch_snapshot.cli import options, terminal
from batch_snapshot.cli.command import command
from batch_snapshot.cli.invocation import note_simulator
from batch_snapshot.cli.params import LEDGER
from batch_snapshot.cli.progress import ProgressLine, environment


@command(
    "verify",
    "Compare a ledger with the service.",
    "batch-snapshot verify ledgers/backfill.ndjson",
    "batch-snapshot verify ledgers/backfill.ndjson --sample 100 --format json",
)
@click.argument("ledger", type=LEDGER)
@options.count("--sample", help="Check only N rows, the same ones each time.")
@options.reading
def verify_command(ledger: Path, form: str, *, sample: int | None, **given: Any) -> int:
    """Compare LEDGER with the service: name snapshots that are missing, different, or extra.

    The exit code is 1 if there are any. It takes one read for each engagement, and one for each revision
    that no ledger of the folder names.
    """
    from batch_snapshot import verify
    from batch_snapshot.discovery.output import calls_text

    note_simulator(given["simulate"] if given["progress"] != "none" else None)
    with ProgressLine(given["progress"]) as progress:
        chosen = options.options_of(given)
        found = terminal.run(verify.verify(ledger, chosen, environment(progress), sample))
    terminal.warn(found.warnings)

    def as_text() -> str:
        calls = calls_text(dict(sorted(found.calls.items())), found.throttled, found.elapsed_s)
        return f"{verify.as_text(found)}\n{calls}"

    terminal.print_outcome(form, lambda: verify.as_json(found), as_text)
    return found.exit_code
