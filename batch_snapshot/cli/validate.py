"""`validate`: check a manifest offline."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_snapshot.cli import options, terminal
from batch_snapshot.text import plural

if TYPE_CHECKING:
    from batch_snapshot.manifest import Manifest


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

    loaded = load(manifest, options=LoadOptions(given["name"], given["catalog"], given["all_problems"]))
    # Accounts whose daily quota is smaller than their rows.
    rows = {name: number for name, number in loaded.rows_by_account.items() if name in loaded.accounts}
    a_day = {name: windows.calls_a_day(loaded.accounts[name].quota) for name in rows}
    warnings = [*loaded.warnings, *forecast.days_needed(rows, a_day)]
    count = loaded.warning_count + len(warnings) - len(loaded.warnings)
    terminal.warn(warnings, count)
    terminal.print_result(lambda: _as_json(loaded, warnings, count), lambda: _as_text(loaded, manifest))


def _as_json(manifest: "Manifest", warnings: list[str], count: int) -> dict[str, object]:
    found = {"discover": [one.as_dict() for one in manifest.discover]} if manifest.discover else {}
    return {
        "valid": True,
        "name": manifest.name,
        "rows": manifest.rows,
        "rows_by_account": manifest.rows_by_account,
        "catalogs": sorted(manifest.catalogs),
        "sha256": manifest.sha256,
        "warnings": warnings,
        "warning_count": count,
        **found,
    }


def _as_text(manifest: "Manifest", path: Path) -> str:
    accounts = ", ".join(f"{name} ({number:,})" for name, number in manifest.rows_by_account.items())
    catalogs = ", ".join(sorted(manifest.catalogs | {one.catalog for one in manifest.discover}))
    more = ", and those that discover: finds when it is run" if manifest.discover else ""
    text = f"{path}: valid: {plural(manifest.rows, 'row')}{more}, catalog {catalogs}"
    return f"{text}\naccounts: {accounts}" if accounts else text
