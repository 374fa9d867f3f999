"""What `run` and `retry` are about to do: which rows, under which ledger, for whom.

A `Job` holds the locks of its ledger and accounts for as long as its block lasts. Nothing is
called or written here but the locks.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from batch_snapshot import files, manifest, paths
from batch_snapshot.aws import profiles
from batch_snapshot.config.accounts import (
    Targets,
    effective_quotas,
    recorded_accounts,
    resolve_targets,
    select_accounts,
)
from batch_snapshot.config.options import (
    extras_of,
    option_warnings,
    recorded_settings,
    state_folder_of,
    with_recorded_quotas,
)
from batch_snapshot.errors import InputError, LedgerError, StorageError
from batch_snapshot.jobs import other_ledgers, resume
from batch_snapshot.jobs import rows as backlog
from batch_snapshot.ledger import codec, history, locks, open_runs, writer
from batch_snapshot.models import SIMULATOR
from batch_snapshot.ratelimit import forecast
from batch_snapshot.ratelimit.windows import calls_a_day
from batch_snapshot.reporting import next_steps, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from batch_snapshot.config.options import Options
    from batch_snapshot.jobs.plan import Selection
    from batch_snapshot.ledger.history import Header, History
    from batch_snapshot.manifest import Manifest
    from batch_snapshot.models import Account, Quota, Request, Row

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
    #: By account, where it is recorded that the ledger is not finished (see `unfinished`).
    reminders: Mapping[str, Path] = field(default_factory=dict)
    #: Paths of unfinished ledgers that are given up for this one.
    instead_of: Collection[str] = ()
    #: The same command again, and the one for whatever is left.
    again: str | None = None
    #: The command for today's night, where one of another day is finished first.
    tonights: str | None = None
    rest: str | None = None
    #: Today's ledger, which the same command begins once this one of another day is finished.
    tonight: Path | None = None
    #: Keys of rows that the ledger knows and the manifest lists no longer.
    gone: Collection[bytes] = ()
    warnings: Sequence[str] = ()
    #: Which rows are there twice where names stand for the same AWS accounts (see `manifest.doubled`).
    doubled: Callable[[Mapping[str, str]], Sequence[str]] = lambda _: ()
    #: By (name in the ledger, name now): a row to send that the ledger has under another account's name.
    renamed: Mapping[tuple[str, str], Row] = field(default_factory=dict)
    #: What a forecast cannot know.
    open_questions: Sequence[str] = ()

    @property
    def closes(self) -> bool:
        """Whether the ledger's end speaks of rows that were not sent, and the manifest lists none of them."""
        left = self.past.end is not None and self.past.end.counts.get("unattempted")
        return bool(left) and not summary.count(self.past.counts(), self.total).unattempted

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
                    named = history.names(writer.read(self.path, kind=kind), self.gone, enough)
        return named


@dataclass(frozen=True, slots=True)
class _Identity:
    """What a ledger and an invocation must agree on."""

    name: str
    accounts: Mapping[str, Account]
    endpoint: str


class LockedLedger(NamedTuple):
    """A manifest and the ledger of its run, while their locks are held."""

    listed: Manifest
    options: Options
    path: Path
    targets: Targets
    #: Whether they are held; without, a run may be writing the ledger.
    touch: bool = True
    #: Warnings about files that are no ledgers.
    passed_over: Sequence[str] = ()
    #: Paths of unfinished ledgers that are given up for this one.
    instead_of: Collection[str] = ()
    #: Why a run would be refused; a plan says so.
    refused: Sequence[str] = ()
    #: Today's ledger, where this one of another day is to be finished first.
    tonight: Path | None = None

    @property
    def began(self) -> Header | None:
        """How the ledger begins; None: nothing stands in it yet."""
        if not self.path.exists():
            return None
        return writer.head(self.path)


@contextmanager
def lock_ledger(
    listed: Manifest,
    options: Options,
    now: datetime,
    *,
    touch: bool = True,
) -> Iterator[LockedLedger]:
    """Find the ledger of a run, and hold its locks; without `touch` nothing is locked or mended.

    Raises:
        InputError: manifest and options don't fit together.
        StorageError: a lock is held, or cannot be made.
    """
    who = resolve_targets(listed.accounts, options, profiles.endpoints)
    path, passed_over = resume.choose_ledger(listed.name, options, now)
    identity = _Identity(listed.name, who.accounts, who.endpoint)
    with ExitStack() as stack:
        if touch:
            stack.enter_context(_lock_file(path, now))
            stack.enter_context(_lock_accounts(identity, options, now))
            writer.mend(path)
        tonight = resume.todays_ledger(listed.name, options, now)
        locked = LockedLedger(listed, options, path, who, touch, passed_over)
        yield _check_other_ledgers(locked._replace(tonight=tonight if tonight != path else None), identity)


def _check_other_ledgers(locked: LockedLedger, identity: _Identity) -> LockedLedger:
    """Refuse a new ledger where an unfinished one has vanished, or lies elsewhere; a plan only says so.

    Raises:
        InputError: there is one, and nobody has chosen.
        StorageError: it cannot be read which ledgers are unfinished.
    """
    path, options, files = locked.path, locked.options, _reminders(identity, locked.options).values()
    try:
        began = locked.began
        if not (options.new_ledger and began and not writer.names_rows(path)):
            open_runs.check(files, path, begun=began is not None, anew=options.new_ledger)
        given_up = other_ledgers.check_other_ledgers(files, path, identity.name, options, began)
    except (InputError, StorageError) as error:
        if locked.touch:
            raise
        return locked._replace(refused=[f"run would be refused: {error}"])
    return locked._replace(instead_of=given_up)


def open_run(locked: LockedLedger, listed: Manifest) -> Job:
    """Make the job of `run`.

    Args:
        locked: the ledger and its locks.
        listed: the manifest, with what its `discover:` has found.

    Raises:
        InputError: ledger, manifest and options don't fit together.
    """
    options, path, (accounts, quotas, endpoint) = locked.options, locked.path, locked.targets
    past = resume.load_history(path, live=not locked.touch)
    identity = _Identity(listed.name, accounts, endpoint)
    settings = {**recorded_settings(options), **extras_of(options)}
    _check_fits(past, path, identity, options.run_id)
    run_id = past.first.run_id if past.first else options.run_id or str(uuid4())
    gone = {key for key in past.keys() if key not in listed.keys}  # noqa: SIM118 - a method, no mapping
    rows = backlog.ManifestRows(listed, past, run_id, accounts)
    # What is still listed under the other name is listed twice: that is looked for elsewhere.
    renamed = rows.renamed() if gone else {}
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
        manifest=str(files.resolved(listed.path)),
        manifest_sha256=listed.sha256,
        discovered_sha256=listed.found_sha256,
        candidates=rows.candidates,
        settings=settings,
        reminders=_reminders(identity, options),
        instead_of=locked.instead_of,
        again=next_steps.pinned(options.command_line, str(path)),
        rest=next_steps.run_command(str(listed.path), str(path), endpoint, settings),
        doubled=partial(manifest.doubled, listed),
        gone=gone,
        renamed=renamed,
        tonight=locked.tonight,
        tonights=options.command_line if locked.tonight else None,
        warnings=[*listed.warnings, *locked.passed_over, *_warnings(listed, quotas, options)],
        open_questions=[
            *locked.refused,
            *_renamed_questions(renamed),
            *_open_questions(listed, options),
            *_days_needed(listed, quotas),
        ],
    )


def _days_needed(listed: Manifest, quotas: Mapping[str, Quota]) -> list[str]:
    """Which accounts have more rows than their quotas let through in a day."""
    rows = {name: listed.rows_by_account.get(name, 0) for name in quotas}
    return forecast.days_needed(rows, {name: calls_a_day(quota) for name, quota in quotas.items()})


def _warnings(listed: Manifest, quotas: Mapping[str, Quota], options: Options) -> list[str]:
    """What looks wrong about the options, also with the quotas, where there is a ledger every day."""
    nightly = options.ledger is not None and "{date}" in options.ledger
    filtered = options.changed_since or options.skip_active_jobs
    return [*option_warnings(options), *(_days_needed(listed, quotas) if nightly and not filtered else [])]


def _renamed_questions(found: Mapping[tuple[str, str], Row]) -> list[str]:
    """What a plan says where only the run can tell who signs."""
    return [
        f"{row.engagement}/{row.resource} stands in the ledger under account {other!r} and is to be sent "
        f"under {name!r}: if both sign for the same AWS account, the run is refused"
        for (other, name), row in found.items()
    ]


def _open_questions(listed: Manifest, options: Options) -> list[str]:
    """What is known only when the run begins, for whoever reads a forecast."""
    questions = []
    if listed.discover and not listed.found:
        questions.append("the rows of discover: are known only when it is run; they are not counted here")
    if options.changed_since or options.skip_active_jobs:
        questions.append("rows that are left out are known only when it is run; they are counted here")
    return questions


def _reminders(identity: _Identity, options: Options) -> dict[str, Path]:
    """Where unfinished ledgers are recorded; a simulator's snapshots are gone when it is."""
    if identity.endpoint == SIMULATOR:
        return {}
    return paths.unfinished_files(
        state_folder_of(options), identity.name, identity.accounts, identity.endpoint
    )


@contextmanager
def open_retry(
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
    head = writer.head(path)
    if head is None:
        raise LedgerError(f"{path}: no ledger: it does not begin with a run line")
    endpoint = resolve_targets(
        {}, replace(options, accounts=(), profile=None), profiles.endpoints, head.endpoint
    ).endpoint
    with ExitStack() as stack:
        if touch:
            stack.enter_context(_lock_file(path, now))
            writer.mend(path)
        live = not touch and locks.holder_lives(paths.ledger_lock(path))
        past = writer.history_of(path, live=live, checked=True)
        header = past.last or head
        _check_names(path, header)
        accounts = select_accounts(recorded_accounts(path, header), options)
        settings = recorded_settings(options, header.settings)
        quotas = effective_quotas(accounts, with_recorded_quotas(path, options, settings))
        identity = _Identity(header.name, accounts, endpoint)
        if touch:
            stack.enter_context(_lock_accounts(identity, options, now))
        _check_fits(past, path, identity, options.run_id)
        whom = Targets(accounts, quotas, endpoint)
        yield _of_retry(path, past, header, chosen=selection(past), whom=whom, options=options)


def _of_retry(
    path: Path, past: History, header: Header, *, chosen: Selection, whom: Targets, options: Options
) -> Job:
    """Make the job of `retry`, once its locks are held."""
    rows = backlog.LedgerRows(path, past, chosen, header.run_id, whom.accounts)
    renamed = rows.renamed()
    sent = backlog.count_by_account_and_catalog(rows.requests())
    settings = {**recorded_settings(options, header.settings), **extras_of(options)}
    rest = header.manifest and next_steps.run_command(header.manifest, str(path), whom.endpoint, settings)
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
        todo=backlog.count_by_account(sent),
        requests=rows.requests(),
        manifest=header.manifest,
        manifest_sha256=header.manifest_sha256,
        again=None,
        settings=settings,
        reminders=_reminders(_Identity(header.name, whom.accounts, whom.endpoint), options),
        doubled=rows.doubled,
        renamed=renamed,
        open_questions=_renamed_questions(renamed),
        rest=rest,
        warnings=option_warnings(options),
    )


@contextmanager
def _lock_file(path: Path, now: datetime) -> Iterator[None]:
    if files.exists(path) and path.is_dir():
        raise InputError(f"{path}: is a folder; name the ledger's file")
    lock = paths.ledger_lock(path)
    # Rows of a ledger that exists must not be sent again under another.
    known = os.path.lexists(path)
    elsewhere = "copy the ledger elsewhere and name the copy" if known else "name another place"
    with locks.held(lock, what=str(path), since=codec.timestamp(now), elsewhere=f"{elsewhere} with --ledger"):
        yield


@contextmanager
def _lock_accounts(identity: _Identity, options: Options, now: datetime) -> Iterator[None]:
    """Hold the manifest's name in each account, so that two nights never overlap."""
    state = state_folder_of(options)
    locks.make_room(len(identity.accounts))
    with ExitStack() as stack:
        for account in sorted(identity.accounts):
            lock = paths.account_lock(state, identity.name, account, identity.endpoint)
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
            if not writer.names_rows(path, account.name):
                continue  # nothing was sent for it yet: it is not settled who signs
            was = ", ".join(f"{key} {known.get(key) or 'none'}" for key in values)
            raise LedgerError(f"{path}: there account {account.name!r} is another one ({was}); {way_out}")


def _check_names(path: Path, header: Header) -> None:
    """Refuse names that no manifest can have: they become the names of files."""
    for name in (header.name, *header.accounts):
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or name in {".", ".."}:
            raise LedgerError(f"{path}: the run line names {name!r}, which no manifest can: it was edited")
