"""Writes what a run does to its ledger, and counts it for the display and the summary."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import anyio
from msgspec import structs

from batch_snapshot import __version__
from batch_snapshot.errors import StorageError
from batch_snapshot.jobs.job import Job
from batch_snapshot.jobs.locked import reminder_files
from batch_snapshot.ledger import open_runs, records
from batch_snapshot.ledger.writer import Ledger
from batch_snapshot.models import Outcome, Request, Row, Skip, Status
from batch_snapshot.reporting.stats import RunStats

#: Seconds between two fsyncs of the ledger.
SYNC_EVERY = 1.0


@dataclass(slots=True)
class Recorder:
    """The ledger of one invocation, from its run line to its end line."""

    ledger: Ledger
    job: Job
    #: By account: the service's clock less ours, in seconds.
    clock_skew: Callable[[str], float | None]
    now: Callable[[], datetime]
    on_outcome: Callable[[Outcome], None] | None = None
    in_thread: Callable[[Callable[[], None]], Awaitable[None]] = anyio.to_thread.run_sync
    header: records.Header = field(init=False)
    stats: RunStats = field(init=False)
    #: By account: who signs for it, for its intents.
    signers: dict[str, str] = field(default_factory=dict)
    #: By account, where it is recorded that the ledger is unfinished (see `open_runs`).
    _reminders: dict[str, Path] = field(init=False)
    _reminded: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        job, self.stats = self.job, self.job.new_stats()
        known = job.past.last.accounts if job.past.last else {}
        accounts = {name: records.encode_account(one) for name, one in job.accounts.items()}
        self.header = structs.replace(
            job.header,
            started_at=self.now(),
            accounts={**known, **accounts},
            # A run line alone can be lost: it is durable before the first intent, not before the next one.
            resumes=bool(job.past.succeeded or job.past.unfinished),
            unrecorded_since=job.past.unrecorded_since,
        )
        self._reminders = reminder_files(job.header.name, job)

    async def begin(self) -> None:
        self.ledger.append(records.encode_run(self.header, __version__, vanished=len(self.job.vanished_keys)))
        await self._sync()

    async def skip(self, reason: Skip, rows: Sequence[Row]) -> None:
        self.ledger.append(records.encode_skip(self.header.run_id, self.now(), reason, rows))
        for row in rows:
            self.job.past.add_skipped(reason, row.key)
        self.stats.skip(reason, len(rows))
        await anyio.lowlevel.checkpoint()

    async def intend(self, requests: Sequence[Request]) -> None:
        """Name rows of one account on disk, before any of them is sent."""
        job, account = self.job, requests[0].row.account
        # Before the ledger names the first row of an account, and not earlier: it may never name one.
        if account in self._reminders.keys() - self._reminded:
            open_runs.record(self._reminders[account], job.path, self.header.run_id, job.instead_of)
            self._reminded.add(account)
        skew, signer = self.clock_skew(account), self.signers.get(account)
        self.ledger.append(records.encode_intent(self.now(), requests, skew, signer))
        await self._sync()

    def record(self, outcome: Outcome) -> None:
        self.ledger.append(records.encode_result(self.header.run_id, outcome))
        self.stats.add(outcome)
        if self.on_outcome:
            self.on_outcome(outcome)

    def control(self, action: str, user: int, **more: object) -> None:
        given = {name: value for name, value in more.items() if value is not None}
        self.ledger.append(records.encode_control(self.header.run_id, self.now(), action, **given, by=user))

    async def end(self, outcome: str) -> None:
        # An end line says that what has no result was not sent: no result may be lost before it.
        await self._sync()
        end = records.End(outcome, self.stats.counts.as_dict(), self.now())
        self.ledger.append(records.encode_end(self.header.run_id, end))
        await self._sync()

    async def sync_regularly(self) -> None:
        while True:
            await anyio.sleep(SYNC_EVERY)
            await self._sync()

    async def _sync(self) -> None:
        await self.in_thread(self.ledger.sync)

    def clear_reminders(self) -> list[str]:
        """Forget that the ledger is unfinished, for all accounts or those that are; returns warnings."""
        job, stats, counts = self.job, self.stats, self.stats.counts
        all_settled = not (counts.unattempted or counts.in_doubt)
        # In a retry, or with vanished rows, it is not known which accounts have rows left.
        known = self.header.command == "run" and not job.vanished_keys
        try:
            for name, file in self._reminders.items():
                left = stats.settled[name] < stats.todo.get(name, 0)
                in_doubt = stats.accounts[name].statuses[Status.IN_DOUBT]
                if all_settled or (known and not (left or in_doubt)):
                    open_runs.remove(file, job.path, self.header.run_id)
                elif name in self._reminded:
                    open_runs.record(file, job.path, self.header.run_id)
        except StorageError as error:
            return [str(error)]
        return []
