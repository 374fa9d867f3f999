"""What `run` and `retry` are about to do: which rows, under which ledger, for whom.

A `Job` holds the locks of its ledger and accounts for as long as its block lasts. Nothing is
called or written here but the locks.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from batch_snapshot import codec, history, ledger, locks, manifest, places, plan, report, unfinished
from batch_snapshot.endpoint import configured
from batch_snapshot.engine import DEFAULTS, Settings
from batch_snapshot.errors import InputError, LedgerError, ManifestError
from batch_snapshot.history import Header, History
from batch_snapshot.manifest.doubles import Doubles, Place
from batch_snapshot.model import AWS, REGION, SIMULATOR, Quota, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from batch_snapshot.lease import Placing
    from batch_snapshot.manifest import Manifest
    from batch_snapshot.model import Account, Request, Row

#: Seconds for which an unfinished ledger of another day is resumed first.
RESUME_WITHIN = 20 * 3600.0

#: Vanished rows that the summary names.
NAMED_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How `run` and `retry` go about it. Times are in seconds."""

    #: Path of the ledger; may hold {name} and {date}. None: the default of the manifest's name.
    ledger: str | None = None
    #: For a new ledger; None: a random one.
    run_id: str | None = None
    #: Accounts to call for, by name or as tag:NAME; none named: all.
    accounts: tuple[str, ...] = ()
    #: Calls a second and account: a number over the manifest's, "auto" to find it out, None: the manifest's.
    rate: float | str | None = None
    #: Calls in any 24 hours and account, over the manifest's; None: the manifest's.
    daily_quota: int | None = None
    #: Wait for a spent quota window to open, instead of ending.
    wait: bool = False
    #: Against a simulator that lives as long as the run.
    simulate: bool = False
    #: The file that keeps the simulator's world from one command to the next.
    simulator_state: Path | None = None
    #: Reads a second and account; None: what AWS allows.
    read_rate: float | None = None
    #: Leave out pairs whose opportunity was not modified since their "last" snapshot, or a time
    #: (see `filters.since`); None: leave out none.
    changed_since: str | None = None
    #: Leave out pairs that a running snapshot job of AWS's takes care of.
    skip_active_jobs: bool = False
    endpoint_url: str | None = None
    #: For accounts that name none of their own.
    region: str | None = None
    profile: str | None = None
    #: The folder for what outlives a run; None: as the environment says.
    state_dir: Path | None = None
    #: Begin a new ledger where an unfinished one has vanished.
    new_ledger: bool = False
    #: With {date} in the ledger's name: an unfinished ledger so young is resumed first.
    resume_within: float = RESUME_WITHIN
    engine: Settings = DEFAULTS
    #: The Dask cluster whose workers make the calls; None: this process does.
    placing: Placing | None = None
    #: The command line that goes on where this one stops, for the summary.
    command_line: str | None = None


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


class Recalled(NamedTuple):
    """What a ledger said before its lock was held; it holds while the file is the same."""

    past: History
    #: Of the file that was read.
    stamp: tuple[int, ...]

    def done(self, key: bytes) -> bytes | None:
        """The key as the history keeps it, if a run has nothing to do for its row."""
        held = self.past.succeeded.get(key)
        if held is None and (self.past.status(key) is Status.FAILED or self.past.left_out(key)):
            return key
        return held


def load(
    path: Path, options: Options, now: datetime, *, touch: bool = True
) -> tuple[Manifest, Recalled | None]:
    """Validate the manifest at `path`; where most of it is done, find at once what is left.

    Raises:
        ManifestError: it is not valid.
    """
    recalled = _recall(path, options, now) if touch else None
    return manifest.load(path, done=recalled.done if recalled else None), recalled


def _recall(path: Path, options: Options, now: datetime) -> Recalled | None:
    """What the ledger of a run of the manifest says by now; None: there is none, or it is not found."""
    name = manifest.name_of(path)
    if name is None:
        return None
    # Whatever is wrong with the ledger is told once it is locked.
    with suppress(InputError, OSError):
        book, _ = _ledger_to_write(_pattern(options), name, options, now)
        stamp = _stamp(book)
        past = ledger.history_of(book)
        return Recalled(past, stamp) if past.first else None
    return None


def _pattern(options: Options) -> str:
    return places.ledger_pattern(options.ledger, simulated=options.simulate)


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Called(NamedTuple):
    """Whom a command calls for, and where."""

    accounts: Mapping[str, Account]
    #: By account: what holds in this invocation.
    quotas: Mapping[str, Quota]
    endpoint: str


def called(accounts: Mapping[str, Account], options: Options, endpoint: str | None = None) -> Called:
    """The accounts to call for as they will sign, and where; an `endpoint` holds where none is named.

    Raises:
        InputError: the options don't fit the accounts, or each other.
    """
    if options.simulator_state and not options.simulate:
        raise InputError("--state is the simulator's: use it with --simulate")
    chosen = _selected(accounts, options)
    given = endpoint is None or options.simulate or options.endpoint_url
    where = _endpoint(options) if given else endpoint
    return Called(chosen, _quotas(chosen, options), where or AWS)


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
        first = next((line.record for line in ledger.read(self.path)), None)
        return first if isinstance(first, Header) else None


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

    What `load` has `recalled` beside the manifest is not read again.

    Raises:
        InputError: manifest and options don't fit together.
        StorageError: a lock is held, or cannot be made.
    """
    who = called(listed.accounts, options)
    path, passed_over = _ledger_to_write(_pattern(options), listed.name, options, now)
    identity = _Identity(listed.name, who.accounts, who.endpoint)
    with ExitStack() as stack:
        if touch:
            stack.enter_context(_ledger_held(path, now))
            stack.enter_context(_accounts_held(identity, options, now))
            ledger.mend(path)
        yield Reserved(listed, options, path, who, recalled, touch, passed_over)


class _Rows(NamedTuple):
    """The rows of a manifest, and what their ledger says of them."""

    listed: Manifest
    past: History
    run_id: str
    accounts: Mapping[str, Account]
    #: Those that are not done, where they are known.
    left: Sequence[Row] | None

    def requests(self) -> Iterator[Request | None]:
        """What is to be sent; see `plan.resumed`."""
        rows = _validated(self.listed) if self.left is None else self.left
        return plan.resumed(rows, self.past, self.run_id, self.accounts)

    def candidates(self) -> Iterator[Row]:
        """The rows without any history among them."""
        return (one.row for one in self.requests() if one and one.row.key not in self.past.unfinished)

    def todo(self) -> Mapping[str, int]:
        """How many are to be sent, by account; another pass over the manifest only where it must be."""
        listed, accounts, settled = self.listed, self.accounts, self._settled()
        if not settled:
            return {name: rows for name, rows in listed.rows_by_account.items() if name in accounts}
        if len(listed.accounts) == 1:
            return dict.fromkeys(accounts, listed.rows - settled)
        return _by_account(_sent(self.requests()))

    def _settled(self) -> int:
        """How many have nothing left to do."""
        if self.left is not None:
            return self.listed.rows - len(self.left)
        past, done = self.past, {Status.SUCCEEDED, Status.FAILED}
        return sum(past.status(key) in done or past.left_out(key) for key in self.listed.keys)


def of_run(held: Reserved, listed: Manifest) -> Job:
    """Make the job of `run`.

    Args:
        held: the ledger and its locks.
        listed: the manifest, with what its `discover:` has found.

    Raises:
        InputError: ledger, manifest and options don't fit together.
    """
    options, path, (accounts, quotas, endpoint) = held.options, held.path, held.called
    past, left = _looked_up(path, held.recalled, listed, live=not held.touch)
    identity = _Identity(listed.name, accounts, endpoint)
    _check_fits(past, path, identity, options.run_id)
    reminders = _reminders(identity, options)
    if held.touch:
        unfinished.check(reminders, path, begun=past.first is not None, anew=options.new_ledger)
    run_id = past.first.run_id if past.first else options.run_id or str(uuid4())
    gone = {key for key in past.keys() if key not in listed.keys}  # noqa: SIM118 - a method, no mapping
    rows = _Rows(listed, past, run_id, accounts, left)
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
        settings=_settings(options),
        reminders=reminders,
        again=options.command_line,
        rest=report.run_command(str(listed.path), str(path), endpoint, _settings(options)),
        doubled=partial(manifest.doubled, listed),
        gone=gone,
        warnings=[*listed.warnings, *_warnings(options), *held.passed_over],
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


def _looked_up(
    path: Path, recalled: Recalled | None, listed: Manifest, *, live: bool
) -> tuple[History, Sequence[Row] | None]:
    """The ledger's history, and the rows left to do if that was known when the manifest was loaded.

    With `live` a run may be writing it, whose rows are not in doubt.
    """
    if recalled is not None and places.there(path) and _stamp(path) == recalled.stamp:
        return recalled.past, listed.left
    live = live and places.there(path) and locks.holder_lives(places.ledger_lock(path))
    return ledger.history_of(path, live=live), None


def _reminders(identity: _Identity, options: Options) -> list[Path]:
    """Where unfinished ledgers are kept in mind; a simulator's snapshots are gone when it is."""
    if identity.endpoint == SIMULATOR:
        return []
    state = places.state_folder(options.state_dir, os.environ)
    return places.unfinished_files(state, identity.name, identity.accounts, identity.endpoint)


#: Of a run that retry goes on with, where it does not say otherwise.
_INHERITED = ("rate", "daily_quota", "state_dir", "profile", "region")


def _settings(options: Options, before: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """What the run line keeps of the options: enough to make the command line that goes on."""
    engine = options.engine
    settings = {
        "concurrency": engine.concurrency,
        "rate": options.rate,
        "daily_quota": options.daily_quota,
        "wait": options.wait,
        "max_attempts": engine.max_attempts,
        "token_ttl": engine.token_ttl,
        "resend_in_doubt": engine.resend_in_doubt,
        "max_duration": engine.max_duration,
        "accounts": list(options.accounts),
        "profile": options.profile,
        "region": options.region,
        "state_dir": str(options.state_dir) if options.state_dir else None,
        "engine": "dask" if options.placing else None,
        "scheduler": options.placing.scheduler if options.placing else None,
    }
    inherited = {key: before[key] for key in _INHERITED if settings[key] is None and key in before}
    return {**settings, **inherited}


def _sent(requests: Iterator[Request | None]) -> Counter[tuple[str, str]]:
    """The rows to send, by account and catalog."""
    return Counter((request.row.account, request.row.catalog) for request in requests if request)


def _by_account(sent: Counter[tuple[str, str]]) -> Mapping[str, int]:
    rows: Counter[str] = Counter()
    for (account, _), number in sent.items():
        rows[account] += number
    return rows


def _validated(listed: Manifest) -> Iterator[Row]:
    """The manifest's rows, and none that it did not list when it was validated."""
    for row in manifest.rows(listed):
        if row.key not in listed.keys:
            raise ManifestError([f"{listed.path}: changed while the run read it: run the same command again"])
        yield row


@contextmanager
def for_retry(
    path: Path,
    selection: Callable[[History], plan.Selection],
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
    head = next((line.record for line in ledger.read(path)), None)
    if not isinstance(head, Header):
        raise LedgerError(f"{path}: no ledger: it does not begin with a run line")
    endpoint = called({}, replace(options, accounts=(), profile=None), head.endpoint).endpoint
    with ExitStack() as stack:
        if touch:
            stack.enter_context(_ledger_held(path, now))
            ledger.mend(path)
        past = ledger.history_of(path, live=not touch and locks.holder_lives(places.ledger_lock(path)))
        header = past.last or head
        _check_names(path, header)
        accounts = _selected(accounts_of(path, header), options)
        settings = _settings(options, header.settings)
        quotas = _quotas(accounts, _as_before(path, options, settings))
        identity = _Identity(header.name, accounts, endpoint)
        if touch:
            stack.enter_context(_accounts_held(identity, options, now))
        _check_fits(past, path, identity, options.run_id)
        whom = Called(accounts, quotas, endpoint)
        yield _of_retry(path, past, header, chosen=selection(past), whom=whom, options=options)


def _of_retry(
    path: Path, past: History, header: Header, *, chosen: plan.Selection, whom: Called, options: Options
) -> Job:
    """Make the job of `retry`, once its locks are held."""

    def requests() -> Iterator[Request | None]:
        return plan.retried(history.rows_of(ledger.read(path), past), chosen, header.run_id, whom.accounts)

    sent = _sent(requests())
    settings = _settings(options, header.settings)
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
        todo=_by_account(sent),
        requests=requests(),
        manifest=header.manifest,
        manifest_sha256=header.manifest_sha256,
        again=None,
        settings=settings,
        reminders=_reminders(_Identity(header.name, whom.accounts, whom.endpoint), options),
        doubled=partial(_doubled, path, requests),
        rest=rest,
        warnings=_warnings(options),
    )


def _doubled(
    path: Path, requests: Callable[[], Iterator[Request | None]], same: Mapping[str, str]
) -> list[str]:
    """Which rows of a ledger are to be sent twice, where names stand for the same AWS accounts."""
    there = Place(0, str(path), 0)
    doubles = Doubles(same)
    for request in requests():
        if request:
            doubles.look(request.row, there)
    again = ((request.row, there) for request in requests() if request)
    return [f"{place}: {text}" for place, text in doubles.told(again)]


def _selected(accounts: Mapping[str, Account], options: Options) -> dict[str, Account]:
    """The accounts to call for, as they will sign: the options fill what they leave open."""
    chosen = {name: accounts[name] for name in _meant(accounts, options.accounts)}
    if options.profile and all(account.profile for account in chosen.values()):
        raise InputError(f"--profile {options.profile}: every account names a profile of its own already")
    return {
        name: replace(
            account,
            profile=account.profile or options.profile,
            region=account.region or options.region,
        )
        for name, account in chosen.items()
    }


#: Before a tag, where an account's name could stand.
TAG = "tag:"


def _meant(accounts: Mapping[str, Account], words: Sequence[str]) -> Iterable[str]:
    """The names of the accounts that these words select, names and tags: each once, or all without a word.

    Raises:
        InputError: an account is not there, or no account has a tag.
    """
    tagged: dict[str, list[str]] = {}
    for account in accounts.values():
        for tag in account.tags:
            tagged.setdefault(tag, []).append(account.name)
    names: dict[str, None] = {}
    for word in words or accounts:
        tag = word.removeprefix(TAG)
        if tag == word and word not in accounts:
            raise InputError(f"--accounts {word}: no such account; there are: {', '.join(sorted(accounts))}")
        if tag != word and tag not in tagged:
            there = f"there are: {', '.join(sorted(tagged))}" if tagged else "none of them has any"
            raise InputError(f"--accounts {word}: no account has this tag; {there}")
        names |= dict.fromkeys([word] if tag == word else tagged[tag])
    return names


def _quotas(accounts: Mapping[str, Account], options: Options) -> dict[str, Quota]:
    """The quotas that hold: the options' over the manifest's."""
    return {name: _quota(account, options) for name, account in accounts.items()}


def _quota(account: Account, options: Options) -> Quota:
    quota = account.quota
    if options.daily_quota is not None:
        if options.daily_quota <= quota.reserve:
            raise InputError(
                f"--daily-quota {options.daily_quota}: account {account.name!r} reserves {quota.reserve} "
                "calls for others, which leaves nothing: give more"
            )
        quota = replace(quota, per_day=options.daily_quota)
    if options.rate is not None:
        quota = replace(quota, per_second=None if isinstance(options.rate, str) else options.rate)
    return quota


def state_of(options: Options) -> Path:
    """The folder for what outlives a run."""
    return places.state_folder(options.state_dir, os.environ)


def _as_before(path: Path, options: Options, settings: Mapping[str, Any]) -> Options:
    """The options with the quotas of the run that is gone on with, where they name none.

    Raises:
        LedgerError: the ledger's make no sense.
    """
    rate, daily = settings["rate"], settings["daily_quota"]
    number = isinstance(rate, float | int) and 1e-6 <= rate <= 999_999
    if not (rate is None or rate == "auto" or number) or not (
        daily is None or (isinstance(daily, int) and daily > 0)
    ):
        raise LedgerError(f"{path}: the run line's rate or daily_quota makes no sense: it was edited")
    return replace(options, rate=rate, daily_quota=daily)


def _warnings(options: Options) -> list[str]:
    regions = {options.region} - {None, REGION}
    return [f"--region {region}: only {REGION} serves the API" for region in regions]


def _endpoint(options: Options) -> str:
    if options.simulate and options.endpoint_url:
        raise InputError("--simulate and --endpoint-url exclude each other: choose one")
    if options.simulate:
        return SIMULATOR
    # What botocore would heed is heeded here, so that the ledger tells where the calls went.
    url = options.endpoint_url or configured(os.environ)
    return url.rstrip("/") if url else AWS


def _ledger_to_write(pattern: str, name: str, options: Options, now: datetime) -> tuple[Path, list[str]]:
    """Today's ledger, or with {date} in its name a young one of another day that is not finished.

    What is no ledger is passed over, with a warning.
    """
    today = places.ledger_path(pattern, name, now)
    warnings: list[str] = []
    if places.there(today):
        return today, warnings
    for path in places.dated_ledgers(pattern, name):
        try:
            first = next((line.record for line in ledger.read(path)), None)
        except LedgerError as error:
            warnings.append(f"passed over: {error}")
            continue
        if not isinstance(first, Header) or first.name != name:
            continue
        if resumable(path, now, options.resume_within):
            return path, warnings
    return today, warnings


def resumable(path: Path, now: datetime, within: float = RESUME_WITHIN, name: str | None = None) -> bool:
    """Whether a dated ledger is not finished and so young that `run` goes on with it.

    Args:
        path: of the ledger.
        now: the wall clock.
        within: seconds since its run began.
        name: of the manifest that it has to be of, if that matters.

    Raises:
        LedgerError: it is no ledger.
    """
    first = next((line.record for line in ledger.read(path)), None)
    if not isinstance(first, Header) or first.name != (name or first.name):
        return False
    age = (now - first.started_at).total_seconds()
    return age <= within and not ledger.history_of(path).finished


@contextmanager
def _ledger_held(path: Path, now: datetime) -> Iterator[None]:
    if places.there(path) and path.is_dir():
        raise InputError(f"{path}: is a folder; name the ledger's file")
    with locks.held(places.ledger_lock(path), what=str(path), since=codec.timestamp(now)):
        yield


@contextmanager
def _accounts_held(identity: _Identity, options: Options, now: datetime) -> Iterator[None]:
    """Hold the manifest's name in each account, so that two nights never overlap."""
    state = places.state_folder(options.state_dir, os.environ)
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


def allowed(path: Path, header: Header) -> dict[str, Account]:
    """The accounts of a run line, with the quotas that its run was given.

    Raises:
        InputError: they make no sense.
    """
    accounts = accounts_of(path, header)
    given = {"rate": None, "daily_quota": None, **header.settings}
    quotas = _quotas(accounts, _as_before(path, Options(), given))
    return {name: replace(account, quota=quotas[name]) for name, account in accounts.items()}


def accounts_of(path: Path, header: Header) -> dict[str, Account]:
    """The accounts as a ledger's head keeps them."""
    try:
        return {name: codec.decode_account(name, fields) for name, fields in header.accounts.items()}
    except (TypeError, ValueError) as error:
        raise LedgerError(f"{path}: the run line's accounts make no sense ({error})") from None
