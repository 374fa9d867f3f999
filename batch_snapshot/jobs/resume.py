"""Which ledger a run resumes, and its state."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from batch_snapshot import files, paths
from batch_snapshot.aws import profiles
from batch_snapshot.config.accounts import endpoint_of, recorded_accounts
from batch_snapshot.config.options import RESUME_WITHIN, Options
from batch_snapshot.errors import LedgerError
from batch_snapshot.ledger import reader
from batch_snapshot.ledger.records import End, Header
from batch_snapshot.models import SIMULATOR
from batch_snapshot.reporting import next_steps, summary
from batch_snapshot.text import plural

NAMED_LEDGERS = 3


def choose_ledger(name: str, options: Options, now: datetime) -> tuple[Path, Path, list[str]]:
    """Today's ledger, or with {date} in its name one of another day that is not finished; today's; warnings.

    Today's comes first if it exists and is not finished. Then one that was deferred, whatever its age, and
    of several the oldest: its run printed that the same command resumes it. Then a young one, unless today's
    exists. Files that are no ledgers are ignored.
    """
    pattern = paths.ledger_pattern(options.ledger, simulated=options.simulate)
    today = paths.ledger_path(pattern, name, now)
    warnings: list[str] = []
    if options.simulate and options.ledger:
        given = paths.ledger_path(options.ledger, name, now)
        if _is_simulated_ledger(given):
            return given, given, warnings
        if given != today:
            warnings.append(f"--ledger {given}: this is a simulated run, so its ledger is {today}")
    unfinished = _unfinished(paths.dated_ledgers(pattern, name), name, now, options, warnings)
    deferred = [one for one in unfinished if one.deferred]
    if deferred and not any(one.path == today for one in unfinished):
        return deferred[-1].path, today, warnings
    if files.exists(today):
        return today, today, warnings
    if young := next((one for one in unfinished if one.young), None):
        return young.path, today, warnings
    return today, today, [*warnings, *_abandoned_warnings(unfinished)]


def _is_simulated_ledger(path: Path) -> bool:
    """Whether a simulated run writes to the file although its name has no `.simulated`.

    Earlier versions gave simulated ledgers such names; a file that is not a ledger is refused later.
    """
    if not files.exists(path) or (path.is_file() and path.stat().st_size == 0):
        return False
    with suppress(LedgerError):
        head = reader.head(path) if path.is_file() else None
        return head is None or head.endpoint == SIMULATOR
    return True


def newest_ledger(pattern: str, options: Options) -> tuple[Path | None, list[str]]:
    """The newest ledger of a pattern with {date} and the options' endpoint; and warnings about newer ones."""
    if options.simulate:
        pattern = paths.simulated_name(pattern)
    warnings: list[str] = []
    for path in paths.ledgers_of(pattern):
        try:
            head = reader.head(path)
            endpoint = head and _endpoint(path, head, options)
            if head is None and not reader.names_rows(path):
                warnings.append(f"ignored: {path}: no run has begun in it")
                continue
        except LedgerError:
            return path, warnings  # `retry` says what is wrong with it
        if head is None or head.endpoint == endpoint:
            return path, warnings
        flag = f"--endpoint-url {head.endpoint}" if "://" in head.endpoint else ""
        flag = "--simulate" if head.endpoint == SIMULATOR else flag
        way_out = f"; {flag} takes it" if flag else ""
        warnings.append(f"ignored: {path} was written against {head.endpoint}, not {endpoint}{way_out}")
    return None, warnings


def _endpoint(path: Path, head: Header, options: Options) -> str:
    return endpoint_of(options, recorded_accounts(path, head), profiles.endpoints)


class UnfinishedLedger(NamedTuple):
    path: Path
    head: Header
    end: End | None
    #: As in `reader.LedgerEnd`.
    outcome: str | None
    #: Whether its run was deferred: the same command resumes it, however old it is.
    deferred: bool
    #: Whether its run began recently enough that the same command resumes it.
    young: bool


def unfinished_ledger(path: Path, now: datetime, within: float = RESUME_WITHIN) -> UnfinishedLedger | None:
    """The state of a dated ledger; None: it is finished, or no run has begun in it."""
    head = reader.head(path)
    if head is None:
        return None
    found = reader.ending(path)
    if found.end is not None and found.end.settled:
        return None
    young = (now - head.started_at).total_seconds() <= within
    return UnfinishedLedger(path, head, found.end, found.outcome, found.deferred, young)


def resumable(path: Path, now: datetime, within: float = RESUME_WITHIN) -> bool:
    """Whether `run` resumes a dated ledger: it was deferred, or is young and not finished."""
    ledger = unfinished_ledger(path, now, within)
    return ledger is not None and (ledger.deferred or ledger.young)


def _unfinished(
    ledgers: Iterable[Path], name: str, now: datetime, options: Options, warnings: list[str]
) -> list[UnfinishedLedger]:
    unfinished = []
    for path in ledgers:
        try:
            head = reader.head(path)
            if head and head.name == name and head.endpoint == _endpoint(path, head, options):
                unfinished.append(unfinished_ledger(path, now, options.resume_within))
            elif head is None and reader.names_rows(path):
                what = "names rows, but its first line is missing: put it back from a backup"
                warnings.append(f"ignored: {path} {what}")
        except LedgerError as error:
            warnings.append(f"ignored: {error}")
    return list(filter(None, unfinished))


def _abandoned_warnings(ledgers: Sequence[UnfinishedLedger]) -> list[str]:
    """Warnings about rows of old ledgers that no command resumes by itself, the newest first."""
    # A run that was completed and left some was one of some accounts: nothing is missing there.
    old = [
        one
        for one in ledgers
        if one.end is None or (one.end.counts.get("unattempted") and one.outcome != "completed")
    ]
    texts = []
    for path, head, end, outcome, *_ in old[:NAMED_LEDGERS]:
        how = f"was {outcome}" if end and outcome else "crashed"
        rows = plural(end.counts.get("unattempted", 0), "row") if end else _rows_left(path)
        command = next_steps.run_command(head, str(path), "accounts")
        texts.append(
            f"{path}: that run {how} and left {rows} unattempted; a new ledger begins without them. "
            f"To send them: {command}. To give them up, move the ledger elsewhere"
        )
    if (hidden := len(old) - NAMED_LEDGERS) > 0:
        texts.append(f"{plural(hidden, 'older ledger')} not finished either")
    return texts


def _rows_left(path: Path) -> str:
    with suppress(LedgerError):
        past = reader.history_of(path)
        if past.last:
            return plural(summary.count(past.counts(), past.last.rows).unattempted, "row")
    return "some rows"
