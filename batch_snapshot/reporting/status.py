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
from batch_snapshot.reporting.next_steps import resume_command, run_command
from batch_snapshot.reporting.stats import EXAMPLES, LedgerStats, RowCounts
from batch_snapshot.reporting.summary import AccountSummary, Example, Summary, count_named
from batch_snapshot.text import plural

if TYPE_CHECKING:
    from batch_snapshot.engine.limits import AccountForecast


def read_status(path: Path, now: Callable[[], datetime] = utc_now) -> Summary:
    watch = LedgerWatch(path, now)
    watch.refresh()
    return watch.summary()


class LedgerWatch:
    def __init__(self, path: Path, now: Callable[[], datetime] = utc_now) -> None:
        self.path, self._now = path, now
        self.stats = LedgerStats()
        #: Whether a run was writing it at the last refresh.
        self.running = False

    def refresh(self) -> None:
        # First the lock, then the lines: the last ones of a run that ends meanwhile are read too.
        self.running = locks.is_held(paths.ledger_lock(self.path))
        if self.running or self.path.exists():
            for line in reader.lines(self.path, after=self.stats.line):
                try:
                    self.stats.add(line)
                except LedgerError as error:
                    raise reader.with_place(self.path, line.number, error) from None
        if not self.running:
            self.stats.mark_crashed()
        history = self.stats.history
        if history.last is None and not files.exists(self.path):
            raise reader.missing(self.path)
        begun(self.path, history)
        if not history.end:
            self.stats.invocations[-1].outcome = "running" if self.running else "crashed"

    @property
    def header(self) -> Header:
        return begun(self.path, self.stats.history)

    @property
    def accounts(self) -> dict[str, RowCounts]:
        """Those that have results, in the order of the run line."""
        known = self.stats.accounts
        return {name: known[name] for name in (*self.header.accounts, *known) if name in known}

    def _elapsed(self) -> float:
        """Seconds that the last invocation has taken; of one that crashed, until its last result."""
        last = self.stats.invocations[-1]
        until = self._now() if self.running else last.ended
        return max(0.0, (until - last.began).total_seconds())

    def summary(self) -> Summary:
        found = self.totals(self._elapsed())
        return replace(found, examples=find_examples(self.path, self.stats.history, found.failures))

    def totals(self, elapsed_s: float) -> Summary:
        """The summary without examples, which take another look at the ledger."""
        stats, header, ledger = self.stats, self.header, str(self.path)
        last, reasons = stats.invocations[-1], ["paused by `control`"] if stats.paused else []
        if self.running:
            number = plural(len(stats.history.pending), "row")
            verb = "is" if number == "1 row" else "are"
            reasons.append(f"{number} {verb} about to be sent or wait for an answer")
        # A completed run of some accounts leaves the others to do.
        kept = () if last.outcome == "completed" else ("accounts",)
        again = run_command(header, ledger, *kept) if header.manifest else None
        if last.outcome == "running":
            again = resume_command(ledger) if stats.paused else None
        return Summary(
            counts=stats.counts,
            failures=stats.rows.failures,
            outcome=last.outcome,
            ledger=ledger,
            run_id=header.run_id,
            elapsed_s=elapsed_s,
            accounts={
                name: AccountSummary(
                    calls=last.calls[name],
                    throttled_calls=last.throttled[name],
                    counts={status.value: number for status, number in rows.statuses.items() if number},
                )
                for name, rows in self.accounts.items()
            },
            reasons=reasons if self.running else (),
            run_again=again,
            settings=header.settings,
        )

    def frame(self) -> Frame:
        """What was read, for a display; calls are those of rows that have a result."""
        stats, counts, accounts = self.stats, self.stats.counts, self.accounts
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
            left=left if last.header.command == "run" else None,
            deferred=sum(account.forecast.deferred for account in known),
            calls=last.calls.total(),
            throttled=last.throttled.total(),
            resume=resume_command(str(self.path)) if stats.paused else None,
            failures=stats.rows.failures,
            last_error=stats.last_error,
            parts=[
                DisplayPart(
                    name=name,
                    done=rows.total(),
                    rows=alone,
                    rate=stats.rate(now, name),
                    failed=sum(rows.failures.values()),
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

        header, last = self.header, self.stats.invocations[-1]
        if not self.running and last.outcome != "deferred":
            return {}  # nobody waits for them
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
                accounts = accounts_with_quotas(self.path, header, last.rates)
                with CallLog(file) as call_log:
                    limits = AccountLimits(accounts, header.endpoint, call_log, os.environ, wait=wait)
                    return {
                        name: limits.forecast(name, number, rate or None)
                        for name, number in rows.items()
                        if name in accounts
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
