"""`validate`, `status`, `init`, `schema`: what reads files and calls nothing."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import interrupts
from batch_snapshot.cli import options, terminal
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError
from batch_snapshot.text import timestamp

if TYPE_CHECKING:
    from pathlib import Path

    from batch_snapshot.manifest import Manifest
    from batch_snapshot.reporting.status import LedgerWatch

#: Seconds between two looks at a ledger, and between two lines about it.
LOOK_EVERY = 0.5
LINES_EVERY = 5.0


@click.command(short_help="Check a manifest, offline.")
@click.argument("manifest", type=options.FILE)
@options.FORMAT
def validate(manifest: Path, form: str) -> int:
    """Check MANIFEST and all that it includes, offline and without credentials.

    Every problem is named with its file and line; exit code 2 if there is one.

    \b
    batch-snapshot validate backfill.yaml
    batch-snapshot validate backfill.yaml --format json | jq .problems
    """
    from batch_snapshot import manifest as room
    from batch_snapshot.errors import ManifestError

    try:
        listed = room.load(manifest)
    except ManifestError as error:
        if form == "text":
            raise
        terminal.print_json(
            {
                "valid": False,
                "problems": error.problems,
                "problem_count": error.total,
                "outcome": "refused",
                "exit_code": error.exit_code,
                "error": {"kind": "manifest", "message": str(error)},
            }
        )
        return error.exit_code
    warnings = [*listed.warnings, *_days(listed)]
    count = listed.warning_count + len(warnings) - len(listed.warnings)
    terminal.warn(warnings, count)
    if form == "json":
        terminal.print_json(
            {
                "valid": True,
                "name": listed.name,
                "rows": listed.rows,
                "rows_by_account": listed.rows_by_account,
                "catalogs": sorted(listed.catalogs),
                "sha256": listed.sha256,
                "warnings": warnings,
                "warning_count": count,
                **({"discover": [one.as_dict() for one in listed.discover]} if listed.discover else {}),
            }
        )
        return 0
    accounts = ", ".join(f"{name} ({number:,})" for name, number in listed.rows_by_account.items())
    catalogs = sorted(listed.catalogs | {one.catalog for one in listed.discover})
    more = ", and those of discover:, known only when it is run" if listed.discover else ""
    click.echo(
        f"{terminal.shown(str(manifest))}: valid: {listed.rows:,} rows{more}, catalog {', '.join(catalogs)}"
    )
    if accounts:
        click.echo(f"accounts: {accounts}")
    return 0


def _days(listed: Manifest) -> list[str]:
    from batch_snapshot.ratelimit import forecast, windows

    known = {name: account for name, account in listed.accounts.items() if name in listed.rows_by_account}
    a_day = {name: windows.calls_a_day(account.quota) for name, account in known.items()}
    return forecast.days_needed({name: listed.rows_by_account[name] for name in known}, a_day)


@click.command(short_help="Tell what became of the rows, also of a run that goes on.")
@click.argument("ledger", type=options.FILE)
@click.option("--check", is_flag=True, help="Prove the ledger whole, or name the first line that is not.")
@click.option(
    "--watch", is_flag=True, help="Show how far the run is, until it is over; Ctrl-C ends the looking alone."
)
@click.option(
    "--repair",
    is_flag=True,
    help="Rewrite a damaged ledger: keep every whole line, put in doubt what cannot be proven, and keep the "
    "original beside it.",
)
@options.FORMAT
@terminal.LOG_FORMAT
def status(ledger: Path, form: str, *, check: bool, watch: bool, repair: bool) -> int:
    """Tell what became of the rows of LEDGER, also while a run is writing it.

    With --check: exit code 0 if every line follows from those before it, every intent is settled
    and the sums are right; else 2 and the line.

    With --repair: a ledger with lost or damaged lines (edited by hand, or after a power cut) becomes one
    that run and retry go on with. A whole one is left as it is.

    \b
    batch-snapshot status ledgers/backfill.ndjson --watch
    batch-snapshot status ledgers/backfill.ndjson --format json | jq .counts
    batch-snapshot status ledgers/backfill.ndjson --repair
    """
    from batch_snapshot.reporting import status as overview
    from batch_snapshot.reporting import summary as report
    from batch_snapshot.reporting import text

    if repair and watch:
        raise InputError("--repair and --watch exclude each other: repair a ledger when its run is over")
    repaired = _repaired(ledger, form) if repair else {}
    if check and watch:
        raise InputError("--check and --watch exclude each other: a ledger that is written is not whole yet")
    if check:
        rows = overview.check_ledger(ledger)
        if form == "text":
            click.echo(f"{terminal.shown(str(ledger))}: whole: {rows:,} rows, each in one state")
    looking = overview.LedgerWatch(ledger)
    looking.refresh()
    if watch and looking.running:
        try:
            _look_on(looking)
        except KeyboardInterrupt as error:
            terminal.say("no longer looking; the run goes on")
            return interrupts.exit_code(error)
    summary = looking.summary()
    if form == "json":
        terminal.print_json({**report.as_json(summary), **repaired})
    else:
        click.echo(terminal.shown(text.as_text(summary)))
    return 0


def _repaired(ledger: Path, form: str) -> dict[str, Any]:
    """Repair the ledger, and say what was done."""
    from batch_snapshot.ledger import repair as room

    done = room.repair(ledger, utc_now())
    if form == "json":
        return {
            "repair": {
                "kept": done.kept,
                "dropped": done.dropped,
                "added": done.added,
                "in_doubt": done.doubtful,
                "unrecorded_since": timestamp(since) if (since := done.unrecorded_since) else None,
                "original": str(done.original) if done.original else None,
            }
        }
    if done.original is None:
        click.echo(f"{ledger}: is whole ({done.kept:,} lines): there is nothing to repair")
        return {}
    numbers = f"{done.kept:,} lines kept, {done.dropped:,} dropped, {done.added:,} written anew"
    click.echo(f"{ledger}: repaired: {numbers}, {done.doubtful:,} rows put in doubt")
    if since := done.unrecorded_since:
        what = "the lost lines may have named rows that no other line names"
        how = f"run and retry look for a snapshot since {timestamp(since)} before they send such a row"
        click.echo(f"  {what}: {how}")
    click.echo(terminal.shown(f"  the ledger as it was: {done.original}"))
    return {}


def _look_on(looking: LedgerWatch) -> None:
    """Show how far the run is until it is over: in place on a terminal, else in lines."""
    if terminal.telling().form == "json" or not terminal.can_draw():
        while looking.running:
            terminal.tell_frame(looking.frame())
            _next(looking, LINES_EVERY)
        return
    with terminal.screen() as screen:
        while looking.running:
            screen.show(looking.frame())
            _next(looking, LOOK_EVERY)


def _next(looking: LedgerWatch, seconds: float) -> None:
    """Look again after so long, or as soon as the run is over."""
    until = time.monotonic() + seconds
    while looking.running and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_EVERY))
        looking.refresh()


@click.command()
def init() -> None:
    """Print a commented manifest to start from.

    \b
    batch-snapshot init > pairs.yaml
    """
    from batch_snapshot import manifest

    click.echo(manifest.template(), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON Schema of manifests, for editors.

    \b
    batch-snapshot schema > manifest.schema.json
    """
    from batch_snapshot import manifest

    click.echo(json.dumps(manifest.schema(), indent=2))
