"""What a ledger says by itself, also while a run is writing it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from batch_snapshot import files, paths
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError, LedgerError, StorageError
from batch_snapshot.ledger import check as audit
from batch_snapshot.ledger import locks, reader
from batch_snapshot.models import SIMULATOR
from batch_snapshot.reporting import next_steps
from batch_snapshot.reporting import summary as report
from batch_snapshot.reporting.display import DisplayPart, Frame, WindowUse
from batch_snapshot.reporting.stats import LedgerTally

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from batch_snapshot.engine.allowance import AccountForecast
    from batch_snapshot.ledger.records import Header


def of(path: Path, now: Callable[[], datetime] = utc_now) -> report.Summary:
    """Sum up the ledger at `path`: its outcome is that of its last invocation, or running, or crashed.

    Raises:
        LedgerError: it is no ledger, or has a line that makes no sense.
    """
    looking = LedgerWatch(path, now)
    looking.again()
    return looking.summary()


class LedgerWatch:
    """A ledger that is looked at again and again; each look reads what is new."""

    def __init__(self, path: Path, now: Callable[[], datetime] = utc_now) -> None:
        """Look at the ledger at `path`; `now` is the wall clock."""
        self._path = path
        self._now = now
        self._tally = LedgerTally()
        #: Whether a run was writing it at the last look.
        self.running = False

    def again(self) -> None:
        """Read what is new.

        Raises:
            LedgerError: it is no ledger, or has a line that makes no sense.
        """
        # In this order: what a run that has ended meanwhile wrote last is read.
        self.running = locks.holder_lives(paths.ledger_lock(self._path))
        if self.running or self._path.exists():
            for line in reader.lines(self._path, after=self._tally.line, whole=True):
                try:
                    self._tally.add(line)
                except LedgerError as error:
                    raise reader.with_place(self._path, line.number, error) from None
        if not self.running:
            self._tally.crashed()
        self._header()

    def _header(self) -> Header:
        header = self._tally.history.last
        if header is None and not files.exists(self._path):
            raise reader.missing(self._path)
        if header is None:
            raise LedgerError(f"{self._path}: no run has begun in it; name a ledger that a run has written")
        return header

    @property
    def _counts(self) -> report.Counts:
        return report.count(self._tally.history.counts(), self._header().rows)

    def _elapsed(self) -> float:
        """Seconds that the last invocation has taken; of one that crashed, until its last result."""
        until = self._now() if self.running else self._tally.last_at
        return max(0.0, (until - self._header().started_at).total_seconds()) if until else 0.0

    def summary(self) -> report.Summary:
        """What was read, summed up."""
        header, past = self._header(), self._tally.history
        counts, failures = self._counts, past.failures()
        running, end, settings = self.running, past.end, header.settings
        # A selection of accounts that is through leaves the others.
        kept = () if end and end.outcome == "completed" else ("accounts",)
        command = (
            next_steps.run_command(header.manifest, str(self._path), header.endpoint, settings, *kept)
            if header.manifest
            else None
        )
        return report.Summary(
            outcome=end.outcome if end else "running" if running else "crashed",
            exit_code=0,
            counts=counts,
            failures=failures,
            ledger=str(self._path),
            run_id=header.run_id,
            elapsed_s=self._elapsed(),
            accounts={
                name: report.AccountSummary(
                    calls=account.calls,
                    throttled_calls=account.throttled,
                    learned_rate=None,
                    stopped=None,
                    counts={status.value: number for status, number in account.statuses.items() if number},
                )
                for name, account in self._tally.accounts.items()
            },
            reasons=[f"{past.in_flight:,} rows are named and not settled yet"] if running else (),
            next_steps=[]
            if running
            else next_steps.next_steps(
                counts, failures, run=command, ledger=str(self._path), settings=settings
            ),
            settings=settings,
        )

    def frame(self) -> Frame:
        """What was read, as a display shows it: calls are those that results tell of."""
        header, counts, accounts = self._header(), self._counts, self._tally.accounts
        rate = self._tally.rate(self._now())
        alone = counts.total if len(accounts) == 1 else None
        todo = counts.unattempted + counts.in_doubt
        left = todo / rate if rate else None
        outlooks = self._outlooks(todo, rate) if self.running else {}
        if alone and rate and outlooks:
            left = max(outlook.forecast.ends_in for outlook in outlooks.values())
        return Frame(
            name=header.name,
            counts=counts,
            elapsed=self._elapsed(),
            # What a retry has taken up, its ledger does not tell.
            left=left if header.command == "run" else None,
            calls=sum(account.calls for account in accounts.values()),
            throttled=sum(account.throttled for account in accounts.values()),
            parts=[
                DisplayPart(
                    name=name,
                    done=account.statuses.total(),
                    rows=alone,
                    rate=self._tally.rate(self._now(), name),
                    throttled=account.throttled,
                    window=_fullest(outlooks.get(name)),
                )
                for name, account in accounts.items()
            ],
        )

    def _outlooks(self, rows: int, rate: float) -> dict[str, AccountForecast]:
        """How full each account's quota windows are, and how so many rows of it will go.

        By the log of calls where the run keeps it; empty where that tells nothing.
        """
        # Half of the time that `status` takes, and needed only while a run goes on.
        from batch_snapshot.config.accounts import accounts_with_quotas  # noqa: PLC0415
        from batch_snapshot.engine.allowance import AccountLimits  # noqa: PLC0415
        from batch_snapshot.ratelimit.windows import CallLog  # noqa: PLC0415

        header = self._header()
        folder = header.settings.get("state_dir")
        if header.endpoint == SIMULATOR:
            world = header.settings.get("simulator_state")
            if not world:
                return {}  # its state goes with the run
            folder = str(paths.simulated_state(Path(world), Path(folder) if folder else None))
        # Whoever only looks is not told of a log that cannot be read: the run is.
        with suppress(InputError, StorageError):
            file = paths.usage_file(paths.state_folder(Path(folder) if folder else None, os.environ))
            if files.exists(file):
                accounts = accounts_with_quotas(self._path, header)
                with CallLog(file) as usage:
                    room = AccountLimits(accounts, header.endpoint, usage, os.environ)
                    return {name: room.outlook(name, rows, rate or None) for name in self._tally.accounts}
        return {}


def _fullest(outlook: AccountForecast | None) -> WindowUse | None:
    """The quota window of which the largest share is used."""
    if outlook is None:
        return None
    windows = [
        WindowUse(window.name, min(used, window.limit), window.limit)
        for window, used in zip(outlook.windows, outlook.used, strict=True)
        if window.limit
    ]
    return max(windows, key=lambda window: window.used / window.limit, default=None)


def check(path: Path) -> int:
    """Prove the ledger at `path` whole; returns the number of its rows.

    Raises:
        LedgerError: names the first line that is not whole, and why.
    """
    try:
        past = audit.check(reader.lines(path), f"{path}:")
    except LedgerError as error:
        raise reader.with_place(path, None, error) from None
    if past.last is None:
        raise LedgerError(f"{path}: no run has begun in it; name a ledger that a run has written")
    if reader.is_torn(path):
        raise LedgerError(f"{path}: its last line is torn; run the same command to repair it and go on")
    return past.last.rows
