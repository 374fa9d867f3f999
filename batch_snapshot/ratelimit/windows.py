"""The rolling quota windows: an exact log of calls, shared by all processes of the machine.

A call counts in every declared window of its account from the moment it is about to leave until a full
window after it ended: the service may have counted it at any instant between. So no window of that length,
wherever it begins, holds more calls than its limit, over restarts, crashes and concurrent processes.
(A leaky bucket would let through nearly twice as many.)

**How it is counted.** A row of `calls` is a reservation: it holds when its call ended, or when it is assumed
to have ended if that is never reported. A call fits a window if fewer than its limit ended within it.
Triggers keep the number of calls that ended in each minute: the minutes of a window are added up, and only
the calls of its first minute are counted. So a day of 500,000 calls takes a fraction of a millisecond.

**Time.** The wall clock may be set by hours, which would open a window early or block it. Steady time is what
the kernel has counted since the boot, sleep included, plus a base that the file keeps for the boot. A new
boot continues at the wall clock, or at the last time in the file if that is later. The file holds whole
microseconds; a call is logged as ended one microsecond late.

**Durability.** A reservation survives the death of any process. SQLite keeps a write-ahead log where the file
is on a block device, with synchronous=NORMAL: a power cut or a crash of the kernel may lose the calls of the
last half minute or so, which costs throttles at worst. This log needs memory that all processes share, so
anywhere else, as on a network file system that several machines use, SQLite keeps a rollback journal, guarded
by the file system's locks: each call then costs some milliseconds, and each machine uses its own clock.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import NamedTuple, Self

from batch_snapshot import files, sqlite
from batch_snapshot.clock import boot_id, seconds_since_boot, unix_time
from batch_snapshot.errors import StorageError
from batch_snapshot.models import Quota

#: Seconds after which a reservation counts as ended if its process was killed before it reported: a call with
#: its credentials is abandoned after 180 s, and clocks and queues may add to that.
LOST_AFTER = 300.0
#: Seconds of the longest window.
DAY = 86_400.0
#: Seconds to wait for other processes' transactions, each of which takes milliseconds.
LOCK_TIMEOUT = 10.0
#: Seconds for which notes are kept.
NOTED_FOR = 90 * DAY
#: Reservations between two purges: a purge reads the whole index.
PURGE_EVERY = 4096
#: The version of the file's tables, kept as SQLite's user_version.
SCHEMA = 2

_MICROS = 1_000_000
#: Times are microseconds of steady time. Ids are never used twice: a reservation that is finished after it
#: was purged must not finish another one.
_MINUTE = 60 * _MICROS
_ADD = """INSERT INTO minutes VALUES (NEW.account, NEW.ended / 60000000, 1)
    ON CONFLICT DO UPDATE SET calls = calls + 1;"""
_REMOVE = """UPDATE minutes SET calls = calls - 1
    WHERE account = OLD.account AND minute = OLD.ended / 60000000;"""
#: Run whenever the file is opened: it may be new, or of an earlier version. Programs of earlier versions that
#: use the file at the same time run the triggers too.
_TABLES = (
    """CREATE TABLE IF NOT EXISTS calls
        (id INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, ended INTEGER NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS calls_by_end ON calls (account, ended)",
    """CREATE TABLE IF NOT EXISTS minutes (account TEXT NOT NULL, minute INTEGER NOT NULL,
        calls INTEGER NOT NULL, PRIMARY KEY (account, minute)) WITHOUT ROWID""",
    """INSERT INTO minutes SELECT account, ended / 60000000, count(*) FROM calls
        WHERE NOT EXISTS (SELECT 1 FROM minutes) GROUP BY 1, 2""",
    f"CREATE TRIGGER IF NOT EXISTS call_added AFTER INSERT ON calls BEGIN {_ADD} END",
    f"CREATE TRIGGER IF NOT EXISTS call_removed AFTER DELETE ON calls BEGIN {_REMOVE} END",
    f"CREATE TRIGGER IF NOT EXISTS call_moved AFTER UPDATE ON calls BEGIN {_REMOVE} {_ADD} END",
    """CREATE TABLE IF NOT EXISTS notes
        (name TEXT PRIMARY KEY, text TEXT NOT NULL, written INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS clock (boot TEXT, base INTEGER NOT NULL, seen INTEGER NOT NULL)",
    "INSERT INTO clock SELECT NULL, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM clock)",
    # Version 1 kept running counts.
    "DROP TABLE IF EXISTS counts",
    f"PRAGMA user_version = {SCHEMA}",
)

_ELSEWHERE = "use a folder that can be written, on a local disk: name it with --state-dir"
_MOVE_AWAY = "move the file away, then run the same command (the calls it counted are then forgotten)"
_FAILED = "cannot keep count of calls here"


@dataclass(frozen=True, slots=True)
class QuotaWindow:
    #: As it was declared: per_minute, per_hour or per_day.
    name: str
    #: Calls that may be used: what was declared, less the reserve, never below 0.
    limit: int
    seconds: float

    @property
    def span(self) -> str:
        return {60.0: "minute", 3600.0: "hour"}.get(self.seconds, f"{self.seconds / 3600:g} hours")


def windows(quota: Quota, per_day: int | None = None) -> tuple[QuotaWindow, ...]:
    # The shortest first; `per_day` overrides the calls per day of `quota`.
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
    return min((window.limit * DAY / window.seconds for window in windows(quota)), default=inf)


class WindowFull(NamedTuple):
    #: The full window that opens last.
    window: QuotaWindow
    #: Seconds until one call fits all windows; inf where the limit is 0. Calls in flight are assumed to last
    #: `LOST_AFTER`: when one ends, the next may fit earlier.
    opens_in: float


class Machine(NamedTuple):
    #: A name that lasts until the next boot; None: unknown, and each opening of the log counts as a boot.
    boot: Callable[[], str | None] = boot_id
    #: Seconds that never run backwards in one boot, and that all its processes share.
    elapsed: Callable[[], float] = seconds_since_boot
    #: Seconds since 1970, if the clock is set right.
    wall: Callable[[], float] = unix_time
    #: Whether a file is on a disk of this machine alone.
    local: Callable[[Path], bool] = files.is_on_block_device


class CallLog:
    """The log of calls, in one SQLite file (mode 0600) that any number of processes may use at once.

    An `account` is an opaque key for anything that has its own quotas. Threads may share one object; a
    process and its forked child may not. Every method is one short transaction; it raises `StorageError`,
    and changes nothing, if the file cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] | None = None,
        *,
        machine: Machine | None = None,
        timeout: float = LOCK_TIMEOUT,
    ) -> None:
        """Open or create the log at `path`; `clock` gives steady seconds, instead of the machine's."""
        self._path = path.absolute()
        self._lock = threading.Lock()
        with self._errors():
            sqlite.create(self._path)
            # Taken before it is opened, so that a file that replaces it in between is noticed.
            self._identity = self._file_identity()
            self._db = sqlite.connect(self._path, timeout=timeout, check_same_thread=False)
        try:
            with self._errors():
                self._prepare(clock, machine or Machine(), timeout)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock, self._errors():
            self._db.close()

    def reserve(self, account: str, windows: Sequence[QuotaWindow]) -> int | WindowFull:
        """Log a call that is about to leave, or say when one would fit all `windows`.

        Returns an id for `finish` or `cancel`; 0, and nothing is logged, if there are no windows.
        """
        if not windows:
            return 0
        with self._transaction(durable=True) as now:
            full = [
                WindowFull(window, wait) for window in windows if (wait := self._wait(account, window, now))
            ]
            if full:
                return max(full, key=lambda one: one.opens_in)
            row = (account, now + _micros(LOST_AFTER))
            added = self._db.execute("INSERT INTO calls (account, ended) VALUES (?, ?)", row)
            reservation = added.lastrowid or 0
            if reservation % PURGE_EVERY == 0:
                self._purge(now)
            return reservation

    def free_calls(self, account: str, windows: Sequence[QuotaWindow]) -> int:
        """How many calls fit all `windows` now; there is at least one window."""
        with self._transaction() as now:
            free = (window.limit - self._count(account, now - _micros(window.seconds)) for window in windows)
            return max(0, min(free))

    def finish(self, reservation: int) -> None:
        """The call ended: it counts for a full window from now.

        This also holds for a reservation that counted as lost; of two calls of this method the later counts.
        """
        with self._transaction() as now:
            self._db.execute("UPDATE calls SET ended = ? WHERE id = ?", (now + 1, reservation))

    def cancel(self, reservation: int) -> None:
        with self._transaction():
            self._db.execute("DELETE FROM calls WHERE id = ?", (reservation,))

    def ages(self, account: str, seconds: float) -> list[float]:
        """How long ago the calls of the last `seconds` ended, in seconds, ascending.

        A call in flight has the age 0. Calls older than a day may have been forgotten.
        """
        with self._transaction() as now:
            ended = self._db.execute(
                "SELECT ended FROM calls WHERE account = ? AND ended > ? ORDER BY ended DESC",
                (account, now - _micros(seconds)),
            ).fetchall()
        return [max(0, now - at) / _MICROS for (at,) in ended]

    def read_note(self, name: str, max_age: float = inf) -> str | None:
        """The text stored under `name`; None: there is none, or it is older than `max_age` seconds."""
        with self._transaction() as now:
            text, age = self._find_note(name, now)
        return text if age <= max_age else None

    def update_note(self, name: str, change: Callable[[str | None, float], str | None]) -> None:
        """Change the text stored under `name` in one transaction.

        `change` gets the text, None if there is none, and its age in seconds; it returns the new text, or
        None to keep the old one.
        """
        with self._transaction() as now:
            after = change(*self._find_note(name, now))
            if after is not None:
                self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (name, after, now))

    def _find_note(self, name: str, now: int) -> tuple[str | None, float]:
        found = self._db.execute("SELECT text, written FROM notes WHERE name = ?", (name,)).fetchone()
        return (None, inf) if found is None else (str(found[0]), (now - found[1]) / _MICROS)

    # -- counting ----------------------------------------------------------------------------------

    def _wait(self, account: str, window: QuotaWindow, now: int) -> float:
        """Seconds until one call fits the window; 0: it fits."""
        if window.limit <= 0:
            return inf
        width = _micros(window.seconds)
        if self._count(account, now - width) < window.limit:
            return 0.0
        # One call fits when this one leaves the window; calls are ordered by their end.
        row = self._db.execute(
            "SELECT ended FROM calls WHERE account = ? AND ended > ? ORDER BY ended DESC LIMIT 1 OFFSET ?",
            (account, now - width, window.limit - 1),
        ).fetchone()
        return float(row[0] + width - now) / _MICROS

    def _count(self, account: str, after: int) -> int:
        """Calls that ended after this time: those of its minute, and the sums of the minutes that follow."""
        following = after // _MINUTE + 1
        query = """SELECT
            (SELECT count(*) FROM calls WHERE account = :account AND ended > :after AND ended < :edge)
            + (SELECT total(calls) FROM minutes WHERE account = :account AND minute >= :following)"""
        known = {"account": account, "after": after, "edge": following * _MINUTE, "following": following}
        return int(self._db.execute(query, known).fetchone()[0])

    def _purge(self, now: int) -> None:
        """Delete calls that are in no window any more, and old notes."""
        self._db.execute("DELETE FROM calls WHERE ended <= ?", (now - _micros(DAY + LOST_AFTER),))
        self._db.execute("DELETE FROM minutes WHERE calls = 0")
        self._db.execute("DELETE FROM notes WHERE written < ?", (now - _micros(NOTED_FOR),))

    # -- the file ----------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[int]:
        """Run the block as one transaction, at a time that no earlier transaction is ahead of.

        A power cut may undo it, unless it is `durable`.
        """
        with self._lock, self._errors():
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else self._relaxed}")
            with sqlite.transaction(self._db):
                self._check_not_replaced()
                yield self._now()

    def _errors(self) -> AbstractContextManager[None]:
        return sqlite.errors_of(self._path, _FAILED, elsewhere=_ELSEWHERE, if_damaged=_MOVE_AWAY)

    def _unusable_file(self, reason: str, way_out: str) -> StorageError:
        return StorageError(f"{self._path}: {_FAILED} ({reason}); {way_out}")

    def _now(self) -> int:
        """Steady time in microseconds, for all processes; call it within a transaction."""
        now = _micros(self._clock())
        if self._db.execute("UPDATE clock SET seen = ? WHERE seen < ?", (now, now)).rowcount:
            return now
        return int(self._db.execute("SELECT seen FROM clock").fetchone()[0])

    def _prepare(self, clock: Callable[[], float] | None, machine: Machine, timeout: float) -> None:
        self._check_schema()
        wanted = "wal" if machine.local(self._path) else "delete"
        if (mode := sqlite.set_journal_mode(self._db, wanted, timeout)) != wanted:
            raise self._unusable_file(f"its file system allows journal mode {mode} only", _ELSEWHERE)
        # Without a write-ahead log a power cut could damage the file (https://sqlite.org/pragma.html).
        self._relaxed = "NORMAL" if wanted == "wal" else "FULL"
        with sqlite.transaction(self._db):
            self._check_not_replaced()
            self._check_schema()
            for statement in _TABLES:
                self._db.execute(statement)
            self._clock = clock or self._steady_clock(machine)
            self._purge(self._now())

    def _check_schema(self) -> None:
        """Refuse files of other programs and of newer versions."""
        # In this order: another process may create the tables and set the version in between.
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA:
            reason = f"a newer version wrote it: schema {version}, where this one knows {SCHEMA}"
            raise self._unusable_file(reason, "update batch-snapshot, or use another folder")
        if version == 0 and tables:
            raise self._unusable_file("it is another program's database", _MOVE_AWAY)

    def _check_not_replaced(self) -> None:
        """Refuse to go on with a file that was removed: its calls count for no other process."""
        found = self._file_identity()
        if found is None or found != self._identity:
            reason = "the file was removed or replaced"
            raise self._unusable_file(reason, "run the same command again")

    def _file_identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _steady_clock(self, machine: Machine) -> Callable[[], float]:
        """The steady clock that all processes of this boot share."""
        boot = machine.boot()
        known, base, seen = self._db.execute("SELECT boot, base, seen FROM clock").fetchone()
        if boot is None or boot != known:
            base = max(_micros(machine.wall()), seen) - _micros(machine.elapsed())
            self._db.execute("UPDATE clock SET boot = ?, base = ?", (boot, base))
        return lambda: base / _MICROS + machine.elapsed()


def _micros(seconds: float) -> int:
    return int(seconds * _MICROS)
