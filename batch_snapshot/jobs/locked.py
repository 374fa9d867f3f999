"""The ledger that a command writes, and its locks: on the file, and on the manifest's name in each account.

Next to the ledger is what a manifest's `discover:` has found, so that a resume sees the same rows.
"""

import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from batch_snapshot import files, paths
from batch_snapshot.aws import profiles
from batch_snapshot.config.accounts import Targets, recorded_accounts, resolve_targets
from batch_snapshot.config.options import (
    Options,
    isolate_simulated_state,
    recorded_settings,
    state_folder_of,
    with_recorded_quotas,
)
from batch_snapshot.discovery import output
from batch_snapshot.discovery.discover import run_search
from batch_snapshot.discovery.readers import Environment
from batch_snapshot.discovery.search import Search
from batch_snapshot.errors import BatchSnapshotError, InputError, LedgerError, StorageError
from batch_snapshot.jobs import resume
from batch_snapshot.ledger import locks, open_runs, reader, writer
from batch_snapshot.ledger.history import History
from batch_snapshot.ledger.records import Header
from batch_snapshot.manifest import Manifest, keys, load
from batch_snapshot.models import REGION, SIMULATOR, Account
from batch_snapshot.text import timestamp

#: Unfinished ledgers that a message names; the rest are counted.
NAMED = 5

#: What an account means that leaves a setting out.
_MEANT = {"region": REGION}


@dataclass(frozen=True)
class LockedLedger:
    """The ledger of a command, while its locks are held."""

    options: Options
    path: Path
    targets: Targets
    now: datetime
    #: Nothing is locked or repaired: another run may be writing the ledger.
    read_only: bool
    #: The run line that the ledger begins with; None: no run has begun in it.
    began: Header | None
    warnings: Sequence[str] = ()
    #: Today's ledger, where this one of another day is to be finished first.
    todays_ledger: Path | None = None
    #: Paths of unfinished ledgers that are given up for this one.
    instead_of: Collection[str] = ()
    #: What a dry run cannot know, and why a run would be refused.
    open_questions: Sequence[str] = ()

    @property
    def accounts(self) -> Mapping[str, Account]:
        return self.targets.accounts

    @property
    def endpoint(self) -> str:
        return self.targets.endpoint


@contextmanager
def lock_ledger(
    manifest: Manifest, options: Options, now: datetime, *, read_only: bool = False
) -> Iterator[LockedLedger]:
    """Find the ledger of a run, lock it and repair its end; with `read_only` neither."""
    with ExitStack() as stack:
        options = stack.enter_context(isolate_simulated_state(options, simulated=options.simulate))
        targets = resolve_targets(manifest.accounts, options, profiles.endpoints)
        path, today, warnings = resume.choose_ledger(manifest.name, options, now)
        if path.is_symlink() and not files.exists(path):
            raise reader.missing(path)
        if not read_only:
            _lock_file(stack, path, now)
            _lock_accounts(stack, manifest.name, targets, options, now)
            writer.repair_last_line(path)
        began, later = reader.head(path) if path.exists() else None, today if today != path else None
        locked = LockedLedger(options, path, targets, now, read_only, began, warnings, later)
        try:
            locked = replace(locked, instead_of=_given_up(locked, manifest.name))
        except (InputError, StorageError) as error:
            if not read_only:
                raise
            locked = replace(locked, open_questions=[f"run would be refused: {error}"])
        yield locked


@contextmanager
def lock_retried_ledger(
    path: Path, options: Options, now: datetime, *, read_only: bool = False
) -> Iterator[tuple[LockedLedger, History]]:
    """Lock a ledger to be retried, repair its end and read it; with `read_only` only read it."""
    began = reader.run_line(path)
    with ExitStack() as stack:
        simulated = options.simulate or began.endpoint == SIMULATOR
        options = stack.enter_context(isolate_simulated_state(options, simulated=simulated))
        # What is wrong about the options is refused before anything is locked.
        resolve_targets({}, replace(options, accounts=(), profile=None), profiles.endpoints, began.endpoint)
        if not read_only:
            _lock_file(stack, path, now)
            writer.repair_last_line(path)
        past = read_history(path, read_only=read_only)
        last = past.last or began
        for name in filter(keys.check_name, (last.name, *last.accounts)):
            # No manifest can have it, and names become those of files.
            raise LedgerError(
                f"{path}: the run line names {name!r}, which is not allowed: the file was "
                "edited; restore it from a backup"
            )
        wanted = with_recorded_quotas(path, options, recorded_settings(options, last.settings))
        accounts = recorded_accounts(path, last)
        targets = resolve_targets(accounts, wanted, profiles.endpoints, began.endpoint)
        if not read_only:
            _lock_accounts(stack, last.name, targets, options, now)
        yield LockedLedger(options, path, targets, now, read_only, began), past


def _given_up(locked: LockedLedger, name: str) -> frozenset[str]:
    """The paths of unfinished ledgers that are given up for this one, as they are recorded.

    Unless that is asked for, it is refused: only those ledgers record which snapshots exist.
    """
    path, options, began = locked.path, locked.options, locked.began
    resumed = began is not None and reader.names_rows(path)
    if resumed and options.new_ledger:
        raise InputError(
            f"--new-ledger: {path} already exists; drop the flag to resume it, or name another --ledger"
        )
    runs: dict[str, str] = {}
    for file in reminder_files(name, locked).values():
        runs |= open_runs.unfinished_runs(file)
    missed = runs.get(str(files.resolved(path)))
    if missed and not (began or options.new_ledger):
        headless = path.is_file() and path.stat().st_size > 0
        lost = "has lost its first line" if headless else "is gone, or empty"
        anew = "--new-ledger and another --ledger" if headless else "--new-ledger"
        raise LedgerError(
            f"{path}: {lost}; run {missed} in it was not finished, and only it knows what was made; put it "
            f"back, or start over with {anew}, which makes all its snapshots again"
        )
    others = [] if resumed else [*_other_ledgers(runs, locked, name)]
    if not others or options.new_ledger or (began and began.settings.get("new_ledger")):
        return frozenset(str(other) for other, *_ in others)
    first, _, first_gone = others[0]
    shown = [f"{other} (run {run_id}{', gone' if gone else ''})" for other, run_id, gone in others[:NAMED]]
    more = f" and {len(others) - NAMED:,} more" if len(others) > NAMED else ""
    put_back = "put it back, and " if first_gone else ""
    raise InputError(
        f"{path}: would be a new ledger, but manifest {name!r} has a run that is not finished: "
        f"{', '.join(shown)}{more}; only that ledger records which snapshots exist. To resume it, "
        f"{put_back}give --ledger {shlex.quote(str(first))}; to start over and make all its snapshots "
        "again, give --new-ledger"
    )


def _other_ledgers(runs: dict[str, str], locked: LockedLedger, name: str) -> Iterator[tuple[Path, str, bool]]:
    """Those that are not finished, the latest first; not those of other days by a pattern with {date}.

    Each has its run's id, and whether it has vanished, or another run's ledger is in its place.
    """
    here, pattern = locked.path.resolve(), locked.options.ledger or ""
    for text, run_id in reversed(runs.items()):
        other, gone = Path(text), False
        if other == here or paths.is_dated_ledger(pattern, name, other):
            continue
        with suppress(BatchSnapshotError, OSError):
            past = reader.history_of(other)
            gone = past.first is None or past.first.run_id != run_id
            # A run that has sent nothing, or has nothing left to send.
            if not gone and (past.finished or not (past.succeeded or past.unfinished)):
                continue
        yield other, run_id, gone


def reminder_files(name: str, locked: LockedLedger) -> dict[str, Path]:
    """By account, where unfinished ledgers are recorded; none for a simulator, which keeps none."""
    if locked.endpoint == SIMULATOR:
        return {}
    return paths.unfinished_files(state_folder_of(locked.options), name, locked.accounts, locked.endpoint)


def _lock_file(stack: ExitStack, path: Path, now: datetime) -> None:
    if files.exists(path) and path.is_dir():
        raise InputError(f"{path}: is a folder; name the ledger's file")
    # Rows of a ledger that exists must not be sent again under another.
    copy = "copy the ledger elsewhere and name the copy" if os.path.lexists(path) else "name another place"
    lock, elsewhere = paths.ledger_lock(path), f"{copy} with --ledger"
    stack.enter_context(locks.hold(lock, what=str(path), since=timestamp(now), elsewhere=elsewhere))


def _lock_accounts(stack: ExitStack, name: str, targets: Targets, options: Options, now: datetime) -> None:
    """Hold the locks on the manifest's name in each account, so that two nights never overlap."""
    state = state_folder_of(options)
    locks.raise_file_limit(len(targets.accounts))
    for account in sorted(targets.accounts):
        lock = paths.account_lock(state, name, account, targets.endpoint)
        what = f"manifest name {name!r} in account {account!r}"
        stack.enter_context(locks.hold(lock, what=what, since=timestamp(now)))


def read_history(path: Path, *, read_only: bool, shared_keys: Mapping[bytes, bytes] | None = None) -> History:
    """The history of a ledger; rows of a run that is writing it now are not in doubt."""
    live = read_only and files.exists(path) and locks.is_held(paths.ledger_lock(path))
    return reader.history_of(path, live=live, checked=True, shared_keys=shared_keys)


def check_ledger_fits(past: History, name: str, locked: LockedLedger, *, retry: bool = False) -> list[str]:
    """Refuse a ledger that means something else than this invocation; returns warnings.

    A retry takes all from the ledger but what its options name. Rows are looked up before they are sent if
    the ledger is shorter than this machine left it.
    """
    if past.first is None or past.last is None:
        return []
    found, path, run_id = past.first, locked.path, locked.options.run_id

    def way_out(*flags: str) -> str:
        return f"leave out {' and '.join(flags)}" if retry else "name another ledger with --ledger"

    if found.name != name:
        raise LedgerError(f"{path}: belongs to manifest {found.name!r}, not {name!r}; {way_out()}")
    if found.endpoint != locked.endpoint:
        out = way_out("--simulate", "--endpoint-url") if retry else f"use that endpoint, or {way_out()}"
        raise LedgerError(f"{path}: was written against {found.endpoint}, not {locked.endpoint}; {out}")
    if run_id and run_id != found.run_id:
        out = way_out("--run-id") if retry else f"drop --run-id, or {way_out()}"
        raise LedgerError(f"{path}: has run id {found.run_id}, not {run_id}; {out}")
    for account in locked.accounts.values():
        known = past.last.accounts.get(account.name, {})
        other = {
            key: was
            for key in ("role_arn", "profile", "region", "endpoint_url")
            if (was := known.get(key) or _MEANT.get(key)) != (getattr(account, key) or _MEANT.get(key))
        }
        # Where nothing was sent for it yet, it is not settled who signs.
        if other and reader.names_rows(path, account.name):
            shown = ", ".join(f"{key} {was or 'none'}" for key, was in other.items())
            out = way_out("--profile", "--region") if retry else f"use these, or {way_out()}"
            raise LedgerError(f"{path}: has other settings for account {account.name!r} ({shown}); {out}")
    reminders = reminder_files(name, locked).values()
    if path.stat().st_size >= max((open_runs.length(file, found.run_id) for file in reminders), default=0):
        return []
    past.unrecorded_since = min(past.unrecorded_since or found.started_at, found.started_at)
    what = "is shorter than this machine left it (an older copy, or repaired)"
    return [f"{path}: {what}: rows without a result are looked up before they are sent"]


async def discover_pairs(manifest: Manifest, locked: LockedLedger, environment: Environment) -> Manifest:
    """The manifest with what its `discover:` has found; the first run searches, before its first call."""
    began = locked.began
    warnings: list[str] = []
    if manifest.discover and not (began and began.discovered_sha256):
        # A ledger that is refused is refused before anything is called.
        check_ledger_fits(read_history(locked.path, read_only=False), manifest.name, locked)
        filters = [one for one in manifest.discover if one.account in locked.accounts]
        with Search(None, filters, locked.endpoint, environment.now()) as search:
            report = await run_search(search, locked.targets, locked.options, environment, jobs=False)
            warnings = report.warnings
            with output.replaced(paths.discovered_file(locked.path), mode=0o600) as file:
                file.writelines(output.by_line(search.pairs(), full=True))
    found = load_discovered(manifest, locked)
    found.warnings.extend(warnings)
    return found


def load_discovered(manifest: Manifest, locked: LockedLedger) -> Manifest:
    """The manifest with what was found for its ledger, which must be as it was."""
    began = locked.began
    known = began.discovered_sha256 if began else None
    path = paths.discovered_file(locked.path)
    if not (known or (path.exists() and manifest.discover)):
        return manifest
    way_out = f"it holds rows of {locked.path}; put it back, or name another --ledger"
    if not path.exists():
        raise LedgerError(f"{path}: is missing: {way_out}")
    # A selection may be of tags: the first run line has the accounts that it meant then.
    searched = began.accounts if began and began.settings.get("accounts") else locked.accounts
    wanted = {one.account for one in manifest.discover} & set(locked.accounts)
    if missed := sorted(wanted.difference(searched)):
        raise LedgerError(
            f"{locked.path}: was begun without account {missed[0]!r}, so the rows that discover: finds "
            "for it are not known; give the same --accounts, or name another --ledger"
        )
    found = load(manifest.path, path)
    if known not in {None, found.found_sha256}:
        raise LedgerError(f"{path}: was changed: {way_out}")
    return found
