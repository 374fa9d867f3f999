"""What `run` and `retry` are about to do: which rows they send, under which ledger, for which accounts."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from batch_snapshot import files
from batch_snapshot.config.accounts import Targets
from batch_snapshot.config.options import option_warnings, recorded_settings
from batch_snapshot.errors import LedgerError
from batch_snapshot.jobs.locked import (
    LockedLedger,
    RetriedLedger,
    check_ledger_fits,
    read_history,
    reminder_files,
)
from batch_snapshot.jobs.plan import Selection, limited
from batch_snapshot.jobs.rows import LedgerRows, ManifestRows, renamed_rows
from batch_snapshot.ledger import history, reader
from batch_snapshot.ledger.history import History
from batch_snapshot.manifest import Manifest, find_duplicates
from batch_snapshot.models import SIMULATOR, Account, Request, Row
from batch_snapshot.ratelimit import forecast
from batch_snapshot.ratelimit.windows import calls_a_day
from batch_snapshot.reporting import next_steps, summary

#: Vanished rows that the summary names.
NAMED_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    command: str
    name: str
    path: Path
    run_id: str
    targets: Targets
    catalogs: frozenset[str]
    past: History
    total: int
    #: Rows to send, by account.
    todo: Mapping[str, int]
    #: Gives the rows in the order in which they are sent; None stands for one that is not sent.
    requests: Callable[[], Iterator[Request | None]]
    #: How many of them are sent at most; None: all.
    limit: int | None = None
    manifest_path: str | None
    manifest_sha256: str | None
    #: Over the file that keeps what `discover:` has found; None: the manifest has no such section.
    discovered_sha256: str | None = None
    #: Gives the rows without any history, each time it is called: those that may be left out.
    candidates: Callable[[], Iterator[Row]] | None = None
    settings: Mapping[str, Any]
    #: By account, where it is recorded that the ledger is unfinished (see `open_runs`).
    reminders: Mapping[str, Path]
    #: Paths of unfinished ledgers that are given up for this one.
    instead_of: Collection[str] = ()
    #: This command again, and the command for whatever is left.
    same_command: str | None = None
    rest_command: str | None = None
    #: Today's ledger and its command, where this ledger of another day is finished first.
    todays_ledger: Path | None = None
    todays_command: str | None = None
    #: Keys of rows that the ledger knows and the manifest lists no longer.
    vanished_keys: Collection[bytes] = ()
    warnings: Sequence[str] = ()
    #: Which rows are listed twice where names stand for the same AWS accounts.
    doubled: Callable[[Mapping[str, str]], Sequence[str]]
    #: By (name in the ledger, name now): a row to send that the ledger has under another account's name.
    renamed: Mapping[tuple[str, str], Row] = field(default_factory=dict)
    open_questions: Sequence[str] = ()

    @property
    def accounts(self) -> Mapping[str, Account]:
        return self.targets.accounts

    @property
    def endpoint(self) -> str:
        return self.targets.endpoint

    def planned(self) -> Mapping[str, int]:
        """How many rows this invocation sends, by account."""
        if self.limit is None:
            return self.todo
        return Counter(one.row.account for one in limited(self.requests(), self.limit) if one)

    @property
    def is_real(self) -> bool:
        """Whether it may make snapshots that cannot be undone."""
        return "AWS" in self.catalogs and self.endpoint != SIMULATOR and any(self.todo.values())

    @property
    def nothing_to_do(self) -> bool:
        """Whether there is neither a row to send nor an end line to write."""
        end = self.past.end
        if end is None or any(self.todo.values()):
            return False
        # An end is outdated if it counts rows as unattempted of which the manifest lists none any more.
        left = summary.count(self.past.counts(), self.total).unattempted
        return bool(left) or not end.counts.get("unattempted")

    @property
    def vanished(self) -> int:
        return len(self.vanished_keys)

    @property
    def vanished_rows(self) -> Sequence[str]:
        """Some of them in words, read from the ledger: that takes too long to do before the first call."""
        enough = min(NAMED_ROWS, self.vanished)
        named: list[str] = []
        with suppress(LedgerError):
            # Intents are a sixth of a ledger, and ours name every row.
            for kind in ("intent", ""):
                if len(named) < enough:
                    named = history.row_names(reader.lines(self.path, kind=kind), self.vanished_keys, enough)
        return named


def open_run(locked: LockedLedger, manifest: Manifest) -> Job:
    options, path, targets = locked.options, locked.path, locked.targets
    past = read_history(path, read_only=locked.read_only, shared_keys=manifest.keys)
    check_ledger_fits(past, path, manifest.name, targets, options.run_id)
    settings = recorded_settings(options)
    run_id = past.first.run_id if past.first else options.run_id or str(uuid4())
    vanished = {key for key in past.keys() if key not in manifest.keys}  # noqa: SIM118 - a method, no mapping
    rows = ManifestRows(manifest, past, run_id, targets.accounts)
    # A row that is still listed under the other name is listed twice: `doubled` finds it.
    renamed = renamed_rows(rows.requests(), past, targets.accounts) if vanished else {}
    warnings, questions = _warnings_and_questions(locked, manifest)
    return Job(
        command="run",
        name=manifest.name,
        path=path,
        run_id=run_id,
        targets=targets,
        catalogs=manifest.catalogs,
        past=past,
        total=manifest.rows + len(vanished),
        todo=rows.todo(),
        requests=rows.requests,
        limit=options.limit,
        manifest_path=str(files.resolved(manifest.path)),
        manifest_sha256=manifest.sha256,
        discovered_sha256=manifest.found_sha256,
        candidates=rows.candidates,
        settings=settings,
        reminders=reminder_files(manifest.name, targets, options),
        instead_of=locked.instead_of,
        same_command=next_steps.pinned(options.command_line, str(path)),
        rest_command=next_steps.run_command(str(manifest.path), str(path), targets.endpoint, settings),
        todays_ledger=locked.todays_ledger,
        todays_command=options.command_line if locked.todays_ledger else None,
        vanished_keys=vanished,
        warnings=warnings,
        doubled=partial(find_duplicates, manifest),
        renamed=renamed,
        open_questions=[*locked.refused, *_renamed_questions(renamed), *questions],
    )


def _renamed_questions(renamed: Mapping[tuple[str, str], Row]) -> list[str]:
    """What a dry run says where only the run can find out who signs."""
    return [
        f"{row.engagement}/{row.resource} is in the ledger under account {other!r} and is to be sent "
        f"under {name!r}: if both sign for the same AWS account, the run is refused"
        for (other, name), row in renamed.items()
    ]


def _warnings_and_questions(locked: LockedLedger, manifest: Manifest) -> tuple[list[str], list[str]]:
    """What looks wrong about options and quotas, and what a forecast cannot know."""
    options, quotas = locked.options, locked.targets.quotas
    rows = {name: manifest.rows_by_account.get(name, 0) for name in quotas}
    days = forecast.days_needed(rows, {name: calls_a_day(quota) for name, quota in quotas.items()})
    filtered = options.changed_since or options.skip_active_jobs
    nightly = "{date}" in (options.ledger or "")
    warnings = [*manifest.warnings, *locked.passed_over, *option_warnings(options)]
    questions = []
    if manifest.discover and not manifest.found:
        questions.append("the rows of discover: are known only when it is run; they are not counted here")
    if filtered:
        questions.append("rows that are left out are known only when it is run; they are counted here")
    return warnings + (days if nightly and not filtered else []), questions + days


def open_retry(
    locked: RetriedLedger, selection: Callable[[History], Selection] | Selection | None = None
) -> Job:
    """Make the job of `retry`; without a `selection`, of the rows that another try can cure."""
    path, past, header, targets = locked.path, locked.past, locked.header, locked.targets
    chosen = selection(past) if callable(selection) else selection or Selection()
    rows = LedgerRows(path, past, chosen, header.run_id, targets.accounts)
    renamed = renamed_rows(rows.requests(), past, targets.accounts)
    todo, catalogs = rows.todo()
    rest = header.manifest and next_steps.run_command(
        header.manifest, str(path), targets.endpoint, locked.settings
    )
    return Job(
        command="retry",
        name=header.name,
        path=path,
        run_id=header.run_id,
        targets=targets,
        catalogs=catalogs,
        past=past,
        total=header.rows,
        todo=todo,
        requests=rows.requests,
        limit=locked.options.limit,
        manifest_path=header.manifest,
        manifest_sha256=header.manifest_sha256,
        settings=locked.settings,
        reminders=reminder_files(header.name, targets, locked.options),
        rest_command=rest,
        warnings=option_warnings(locked.options),
        doubled=rows.doubled,
        renamed=renamed,
        open_questions=_renamed_questions(renamed),
    )
