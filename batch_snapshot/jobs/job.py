"""What `run` and `retry` are about to do: which rows they send, under which ledger, for which accounts."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import filterfalse
from uuid import uuid4

from msgspec import structs

from batch_snapshot import files
from batch_snapshot.config.options import option_warnings, recorded_settings
from batch_snapshot.errors import ManifestError
from batch_snapshot.jobs import identity_check, plan
from batch_snapshot.jobs.locked import LockedLedger, check_ledger_fits, read_history
from batch_snapshot.ledger import history, reader
from batch_snapshot.ledger.history import History
from batch_snapshot.ledger.records import Header
from batch_snapshot.manifest import Manifest, duplicates, find_duplicates
from batch_snapshot.manifest import rows as rows_of
from batch_snapshot.manifest.problems import Place, ProblemLog
from batch_snapshot.models import SIMULATOR, Account, Request, Row, Status
from batch_snapshot.ratelimit import forecast
from batch_snapshot.ratelimit.windows import calls_a_day
from batch_snapshot.reporting import next_steps
from batch_snapshot.reporting.stats import RunStats

Selecting = Callable[[History], plan.Selection] | plan.Selection


@dataclass(frozen=True, kw_only=True)
class Job(LockedLedger):
    #: Its run line, without the time and the accounts.
    header: Header
    catalogs: frozenset[str]
    past: History
    #: How many rows are to be sent, by account, whatever --limit says.
    todo: Mapping[str, int]
    #: A request for each row in the order in which they are sent; None stands for one that is not sent.
    all_requests: Callable[[], Iterator[Request | None]]
    #: Lines of an error: rows that are listed under two names of one AWS account.
    doubled: Callable[[Mapping[str, str]], list[str]]
    #: Keys of rows that the ledger knows and the manifest lists no longer.
    vanished_keys: Collection[bytes] = ()
    #: By (name in the ledger, name now): a row to send that the ledger has under another account's name.
    renamed: Mapping[tuple[str, str], Row]

    def planned(self) -> Mapping[str, int]:
        if self.options.limit is None:
            return self.todo
        return Counter(one.row.account for one in self.requests() if one)

    def requests(self) -> Iterator[Request | None]:
        return plan.limited(self.all_requests(), self.options.limit)

    def candidates(self) -> Iterator[Row]:
        """The rows without any history: those that may be left out."""
        return (one.row for one in self.all_requests() if one and one.row.key not in self.past.unfinished)

    def new_stats(self) -> RunStats:
        return RunStats(self.past, self.header.rows, self.todo)

    @property
    def rest_command(self) -> str | None:
        """The command for whatever is left."""
        return self.header.manifest and next_steps.run_command(self.header, str(self.path))

    @property
    def is_real(self) -> bool:
        return "AWS" in self.catalogs and self.endpoint != SIMULATOR and any(self.todo.values())

    @property
    def nothing_to_do(self) -> bool:
        """Whether there is neither a row to send nor an end line to write."""
        end = self.past.end
        if end is None or any(self.todo.values()):
            return False
        # An end is outdated if it counts rows as unattempted of which the manifest lists none any more.
        return bool(self.new_stats().counts.unattempted) or not end.counts.get("unattempted")


def open_run(locked: LockedLedger, manifest: Manifest) -> Job:
    options, accounts = locked.options, locked.accounts
    past = read_history(locked.path, read_only=locked.read_only, shared_keys=manifest.keys)
    older = check_ledger_fits(past, manifest.name, locked)
    run_id = past.first.run_id if past.first else options.run_id or str(uuid4())
    vanished = set(filterfalse(manifest.keys.__contains__, past.keys()))

    def requests() -> Iterator[Request | None]:
        return plan.resumed(_listed(manifest), past, run_id, accounts)

    # A row that is still listed under the other name is listed twice: `doubled` finds it.
    renamed = renamed_rows(requests(), past, accounts) if vanished else {}
    todo = _rows_todo(manifest, past, accounts, requests)
    warnings, questions = _warnings_and_questions(locked, manifest, todo)
    header = Header(
        run_id=run_id,
        command="run",
        name=manifest.name,
        manifest=str(files.resolved(manifest.path)),
        manifest_sha256=manifest.sha256,
        rows=manifest.rows + len(vanished),
        accounts={},
        endpoint=locked.endpoint,
        started_at=locked.now,
        settings=recorded_settings(options),
        discovered_sha256=manifest.found_sha256,
    )
    questions = [*locked.open_questions, *_renamed_questions(renamed), *questions]
    return Job(
        **vars(locked) | {"warnings": warnings + older, "open_questions": questions},
        header=header,
        catalogs=manifest.catalogs,
        past=past,
        todo=todo,
        all_requests=requests,
        doubled=partial(find_duplicates, manifest),
        vanished_keys=vanished,
        renamed=renamed,
    )


def _listed(manifest: Manifest) -> Iterator[Row]:
    """The manifest's rows, and none that it did not list when it was validated."""
    for row in rows_of(manifest):
        if row.key not in manifest.keys:
            text = f"{manifest.path}: changed while the run read it: run the same command again"
            raise ManifestError([text])
        yield row


def _rows_todo(
    manifest: Manifest,
    past: History,
    accounts: Mapping[str, Account],
    requests: Callable[[], Iterator[Request | None]],
) -> Mapping[str, int]:
    """How many are to be sent, by account; another pass over the manifest only where it must be."""
    done = {Status.SUCCEEDED, Status.FAILED}
    settled = sum(past.status(key) in done or past.is_skipped(key) for key in manifest.keys)
    if not settled:
        return {name: count for name, count in manifest.rows_by_account.items() if name in accounts}
    if len(manifest.accounts) == 1:
        return dict.fromkeys(accounts, manifest.rows - settled)
    return Counter(request.row.account for request in requests() if request)


def _renamed_questions(renamed: Mapping[tuple[str, str], Row]) -> list[str]:
    """What a dry run says where only the run can find out who signs."""
    return [
        f"{row.engagement}/{row.resource} is in the ledger under account {other!r} and is to be sent "
        f"under {name!r}: if both sign for the same AWS account, the run is refused"
        for (other, name), row in renamed.items()
    ]


def _warnings_and_questions(
    locked: LockedLedger, manifest: Manifest, todo: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """What looks wrong about options and quotas, and what a forecast cannot know."""
    options, quotas = locked.options, locked.targets.quotas
    filtered = options.changed_since or options.skip_active_jobs
    nightly = "{date}" in (options.ledger or "")
    # Every night sends all rows; any other ledger only those that are left.
    sent = manifest.rows_by_account if nightly else todo
    rows = {name: sent.get(name, 0) for name in quotas}
    days = forecast.days_needed(rows, {name: calls_a_day(quota) for name, quota in quotas.items()})
    warnings = [*manifest.warnings, *locked.warnings, *option_warnings(options)]
    questions = []
    if manifest.discover and not manifest.found:
        questions.append("the rows of discover: are known only when it is run; they are not counted here")
    if filtered:
        questions.append("rows that are left out are known only when it is run; they are counted here")
    return warnings + (days if nightly and not filtered else []), questions + days


def open_retry(locked: LockedLedger, past: History, selection: Selecting | None = None) -> Job:
    """Make the job of `retry`; without a `selection`, of the rows that another try can fix."""
    options, path, accounts = locked.options, locked.path, locked.accounts
    before = past.last or locked.began
    assert before is not None  # noqa: S101 - a ledger to be retried has begun
    warnings = option_warnings(options) + check_ledger_fits(past, before.name, locked, retry=True)
    settings = recorded_settings(options, before.settings)
    header = structs.replace(before, command="retry", endpoint=locked.endpoint, settings=settings)
    header = structs.replace(header, version=None, discovered_sha256=None, unrecorded_since=None)
    chosen = selection(past) if callable(selection) else selection or plan.Selection()

    def requests() -> Iterator[Request | None]:
        pasts = history.unfinished_rows(reader.lines(path), past)
        return plan.retried(pasts, chosen, header.run_id, accounts, past.unrecorded_since)

    def doubled(same: Mapping[str, str]) -> list[str]:
        place = Place(0, str(path), 0)
        return duplicates.find(lambda: ((one.row, place) for one in requests() if one), same, ProblemLog())

    renamed = renamed_rows(requests(), past, accounts)
    todo, catalogs = Counter[str](), set[str]()
    for request in filter(None, requests()):
        todo[request.row.account] += 1
        catalogs.add(request.row.catalog)
    return Job(
        **vars(locked) | {"warnings": warnings, "open_questions": _renamed_questions(renamed)},
        header=header,
        catalogs=frozenset(catalogs),
        past=past,
        todo=todo,
        all_requests=requests,
        doubled=doubled,
        renamed=renamed,
    )


def renamed_rows(
    requests: Iterator[Request | None], past: History, accounts: Mapping[str, Account]
) -> dict[tuple[str, str], Row]:
    """By (another name, name): the first row to send under a name that the ledger has under the other.

    Accounts of another endpoint or with another AWS account number don't count. Of a row that the ledger has
    under both names, a failed state under the other name does not count: it made no snapshot.
    """
    settings = past.last.accounts if past.last else {}
    others = {}
    for name, account in accounts.items():
        now = f"{identity_check.AWS_PREFIX}{account.number}" if account.number else past.signers.get(name, "")
        others[name] = [
            other
            for other, known in settings.items()
            if other != name and known.get("endpoint_url") == account.endpoint_url
            if identity_check.may_be_same(past.signers.get(other), now, alike=True)
        ]
    found: dict[tuple[str, str], Row] = {}
    if not any(others.values()):
        return found
    for request in filter(None, requests):
        row = request.row
        known = row.key in past.unfinished
        for other in others[row.account]:
            status = past.status(row._replace(account=other).key)
            if status and not (known and status is Status.FAILED):
                found.setdefault((other, row.account), row)
    return found
