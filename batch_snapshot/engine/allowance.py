"""What each account may use in a run: its pace, its quota windows, and what earlier runs learned.

Which AWS account signs is known only once there are credentials, so a lane gets its windows right
before its first call. What was found out is kept under the account's own settings too, so that a
plan can be made without any call.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING

from batch_snapshot.engine.account import AccountState
from batch_snapshot.errors import StorageError
from batch_snapshot.models import UNKNOWN_ACCOUNT
from batch_snapshot.ratelimit import forecast, pace
from batch_snapshot.ratelimit import windows as quota
from batch_snapshot.ratelimit.pace import Phase
from batch_snapshot.ratelimit.pacer import Pacer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from batch_snapshot.models import Account
    from batch_snapshot.ratelimit.forecast import Forecast
    from batch_snapshot.ratelimit.pace import Pace
    from batch_snapshot.ratelimit.windows import CallLog, QuotaWindow, WindowFull

#: Reads that AWS allows every account, a second and in any 24 hours; look-ups keep to them.
#: https://docs.aws.amazon.com/partner-central/latest/APIReference/quotas.html
READ_RATE = 10.0
READS_PER_DAY = 100_000
#: Writes a second that AWS allows by its list, which does not name this operation: only a plan
#: without a declared or learned rate assumes it.
PUBLISHED_RATE = 1.0
#: So many seconds after its last event a shared pace is still somebody's.
PRESENT = 15.0
#: Seconds after which a learned rate is forgotten: quotas are raised, and other programs come and go.
LEARNED_FOR = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class WindowMeter:
    """One account's windows in the log of calls."""

    usage: CallLog
    key: str
    windows: tuple[QuotaWindow, ...]

    def reserve(self) -> int | WindowFull:
        """Log a call that is about to leave, or tell when one would fit."""
        return self.usage.reserve(self.key, self.windows)

    def free_calls(self) -> int:
        """How many calls would fit now."""
        return self.usage.free_calls(self.key, self.windows)

    def finish(self, reservation: int) -> None:
        """The call is over."""
        self.usage.finish(reservation)

    def cancel(self, reservation: int) -> None:
        """The call never left."""
        self.usage.cancel(reservation)


class SharedPace:
    """An account's pace, as all processes of the machine share it.

    While a limit is sought everybody seeks for himself. Once it was met, the pace is the account's:
    whoever calls for it takes its slots and tells it what came of them, so that any number of
    processes together call as one would. Where it cannot be shared, everybody follows his own.
    """

    def __init__(
        self, usage: CallLog, key: str, start: Pace, now: float, warn: Callable[[str], None]
    ) -> None:
        """Join those who call for the account `key` now; or begin with `start`, or near what was learned.

        Args:
            usage: the log where it is kept.
            key: the account.
            start: for the first of all.
            now: by the clock that all of them go by, in seconds.
            warn: told why it is shared no longer.
        """
        self.pace = start
        self._usage: CallLog | None = usage
        self._key = key
        self._warn = warn
        self._ceiling = start.ceiling
        #: What was read or written last: while nobody else writes, nothing has to be parsed.
        self._last: tuple[str | None, Pace | None] = (None, None)

        def join(text: str | None, age: float) -> str | None:
            known = self._read(text)
            if known and age <= PRESENT:
                self.pace = known
                return None
            if known and start.ceiling < inf:
                # The last call may be less than a gap ago; later than a gap is of an earlier boot.
                self.pace = start._replace(next_slot=min(known.next_slot, now + 1 / start.ceiling))
            elif known and known.known and age <= LEARNED_FOR and start.phase is Phase.SEARCH:
                self.pace = pace.learned(known.known, now)
            # What is kept was nobody's any more: its times may be of an earlier boot.
            return None if self.pace.phase is Phase.SEARCH else self._written(self.pace)

        self._revise(join)

    def change(self, event: Callable[[Pace], Pace]) -> None:
        """Go on from the pace as it is now, with nobody between."""
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
        """Our search met the limit: theirs holds, who met it before and still follow it.

        What we sent until then tells theirs nothing new: it did not leave at their pace.
        """
        known = self._read(text)
        if known and age <= PRESENT:
            found = known._replace(cut_at=found.cut_at, next_slot=max(known.next_slot, found.next_slot))
        self.pace = found
        return self._written(found)

    def _read(self, text: str | None) -> Pace | None:
        """The pace that is kept, below our own ceiling; None: there is none that this version can read."""
        if text != self._last[0]:
            known = _known(text)
            if known is not None and known.ceiling != self._ceiling:
                known = known._replace(ceiling=self._ceiling, peak=min(known.peak, self._ceiling))
            self._last = text, known
        return self._last[1]

    def _written(self, known: Pace) -> str:
        text = pace.dump(known)
        self._last = text, known
        return text

    def _follow(self, event: Callable[[Pace], Pace], text: str | None, _: float) -> str | None:
        before = self._read(text) or self.pace
        self.pace = event(before)
        return None if self.pace is before else self._written(self.pace)


def _known(text: str | None) -> Pace | None:
    """The pace that was kept; None: none that this version can read."""
    try:
        return pace.load(text) if text else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class AccountForecast:
    """How one account's rows will go."""

    forecast: Forecast
    #: Calls a second, and where the figure comes from: declared, learned, or assumed.
    rate: float
    basis: str
    windows: tuple[QuotaWindow, ...]
    #: Calls that are used of each window by now.
    used: tuple[int, ...]


class AccountLimits:
    """The allowances of all accounts of a run."""

    def __init__(
        self,
        accounts: Mapping[str, Account],
        endpoint: str,
        usage: CallLog | None,
        environ: Mapping[str, str],
        *,
        read_rate: float | None = None,
    ) -> None:
        """Look things up in `usage`; without one nothing is known.

        Args:
            accounts: as they sign, with the quotas that hold in this run.
            endpoint: where all calls go.
            usage: the log of calls.
            environ: of the process, for the ambient credentials' names.
            read_rate: reads a second and account; None: what AWS allows.
        """
        self._read_rate = read_rate or READ_RATE
        self._accounts = accounts
        self._usage = usage
        self._windows = {name: quota.windows(account.quota) for name, account in accounts.items()}
        self._names = {name: _name(account, endpoint, environ) for name, account in accounts.items()}
        self._keys: dict[str, str] = {}

    def lane(self, name: str, *, wait: bool) -> AccountState:
        """The lane of an account, at its declared pace or at one that seeks the limit."""
        rate = self._accounts[name].quota.per_second
        start = pace.Pace() if rate is None else pace.declared(rate)
        return AccountState(name, Pacer(start, wait=wait), Pacer(pace.declared(self._read_rate), wait=wait))

    async def settle(self, lane: AccountState, identify: Callable[[str], Awaitable[str]]) -> None:
        """Find out whose quotas the account spends, and hold its calls to them.

        Where it cannot be told now whose they are, it is taken to be as it was with the same settings.

        Raises:
            ApiError: there are no credentials.
            StorageError: the log of calls cannot be read or written.
        """
        windows, declared = self._windows[lane.name], self._accounts[lane.name].quota.per_second
        if self._usage is None:
            return
        key = await self._key(lane, identify)
        # A plan would like to know; if it can't be noted, the next lines say what matters of that.
        with suppress(StorageError):
            self._usage.update_note(self._names[lane.name], lambda *_: key)
        if windows:
            lane.pacer.meter = WindowMeter(self._usage, f"{key} writes", windows)
            self._meter_reads(lane, key)
        mine = f"{key} pace {'sought' if declared is None else 'declared'}"
        now = lane.pacer.now()
        lane.pacer.store = SharedPace(self._usage, mine, lane.pacer.pace, now, lane.warnings.append)

    async def settle_reads(self, lane: AccountState, identify: Callable[[str], Awaitable[str]]) -> None:
        """Hold the reads of an account to their own quota, for what makes many of them.

        Raises:
            ApiError: there are no credentials.
            StorageError: the log of calls cannot be read or written.
        """
        if self._usage is not None and lane.read_pacer.meter is None:
            self._meter_reads(lane, await self._key(lane, identify))

    async def _key(self, lane: AccountState, identify: Callable[[str], Awaitable[str]]) -> str:
        """Whose quotas an account spends: asked once."""
        if lane.name not in self._keys:
            self._keys[lane.name] = self._recognised(lane, await identify(lane.name))
        return self._keys[lane.name]

    def _recognised(self, lane: AccountState, key: str) -> str:
        """Whose quotas they are: an AWS account once known is not mistaken for a key that signs for it."""
        if self._usage is None or not key.startswith(UNKNOWN_ACCOUNT):
            return key
        known = self._usage.read_note(self._names[lane.name])
        if known and not known.startswith(UNKNOWN_ACCOUNT):
            return known
        if self._windows[lane.name]:
            lane.warnings.append(
                f"account {lane.name}: STS did not tell which AWS account it is, so its quota windows are "
                "counted for its access key alone: allow sts:GetCallerIdentity, or use a role_arn"
            )
        return key

    def _meter_reads(self, lane: AccountState, key: str) -> None:
        if self._usage is not None:
            reads = quota.QuotaWindow("per_day", READS_PER_DAY, quota.DAY)
            lane.read_pacer.meter = WindowMeter(self._usage, f"{key} reads", (reads,))

    def outlook(self, name: str, rows: int, rate: float | None = None) -> AccountForecast:
        """Tell how `rows` calls of an account will go.

        Args:
            name: of the account.
            rows: calls to be made.
            rate: as measured; None: as declared, learned by an earlier run, or assumed.

        Raises:
            StorageError: the log cannot be read.
        """
        key = self._keys.get(name) or (self._usage.read_note(self._names[name]) if self._usage else None)
        windows = self._windows[name]
        ages: list[float] = []
        if self._usage and key and windows:
            ages = self._usage.ages(f"{key} writes", max(window.seconds for window in windows))
        basis = "measured"
        if rate is None:
            rate, basis = self._rate(name, key)
        found = forecast.forecast(rows, rate, [(window.seconds, window.limit) for window in windows], ages)
        used = tuple(sum(age < window.seconds for age in ages) for window in windows)
        return AccountForecast(found, rate, basis, windows, used)

    def _rate(self, name: str, key: str | None) -> tuple[float, str]:
        declared = self._accounts[name].quota.per_second
        if declared is not None:
            return declared, "declared"
        text = self._usage.read_note(f"{key} pace sought", LEARNED_FOR) if self._usage and key else None
        found = _known(text)
        return (found.known, "learned") if found and found.known else (PUBLISHED_RATE, "assumed")


def _name(account: Account, endpoint: str, environ: Mapping[str, str]) -> str:
    """What stands for an account before it is known who signs: its settings, and no secret."""
    ambient = (environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_PROFILE"))
    source = [account.profile] if account.profile else ["", *ambient]
    parts = [endpoint, account.endpoint_url, account.region, account.role_arn, *source]
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()
