"""What `run` and `retry` are about to do: which rows, under which ledger, for whom.

A `Job` holds the locks of its ledger and accounts for as long as its block lasts. Nothing is
called or written here but the locks.
"""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from batch_snapshot import (
    backlog,
    codec,
    history,
    ledger,
    locks,
    manifest,
    places,
    report,
    resumption,
    unfinished,
)
from batch_snapshot.accounts import Called, accounts_of, called, quotas_of, selected
from batch_snapshot.errors import InputError, LedgerError
from batch_snapshot.model import SIMULATOR
from batch_snapshot.options import as_before, settings_of, state_of, warnings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from batch_snapshot.history import Header, History
    from batch_snapshot.manifest import Manifest
    from batch_snapshot.model import Account, Quota, Request, Row
    from batch_snapshot.options import Options
    from batch_snapshot.plan import Selection
    from batch_snapshot.resumption import Recalled

#: Vanished rows that the summary names.
NAMED_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Which rows to send, under which ledger."""

    command: str
    name: str
    path: Path
    run_id: str
    accounts: Mapping[str, Account]
    #: By account: what holds in this invocation.
    quotas: Mapping[str, Quota]
    catalogs: frozenset[str]
    endpoint: str
    past: History
    total: int
    #: Rows to send, by account.
    todo: Mapping[str, int]
    requests: Iterator[Request | None]
    manifest: str | None
    manifest_sha256: str | None
    #: Over the file that keeps what `discover:` has found; None: the manifest has no such section.
    discovered_sha256: str | None = None
    #: The rows without any history, as often as wanted: those that may be left out.
    candidates: Callable[[], Iterator[Row]] | None = None
    #: What the run line keeps of the options.
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Where it is kept in mind that the ledger is not finished (see `unfinished`).
    reminders: Sequence[Path] = ()
    #: The same command again, and the one for whatever is left.
    again: str | None = None
    rest: str | None = None
    #: Keys of rows that the ledger knows and the manifest lists no longer.
    gone: Collection[bytes] = ()
    warnings: Sequence[str] = ()
    #: Which rows are there twice where names stand for the same AWS accounts (see `manifest.doubled`).
    doubled: Callable[[Mapping[str, str]], Sequence[str]] = lambda _: ()
    #: What a forecast cannot know.
    open_questions: Sequence[str] = ()

    @property
    def vanished(self) -> int:
        """How many rows the manifest lists no longer."""
        return len(self.gone)

    @property
    def vanished_rows(self) -> Sequence[str]:
        """Some of them in words, read from the ledger: that takes too long to do before the first call."""
        enough = min(NAMED_ROWS, self.vanished)
        named: list[str] = []
        with suppress(LedgerError):
            # Intents are a sixth of a ledger, and ours name every row.
            for kind in ("intent", ""):
                if len(named) < enough:
                    named = history.names(ledger.read(self.path, kind=kind), self.gone, enough)
        return named


@dataclass(frozen=True, slots=True)
class _Identity:
    """What a ledger and an invocation must agree on."""

    name: str
    accounts: Mapping[str, Account]
    endpoint: str


class Reserved(NamedTuple):
    """A manifest and the ledger of its run, while their locks are held."""

    listed: Manifest
    options: Options
    path: Path
    called: Called
    recalled: Recalled | None = None
    #: Whether they are held; without, a run may be writing the ledger.
    touch: bool = True
    #: Warnings about files that are no ledgers.
    passed_over: Sequence[str] = ()

    @property
    def began(self) -> Header | None:
        """How the ledger begins; None: nothing stands in it yet."""
        if not self.path.exists():
            return None
        return ledger.head(self.path)


@contextmanager
def reserved(
    listed: Manifest,
    options: Options,
    now: datetime,
    *,
    recalled: Recalled | None = None,
    touch: bool = True,
) -> Iterator[Reserved]:
    """Find the ledger of a run, and hold its locks; without `touch` nothing is locked or mended.

    What `resumption.load` has `recalled` beside the manifest is not read again.

    Raises:
        InputError: manifest and options don't fit together.
        StorageError: a lock is held, or cannot be made.
    """
    who = called(listed.accounts, options)
    path, passed_over = resumption.ledger_to_write(listed.name, options, now)
    identity = _Identity(listed.name, who.accounts, who.endpoint)
    with ExitStack() as stack:
        if touch:
            stack.enter_context(_ledger_held(path, now))
            stack.enter_context(_accounts_held(identity, options, now))
            ledger.mend(path)
        yield Reserved(listed, options, path, who, recalled, touch, passed_over)


def of_run(held: Reserved, listed: Manifest) -> Job:
    """Make the job of `run`.

    Args:
        held: the ledger and its locks.
        listed: the manifest, with what its `discover:` has found.

    Raises:
        InputError: ledger, manifest and options don't fit together.
    """
    options, path, (accounts, quotas, endpoint) = held.options, held.path, held.called
    past, left = resumption.looked_up(path, held.recalled, listed, live=not held.touch)
    identity = _Identity(listed.name, accounts, endpoint)
    _check_fits(past, path, identity, options.run_id)
    reminders = _reminders(identity, options)
    if held.touch:
        unfinished.check(reminders, path, begun=past.first is not None, anew=options.new_ledger)
    run_id = past.first.run_id if past.first else options.run_id or str(uuid4())
    gone = {key for key in past.keys() if key not in listed.keys}  # noqa: SIM118 - a method, no mapping
    rows = backlog.OfManifest(listed, past, run_id, accounts, left)
    return Job(
        command="run",
        name=listed.name,
        path=path,
        run_id=run_id,
        accounts=accounts,
        quotas=quotas,
        catalogs=listed.catalogs,
        endpoint=endpoint,
        past=past,
        total=listed.rows + len(gone),
        todo=rows.todo(),
        requests=rows.requests(),
        manifest=str(listed.path.resolve()),
        manifest_sha256=listed.sha256,
        discovered_sha256=listed.found_sha256,
        candidates=rows.candidates,
        settings=settings_of(options),
        reminders=reminders,
        again=options.command_line,
        rest=report.run_command(str(listed.path), str(path), endpoint, settings_of(options)),
        doubled=partial(manifest.doubled, listed),
        gone=gone,
        warnings=[*listed.warnings, *warnings_of(options), *held.passed_over],
        open_questions=_open_questions(listed, options),
    )


def _open_questions(listed: Manifest, options: Options) -> list[str]:
    """What is known only when the run begins, for whoever reads a forecast."""
    questions = []
    if listed.discover and not listed.found:
        questions.append("the rows of discover: are known only when it is run; they are not counted here")
    if options.changed_since or options.skip_active_jobs:
        questions.append("rows that are left out are known only when it is run; they are counted here")
    return questions


def _reminders(identity: _Identity, options: Options) -> list[Path]:
    """Where unfinished ledgers are kept in mind; a simulator's snapshots are gone when it is."""
    if identity.endpoint == SIMULATOR:
        return []
    return places.unfinished_files(state_of(options), identity.name, identity.accounts, identity.endpoint)


@contextmanager
def for_retry(
    path: Path,
    selection: Callable[[History], Selection],
    options: Options,
    now: datetime,
    *,
    touch: bool = True,
) -> Iterator[Job]:
    """Make the job of `retry`, and hold its locks; without `touch` nothing is locked or mended.

    Raises:
        InputError: ledger and options don't fit together.
        StorageError: a lock is held, or cannot be made.
    """
    head = ledger.head(path)
    if head is None:
        raise LedgerError(f"{path}: no ledger: it does not begin with a run line")
    endpoint = called({}, replace(options, accounts=(), profile=None), head.endpoint).endpoint
    with ExitStack() as stack:
        if touch:
            stack.enter_context(_ledger_held(path, now))
            ledger.mend(path)
        past = ledger.history_of(path, live=not touch and locks.holder_lives(places.ledger_lock(path)))
        header = past.last or head
        _check_names(path, header)
        accounts = selected(accounts_of(path, header), options)
        settings = settings_of(options, header.settings)
        quotas = quotas_of(accounts, as_before(path, options, settings))
        identity = _Identity(header.name, accounts, endpoint)
        if touch:
            stack.enter_context(_accounts_held(identity, options, now))
        _check_fits(past, path, identity, options.run_id)
        whom = Called(accounts, quotas, endpoint)
        yield _of_retry(path, past, header, chosen=selection(past), whom=whom, options=options)


def _of_retry(
    path: Path, past: History, header: Header, *, chosen: Selection, whom: Called, options: Options
) -> Job:
    """Make the job of `retry`, once its locks are held."""
    rows = backlog.OfLedger(path, past, chosen, header.run_id, whom.accounts)
    sent = backlog.counted(rows.requests())
    settings = settings_of(options, header.settings)
    rest = header.manifest and report.run_command(header.manifest, str(path), whom.endpoint, settings)
    return Job(
        command="retry",
        name=header.name,
        path=path,
        run_id=header.run_id,
        accounts=whom.accounts,
        quotas=whom.quotas,
        catalogs=frozenset(catalog for _, catalog in sent),
        endpoint=whom.endpoint,
        past=past,
        total=header.rows,
        todo=backlog.by_account(sent),
        requests=rows.requests(),
        manifest=header.manifest,
        manifest_sha256=header.manifest_sha256,
        again=None,
        settings=settings,
        reminders=_reminders(_Identity(header.name, whom.accounts, whom.endpoint), options),
        doubled=rows.doubled,
        rest=rest,
        warnings=warnings_of(options),
    )


@contextmanager
def _ledger_held(path: Path, now: datetime) -> Iterator[None]:
    if places.there(path) and path.is_dir():
        raise InputError(f"{path}: is a folder; name the ledger's file")
    lock = places.ledger_lock(path)
    with locks.held(lock, what=str(path), since=codec.timestamp(now), flag="--ledger"):
        yield


@contextmanager
def _accounts_held(identity: _Identity, options: Options, now: datetime) -> Iterator[None]:
    """Hold the manifest's name in each account, so that two nights never overlap."""
    state = state_of(options)
    locks.make_room(len(identity.accounts))
    with ExitStack() as stack:
        for account in sorted(identity.accounts):
            lock = places.account_lock(state, identity.name, account, identity.endpoint)
            what = f"manifest name {identity.name!r} in account {account!r}"
            stack.enter_context(locks.held(lock, what=what, since=codec.timestamp(now)))
        yield


def _check_fits(past: History, path: Path, meant: _Identity, run_id: str | None) -> None:
    """Refuse a ledger that means something else than this invocation."""
    if past.first is None or past.last is None:
        return
    found, way_out = past.first, "name another with --ledger"
    if found.name != meant.name:
        raise LedgerError(f"{path}: belongs to manifest {found.name!r}, not {meant.name!r}; {way_out}")
    if found.endpoint != meant.endpoint:
        raise LedgerError(f"{path}: was written against {found.endpoint}, not {meant.endpoint}; {way_out}")
    if run_id and run_id != found.run_id:
        raise LedgerError(f"{path}: has run id {found.run_id}, not {run_id}; drop --run-id, or {way_out}")
    for account in meant.accounts.values():
        known = past.last.accounts.get(account.name)
        values = {key: getattr(account, key) for key in ("role_arn", "profile", "region", "endpoint_url")}
        if known is not None and any(known.get(key) != value for key, value in values.items()):
            was = ", ".join(f"{key} {known.get(key) or 'none'}" for key in values)
            raise LedgerError(f"{path}: there account {account.name!r} is another one ({was}); {way_out}")


def _check_names(path: Path, header: Header) -> None:
    """Refuse names that no manifest can have: they become the names of files."""
    for name in (header.name, *header.accounts):
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or name in {".", ".."}:
            raise LedgerError(f"{path}: the run line names {name!r}, which no manifest can: it was edited")
