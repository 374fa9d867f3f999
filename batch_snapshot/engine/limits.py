"""What a run may use: calls in flight, and each account's pace and quota windows.

Which AWS account signs is known only once there are credentials, so an account's windows are set before its
first call. What was found out is also stored under the account's own settings, so that a plan needs no call.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from math import inf

import anyio

from batch_snapshot.engine.account import AccountState
from batch_snapshot.errors import StorageError
from batch_snapshot.models import SIMULATOR, UNKNOWN_ACCOUNT, Account
from batch_snapshot.ratelimit import forecast, pace, pace_handover
from batch_snapshot.ratelimit import windows as quota
from batch_snapshot.ratelimit.forecast import Forecast
from batch_snapshot.ratelimit.pace import Pace, Phase
from batch_snapshot.ratelimit.pacer import LocalPace, Pacer
from batch_snapshot.ratelimit.windows import CallLog, QuotaWindow

Identify = Callable[[str], Awaitable[str]]

#: Reads that AWS allows every account, a second and in any 24 hours.
#: https://docs.aws.amazon.com/partner-central/latest/APIReference/quotas.html
READ_RATE = 10.0
READS_PER_DAY = 100_000
#: Writes a second that AWS publishes for other operations; it does not list this one. Only a plan without a
#: declared or learned rate assumes it.
PUBLISHED_RATE = 1.0
#: Seconds after its last event for which another process is taken to follow a shared pace still.
IN_USE_FOR = 15.0
#: Seconds after which a learned rate is forgotten: quotas are raised, and other programs come and go.
LEARNED_FOR = 7 * 86_400.0


class ConcurrencyLimit:
    """Calls in flight at most, shared out evenly among the accounts that have calls to make.

    The engines of one process may share it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = anyio.Semaphore(limit, fast_acquire=True)
        self.take = self._free.acquire
        #: Calls in flight beyond a limit that was lowered: as many that end make room for none.
        self._excess = 0
        #: About how many accounts all engines that share it have.
        self.expected = 1

    def share(self, busy: int) -> int:
        """Calls in flight of one account at most, now that `busy` accounts of its engine have calls to make.

        So an account whose calls hang takes no other's. It is rounded up, so that the whole limit is used.
        """
        return -(-self._limit // max(1, busy, self.expected))

    @property
    def taken(self) -> int:
        return self._limit + self._excess - self._free.value

    def change(self, limit: int) -> None:
        """Set another limit; calls in flight beyond it go on to their end."""
        self._excess, self._limit = self._excess + self._limit - limit, limit
        while self._excess > 0 and self.take_nowait():
            self._excess -= 1
        while self._excess < 0:
            self._excess += 1
            self._free.release()

    def take_nowait(self) -> bool:
        """Begin a call if the limit allows it now."""
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    def give_back(self) -> None:
        if self._excess:
            self._excess -= 1
        else:
            self._free.release()


class WindowMeter:
    """One account's windows in the log of calls."""

    def __init__(self, usage: CallLog, key: str, windows: tuple[QuotaWindow, ...]) -> None:
        self.key = key
        self.reserve = partial(usage.reserve, key, windows)
        self.free_calls = partial(usage.free_calls, key, windows)
        self.finish, self.cancel = usage.finish, usage.cancel


class SharedPace(LocalPace):
    """An account's pace, shared by all processes of the machine.

    While a limit is sought, each process seeks it alone. Once it was met, the pace is the account's: each
    process takes its permits from it and reports the answers to it, so that all together call as one would.
    If it cannot be shared, each process follows its own.
    """

    def __init__(
        self, usage: CallLog, key: str, start: Pace, now: float, warn: Callable[[str], None]
    ) -> None:
        """Join the processes that call for `key` now; else begin with `start`, or near a learned rate.

        `now` is in seconds of the clock that all processes share; `warn` receives why the pace is no longer
        shared.
        """
        super().__init__(start)
        self._usage: CallLog | None = usage
        self._key = key
        self._warn = warn
        self._ceiling = start.ceiling
        #: What was read or written last: unless another process writes, nothing is parsed.
        self._last: tuple[str | None, Pace | None] = (None, None)

        def join(text: str | None, age: float) -> str | None:
            stored, known = pace_handover.load(text), self._parse(text)
            # At its own declared rate it met no limit, and says nothing about ours.
            unmet = stored is not None and stored.peak >= stored.ceiling != start.ceiling
            if known and age <= IN_USE_FOR and not unmet:
                self.pace = known
                return None
            if known and start.ceiling < inf:
                # The last call may be less than a gap ago. A later time is of an earlier boot.
                self.pace = start._replace(next_call_at=min(known.next_call_at, now + 1 / start.ceiling))
            elif known and known.known and age <= LEARNED_FOR and start.phase is Phase.SEARCH:
                self.pace = pace.learned(known.known, now)
            # No other process uses what is stored: its times may be of an earlier boot.
            return None if self.pace.phase is Phase.SEARCH else self._dump(self.pace)

        self._revise(join)

    def change(self, event: Callable[[Pace], Pace]) -> None:
        """Apply an event to the pace in one step, with no other process between."""
        if self._usage is not None and self.pace.phase is not Phase.SEARCH:
            if not self._revise(partial(self._follow, event)):
                self.pace = event(self.pace)
            return
        found = event(self.pace)
        met = self.pace.phase is Phase.SEARCH and found.phase is not Phase.SEARCH
        if not (met and self._revise(partial(self._meet, found))):
            self.pace = found

    def _revise(self, change: Callable[[str | None, float], str | None]) -> bool:
        if self._usage is None:
            return False
        before = self.pace
        try:
            self._usage.update_note(self._key, change)
        except StorageError as error:
            self._usage, self.pace = None, before
            self._warn(f"the pace is no longer shared with other runs, nor kept for the next: {error}")
            return False
        return True

    def _meet(self, found: Pace, text: str | None, age: float) -> str | None:
        """Our search met the limit: the pace of a process that met it before, and still follows it, holds.

        What we sent until then says nothing about that pace: it left at another rate.
        """
        known = self._parse(text)
        if known and age <= IN_USE_FOR:
            found = known._replace(
                cut_at=found.cut_at, next_call_at=max(known.next_call_at, found.next_call_at)
            )
        self.pace = found
        return self._dump(found)

    def _follow(self, event: Callable[[Pace], Pace], text: str | None, _: float) -> str | None:
        before = self._parse(text) or self.pace
        self.pace = event(before)
        return None if self.pace is before else self._dump(self.pace)

    def _parse(self, text: str | None) -> Pace | None:
        """The stored pace, below our own ceiling."""
        if text != self._last[0]:
            known = pace_handover.load(text)
            if known is not None and known.ceiling != self._ceiling:
                known = known._replace(ceiling=self._ceiling, peak=min(known.peak, self._ceiling))
            self._last = text, known
        return self._last[1]

    def _dump(self, known: Pace) -> str:
        text = pace_handover.dump(known)
        self._last = text, known
        return text


@dataclass(frozen=True, slots=True)
class AccountForecast:
    """How one account's rows will go."""

    forecast: Forecast
    #: Calls a second, and where the number comes from: declared, measured, learned or assumed.
    rate: float
    basis: str
    windows: tuple[QuotaWindow, ...]
    #: Calls used of each window by now.
    used: tuple[int, ...]
    #: Seconds until a call fits each window; 0: now, inf: never.
    opens_in: tuple[float, ...] = ()


class AccountLimits:
    """The limits of all accounts of a run.

    Whatever asks the log of calls raises `StorageError` if it cannot be read or written; what has to find out
    whose quotas an account spends raises `ApiError` if there are no credentials.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account],
        endpoint: str,
        usage: CallLog | None,
        environ: Mapping[str, str],
        *,
        read_rate: float | None = None,
        wait: bool = True,
    ) -> None:
        """Look limits up in `usage`; without it nothing is known.

        `environ` tells ambient credentials apart; `read_rate` is in reads a second and account. Forecasts are
        of runs that `wait` for spent windows, or else end there.
        """
        self._read_rate, self._wait = read_rate or READ_RATE, wait
        self._accounts = accounts
        self._usage = usage
        self._windows = {name: quota.windows(account.quota) for name, account in accounts.items()}
        self._names = {name: _settings_hash(account, endpoint, environ) for name, account in accounts.items()}
        self._keys: dict[str, str] = {}

    def new_state(self, name: str, *, wait: bool) -> AccountState:
        """An account at its declared pace, or at one that seeks the limit."""
        rate = self._accounts[name].quota.per_second
        start = pace.Pace() if rate is None else pace.declared(rate)
        return AccountState(name, Pacer(start, wait=wait), Pacer(pace.declared(self._read_rate), wait=wait))

    async def apply(self, account: AccountState, identify: Identify) -> None:
        """Find out which AWS account signs, and bind the calls to its windows and its shared pace.

        If it cannot be found out now, it is taken to be the one that had the same settings before.
        """
        name = account.name
        if self._usage is None:
            return
        key = await self._key(account, identify)
        # Only plans read this note. If the log fails, the next lines say what matters of that.
        with suppress(StorageError):
            self._usage.update_note(self._names[name], lambda *_: key)
        if self._windows[name]:
            account.pacer.meter = WindowMeter(self._usage, f"{key} writes", self._windows[name])
            self._meter_reads(account, key)
        self._share_pace(account, self._usage, key)

    def _share_pace(self, account: AccountState, usage: CallLog, key: str) -> None:
        pacer = account.pacer
        kind = "sought" if pacer.pace.declared is None else "declared"
        start, warn = pacer.pace, account.warnings.append
        pacer.store = SharedPace(usage, f"{key} pace {kind}", start, pacer.now(), warn)

    def sharing(self, account: AccountState, accounts: Iterable[AccountState]) -> list[AccountState]:
        """Those of `accounts` that share the account's pace, as they spend the same quotas."""
        key = self._keys.get(account.name)
        return [one for one in accounts if key and self._keys.get(one.name) == key]

    def declare_rate(self, account: AccountState, rate: float) -> None:
        """Give an account that calls another declared rate, for the rest of the run."""
        pacer, now = account.pacer, account.pacer.now()
        pacer.store = LocalPace(pace.redeclared(pacer.pace, rate, now))
        key = self._keys.get(account.name)
        if self._usage is not None and key is not None:
            self._share_pace(account, self._usage, key)
        # It wakes the call that waits, and replaces the rate that other processes follow.
        pacer.change(lambda shared: pace.redeclared(shared, rate, now))

    async def apply_to_reads(self, account: AccountState, identify: Identify) -> None:
        """Bind the reads of an account to their own quota, for commands that make many of them."""
        if self._usage is not None and account.read_pacer.meter is None:
            self._meter_reads(account, await self._key(account, identify))

    async def _key(self, account: AccountState, identify: Identify) -> str:
        """Whose quotas an account spends; asked once."""
        if account.name not in self._keys:
            self._keys[account.name] = self._known_key(account, await identify(account.name))
        return self._keys[account.name]

    def _known_key(self, account: AccountState, key: str) -> str:
        """The AWS account that was known before, if STS named only the access key now."""
        if self._usage is None or not key.startswith(UNKNOWN_ACCOUNT):
            return key
        known = self._usage.read_note(self._names[account.name])
        if known and not known.startswith(UNKNOWN_ACCOUNT):
            return known
        if self._windows[account.name]:
            account.warnings.append(
                f"account {account.name}: STS did not tell which AWS account it is, so its quota windows are "
                "counted for its access key only: allow sts:GetCallerIdentity, or use a role_arn"
            )
        return key

    def _meter_reads(self, account: AccountState, key: str) -> None:
        if self._usage is not None:
            reads = quota.QuotaWindow("per_day", READS_PER_DAY, quota.DAY)
            account.read_pacer.meter = WindowMeter(self._usage, f"{key} reads", (reads,))

    def forecast(self, name: str, rows: int, rate: float | None = None) -> AccountForecast:
        """How `rows` calls of an account will go at a measured rate.

        Without one it is as declared, learned by an earlier run, or assumed.
        """
        key = self._keys.get(name) or (self._usage.read_note(self._names[name]) if self._usage else None)
        windows = self._windows[name]
        ages: list[float] = []
        if self._usage and key and windows:
            ages = self._usage.ages(f"{key} writes", max(window.seconds for window in windows))
        basis = "measured"
        if rate is None:
            rate, basis = self._expected_rate(name, key)
        sizes = [(window.seconds, window.limit) for window in windows]
        found = forecast.forecast(rows, rate, sizes, ages)
        found = found if self._wait else found.unwaited or found
        used = tuple(sum(age < window.seconds for age in ages) for window in windows)
        opens_in = tuple(forecast.forecast(1, rate, [size], ages).ends_in for size in sizes)
        return AccountForecast(found, rate, basis, windows, used, opens_in)

    def _expected_rate(self, name: str, key: str | None) -> tuple[float, str]:
        declared = self._accounts[name].quota.per_second
        if declared is not None:
            return declared, "declared"
        text = self._usage.read_note(f"{key} pace sought", LEARNED_FOR) if self._usage and key else None
        found = pace_handover.load(text)
        return (found.known, "learned") if found and found.known else (PUBLISHED_RATE, "assumed")


def _settings_hash(account: Account, endpoint: str, environ: Mapping[str, str]) -> str:
    """Stands for an account before it is known which AWS account signs: its settings, without secrets."""
    ambient = (environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_PROFILE"))
    source = [account.profile] if account.profile else ["", *ambient]
    source += [account.name] if endpoint == SIMULATOR else []  # it gives each account a key
    parts = [endpoint, account.endpoint_url, account.region, account.role_arn, *source]
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()
