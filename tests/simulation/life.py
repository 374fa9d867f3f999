"""Lives a scenario to its end, and judges it by the service's record.

A life has the scenario's invocations, then calm ones without faults until all rows have succeeded. Whatever
contradicts an invariant of DESIGN part 3 raises `Violation` with the story so far.
"""

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import anyio
import trio
import trio._core._run as trio_run
from trio.testing import MockClock

from batch_snapshot import files
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.errors import BatchSnapshotError, LedgerError, StorageError
from batch_snapshot.jobs import plan
from batch_snapshot.jobs.run import Hooks, retry, run
from batch_snapshot.ledger import reader
from batch_snapshot.ledger.records import Intent, Result
from batch_snapshot.models import Row, Status
from batch_snapshot.ratelimit.windows import Machine
from batch_snapshot.reporting.summary import Summary
from tests.simulation.disk import SimulatedDisk
from tests.simulation.scenario import Invocation, Scenario
from tests.simulation.service import Key, Service, SimulatedClients, Snapshot

#: Calm invocations after which all rows must have succeeded.
ENOUGH = 12

#: Rows that a life can have.
MOST_ROWS = 20

# trio shuffles its tasks; with this its order follows from the seed.
trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]


class Violation(AssertionError):  # noqa: N818 - what an invariant forbids
    """An invariant does not hold; the text is the life's story."""


class Crash(BaseException):
    """The process is gone."""


@dataclass
class Life:
    scenario: Scenario
    folder: Path
    story: list[str] = field(default_factory=list)
    crashes: int = 0
    #: Points at which a crash was possible: in this invocation, and in the earlier ones.
    points: int = 0
    all_points: int = 0
    #: True seconds at the start of the invocation, and of the boot.
    began: float = 0.0
    booted: float = 0.0
    boot: int = 1
    #: Our wall clock less the true time.
    clock_error: float = 0.0
    #: The crash comes after so many points of this kind, or of any.
    _countdown: int = -1
    _crash_where: str | None = None
    _dead: bool = False
    _alone: bool = True
    _violated: str | None = None

    def __post_init__(self) -> None:
        self.ledgers, self.state = self.folder / "ledgers", self.folder / "state"
        self.ledger, self.manifest = self.ledgers / "life.ndjson", self.folder / "life.yaml"
        self.ledgers.mkdir()
        (self.state / "locks").mkdir(parents=True)
        self.disk = SimulatedDisk(Random(f"disk {self.scenario.seed}"), self.point, self.ledgers)
        self.service = Service(
            self.scenario, self.true_now, self.point, self.violate, self.note, lambda: self._cannot_record
        )
        if self.scenario.made_before:
            made = Snapshot("arn:before", 1, "", -86_400.0, -86_400.0)
            self.service.snapshots = {key_of(self.row(number)): [made] for number in range(MOST_ROWS)}

    # -- time, and where a crash is possible

    def true_now(self) -> float:
        with suppress(RuntimeError):
            return self.began + trio.current_time()
        return self.began

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.true_now() + self.clock_error)

    def elapsed(self) -> float:
        self.alive()
        return self.true_now() - self.booted

    def alive(self) -> None:
        if self._dead:
            raise Crash

    def point(self, what: str) -> None:
        self.alive()
        self.points += 1
        self._countdown -= self._crash_where in {None, what}
        if self._countdown == 0:
            self._dead = True
            self.note(f"crash at {what}")
            raise Crash

    def note(self, text: str) -> None:
        self.story.append(f"{self.true_now():10.3f}  {text.replace(f'{self.folder}/', '')}")

    def violate(self, text: str) -> None:
        self._violated = self._violated or text
        self.note(f"VIOLATION: {text}")

    @property
    def _cannot_record(self) -> bool:
        # Where two commands run, the one may begin after the other's write has failed.
        return self.disk.failed and self._alone

    # -- living

    def live(self) -> None:
        token = files.DISK.set(self.disk)
        try:
            self._live()
        finally:
            files.DISK.reset(token)

    def _live(self) -> None:
        for number, invocation in enumerate(self.scenario.invocations):
            self._invoke(invocation, number)
            self._judge_crashed()
            self._pass_time(invocation.pause, invocation.clock_step)
        self.service.calm = True
        self.disk.faults.clear()
        last = Invocation(first=self.scenario.first, last=self.scenario.last)
        for number in range(ENOUGH):
            command = "retry" if number % 2 else "run"
            found = self._invoke(replace(last, command=command), 1000 + number)
            self._judge_crashed()
            if command == "run" and found and found.outcome == "completed" and self._all_succeeded():
                self._judge_end()
                return
            self._pass_time(120.0 * (number + 1), 0.0)
        self._fail(f"not finished after {ENOUGH} calm invocations")

    def _invoke(self, invocation: Invocation, number: int) -> Summary | None:
        if invocation.command == "retry" and not reader.head_if_ledger(self.ledger):
            return None  # nothing was begun
        self._write_manifest(invocation)
        seed = f"{self.scenario.seed} {number}"
        self.all_points += self.points
        self._dead, self.points = False, 0
        self._countdown, self._crash_where = invocation.at if invocation.crash else -1, invocation.where
        self.disk.failed, self._alone = False, invocation.second_after is None
        self.disk.faults = [invocation.disk_fault] if invocation.disk_fault else []
        self.note(f"{invocation.command} (rows {invocation.first}–{invocation.last - 1})")
        trio_run._r.seed(seed)
        found: Summary | None = None
        try:
            found = trio.run(partial(self._commands, invocation, seed), clock=MockClock(autojump_threshold=0))
            self.note(f"ended: {found.outcome} {found.counts.as_dict()}" if found else "ended by an error")
        except BaseException as error:  # noqa: BLE001 - whatever ends a life is judged
            if not _only_crashes(error):
                self._fail(f"{type(error).__name__}: {error}", error)
            self.crashes += 1
            if invocation.crash == "power":
                self.disk.cut_power()
                self.boot += 1
                self.booted = self.began
                self.note("the power is cut")
        return found

    async def _commands(self, invocation: Invocation, seed: str) -> Summary | None:
        try:
            if invocation.second_after is None:
                return await self._command(invocation, seed)
            found = None
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._second, invocation, seed)
                found = await self._command(invocation, seed)
            return found  # noqa: RET504 - the group may raise a crash
        finally:
            self.began += trio.current_time()

    async def _second(self, invocation: Invocation, seed: str) -> None:
        await anyio.sleep(invocation.second_after or 0.0)
        await self._command(replace(invocation, command="run"), seed + " second")

    async def _command(self, invocation: Invocation, seed: str) -> Summary | None:
        scenario = self.scenario
        options = Options(
            ledger=str(self.ledger),
            run_id="00000000-0000-4000-8000-000000000001",
            state_dir=self.state,
            wait=True,
            engine=Settings(concurrency=scenario.concurrency, max_duration=3600.0),
        )
        hooks = Hooks(
            now=self.now,
            rng=Random(seed),
            open_callers=self._open_callers,
            machine=self._machine(),
            in_thread=self._in_thread,
        )
        work: Callable[[], Awaitable[Summary]] = partial(run, self.manifest, options, hooks)
        if invocation.command == "retry":
            work = partial(retry, self.ledger, plan.all_unfinished(), options, hooks)
        try:
            return await work()
        except LedgerError as error:
            # Of the first line only its end was written: the message says to move it away.
            if self.service.arrived or "nothing was sent: move it away" not in str(error):
                raise
            self.note(f"{error}")
            self.ledger.unlink()
        except StorageError as error:
            self.note(f"{type(error).__name__}: {error}")
        return None

    def _machine(self) -> Machine:
        return Machine(
            boot=lambda: f"boot {self.boot}",
            elapsed=self.elapsed,
            wall=lambda: 1_767_225_600.0 + self.true_now() + self.clock_error,
            local=lambda _: True,
        )

    def _open_callers(self, accounts: Any, target: Any, _: Any, now: Any) -> SimulatedClients:
        clients = SimulatedClients(accounts, target, now, elapsed=self.true_now)
        clients.service = self.service
        return clients

    async def _in_thread(self, work: Callable[[], None]) -> None:
        rng = Random(f"thread {self.scenario.seed} {self.true_now()}")
        before, after = rng.choice([(0.0, 0.0), (0.01, 0.0), (0.0, 0.03)])
        await anyio.sleep(before)
        work()
        await anyio.sleep(after)

    def _pass_time(self, seconds: float, step: float) -> None:
        self.began += seconds
        self.clock_error += step
        self.service.finish_late_work()

    def _write_manifest(self, invocation: Invocation) -> None:
        scenario = self.scenario
        quota = ", ".join(
            f"{key}: {value}"
            for key, value in (("per_second", scenario.per_second), ("per_minute", scenario.per_minute))
            if value
        )
        lines = ["version: 1", "name: life", "defaults: {catalog: Sandbox}", "accounts:"]
        for number in range(scenario.accounts):
            role = f"arn:aws:iam::{number:012}:role/Snapshot"
            lines.append(f"  a{number}: {{role_arn: '{role}'{f', quota: {{{quota}}}' if quota else ''}}}")
        lines.append("pairs:" if invocation.first < invocation.last else "pairs: []")
        lines += [
            f"  - {{engagement: {row.engagement}, resource: {row.resource}, account: {row.account}, "
            f"template: {row.template}}}"
            for row in map(self.row, range(invocation.first, invocation.last))
        ]
        self.manifest.write_text("\n".join(lines) + "\n")

    def row(self, number: int) -> Row:
        account = f"a{number % self.scenario.accounts}"
        pair, nth = divmod(number, self.scenario.templates)
        template = f"View{nth}" if nth else "OpportunitySummaryView"
        return Row(account, "Sandbox", f"eng-{pair:014}", "Opportunity", f"O{pair}", template)

    # -- judging

    def _judge_crashed(self) -> None:
        """What holds at any time, whatever crashed."""
        if self._violated:
            self._fail(self._violated)
        if not self.ledger.exists():
            if self.service.arrived:
                self._fail("the ledger is gone, and rows were sent")
            return
        if not self.service.arrived and b"\0" in self.ledger.read_bytes().partition(b"\n")[0]:
            return  # its first line is torn: the next command says so
        try:
            history = reader.history_of(self.ledger, checked=True)
        except BatchSnapshotError as error:
            self._fail(f"the ledger cannot be read: {error}", error)
        for key, token in self.service.arrived - self._named():
            self._fail(f"{key} was sent under {token}, which the ledger does not name")
        for row in map(self.row, range(MOST_ROWS)):
            if history.status(row.key) is Status.SUCCEEDED and not self._ours(row):
                self._fail(f"{row} succeeded by the ledger, and the service has no snapshot")

    def _named(self) -> set[tuple[Key, str]]:
        intents = (line.record for line in reader.lines(self.ledger) if isinstance(line.record, Intent))
        return {(key_of(one.row), one.client_token) for intent in intents for one in intent.rows}

    def _ours(self, row: Row) -> list[Snapshot]:
        return [one for one in self.service.snapshots.get(key_of(row), []) if one.token]

    def _all_succeeded(self) -> bool:
        history = reader.history_of(self.ledger)
        rows = map(self.row, range(self.scenario.first, self.scenario.last))
        return all(history.status(row.key) is Status.SUCCEEDED for row in rows)

    def _judge_end(self) -> None:
        self.service.finish_late_work(everything=True)
        if self._violated:
            self._fail(self._violated)
        reader.whole_history_of(self.ledger)
        results = (line.record for line in reader.lines(self.ledger) if isinstance(line.record, Result))
        receipts = {one.row: (one.arn, one.revision) for one in results if one.status is Status.SUCCEEDED}
        for row in map(self.row, range(self.scenario.first, self.scenario.last)):
            made = self._ours(row)
            if len(made) != 1:
                self._fail(f"{row} has {len(made)} snapshots")
            if receipts.get(row) != (made[0].arn, made[0].revision):
                self._fail(f"the ledger names {receipts.get(row)} for {row}, the service {made[0]}")

    def _fail(self, text: str, error: BaseException | None = None) -> NoReturn:
        raise Violation("\n".join([*self.story, f"VIOLATION: {text}", f"{self.scenario}"])) from error


def key_of(row: Row) -> Key:
    return tuple(row[1:])


def _only_crashes(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_crashes, error.exceptions))
    return isinstance(error, Crash)


def live(scenario: Scenario) -> Life:
    """Live the scenario in a temporary folder.

    Raises:
        Violation: an invariant does not hold.
    """
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(dir=base))
    try:
        life = Life(scenario, folder)
        life.live()
        return life
    finally:
        shutil.rmtree(folder)
