"""`ls`: the ledgers of a folder."""

import os
from pathlib import Path
from typing import Any

import click

from batch_snapshot import files
from batch_snapshot.cli import options, params, terminal
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError
from batch_snapshot.text import UNITS, plural, timestamp

_HEAD = ("AGE", "OUTCOME", "ROWS", "SUCCEEDED", "FAILED", "IN DOUBT", "LEFT", "NAME", "LEDGER")
_STATES = ("succeeded", "failed", "in_doubt", "unattempted")


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
        out = f"did you mean {near}?" if near else "name the folder of your ledgers (default: ledgers)"
        raise InputError(f"{folder}: there is no such folder; {out}")
    folder, ledgers = folder or Path("ledgers"), []
    if folder.exists():
        ledgers = list_ledgers(folder)
        if hidden := sum(not os.access(path, os.R_OK) for path in folder.glob("*.ndjson")):
            number = plural(hidden, "file")
            terminal.warn([f"{folder}: {number} cannot be read; list them as the user whose runs write them"])
    else:
        terminal.warn([f"{folder}: there is no such folder yet; name the one that has your ledgers, if any"])
    now = utc_now()
    found: list[dict[str, Any]] = []
    table: list[tuple[str, ...]] = [_HEAD]
    for one in ledgers:
        age = max(0.0, (now - one.changed_at).total_seconds())
        times = {"started_at": timestamp(one.started_at), "changed_at": timestamp(one.changed_at)}
        found.append({**one._asdict(), "ledger": str(one.ledger), **times, "age_s": round(age)})
        unit = next((name for name in ("d", "h", "m") if age >= UNITS[name]), "s")
        counts = [sum(one.counts.values()), *(one.counts.get(state, 0) for state in _STATES)]
        numbers = [f"{number:,}" if one.counts else "?" for number in counts]
        table.append((f"{age // UNITS[unit]:,.0f}{unit}", one.result, *numbers, one.name, str(one.ledger)))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    # Numbers, from ROWS to LEFT, are aligned to the right.
    lines = [
        "  ".join(f"{cell:{'>' if 1 < place < 7 else ''}{widths[place]}}" for place, cell in enumerate(row))
        for row in table
    ]
    text = "\n".join(line.rstrip() for line in lines) if ledgers else f"{folder}: no ledgers"
    return terminal.print_result(lambda: {"folder": str(folder), "ledgers": found}, lambda: text)
