"""`validate`: check a manifest offline."""

from pathlib import Path
from typing import Any

from batch_snapshot.cli import options, terminal
from batch_snapshot.text import plural


@options.command("""
    Check a manifest, offline.
    $ batch-snapshot validate backfill.yaml
    $ batch-snapshot validate backfill.yaml --format json | jq .problems
    --name --catalog --all-problems --format
""")
@options.MANIFEST
def validate_command(manifest: Path, **given: Any) -> None:
    """Check MANIFEST and all that it includes, offline and without credentials.

    Every problem is named with its file and line; exit code 2 if there is one.
    """
    from batch_snapshot.manifest import LoadOptions, load
    from batch_snapshot.ratelimit import forecast, windows

    found = load(manifest, options=LoadOptions(given["name"], given["catalog"], given["all_problems"]))
    # Accounts whose daily quota is smaller than their rows.
    rows = {name: number for name, number in found.rows_by_account.items() if name in found.accounts}
    days = forecast.days_needed(
        rows, {name: windows.calls_a_day(found.accounts[name].quota) for name in rows}
    )
    warnings, count = [*found.warnings, *days], found.warning_count + len(days)
    terminal.warn(warnings, count)
    as_json = {
        "valid": True,
        "name": found.name,
        "rows": found.rows,
        "rows_by_account": found.rows_by_account,
        "catalogs": sorted(found.catalogs),
        "sha256": found.sha256,
        "warnings": warnings,
        "warning_count": count,
        **({"discover": [one.as_dict() for one in found.discover]} if found.discover else {}),
    }
    catalogs = ", ".join(sorted(found.catalogs | {one.catalog for one in found.discover}))
    more = ", and those that discover: finds when it is run" if found.discover else ""
    text = f"{manifest}: valid: {plural(found.rows, 'row')}{more}, catalog {catalogs}"
    if found.rows_by_account:
        accounts = (f"{name} ({number:,})" for name, number in found.rows_by_account.items())
        text += f"\naccounts: {', '.join(accounts)}"
    terminal.print_result(lambda: as_json, lambda: text)
