"""`ls`: the ledgers of a folder."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import files
from batch_snapshot.cli import options, params, terminal
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError
from batch_snapshot.text import UNITS, timestamp

if TYPE_CHECKING:
    from batch_snapshot.reporting.status import ListedLedger

_HEAD = ("AGE", "OUTCOME", "ROWS", "SUCCEEDED", "FAILED", "IN DOUBT", "LEFT", "NAME", "LEDGER")
_STATES = ("succeeded", "failed", "in_doubt", "unattempted")
_RIGHT = range(2, 7)


@options.command("""
    List ledgers: outcome, counts and age.
    $ batch-snapshot ls
    $ batch-snapshot ls /srv/ledgers --format json | jq '.ledgers[] | select(.counts.failed > 0) | .ledger'
    --format
""")
@click.argument("folder", type=params.FOLDER, required=False)
def ls_command(folder: Path | None) -> int:
    """List the ledgers in FOLDER (default: ledgers), the latest first."""
    from batch_snapshot.reporting.status import list_ledgers

    if folder is not None and not folder.exists():
        near = files.nearest(folder, "*/")
        out = f"did you mean {near}?" if near else "name the folder of --ledger, or none for ledgers"
        raise InputError(f"{folder}: there is no such folder; {out}")
    folder, ledgers = folder or Path("ledgers"), []
    if folder.exists():
        ledgers = list_ledgers(folder)
    else:
        terminal.warn([f"{folder}: there is no such folder yet; runs make it, or name another one"])
    now = utc_now()
    return terminal.print_outcome(
        lambda: {"folder": str(folder), "ledgers": [_as_json(one, now) for one in ledgers]},
        lambda: _as_text(ledgers, now) if ledgers else f"{folder}: no ledgers",
    )


def _as_json(one: "ListedLedger", now: datetime) -> dict[str, Any]:
    age = round(max(0.0, (now - one.changed_at).total_seconds()))
    times = {"started_at": timestamp(one.started_at), "changed_at": timestamp(one.changed_at), "age_s": age}
    return one._asdict() | {"ledger": str(one.ledger)} | times


def _as_text(ledgers: "list[ListedLedger]", now: datetime) -> str:
    table = [_HEAD, *(_cells(one, now) for one in ledgers)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in _RIGHT else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def _cells(one: "ListedLedger", now: datetime) -> tuple[str, ...]:
    # The age is in its largest unit, such as 3h.
    age = max(0, int((now - one.changed_at).total_seconds()))
    unit = next((name for name in ("d", "h", "m") if age >= UNITS[name]), "s")
    counts = [sum(one.counts.values()), *(one.counts.get(state, 0) for state in _STATES)]
    numbers = [f"{number:,}" if one.counts else "?" for number in counts]
    return f"{age // UNITS[unit]:,}{unit}", one.result, *numbers, one.name, str(one.ledger)
