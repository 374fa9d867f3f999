"""The ledger that a command writes and its locks: on the file, and on the manifest's name in each account."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from batch_snapshot import files, paths
from batch_snapshot.aws import profiles
from batch_snapshot.config.accounts import Targets, resolve_targets
from batch_snapshot.config.options import state_folder_of
from batch_snapshot.errors import InputError, LedgerError, StorageError
from batch_snapshot.jobs import other_ledgers, resume
from batch_snapshot.ledger import locks, open_runs, reader, writer
from batch_snapshot.models import SIMULATOR
from batch_snapshot.text import timestamp

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from batch_snapshot.config.options import Options
    from batch_snapshot.ledger.history import History
    from batch_snapshot.ledger.records import Header
    from batch_snapshot.manifest import Manifest


class LockedLedger(NamedTuple):
    """A manifest and the ledger of its run, while their locks are held."""

    manifest: Manifest
    options: Options
    path: Path
    targets: Targets
    #: Nothing is locked or repaired: another run may be writing the ledger.
    read_only: bool = False
    #: Warnings about files that are no ledgers.
    passed_over: Sequence[str] = ()
    #: Paths of unfinished ledgers that are given up for this one.
    instead_of: Collection[str] = ()
    #: Why a run would be refused; a dry run says so.
    refused: Sequence[str] = ()
    #: Today's ledger, where this one of another day is to be finished first.
    todays_ledger: Path | None = None

    @property
    def began(self) -> Header | None:
        """How the ledger begins; None: it does not exist, or is empty."""
        return reader.head(self.path) if self.path.exists() else None


@contextmanager
def lock_ledger(
    manifest: Manifest,
    options: Options,
    now: datetime,
    *,
    read_only: bool = False,
) -> Iterator[LockedLedger]:
    """Find the ledger of a run, lock it and repair its end; with `read_only` neither.

    Raises:
        InputError: manifest and options don't fit together, or another ledger is unfinished.
        StorageError: a lock is held, or cannot be made.
    """
    targets = resolve_targets(manifest.accounts, options, profiles.endpoints)
    path, passed_over = resume.choose_ledger(manifest.name, options, now)
    with ExitStack() as stack:
        if not read_only:
            stack.enter_context(lock_file(path, now))
            stack.enter_context(lock_accounts(manifest.name, targets, options, now))
            writer.repair_last_line(path)
        today = resume.todays_ledger(manifest.name, options, now)
        locked = LockedLedger(manifest, options, path, targets, read_only, passed_over)
        yield _check_unfinished(locked._replace(todays_ledger=today if today != path else None))


def _check_unfinished(locked: LockedLedger) -> LockedLedger:
    """Refuse a new ledger where an unfinished one has vanished, or lies elsewhere; a dry run only says so.

    Raises:
        InputError: there is one, and the options don't say which to take.
        StorageError: it cannot be read which ledgers are unfinished.
    """
    path, options, name = locked.path, locked.options, locked.manifest.name
    reminders = reminder_files(name, locked.targets, options).values()
    try:
        began = locked.began
        if not (options.new_ledger and began and not reader.names_rows(path)):
            open_runs.check_not_lost(reminders, path, exists=began is not None, new_ledger=options.new_ledger)
        given_up = other_ledgers.check_other_ledgers(reminders, path, name, options, began)
    except (InputError, StorageError) as error:
        if not locked.read_only:
            raise
        return locked._replace(refused=[f"run would be refused: {error}"])
    return locked._replace(instead_of=given_up)


def reminder_files(name: str, targets: Targets, options: Options) -> dict[str, Path]:
    """By account, where unfinished ledgers are recorded; a simulator's snapshots are gone when it is."""
    if targets.endpoint == SIMULATOR:
        return {}
    return paths.unfinished_files(state_folder_of(options), name, targets.accounts, targets.endpoint)


@contextmanager
def lock_file(path: Path, now: datetime) -> Iterator[None]:
    """Hold the lock on a ledger."""
    if files.exists(path) and path.is_dir():
        raise InputError(f"{path}: is a folder; name the ledger's file")
    lock = paths.ledger_lock(path)
    # Rows of a ledger that exists must not be sent again under another.
    known = os.path.lexists(path)
    elsewhere = "copy the ledger elsewhere and name the copy" if known else "name another place"
    with locks.hold(lock, what=str(path), since=timestamp(now), elsewhere=f"{elsewhere} with --ledger"):
        yield


@contextmanager
def lock_accounts(name: str, targets: Targets, options: Options, now: datetime) -> Iterator[None]:
    """Hold the locks on the manifest's name in each account, so that two nights never overlap."""
    state = state_folder_of(options)
    locks.raise_file_limit(len(targets.accounts))
    with ExitStack() as stack:
        for account in sorted(targets.accounts):
            lock = paths.account_lock(state, name, account, targets.endpoint)
            what = f"manifest name {name!r} in account {account!r}"
            stack.enter_context(locks.hold(lock, what=what, since=timestamp(now)))
        yield


def check_ledger_fits(past: History, path: Path, name: str, targets: Targets, run_id: str | None) -> None:
    """Refuse a ledger that means something else than this invocation.

    Raises:
        LedgerError: it does.
    """
    if past.first is None or past.last is None:
        return
    found, way_out = past.first, "name another with --ledger"
    if found.name != name:
        raise LedgerError(f"{path}: belongs to manifest {found.name!r}, not {name!r}; {way_out}")
    if found.endpoint != targets.endpoint:
        raise LedgerError(f"{path}: was written against {found.endpoint}, not {targets.endpoint}; {way_out}")
    if run_id and run_id != found.run_id:
        raise LedgerError(f"{path}: has run id {found.run_id}, not {run_id}; drop --run-id, or {way_out}")
    for account in targets.accounts.values():
        known = past.last.accounts.get(account.name)
        values = {key: getattr(account, key) for key in ("role_arn", "profile", "region", "endpoint_url")}
        if known is not None and any(known.get(key) != value for key, value in values.items()):
            if not reader.names_rows(path, account.name):
                continue  # nothing was sent for it yet: it is not settled who signs
            was = ", ".join(f"{key} {known.get(key) or 'none'}" for key in values)
            raise LedgerError(f"{path}: there account {account.name!r} is another one ({was}); {way_out}")


def check_names(path: Path, header: Header) -> None:
    """Refuse names that no manifest can have: they become the names of files.

    Raises:
        LedgerError: there is one.
    """
    for name in (header.name, *header.accounts):
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or name in {".", ".."}:
            raise LedgerError(f"{path}: the run line names {name!r}, which no manifest can: it was edited")
