"""The rolling quota windows: an exact log of calls, shared by all processes of the machine.

A call occupies a slot of every declared window of its account from the moment it is about to leave
until a full window after it was over: the service may have counted it at any instant between. So no
window of that length, wherever it begins, holds more calls than its limit, over restarts, crashes
and concurrent processes. (A leaky bucket would let through nearly twice as many.)

**How it is counted.** A row of `calls` says when its call was over, or will be taken to be if nobody
says more. Counting 100,000 of them takes milliseconds, so `counts` keeps, for each account and
width of a window, how many calls ended after its edge. That edge only moves forward, as steady time
does: a claim takes off what ended between the old and the new edge, each call once.

**Time.** The wall clock may be stepped by hours, and would then open a window or jam it. Steady
time is what the kernel has counted since the boot, sleep included, plus a base that the file keeps
for the boot; a new boot goes on at the wall clock, or where time was last seen if that is later.
In the file it is whole microseconds; calls are logged as over rather a microsecond late.

**Durability.** What was claimed survives the death of any process. A power cut or a crash of the
kernel may forget the calls of the last half minute or so (SQLite's WAL with synchronous=NORMAL), which
costs throttles at worst. WAL needs memory that all processes share, so the file belongs on a local disk. On a
network file system, where those of several machines may meet, SQLite keeps a rollback journal instead,
guarded by the file system's locks: each call then costs round trips, and machines go by clocks of their own.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Self

from batch_snapshot import mounts, sqlite
from batch_snapshot.clock import boot_id, seconds_since_boot, unix_time
from batch_snapshot.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from batch_snapshot.models import Quota

#: A claim that nobody finishes, its process having been killed, counts as over so many seconds after
#: it was made: a call with its credentials is given up after 180 s, and clocks and queues may add to that.
LOST_AFTER = 300.0
#: Seconds of the longest window there is.
DAY = 86_400.0
#: Seconds to wait for other processes; a transaction takes a fraction of a millisecond.
BUSY = 10.0
#: Seconds for which notes are kept.
NOTED_FOR = 90 * DAY
#: Claims between two purges: a purge reads the whole index.
PURGE_EVERY = 4096
#: Of the file; SQLite's user_version.
SCHEMA = 1

_MICROS = 1_000_000
#: Later than any time.
_EVER = 2**63 - 1
#: `ended` and the like are microseconds of steady time. Ids are never used twice: a claim that is
#: finished late, after it was purged, must not meet another.
_TABLES = """
CREATE TABLE calls (id INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, ended INTEGER NOT NULL);
CREATE INDEX calls_by_end ON calls (account, ended);
CREATE TABLE counts (account TEXT, width INTEGER, edge INTEGER NOT NULL, used INTEGER NOT NULL,
                     PRIMARY KEY (account, width)) WITHOUT ROWID;
CREATE TABLE notes (name TEXT PRIMARY KEY, text TEXT NOT NULL, written INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE clock (boot TEXT, base INTEGER NOT NULL, seen INTEGER NOT NULL);
INSERT INTO clock VALUES (NULL, 0, 0);
PRAGMA user_version = 1
"""

_ELSEWHERE = "use a folder that can be written, on a local disk: name it with --state-dir"
_MOVE_AWAY = "move the file away, then run the same command (the calls it counted are then forgotten)"
_FAILED = "cannot keep count of calls here"


@dataclass(frozen=True, slots=True)
class QuotaWindow:
    """A rolling window of an account."""

    #: As it was declared: per_minute, per_hour or per_day.
    name: str
    #: Calls that may be used: what was declared, less the reserve, never below 0.
    limit: int
    seconds: float


def windows(quota: Quota, per_day: int | None = None) -> tuple[QuotaWindow, ...]:
    """The windows that `quota` declares, the shortest first; `per_day` overrides its calls a day."""
    declared = (
        ("per_minute", quota.per_minute, 60.0),
        ("per_hour", quota.per_hour, 3600.0),
        ("per_day", quota.per_day if per_day is None else per_day, DAY),
    )
    return tuple(
        QuotaWindow(name, max(0, calls - quota.reserve), seconds)
        for name, calls, seconds in declared
        if calls is not None
    )


def calls_a_day(quota: Quota) -> float:
    """Calls that the windows of `quota` let through in a day; inf: it declares none."""
    return min((window.limit * DAY / window.seconds for window in windows(quota)), default=inf)


class WindowFull(NamedTuple):
    """No call fits now."""

    #: The one that opens last.
    window: QuotaWindow
    #: Seconds until one call fits all windows if nothing else happens; inf where the limit is 0. A call
    #: in flight is taken to last `LOST_AFTER`: once it is over, one may fit earlier.
    opens_in: float


class Machine(NamedTuple):
    """What the machine tells about time, and about its file systems."""

    #: A name that lasts until the next boot; None: not known, and every opening counts as a boot.
    boot: Callable[[], str | None] = boot_id
    #: Seconds that never run backwards in one boot, and that all its processes share.
    elapsed: Callable[[], float] = seconds_since_boot
    #: Seconds since 1970, if the clock is right.
    wall: Callable[[], float] = unix_time
    #: Whether a file lies on a network file system.
    remote: Callable[[Path], bool] = mounts.remote


class CallLog:
    """The log of calls, in one SQLite file (mode 0600) that any number of processes may use at once.

    An `account` is an opaque key for whatever has quotas of its own. Threads may share one object; a
    process that forks may not share it with its child. Every method is one short transaction, and
    raises `StorageError` if the file cannot be read or written: nothing has happened then.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] | None = None,
        *,
        machine: Machine | None = None,
        patience: float = BUSY,
    ) -> None:
        """Open the log at `path`, or begin it.

        Args:
            path: the file; its folder is made.
            clock: steady time in seconds, to be used instead of the machine's.
            machine: where the machine's time comes from.
            patience: seconds to wait for other processes.

        Raises:
            StorageError: it cannot be opened, is no such file, or one of a newer version.
        """
        self._path = path.absolute()
        self._lock = threading.Lock()
        with self._errors():
            sqlite.create(self._path)
            # Before it is opened: a file that replaces it in between is noticed.
            there = self._path.stat()
            self._identity = (there.st_dev, there.st_ino)
            self._db = sqlite.connect(self._path, timeout=patience, check_same_thread=False)
        try:
            with self._errors():
                self._prepare(clock, machine or Machine(), patience)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; calls that were claimed and not finished stay in flight."""
        with self._lock, self._errors():
            self._db.close()

    def claim(self, account: str, windows: Sequence[QuotaWindow]) -> int | WindowFull:
        """Log a call that is about to leave, or tell when one would fit all `windows`.

        Returns:
            An id for `finish` or `cancel`; 0, and nothing is logged, if there are no windows.
        """
        if not windows:
            return 0
        with self._transaction() as now:
            spent = [
                WindowFull(window, wait) for window in windows if (wait := self._wait(account, window, now))
            ]
            if spent:
                return max(spent, key=lambda one: one.opens_in)
            row = (account, now + _micros(LOST_AFTER))
            claim = self._db.execute("INSERT INTO calls (account, ended) VALUES (?, ?)", row).lastrowid or 0
            self._db.execute("UPDATE counts SET used = used + 1 WHERE account = ?", (account,))
            if claim % PURGE_EVERY == 0:
                self._purge(now)
            return claim

    def room(self, account: str, windows: Sequence[QuotaWindow]) -> int:
        """How many calls fit all `windows` now; `windows` are not empty."""
        with self._transaction() as now:
            free = (
                window.limit - self._count(account, _micros(window.seconds), now)[1] for window in windows
            )
            return max(0, min(free))

    def finish(self, claim: int) -> None:
        """The call was answered, failed or dropped: its slot is free a full window from now.

        It holds for a claim that was given up for lost, too; of two finishes the later holds.
        """
        with self._transaction() as now:
            if found := self._find(claim):
                account, before = found
                self._db.execute("UPDATE calls SET ended = ? WHERE id = ?", (now + 1, claim))
                # Windows that it had left before, lost or finished, hold it again.
                self._db.execute(
                    "UPDATE counts SET used = used + 1 WHERE account = ? AND edge >= ?", (account, before)
                )

    def cancel(self, claim: int) -> None:
        """The call provably never left: its slot is free at once."""
        with self._transaction():
            if found := self._find(claim):
                self._db.execute("DELETE FROM calls WHERE id = ?", (claim,))
                self._db.execute("UPDATE counts SET used = used - 1 WHERE account = ? AND edge < ?", found)

    def ages(self, account: str, seconds: float) -> list[float]:
        """How long ago the calls of the last `seconds` were over, in seconds, ascending.

        A call in flight has the age 0. Calls older than a day may have been forgotten.
        """
        with self._transaction() as now:
            ended = self._db.execute(
                "SELECT ended FROM calls WHERE account = ? AND ended > ? ORDER BY ended DESC",
                (account, now - _micros(seconds)),
            ).fetchall()
        return [max(0, now - at) / _MICROS for (at,) in ended]

    def note(self, name: str, max_age: float = inf) -> str | None:
        """What was noted under `name`, unless that is more than `max_age` seconds ago."""
        with self._transaction() as now:
            text, age = self._noted(name, now)
        return text if age <= max_age else None

    def revise(self, name: str, change: Callable[[str | None, float], str | None]) -> None:
        """Change what is noted under `name`, with nobody between.

        Args:
            name: of the note.
            change: gets the text, None if there is none, and its age in seconds; returns another, or
                None to leave it as it is.
        """
        with self._transaction() as now:
            after = change(*self._noted(name, now))
            if after is not None:
                self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (name, after, now))

    def _noted(self, name: str, now: int) -> tuple[str | None, float]:
        found = self._db.execute("SELECT text, written FROM notes WHERE name = ?", (name,)).fetchone()
        return (None, inf) if found is None else (str(found[0]), (now - found[1]) / _MICROS)

    # -- counting ----------------------------------------------------------------------------------

    def _wait(self, account: str, window: QuotaWindow, now: int) -> float:
        """Seconds until one call fits the window; 0: it fits."""
        if window.limit <= 0:
            return inf
        width = _micros(window.seconds)
        edge, used = self._count(account, width, now)
        if used < window.limit:
            return 0.0
        # Of the calls in the window, ascending, this is the one whose end makes room.
        row = self._db.execute(
            "SELECT ended FROM calls WHERE account = ? AND ended > ? ORDER BY ended LIMIT 1 OFFSET ?",
            (account, edge, used - window.limit),
        ).fetchone()
        return float(row[0] + width - now) / _MICROS

    def _count(self, account: str, width: int, now: int) -> tuple[int, int]:
        """The edge of the window that ends now, and how many calls ended after it."""
        edge = now - width
        found = self._db.execute(
            "SELECT edge, used FROM counts WHERE account = ? AND width = ?", (account, width)
        ).fetchone()
        if found is None:
            used = self._ended(account, edge, _EVER)
            self._db.execute("INSERT INTO counts VALUES (?, ?, ?, ?)", (account, width, edge, used))
            return edge, used
        before, used = found
        if gone := self._ended(account, before, edge):
            used -= gone
            self._db.execute(
                "UPDATE counts SET edge = ?, used = ? WHERE account = ? AND width = ?",
                (edge, used, account, width),
            )
        return edge, used

    def _ended(self, account: str, after: int, until: int) -> int:
        row = self._db.execute(
            "SELECT count(*) FROM calls WHERE account = ? AND ended > ? AND ended <= ?",
            (account, after, until),
        ).fetchone()
        return int(row[0])

    def _find(self, claim: int) -> tuple[str, int] | None:
        """The claim's account, and when it is taken to be over."""
        found: tuple[str, int] | None = self._db.execute(
            "SELECT account, ended FROM calls WHERE id = ?", (claim,)
        ).fetchone()
        return found

    def _purge(self, now: int) -> None:
        """Forget what is in no window any more, and counts with an edge so old that they may miss it."""
        horizon = now - _micros(DAY + LOST_AFTER)
        self._db.execute("DELETE FROM calls WHERE ended <= ?", (horizon,))
        self._db.execute("DELETE FROM counts WHERE edge < ?", (horizon,))
        self._db.execute("DELETE FROM notes WHERE written < ?", (now - _micros(NOTED_FOR),))

    # -- the file ----------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[int]:
        """Alone with the file, at a time no earlier than any that was seen: all or nothing."""
        with self._lock, self._errors(), sqlite.transaction(self._db):
            self._refuse_ghosts()
            yield self._now()

    def _errors(self) -> AbstractContextManager[None]:
        return sqlite.errors_of(self._path, _FAILED, elsewhere=_ELSEWHERE, if_damaged=_MOVE_AWAY)

    def _unusable(self, reason: str, way_out: str, kind: type[StorageError] = StorageError) -> StorageError:
        return kind(f"{self._path}: {_FAILED} ({reason}); {way_out}")

    def _now(self) -> int:
        """Steady time in microseconds; only asked for within a transaction, so that it is everybody's."""
        now = _micros(self._clock())
        if self._db.execute("UPDATE clock SET seen = ? WHERE seen < ?", (now, now)).rowcount:
            return now
        return int(self._db.execute("SELECT seen FROM clock").fetchone()[0])

    def _prepare(self, clock: Callable[[], float] | None, machine: Machine, patience: float) -> None:
        self._refuse_strangers()
        if machine.remote(self._path):
            self._journal("delete", patience)
        else:
            self._journal("wal", patience)
            self._db.execute("PRAGMA synchronous = NORMAL")
        with sqlite.transaction(self._db):
            self._refuse_ghosts()
            if self._refuse_strangers() == 0:
                sqlite.create_tables(self._db, _TABLES)
            self._clock = clock or self._steady(machine)
            self._purge(self._now())

    def _refuse_strangers(self) -> int:
        """The schema's version, 0 for an empty file; other files than ours are left as they are."""
        # In this order: another process may make the tables in between, and the version with them.
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA:
            reason = f"a newer version wrote it: schema {version}, where this one knows {SCHEMA}"
            raise self._unusable(reason, "update batch-snapshot, or use another folder")
        if version == 0 and tables:
            raise self._unusable("it is another program's database", _MOVE_AWAY)
        return version

    def _refuse_ghosts(self) -> None:
        """A file that was removed can still be written here, and counts for nobody else."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != self._identity:
            raise self._unusable("the file was removed or replaced meanwhile", "run the same command again")

    def _journal(self, wanted: str, patience: float) -> None:
        mode = sqlite.set_journal_mode(self._db, wanted, patience)
        if mode != wanted:
            what = {"wal": "write-ahead log", "delete": "rollback journal"}[wanted]
            raise self._unusable(f"its file system allows no {what}, only {mode}", _ELSEWHERE)

    def _steady(self, machine: Machine) -> Callable[[], float]:
        """The machine's steady time, the same for all processes of one boot."""
        boot = machine.boot()
        known, base, seen = self._db.execute("SELECT boot, base, seen FROM clock").fetchone()
        if boot is None or boot != known:
            base = max(_micros(machine.wall()), seen) - _micros(machine.elapsed())
            self._db.execute("UPDATE clock SET boot = ?, base = ?", (boot, base))
        return lambda: base / _MICROS + machine.elapsed()


def _micros(seconds: float) -> int:
    return int(seconds * _MICROS)
