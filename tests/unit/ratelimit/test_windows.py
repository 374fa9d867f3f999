"""The rolling windows: never exceeded, never blocked, over processes, kills, boots and clock changes."""

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import product
from math import inf
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch_snapshot.errors import StorageError
from batch_snapshot.models import Quota
from batch_snapshot.ratelimit import windows as quota
from batch_snapshot.ratelimit.windows import (
    DAY,
    LOST_AFTER,
    CallLog,
    Machine,
    QuotaWindow,
    WindowFull,
    windows,
)
from tests.support.disks import mounted
from tests.support.marks import on_linux
from tests.support.strategies import patient

MINUTE = QuotaWindow("per_minute", 2, 60.0)
DAILY = QuotaWindow("per_day", 3, DAY)
#: A memory file system if there is one: the property tests open many files.
SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None
#: The log is exact to the microsecond, and so are the clocks of these tests: a few for the rounding.
EPSILON = 5e-6


class Clock:
    """A clock that `advance` moves; exact, as it counts microseconds."""

    def __init__(self, now: float = 1e6) -> None:
        self.micros = round(now * 1e6)

    def __call__(self) -> float:
        return self.micros / 1e6

    def advance(self, seconds: float) -> None:
        self.micros += round(seconds * 1e6)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "usage.db"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def usage(path, clock):
    with CallLog(path, clock) as opened:
        yield opened


def reserved(usage: CallLog, *windows_: QuotaWindow, account: str = "a") -> int:
    reservation = usage.reserve(account, windows_)
    assert not isinstance(reservation, WindowFull), reservation
    return reservation


def window_full(usage: CallLog, *windows_: QuotaWindow, account: str = "a") -> WindowFull:
    spent = usage.reserve(account, windows_)
    assert isinstance(spent, WindowFull)
    return spent


def used(usage: CallLog, *windows_: QuotaWindow, account: str = "a") -> int:
    """A call that ends as soon as it has left."""
    reservation = reserved(usage, *windows_, account=account)
    usage.finish(reservation)
    return reservation


# -- what is declared --------------------------------------------------------------------------------


def test_windows_are_those_declared_less_the_reserve():
    assert windows(Quota(per_second=5)) == ()
    assert windows(Quota(per_minute=100, per_hour=1000, per_day=10_000, reserve=30)) == (
        QuotaWindow("per_minute", 70, 60.0),
        QuotaWindow("per_hour", 970, 3600.0),
        QuotaWindow("per_day", 9970, 86_400.0),
    )


def test_calls_per_day_can_be_overridden_and_a_reserve_leaves_at_least_zero():
    assert windows(Quota(per_day=10_000, reserve=5), per_day=400) == (QuotaWindow("per_day", 395, DAY),)
    assert windows(Quota(), per_day=0) == (QuotaWindow("per_day", 0, DAY),)
    assert windows(Quota(per_minute=10, reserve=20)) == (QuotaWindow("per_minute", 0, 60.0),)


# -- one call ----------------------------------------------------------------------------------------


def test_without_windows_nothing_is_logged(usage):
    reservation = usage.reserve("a", ())
    usage.finish(reservation)
    usage.cancel(reservation)
    assert usage.ages("a", DAY) == []


def test_a_note_is_stored_with_its_age(path, clock, usage):
    assert usage.read_note("a") is None
    usage.update_note("a", lambda text, age: f"{text} {age}")
    usage.update_note("b", lambda *_: "another")
    clock.advance(60)
    with CallLog(path, clock) as other:
        assert other.read_note("a", 60) == other.read_note("a") == "None inf"
        assert other.read_note("a", 59) is None
        other.update_note("a", lambda text, age: f"{text}, {age}")
        assert other.read_note("b") == "another"
    assert usage.read_note("a", 0) == "None inf, 60.0"


def test_a_note_that_is_not_changed_stays_as_it_is(usage, clock):
    usage.update_note("a", lambda *_: "first")
    clock.advance(60)
    usage.update_note("a", lambda *_: None)
    with pytest.raises(ZeroDivisionError):
        usage.update_note("a", lambda *_: str(1 / 0))
    assert usage.read_note("a") == "first"
    assert usage.read_note("a", 59) is None
    reserved(usage, MINUTE)


def test_concurrent_updates_of_a_note_are_serialised(path, usage):
    def count(text: str | None, _: float) -> str:
        os.sched_yield()
        return str(int(text or 0) + 1)

    with CallLog(path) as other, ThreadPoolExecutor(4) as pool:
        for handle in [usage, other] * 50:
            pool.submit(handle.update_note, "counter", count)
    assert usage.read_note("counter") == "100"


# -- any history -------------------------------------------------------------------------------------


@dataclass
class Call:
    """A call as the service may have counted it: at any instant from its start to its end."""

    start: float
    end: float | None = None


@dataclass
class Model:
    """What must hold, in the plainest way."""

    windows: Sequence[QuotaWindow]
    calls: dict[int, Call] = field(default_factory=dict)

    def end(self, call: Call) -> float:
        return call.start + LOST_AFTER if call.end is None else call.end

    def free(self, now: float) -> list[int]:
        """The calls that each window allows; below zero where the others declare more."""
        ends = [self.end(call) for call in self.calls.values()]
        # The same sum as in `opens_at`: floats that are subtracted instead differ by a rounding error.
        return [window.limit - sum(end + window.seconds > now for end in ends) for window in self.windows]

    def fits(self, now: float) -> bool:
        return min(self.free(now)) > 0

    def opens_at(self, now: float) -> float:
        """The earliest time at which one call fits: now, or when some call leaves a window."""
        leaving = [self.end(call) + window.seconds for call in self.calls.values() for window in self.windows]
        return min((at for at in [now, *leaving] if at >= now and self.fits(at)), default=inf)

    def assert_never_exceeded(self) -> None:
        """No window of any place holds more than its limit, whenever the service counted what it holds.

        A window that holds most begins where a call ended. A call can't be counted after it was lost.
        """
        spans = [(call.start, min(self.end(call), call.start + LOST_AFTER)) for call in self.calls.values()]
        for window in self.windows:
            for _, begin in spans:
                counted = sum(end >= begin and start < begin + window.seconds for start, end in spans)
                assert counted <= window.limit, (window, begin)


widths = st.sampled_from([1.0, 60.0, 3600.0, DAY])
some_windows = st.lists(
    st.builds(QuotaWindow, st.just("any"), st.integers(0, 4), widths), min_size=1, max_size=3
)
#: Times that meet: few, and those where something becomes free.
PASSING = [0.0, 0.25, 1.0, 30.0, 59.75, 60.0, 180.0, 300.0, 360.0, 3600.0, 43_200.0, DAY]
#: An age in seconds that no call reaches exactly by these and the windows: roundings decide nothing.
OLDEST = DAY - 1.37
#: (what, which account, which handle, a number).
steps = st.one_of(
    st.sampled_from(list(product(["reserve"], [0, 1], [0, 1], [0.0]))),
    st.sampled_from(list(product(["press"], [0, 1], [0, 1], [0.0]))),
    st.sampled_from(list(product(["finish", "cancel"], [0, 1], [0, 1], range(10)))),
    st.sampled_from(list(product(["pass"], [0], [0], PASSING))),
    st.sampled_from(list(product(["reopen"], [0], [0, 1], [0.0]))),
)


class World:
    """Two processes' handles on one file, two accounts, and what must be true of them.

    A reservation that is never finished is one whose process was killed.
    """

    def __init__(self, path: Path, windows_: tuple[Sequence[QuotaWindow], Sequence[QuotaWindow]]) -> None:
        self.path = path
        self.clock = Clock()
        self.models = [Model(one) for one in windows_]
        self.handles = [CallLog(path, self.clock), CallLog(path, self.clock)]
        self.newest = 0

    def close(self) -> None:
        for handle in self.handles:
            handle.close()

    def step(self, what: str, account: int, handle: int, number: float) -> None:
        if what == "pass":
            self.clock.advance(number)
        elif what == "reopen":
            self.handles[handle].close()
            self.handles[handle] = CallLog(self.path, self.clock)
        elif what == "reserve":
            self.reserve(account, handle)
        elif what == "press":
            self.press(account, handle)
        else:
            self.settle(what, self.models[account], self.handles[handle], int(number))

    def settle(self, what: str, model: Model, usage: CallLog, number: int) -> None:
        """Finish one of the last day, again perhaps, or cancel one that is in flight or was lost.

        None is finished again once another call has left in its place: no log of calls can foresee that.
        """
        now = self.clock()
        latest = max((call.start for call in model.calls.values()), default=0.0)
        recent = [
            reservation
            for reservation, call in model.calls.items()
            if call.start > now - DAY
            if call.end is None or (what == "finish" and latest <= call.end)
        ]
        if not recent:
            return
        reservation = recent[number % len(recent)]
        if what == "cancel":
            usage.cancel(reservation)
            usage.cancel(reservation)
            del model.calls[reservation]
            # What was cancelled comes to no end.
            usage.finish(reservation)
        else:
            usage.finish(reservation)
            model.calls[reservation].end = now

    def reserve(self, account: int, handle: int) -> int | WindowFull:
        model, now = self.models[account], self.clock()
        reservation = self.handles[handle].reserve(f"account-{account}", model.windows)
        if isinstance(reservation, WindowFull):
            assert not model.fits(now - EPSILON)
            assert reservation.opens_in == pytest.approx(model.opens_at(now) - now, abs=EPSILON)
            alone = Model([reservation.window], model.calls)
            assert alone.opens_at(now) == model.opens_at(now), "it is the last to open"
        else:
            assert model.fits(now)
            assert reservation > self.newest, "an id is never used twice"
            model.calls[reservation] = Call(now)
            self.newest = reservation
        return reservation

    def press(self, account: int, handle: int) -> None:
        """Come back just before the window opens, and just after."""
        reservation = self.reserve(account, handle)
        if isinstance(reservation, WindowFull) and reservation.opens_in < inf:
            self.clock.advance(reservation.opens_in - EPSILON)
            assert isinstance(self.reserve(account, handle), WindowFull)
            self.clock.advance(2 * EPSILON)
            assert not isinstance(self.reserve(account, 1 - handle), WindowFull)

    def check(self) -> None:
        for account, model in enumerate(self.models):
            model.assert_never_exceeded()
            now = self.clock()
            free = self.handles[0].free_calls(f"account-{account}", model.windows)
            assert max(0, min(model.free(now + EPSILON))) >= free >= max(0, min(model.free(now - EPSILON)))
            none = QuotaWindow("none", 0, DAY)
            assert self.handles[0].free_calls(f"account-{account}", [none]) == 0, "and never fewer"
            ages = sorted(max(0.0, now - model.end(call)) for call in model.calls.values())
            expected = [age for age in ages if age < OLDEST]
            assert self.handles[0].ages(f"account-{account}", OLDEST) == pytest.approx(expected, abs=EPSILON)


BRIEF, HOURLY = QuotaWindow("any", 1, 1.0), QuotaWindow("any", 2, 3600.0)


@given(st.tuples(some_windows, some_windows), st.lists(steps, max_size=60))
@example(
    ([BRIEF], [BRIEF, HOURLY]),
    [
        ("reserve", 1, 0, 0.0),
        ("press", 1, 0, 0.0),
        ("pass", 0, 0, 43_200.0),
        ("finish", 1, 0, 0),
        *[("press", 1, 0, 0.0)] * 3,
        ("reserve", 1, 0, 0.0),
    ],
)
@example(
    ([BRIEF], [BRIEF]),
    [("reserve", 1, 0, 0.0), ("finish", 1, 0, 0), ("press", 1, 0, 0.0), ("finish", 1, 1, 0)],
)
@settings(patient, max_examples=120)
def test_in_any_history_no_window_is_exceeded_and_each_opens_when_predicted(windows_, history):
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        world = World(Path(folder) / "usage.db", windows_)
        try:
            for step in history:
                world.step(*step)
            world.check()
        finally:
            world.close()


# -- the clock ---------------------------------------------------------------------------------------


@dataclass
class MachineClocks:
    """A machine whose clocks the test sets; `true` seconds have passed in fact."""

    true: float = 0.0
    booted: float = -5000.0
    wall_is_off: float = 1.7e9
    boot: str | None = "boot-1"

    @property
    def machine(self) -> Machine:
        return Machine(
            boot=lambda: self.boot,
            elapsed=lambda: self.true - self.booted,
            wall=lambda: self.true + self.wall_is_off,
        )

    def reboot(self, downtime: float, boot: str | None = "boot-2") -> None:
        self.true += downtime
        self.booted = self.true
        self.boot = boot


def spend(path: Path, clocks: MachineClocks) -> None:
    """Use up the window, just now."""
    with CallLog(path, machine=clocks.machine) as usage:
        used(usage, MINUTE)
        used(usage, MINUTE)


def opens_in(path: Path, clocks: MachineClocks) -> float:
    """Seconds until the window opens, as a process that begins now sees it; 0 if it is open."""
    with CallLog(path, machine=clocks.machine) as usage:
        reservation = usage.reserve("a", [MINUTE])
        if isinstance(reservation, WindowFull):
            return reservation.opens_in
        usage.cancel(reservation)
        return 0.0


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(-1e6, 1e6), st.booleans()), max_size=12))
@settings(patient, max_examples=50)
def test_within_a_boot_only_time_that_has_passed_counts(happened):
    clocks = MachineClocks()
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        path = Path(folder) / "usage.db"
        spend(path, clocks)
        running = CallLog(path, machine=clocks.machine)
        for passed, step, reopen in happened:
            clocks.true += passed
            clocks.wall_is_off += step
            if reopen:
                running.close()
                running = CallLog(path, machine=clocks.machine)
            expected = max(0.0, 60 - clocks.true)
            if expected > EPSILON:
                assert window_full(running, MINUTE).opens_in == pytest.approx(expected, abs=EPSILON)
        running.close()
        assert opens_in(path, clocks) == pytest.approx(max(0.0, 60 - clocks.true), abs=EPSILON)


def test_the_time_that_the_machine_was_off_counts_after_a_boot(path):
    clocks = MachineClocks()
    spend(path, clocks)
    clocks.reboot(downtime=20)
    assert opens_in(path, clocks) == pytest.approx(40, abs=EPSILON)
    clocks.true += 15
    clocks.reboot(downtime=30, boot="boot-3")
    assert opens_in(path, clocks) == 0


def test_a_boot_with_the_clock_far_behind_continues_at_the_last_time_in_the_file(path):
    clocks = MachineClocks()
    spend(path, clocks)
    clocks.wall_is_off = 0.0
    clocks.reboot(downtime=20)
    assert opens_in(path, clocks) == pytest.approx(60, abs=EPSILON)
    # Being set right within the boot changes nothing.
    clocks.wall_is_off = 1.7e9
    clocks.true += 10
    assert opens_in(path, clocks) == pytest.approx(50, abs=EPSILON)
    # The next boot has the right time again.
    clocks.reboot(downtime=0, boot="boot-3")
    assert opens_in(path, clocks) == pytest.approx(30, abs=EPSILON)


def test_without_boot_ids_time_never_runs_backwards(path):
    clocks = MachineClocks(boot=None)
    spend(path, clocks)
    clocks.true += 10
    assert opens_in(path, clocks) == pytest.approx(50, abs=EPSILON)
    with CallLog(path, machine=clocks.machine) as running:
        clocks.wall_is_off -= 3600
        clocks.true += 10
        # A process that runs goes by what has passed; one that begins, on from there.
        assert window_full(running, MINUTE).opens_in == pytest.approx(40, abs=EPSILON)
        assert opens_in(path, clocks) == pytest.approx(40, abs=EPSILON)
        clocks.wall_is_off += 2 * 3600
        clocks.true += 10
        assert window_full(running, MINUTE).opens_in == pytest.approx(30, abs=EPSILON)
    clocks.wall_is_off -= 3600
    clocks.true += 10
    assert opens_in(path, clocks) <= 30 + EPSILON


def test_without_boot_ids_the_time_that_the_machine_was_off_counts_too(path):
    clocks = MachineClocks(boot=None)
    spend(path, clocks)
    clocks.reboot(downtime=20, boot=None)
    assert opens_in(path, clocks) == pytest.approx(40, abs=EPSILON)


def test_a_given_clock_never_runs_backwards_either(usage, clock):
    used(usage, MINUTE)
    used(usage, MINUTE)
    clock.advance(-1000)
    assert window_full(usage, MINUTE).opens_in == pytest.approx(60, abs=EPSILON)
    clock.advance(1030)
    assert window_full(usage, MINUTE).opens_in == pytest.approx(30, abs=EPSILON)


def test_the_clocks_of_this_machine_can_be_read(path):
    machine = Machine()
    before = machine.elapsed()
    assert 0 < before <= machine.elapsed()
    if sys.platform == "linux":
        assert machine.boot() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    brief = QuotaWindow("brief", 1, 0.05)
    with CallLog(path) as usage:
        used(usage, brief)
        spent = usage.reserve("a", [brief])
        if isinstance(spent, WindowFull):
            time.sleep(spent.opens_in)
        reserved(usage, brief)
        assert abs(usage._now() / 1e6 - time.time()) < 60


# -- many at once ------------------------------------------------------------------------------------

#: Two threads call as fast as they may, and say when each call left and when it was over.
CALLER = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from batch_snapshot.ratelimit.windows import CallLog, QuotaWindow, WindowFull

path, limit, width, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
window = QuotaWindow("any", limit, width)
until = time.monotonic() + seconds

def call(usage):
    while time.monotonic() < until:
        reservation = usage.reserve("a", [window])
        if isinstance(reservation, WindowFull):
            if reservation.opens_in > 60:
                return
            time.sleep(min(reservation.opens_in, 0.005))
            continue
        os.write(1, f"left {reservation} {time.monotonic()}\\n".encode())
        time.sleep(0.001)
        os.write(1, f"over {reservation} {time.monotonic()}\\n".encode())
        usage.finish(reservation)

with CallLog(Path(path)) as usage:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(call, [usage, usage]))
"""


@contextmanager
def callers(number: int, path: Path, limit: int, width: float, seconds: float) -> Iterator[list[Path]]:
    """So many processes with what each says in a file; two of them are killed on their way."""
    said = [path.with_name(f"said-{index}") for index in range(number)]
    line = [sys.executable, "-c", CALLER, str(path), str(limit), str(width), str(seconds)]
    path.parent.mkdir(parents=True, exist_ok=True)
    processes = []
    for out in said:
        with out.open("wb") as stream:
            processes.append(subprocess.Popen(line, stdout=stream))
    try:
        for process, out in list(zip(processes, said, strict=True))[:2]:
            deadline = time.monotonic() + 20
            while out.read_bytes().count(b"left") < 8 and time.monotonic() < deadline:
                time.sleep(0.005)
            process.kill()
        for process in processes[2:]:
            assert process.wait(40) == 0
        yield said
    finally:
        for process in processes:
            process.kill()
            process.wait()


def spans(said: Sequence[Path]) -> list[tuple[float, float]]:
    """When each call left, and when it was over; one whose process was killed then was over then."""
    left: dict[int, float] = {}
    over: dict[int, float] = {}
    for out in said:
        for line in out.read_text().splitlines():
            what, reservation, at = line.split()
            {"left": left, "over": over}[what][int(reservation)] = float(at)
    return [(at, over.get(reservation, at)) for reservation, at in left.items()]


def test_processes_and_their_threads_never_exceed_a_window_together(path):
    limit, width = 40, 0.3
    with callers(4, path, limit, width, seconds=1.5) as said:
        calls = spans(said)
    for _, begin in calls:
        counted = sum(over >= begin and left < begin + width for left, over in calls)
        assert counted <= limit
    assert len(calls) > 2 * limit, "the window has opened again and again"


def test_processes_that_are_killed_leave_their_calls_counted(path):
    limit = 400
    with callers(4, path, limit, DAY, seconds=20) as said:
        calls = spans(said)
    with CallLog(path) as usage:
        assert len(usage.ages("a", DAY)) == limit
        spent = window_full(usage, QuotaWindow("per_day", limit, DAY))
    # Killed between its reservation and its word, each of four threads may have kept one to itself.
    assert limit - 4 <= len(calls) <= limit
    assert DAY - 60 < spent.opens_in <= DAY


def test_many_processes_can_create_the_same_file_at_once(path):
    for attempt in range(8):
        beginning = path.with_name(f"usage-{attempt}.db")
        barrier = threading.Barrier(8)
        reservations: list[int | WindowFull] = []

        def begin(beginning=beginning, barrier=barrier, reservations=reservations):
            barrier.wait()
            with CallLog(beginning) as usage:
                reservations.append(usage.reserve("a", [QuotaWindow("any", 6, DAY)]))

        threads = [threading.Thread(target=begin) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(isinstance(reservation, WindowFull) for reservation in reservations) == 2
        assert len(reservations) == 8


def test_a_file_that_is_being_created_is_waited_for(path):
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.2, other.execute, ["ROLLBACK"])
    timer.start()
    with CallLog(path) as usage:
        reserved(usage, MINUTE)
    timer.join()
    other.close()


# -- the file ----------------------------------------------------------------------------------------


def assert_clear_error(
    error: pytest.ExceptionInfo[StorageError], path: Path, *words: str, code: int = 5
) -> None:
    """The message is one line, and no other error is attached to it."""
    message = str(error.value)
    assert message.startswith(f"{path}: cannot keep count of calls here (")
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert error.value.exit_code == code
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_the_files_have_mode_0600(path):
    before = os.umask(0)
    try:
        with CallLog(path, machine=Machine(local=lambda _: True)) as usage:
            used(usage, MINUTE)
            files = sorted(path.parent.iterdir())
            assert [file.name for file in files] == ["usage.db", "usage.db-shm", "usage.db-wal"]
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    finally:
        os.umask(before)


def database(statement: str) -> Callable[[Path], None]:
    """Carry out a statement in the file, which is created if need be."""

    def execute(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(statement)

    return execute


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"not one\n" * 900), "move the file away, then run the same command"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 64), "move the file away"),
        (database("CREATE TABLE contacts (name)"), "another program's database"),
        (database("PRAGMA user_version = 7"), "schema 7, where this one knows 2"),
    ],
)
def test_a_file_that_is_no_log_of_ours_is_refused_and_left_unchanged(path, make, words):
    if "schema" in words:
        CallLog(path).close()
    path.parent.mkdir(exist_ok=True)
    make(path)
    content = path.read_bytes()
    with pytest.raises(StorageError) as caught:
        CallLog(path)
    assert_clear_error(caught, path, words)
    assert path.read_bytes() == content


def test_a_file_with_damage_in_it_is_refused(path, clock):
    with CallLog(path, clock) as usage:
        for _ in range(300):
            used(usage, QuotaWindow("any", 10_000, DAY))
    page = 4096
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(page)
        file.write(b"\xa5" * (size - page))
    with pytest.raises(StorageError) as caught, CallLog(path, clock) as usage:
        reserved(usage, MINUTE)
    assert_clear_error(caught, path, "malformed", "move the file away")


def test_a_file_of_version_1_is_continued(path):
    with CallLog(path) as usage:
        reserved(usage, MINUTE)
        usage._db.execute("CREATE TABLE counts (account, width, edge, used)")
        usage._db.execute("PRAGMA user_version = 1")
    for _ in range(2):
        with CallLog(path) as usage:
            assert len(usage.ages("a", DAY)) == 1


def test_a_file_without_sums_by_minute_is_continued(path, clock):
    """Programs wrote such files of version 2, and may write this one at the same time."""
    with CallLog(path, clock) as usage:
        used(usage, DAILY)
        for what in ("TRIGGER call_added", "TRIGGER call_moved", "TRIGGER call_removed", "TABLE minutes"):
            usage._db.execute(f"DROP {what}")
        clock.advance(300)
        usage._db.execute("INSERT INTO calls (account, ended) VALUES ('a', ?)", (clock.micros,))
    with CallLog(path, clock) as usage:
        assert usage.free_calls("a", [DAILY]) == 1
        used(usage, DAILY)
        window_full(usage, DAILY)


def test_a_call_costs_hardly_more_after_a_day_of_many(usage, clock):
    day = QuotaWindow("per_day", 500_000, DAY)
    steps: list[int] = []

    def cost():
        steps.clear()
        usage._db.set_progress_handler(lambda: steps.append(1), 10)
        usage.finish(reserved(usage, day))
        usage._db.set_progress_handler(None, 0)
        return 10 * len(steps)

    few = cost()
    calls = 20_000
    ends = [("a", clock.micros - int(number * (DAY - 60) * 1e6 / calls)) for number in range(calls)]
    usage._db.executemany("INSERT INTO calls (account, ended) VALUES (?, ?)", ends)
    assert usage.free_calls("a", [day]) == 500_000 - calls - 1
    # Ten steps of SQLite's machine for each minute of the day; one for each call alone would be more.
    assert cost() < few + 1440 * 10 < few + calls


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """A folder with a log in it that cannot be written: a read-only file system, or by its mode."""
    with mounted(folder) as real:
        path = folder / "usage.db"
        CallLog(path).close()
        if real:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        else:
            path.chmod(0o400)
            folder.chmod(0o500)
        try:
            yield folder
        finally:
            if not real:
                folder.chmod(0o700)


@pytest.mark.parametrize("name", ["usage.db", "new.db", "new/usage.db"])
def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path, name):
    with read_only(tmp_path / "disk") as folder:
        with pytest.raises(StorageError) as caught:
            CallLog(folder / name)
        assert_clear_error(caught, folder / name, "use a folder that can be written", "--state-dir", code=2)


@contextmanager
def no_longer_files() -> Iterator[None]:
    """Where no small file system can be had: no file may grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_no_call_is_granted_until_there_is_room(tmp_path):
    folder = tmp_path / "disk"
    many = QuotaWindow("any", 100_000, DAY)
    with mounted(folder, "-o", "size=256k") as real, CallLog(folder / "usage.db") as usage:
        ballast = folder / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            file.write(bytes(120 * 1024))
        granted: list[int] = []
        with pytest.raises(StorageError) as caught, nullcontext() if real else no_longer_files():
            granted.extend(iter(lambda: reserved(usage, many), None))
        assert_clear_error(caught, folder / "usage.db", "free some space", "then run the same command")
        ballast.unlink()
        used(usage, many)
        assert len(usage.ages("a", DAY)) == len(granted) + 1 > 1


def test_a_file_that_another_process_keeps_locked_is_a_clear_error(path, usage):
    usage._db.execute("PRAGMA busy_timeout = 50")
    selfish = sqlite3.connect(path, isolation_level=None)
    selfish.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError) as caught:
        usage.reserve("a", [MINUTE])
    assert_clear_error(caught, path, "database is locked", "wait until the process that has locked it ends")
    selfish.execute("ROLLBACK")
    selfish.close()
    reserved(usage, MINUTE)


@pytest.mark.parametrize("again", [False, True])
def test_a_file_that_was_removed_is_written_no_longer(path, clock, usage, again):
    reservation = reserved(usage, MINUTE)
    for file in path.parent.iterdir():
        file.unlink()
    if again:
        CallLog(path, clock).close()
    for act in (lambda: usage.reserve("a", [MINUTE]), lambda: usage.finish(reservation)):
        with pytest.raises(StorageError) as caught:
            act()
        assert_clear_error(caught, path, "removed or replaced", "run the same command again")


def test_a_closed_log_grants_nothing(path):
    usage = CallLog(path)
    usage.close()
    usage.close()
    with pytest.raises(StorageError) as caught:
        usage.reserve("a", [MINUTE])
    assert_clear_error(caught, path, "closed")


# -- network file systems ----------------------------------------------------------------------------

SHARED = Machine(local=lambda _: False)
THREE = QuotaWindow("per_minute", 3, 60.0)


def test_on_a_network_file_system_there_is_no_write_ahead_log(path):
    """Its index is memory that only one machine's processes share."""
    with CallLog(path, machine=SHARED) as one, CallLog(path, machine=SHARED) as other:
        for usage in (one, other, one):
            reserved(usage, THREE)
        window_full(other, THREE)
        assert {made.name for made in path.parent.iterdir()} == {path.name}


@on_linux
def test_a_file_system_without_a_device_may_be_one():
    with tempfile.TemporaryDirectory(dir=SHM) as folder, CallLog(Path(folder) / "usage.db") as usage:
        assert usage._db.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_log_that_moved_to_a_network_file_system_or_back_is_continued(path):
    for machine in (Machine(), SHARED, Machine()):
        with CallLog(path, machine=machine) as usage:
            reserved(usage, THREE)
    with CallLog(path) as usage:
        assert len(usage.ages("a", 60.0)) == 3


def test_another_machine_continues_at_the_last_time_in_the_file(path):
    """Every task has a boot of its own: what one has called counts for the next."""

    def task(boot: str, wall: float) -> Machine:
        return SHARED._replace(boot=lambda: boot, elapsed=lambda: 5.0, wall=lambda: wall)

    with CallLog(path, machine=task("first", 1000.0)) as usage:
        for _ in range(3):
            used(usage, THREE)
    with CallLog(path, machine=task("second", 1059.0)) as usage:
        window_full(usage, THREE)
    with CallLog(path, machine=task("third", 1061.0)) as usage:
        reserved(usage, THREE)


def test_a_journal_mode_that_is_not_available_is_a_clear_error(path):
    with CallLog(path, machine=Machine(local=lambda _: True)), pytest.raises(StorageError) as caught:
        # Others use the write-ahead log now, so it cannot be left.
        CallLog(path, machine=SHARED, timeout=0.1)
    assert_clear_error(caught, path)


# -- many calls --------------------------------------------------------------------------------------


def logged(usage: CallLog) -> int:
    return int(usage._db.execute("SELECT count(*) FROM calls").fetchone()[0])


def test_old_calls_are_deleted_when_the_log_is_opened(path, clock):
    with CallLog(path, clock) as usage:
        for _ in range(3):
            used(usage, DAILY)
        reserved(usage, DAILY, account="b")
    clock.advance(DAY + LOST_AFTER - 1)
    with CallLog(path, clock) as usage:
        assert logged(usage) == 4
    clock.advance(2)
    with CallLog(path, clock) as usage:
        assert logged(usage) == 1
        # What was counted when they were there is not counted now.
        for _ in range(3):
            used(usage, DAILY)
        window_full(usage, DAILY)


def test_old_calls_are_deleted_now_and_then(usage, clock, monkeypatch):
    monkeypatch.setattr(quota, "PURGE_EVERY", 64)
    for _ in range(3):
        used(usage, DAILY)
    clock.advance(2 * DAY)
    many = QuotaWindow("any", 2 * quota.PURGE_EVERY, DAY)
    while reserved(usage, many) % quota.PURGE_EVERY:
        assert logged(usage) > 3
    assert logged(usage) == quota.PURGE_EVERY - 3
    # The limit of three was reached two days ago, and would be again by those that are left.
    assert window_full(usage, DAILY).opens_in == pytest.approx(DAY + LOST_AFTER, abs=EPSILON)


def test_only_what_a_call_reserves_must_outlive_a_power_cut(path):
    """In WAL mode SQLite's NORMAL may lose the last transactions then, and FULL none."""
    with CallLog(path, lambda: 0.0) as log:
        said: list[str] = []
        log._db.set_trace_callback(said.append)
        reservation = log.reserve("a", (QuotaWindow("per_day", 5, DAY),))
        assert isinstance(reservation, int)
        log.finish(reservation)
    modes = [text for text in said if "synchronous" in text or text == "COMMIT"]
    full, normal = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"
    assert modes == [full, "COMMIT", normal, "COMMIT"]
