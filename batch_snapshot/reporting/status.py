"""The state of a ledger, also while a run is writing it, and of the ledgers of a folder."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from batch_snapshot import files, paths
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError, LedgerError, StorageError
from batch_snapshot.ledger import locks, prune, reader
from batch_snapshot.ledger.history import FailureGroup, History, failure_group
from batch_snapshot.ledger.records import Header, Result, named_rows
from batch_snapshot.models import SIMULATOR
from batch_snapshot.reporting.display import DisplayPart, Frame, window_uses
from batch_snapshot.reporting.entries import CRASH_MESSAGE
from batch_snapshot.reporting.next_steps import resume_command
from batch_snapshot.reporting.stats import EXAMPLES, LedgerStats
from batch_snapshot.reporting.summary import Example, Summary, count_named

if TYPE_CHECKING:
    from batch_snapshot.engine.limits import AccountForecast


def read_status(path: Path, now: Callable[[], datetime] = utc_now) -> Summary:
    watch = LedgerWatch(path, now)
    watch.refresh()
    return watch.summary()


class LedgerWatch:
    def __init__(self, path: Path, now: Callable[[], datetime] = utc_now) -> None:
        self._path, self._now = path, now
        self.stats = LedgerStats()
        #: Whether a run was writing it at the last refresh.
        self.running = False

    def refresh(self) -> None:
        # First the lock, then the lines: the last ones of a run that ends meanwhile are read too.
        self.running = locks.is_held(paths.ledger_lock(self._path))
        if self.running or self._path.exists():
            for line in reader.lines(self._path, after=self.stats.line):
                try:
                    self.stats.add(line)
                except LedgerError as error:
                    raise reader.with_place(self._path, line.number, error) from None
        if not self.running:
            self.stats.mark_crashed()
        if self.stats.history.last is None and not files.exists(self._path):
            raise reader.missing(self._path)
        _ = self.header

    @property
    def header(self) -> Header:
        return begun(self._path, self.stats.history)

    def _elapsed(self) -> float:
        """Seconds that the last invocation has taken; of one that crashed, until its last result."""
        last = self.stats.invocations[-1]
        until = self._now() if self.running else last.ended
        return max(0.0, (until - last.began).total_seconds())

    def summary(self) -> Summary:
        found = self.stats.summary(
            self.header, str(self._path), running=self.running, elapsed_s=self._elapsed()
        )
        return replace(found, examples=find_examples(self._path, self.stats.history, found.failures))

    def frame(self) -> Frame:
        """What was read, for a display; calls are those of rows that have a result."""
        stats, counts, accounts = self.stats, self.stats.counts, self.stats.ordered(self.header)
        last, now = stats.invocations[-1], self._now()
        rate = stats.rate(now)
        alone = counts.total if len(accounts) == 1 else None
        todo = counts.unattempted + counts.in_doubt
        forecasts = self.forecasts(dict.fromkeys(accounts, todo), rate) if self.running else {}
        known = forecasts.values() if alone and rate else ()
        left = max((account.forecast.ends_in for account in known), default=todo / rate if rate else None)
        return Frame(
            name=self.header.name,
            counts=counts,
            elapsed=self._elapsed(),
            at=now,
            # The ledger of a retry does not say which rows it has selected.
            left=left if last.command == "run" else None,
            deferred=sum(account.forecast.deferred for account in known),
            calls=last.calls.total(),
            throttled=last.throttled.total(),
            resume=resume_command(str(self._path)) if stats.paused else None,
            failures=+stats.rows.failures,
            last_error=stats.last_error,
            parts=[
                DisplayPart(
                    name=name,
                    done=rows.statuses.total(),
                    rows=alone,
                    rate=stats.rate(now, name),
                    failed=rows.failed,
                    throttled=last.throttled[name],
                    windows=window_uses(forecasts[name]) if name in forecasts else (),
                )
                for name, rows in accounts.items()
            ],
        )

    def forecasts(self, rows: Mapping[str, int], rate: float | None = None) -> "dict[str, AccountForecast]":
        """How full each account's quota windows are, and how long its `rows` will take at a measured rate.

        Read from the log of calls; empty without one.
        """
        # These take half of the time of `status`, and are needed only while a run is going on.
        from batch_snapshot.config.accounts import accounts_with_quotas
        from batch_snapshot.engine.limits import AccountLimits
        from batch_snapshot.ratelimit.windows import CallLog

        header = self.header
        folder, wait = header.settings.get("state_dir"), bool(header.settings.get("wait"))
        if header.endpoint == SIMULATOR:
            state = header.settings.get("simulator_state")
            if not state:
                return {}  # its state ends with the run
            folder = str(paths.simulated_state(Path(state), Path(folder) if folder else None))
        # A log that cannot be read is the run's problem, not that of `status`.
        with suppress(InputError, StorageError):
            file = paths.call_log_file(paths.state_folder(Path(folder) if folder else None, os.environ))
            if files.exists(file):
                accounts = accounts_with_quotas(self._path, header, self.stats.invocations[-1].rates)
                with CallLog(file) as call_log:
                    limits = AccountLimits(accounts, header.endpoint, call_log, os.environ)
                    return {
                        name: replace(found, forecast=found.forecast.for_run(wait=wait))
                        for name, number in rows.items()
                        if name in accounts
                        for found in [limits.forecast(name, number, rate or None)]
                    }
        return {}


def find_examples(
    path: Path, history: History, groups: Collection[FailureGroup], without: Collection[bytes] = ()
) -> dict[FailureGroup, list[Example]]:
    """A few rows of each of the groups, but none of those whose keys are in `without`."""
    wanted: dict[int, dict[bytes, FailureGroup]] = defaultdict(dict)
    missing = Counter(dict.fromkeys(groups, EXAMPLES))
    for key, past in history.unfinished.items():
        if past.status and key not in without and missing[group := failure_group(past)] > 0:
            missing[group] -= 1
            wanted[past.offset][key] = group
    found: defaultdict[FailureGroup, list[Example]] = defaultdict(list)
    with suppress(LedgerError):
        for offset, rows in sorted(wanted.items()):
            for line in islice(reader.lines(path, start=offset), 1):
                error = line.record.error if isinstance(line.record, Result) else None
                message = error.message if error else CRASH_MESSAGE
                for row in named_rows(line.record):
                    if row.key in rows:
                        found[rows[row.key]].append(Example(row, message))
    return found


def begun(path: Path, past: History) -> Header:
    if past.last is None:
        raise LedgerError(f"{path}: no run has begun in it; name a ledger that a run has written")
    return past.last


def check_ledger(path: Path) -> int:
    return begun(path, reader.whole_history_of(path)).rows


class ListedLedger(NamedTuple):
    ledger: Path
    name: str
    endpoint: str
    #: As `read_status` has it; damaged: it cannot be read to its end.
    outcome: str
    #: The outcome for people, such as "completed with failures".
    result: str
    counts: dict[str, int]
    started_at: datetime
    changed_at: datetime


def list_ledgers(folder: Path) -> list[ListedLedger]:
    """The ledgers in a folder, the latest first; only of those without an end line every line is read."""
    found = [_listed(one) for one in prune.ledgers_in(folder)]
    return sorted(found, key=lambda one: one.changed_at, reverse=True)


def _listed(found: prune.OldLedger) -> ListedLedger:
    path = found.path
    changed_at = datetime.fromtimestamp(path.stat().st_mtime, found.started_at.tzinfo)
    try:
        end = reader.last_end(path)
        if end and end.counts:
            known = count_named(end.counts)
            summary = Summary(outcome=end.outcome, counts=known, failures={}, ledger=str(path))
            changed_at = end.finished_at
        else:
            summary = read_status(path)
        outcome, result, counts = summary.outcome, summary.result, summary.counts.as_dict()
    except LedgerError:
        outcome, result, counts = "damaged", "damaged", {}
    name, endpoint = found.series
    return ListedLedger(path, name, endpoint, outcome, result, counts, found.started_at, changed_at)
