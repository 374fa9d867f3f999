"""What each account may use: windows that are metered, paces that are shared, rates that are remembered."""

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import pairwise
from math import inf
from pathlib import Path

import anyio
import pytest
import trio

from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.limits import IN_USE_FOR as PRESENT
from batch_snapshot.engine.limits import (
    LEARNED_FOR,
    PUBLISHED_RATE,
    AccountForecast,
    AccountLimits,
    ConcurrencyLimit,
    SharedPace,
    WindowMeter,
)
from batch_snapshot.errors import StorageError
from batch_snapshot.failures import error_codes
from batch_snapshot.models import Account, ApiError, Quota
from batch_snapshot.ratelimit import pace, pace_handover, pacer
from batch_snapshot.ratelimit import windows as call_log
from batch_snapshot.ratelimit.pace import Pace, Phase
from batch_snapshot.ratelimit.pacer import Pacer
from batch_snapshot.ratelimit.windows import DAY, CallLog, WindowFull, windows
from tests.bench.pacing.servers import Bucket
from tests.bench.pacing.simulation import Client, Simulation
from tests.support.virtual_time import in_virtual_time

HOUR = 3600.0


class Clock:
    """A clock that tests set."""

    def __init__(self, now: float = 1e6) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "usage.sqlite"


@pytest.fixture
def usage(path, clock):
    with CallLog(path, clock) as opened:
        yield opened


def measured(now: float, rate: float = 10.0) -> Pace:
    """A pace that has measured its limit."""
    return pace.learned(rate, now)


def no_warning(text: str) -> None:
    raise AssertionError(text)


def joined(usage: CallLog, clock: Clock, start: Pace | None = None, key: str = "k") -> SharedPace:
    return SharedPace(usage, key, start or Pace(), clock.now, no_warning)


# -- one pace for all ----------------------------------------------------------------------------------


def test_each_process_searches_for_the_limit_alone(usage, clock):
    one, other = joined(usage, clock), joined(usage, clock)
    for _ in range(5):
        one.change(lambda known: known.permitted(clock.now))
        one.change(lambda known: known.answered(clock.now))
    assert one.pace.found == 5
    other.change(lambda known: known.permitted(clock.now))
    assert other.pace.found == 0
    assert usage.read_note("k") is None


def test_a_pace_that_met_the_limit_is_shared_with_later_processes(usage, clock):
    one = joined(usage, clock)
    one.change(lambda known: known.permitted(clock.now))
    clock.now += 1
    one.change(lambda known: known.throttled(clock.now - 1, clock.now, None))
    assert one.pace.phase is Phase.CLIMB
    assert joined(usage, clock).pace == one.pace


def test_a_second_process_that_meets_the_limit_follows_the_first_ones_pace(usage, clock):
    other = joined(usage, clock)
    other.change(lambda known: known.permitted(clock.now))
    first = joined(usage, clock, measured(clock.now, 40.0))
    first.change(lambda known: known.permitted(clock.now))
    clock.now += 1
    before = first.pace
    other.change(lambda known: known.throttled(clock.now - 1, clock.now, 30.0))
    same = ("phase", "peak", "since", "known", "tally")
    assert [getattr(other.pace, name) for name in same] == [getattr(before, name) for name in same]
    assert other.pace.next_call_at == clock.now + 30, "the hint is for all"
    # Nor do other calls that left while it sought say anything of the pace that it joined.
    other.change(lambda known: known.throttled(clock.now - 1, clock.now, None))
    assert [getattr(other.pace, name) for name in same] == [getattr(before, name) for name in same]
    clock.now += 30
    other.change(lambda known: known.permitted(clock.now))
    first.change(lambda known: known.answered(clock.now))
    assert first.pace == other.pace.answered(clock.now)


def test_a_pace_not_used_for_long_is_replaced_by_the_one_that_meets_the_limit(usage, clock):
    other = joined(usage, clock)
    other.change(lambda known: known.permitted(clock.now))
    joined(usage, clock, measured(clock.now, 40.0))
    clock.now += PRESENT + 1
    found = other.pace.throttled(clock.now - 1, clock.now, None)
    other.change(lambda known: known.throttled(clock.now - 1, clock.now, None))
    assert other.pace == found
    assert joined(usage, clock).pace == found


def test_an_unchanged_pace_writes_nothing(usage, clock):
    shared = joined(usage, clock, measured(clock.now))
    shared.change(lambda known: known.permitted(clock.now))
    clock.now += 5
    shared.change(lambda known: known)
    clock.now += PRESENT - 1
    assert usage.read_note("k", PRESENT) is None


class Together:
    """A client of the simulation whose pace is shared over a file."""

    def __init__(self, shared: SharedPace, clock: Clock, begins: float) -> None:
        self.shared, self.clock, self.begins = shared, clock, begins

    def _at(self, now: float) -> None:
        self.clock.now = max(self.clock.now, self.begins + now)

    def opens(self, now: float) -> float:
        # As the pacer does: read the stored pace once the next call is due by the known one.
        if (known := self.shared.pace.opens(now)) > now:
            return known
        self._at(now)
        self.shared.change(lambda known: known)
        return self.shared.pace.opens(now)

    def sent(self, now: float) -> None:
        self._at(now)
        self.shared.change(lambda known: known.permitted(now))

    def answered(self, sent_at: float, now: float) -> None:
        self._at(now)
        self.shared.change(lambda known: known.answered(sent_at))

    def throttled(self, sent_at: float, now: float) -> None:
        self._at(now)
        self.shared.change(lambda known: known.throttled(sent_at, now, None))


@pytest.mark.parametrize(
    ("rate", "burst", "rows", "late", "slower", "most"),
    [
        (20, 20, 300, 0.4, 1.03, 0.03),
        (20, 20, 300, 6.0, 1.03, 0.03),
        (1, 1, 80, 1.3, 1.1, 0.05),
        (5, 40, 150, 0.0, 1.03, 0.06),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_two_processes_call_as_one_would(log_in_memory, clock, rate, burst, rows, late, slower, most, seed):
    with CallLog(log_in_memory, clock) as here, CallLog(log_in_memory, clock) as there:
        begins = clock.now
        clients = [
            Client(Together(SharedPace(usage, "k", Pace(), 0.0, no_warning), clock, begins), rows, starts)
            for usage, starts in ((here, 0.0), (there, late))
        ]
        service = Bucket(rate, burst)
        ideal = service.ideal(2 * rows)
        Simulation(service, clients, seed=seed).run()
    assert [len(client.done) for client in clients] == [rows, rows]
    assert max(client.done[-1] for client in clients) <= slower * ideal
    throttled = sum(client.throttled for client in clients)
    assert throttled / (2 * rows + throttled) <= most
    # While both were at it, after what the burst let through.
    since = max(late, burst / rate)
    until = min(client.done[-1] for client in clients)
    parts = [sum(since <= at <= until for at in client.done) for client in clients]
    assert 0.4 <= parts[0] / sum(parts) <= 0.6


# -- what the next run begins with ---------------------------------------------------------------------


@pytest.mark.parametrize("later", [PRESENT + 1, 8 * HOUR, LEARNED_FOR - HOUR])
def test_a_later_run_begins_near_what_was_learned(usage, clock, later):
    """Nothing else of the old pace is used: neither its times, its throttles, nor the clock of its boot."""
    joined(usage, clock, measured(clock.now, 40.0)).change(
        lambda known: known.permitted(clock.now).throttled(clock.now, clock.now, 300.0)
    )
    begins, clock.now = clock.now, clock.now + later
    next_boot = 7.0
    late = SharedPace(usage, "k", Pace(), next_boot, no_warning)
    assert late.pace == pace.learned(40.0, next_boot)
    late.change(lambda known: known.permitted(next_boot))
    assert late.pace == pace.learned(40.0, next_boot).permitted(next_boot)
    assert late.pace.next_call_at < next_boot + 1 < begins


def test_a_rate_learned_long_ago_is_forgotten(usage, clock):
    joined(usage, clock, measured(clock.now, 40.0)).change(lambda known: known.permitted(clock.now))
    clock.now += LEARNED_FOR + 1
    assert joined(usage, clock).pace == Pace()


def test_a_limit_that_was_met_but_not_measured_is_sought_again(usage, clock):
    one = joined(usage, clock)
    one.change(lambda known: known.permitted(clock.now))
    one.change(lambda known: known.throttled(clock.now, clock.now, None))
    assert one.pace.known is None
    clock.now += HOUR
    assert joined(usage, clock).pace == Pace()


def test_a_declared_pace_begins_as_declared_again(usage, clock):
    start = pace.declared(5.0)
    one = joined(usage, clock, start)
    for _ in range(9):
        one.change(lambda known: known.permitted(clock.now).throttled(clock.now, clock.now, None))
    assert one.pace.peak < 1
    assert joined(usage, clock, start).pace == one.pace
    clock.now += HOUR
    again = joined(usage, clock, start)
    assert again.pace._replace(next_call_at=start.next_call_at) == start
    assert again.pace.opens(clock.now) == clock.now
    again.change(lambda known: known.permitted(clock.now))
    assert again.pace.rate(clock.now) == start.rate(clock.now)


@pytest.mark.parametrize("text", ["", "no pace", '{"a": 1}', '[99, "follow", 1]', "null"])
def test_a_stored_pace_of_another_version_is_ignored(usage, clock, text):
    usage.update_note("k", lambda *_: text)
    shared = joined(usage, clock)
    assert shared.pace == Pace()
    shared.change(lambda known: known.permitted(clock.now))
    shared.change(lambda known: known.throttled(clock.now, clock.now, None))
    assert joined(usage, clock).pace == shared.pace


def test_a_pace_written_meanwhile_by_another_version_is_ignored(usage, clock):
    shared = joined(usage, clock, measured(clock.now))
    usage.update_note("k", lambda *_: "[2, 3]")
    before = shared.pace
    shared.change(lambda known: known.permitted(clock.now))
    assert shared.pace == before.permitted(clock.now)


# -- files that break ----------------------------------------------------------------------------------


def test_a_pace_that_can_no_longer_be_shared_is_followed_alone(path, clock):
    warned: list[str] = []
    with CallLog(path, clock) as usage:
        shared = SharedPace(usage, "k", measured(clock.now), clock.now, warned.append)
        path.unlink()
        before = shared.pace
        shared.change(lambda known: known.permitted(clock.now))
        assert shared.pace == before.permitted(clock.now)
        shared.change(lambda known: known.answered(clock.now))
        assert shared.pace == before.permitted(clock.now).answered(clock.now)
    (text,) = warned
    assert str(path) in text
    assert "no longer shared" in text


def test_without_a_log_a_met_limit_is_followed_alone(path, clock):
    warned: list[str] = []
    with CallLog(path, clock) as usage:
        shared = SharedPace(usage, "k", Pace(), clock.now, warned.append)
        path.unlink()
        shared.change(lambda known: known.permitted(clock.now))
        assert not warned
        shared.change(lambda known: known.throttled(clock.now, clock.now, None))
        assert shared.pace.phase is Phase.CLIMB
        shared.change(lambda known: known.permitted(clock.now))
        assert shared.pace.in_flight == 1
    assert len(warned) == 1


# -- accounts ------------------------------------------------------------------------------------------


def limits_of(usage: CallLog | None, **quotas: Quota) -> AccountLimits:
    accounts = {name: Account(name, profile=name, quota=each) for name, each in quotas.items()}
    return AccountLimits(accounts, "aws", usage, {})


async def by_number(name: str) -> str:
    """The same AWS account for all names with the same number."""
    return f"aws/{name[-1]}"


def applied(
    limits: AccountLimits, name: str, *, identify: Callable[[str], Awaitable[str]] = by_number
) -> AccountState:
    """The account after it was identified and its windows are set."""

    async def settle() -> AccountState:
        account = limits.new_state(name, wait=False)
        await limits.apply(account, identify)
        return account

    return in_virtual_time(settle)


def notes(usage: CallLog) -> set[str]:
    """The names of what is kept."""
    with sqlite3.connect(usage._path) as db:
        found = {name for (name,) in db.execute("SELECT name FROM notes")}
    db.close()
    return found


def logged(usage: CallLog) -> Counter[str]:
    """Calls that are logged, by account."""
    with sqlite3.connect(usage._path) as db:
        found = Counter(account for (account,) in db.execute("SELECT account FROM calls"))
    db.close()
    return found


PER_DAY = Quota(per_second=5, per_day=100)


def test_windows_are_metered_by_the_account_that_signs(usage):
    both = limits_of(usage, a1=PER_DAY, b1=PER_DAY, c2=PER_DAY)
    meters = [applied(both, name).pacer.meter for name in ("a1", "b1", "c2")]
    for meter, calls in zip(meters, (1, 2, 4), strict=True):
        assert isinstance(meter, WindowMeter)
        for _ in range(calls):
            meter.reserve()
    used = {name: both.forecast(name, 1).used for name in ("a1", "b1", "c2")}
    assert used == {"a1": (3,), "b1": (3,), "c2": (4,)}


def test_reads_are_metered_apart_from_writes(usage):
    account = applied(limits_of(usage, a1=Quota(per_day=1)), "a1")
    assert account.pacer.meter is not None
    assert account.read_pacer.meter is not None
    assert account.pacer.meter.reserve() == 1
    assert isinstance(account.pacer.meter.reserve(), WindowFull)
    for _ in range(3):
        assert isinstance(account.read_pacer.meter.reserve(), int)
    assert logged(usage) == {"aws/1 writes": 1, "aws/1 reads": 3}


def test_many_reads_are_metered_without_a_declared_window(usage):
    limits = limits_of(usage, a1=Quota(per_second=5))
    account = limits.new_state("a1", wait=False)
    asked: list[str] = []

    async def identify(name: str) -> str:
        asked.append(name)
        return "aws/1"

    for _ in range(2):
        anyio.run(partial(limits.apply_to_reads, account, identify))
    assert account.read_pacer.meter is not None
    assert isinstance(account.read_pacer.meter.reserve(), int)
    assert (logged(usage), asked) == ({"aws/1 reads": 1}, ["a1"])


@pytest.mark.parametrize("quota", [Quota(), Quota(per_second=5), Quota(reserve=10)])
def test_without_declared_windows_no_call_is_logged(usage, quota):
    account = applied(limits_of(usage, a1=quota), "a1")
    assert account.pacer.meter is account.read_pacer.meter is None


def test_without_a_log_the_account_is_not_identified():
    async def asked(name: str) -> str:
        raise AssertionError(name)

    applied(limits_of(None, a1=Quota(per_second=5)), "a1", identify=asked)


def test_an_account_known_before_keeps_its_windows_while_sts_is_silent(usage):
    """A window that began anew under the name of a key would be one too many."""
    known: list[str] = ["aws:123456789012:us-east-1", "aws key:0123"]

    async def identify(_: str) -> str:
        return known.pop(0)

    for _ in range(2):
        account = applied(limits_of(usage, a1=PER_DAY), "a1", identify=identify)
        assert isinstance(account.pacer.meter, WindowMeter)
        assert account.pacer.meter.key == "aws:123456789012:us-east-1 writes"
        assert account.warnings == []


@pytest.mark.parametrize(("quota", "warned"), [(PER_DAY, True), (Quota(per_second=5), False)])
def test_an_account_never_known_is_a_warning_if_it_has_windows(usage, quota, warned):
    async def identify(_: str) -> str:
        return "aws key:0123"

    warnings = applied(limits_of(usage, a1=quota), "a1", identify=identify).warnings
    assert [("STS" in one, "sts:GetCallerIdentity" in one) for one in warnings] == [(True, True)] * warned


def test_an_account_without_credentials_gets_no_windows(usage):
    failure = error_codes.client_failure(["NoCredentialsError", "Exception"], "none")

    async def identify(name: str) -> str:
        raise ApiError(failure)

    limits = limits_of(usage, a1=PER_DAY)
    account = limits.new_state("a1", wait=False)
    with pytest.raises(ApiError):
        trio.run(limits.apply, account, identify)
    assert account.pacer.meter is None
    assert notes(usage) == set()


def test_declared_and_sought_rates_are_kept_apart(usage):
    """A declared rate must not slow a search down, nor the other way round."""
    quotas = {"a1": Quota(per_second=5), "b1": Quota(per_second=7, per_day=9), "c1": Quota(per_day=9)}
    accounts = [applied(limits_of(usage, **quotas), name) for name in quotas]
    for account in accounts[1:]:
        account.pacer.change(lambda known: known.permitted(0.0).throttled(0.0, 0.0, None))
    assert {name for name in notes(usage) if " pace " in name} == {"aws/1 pace declared", "aws/1 pace sought"}
    assert [account.pacer.pace.ceiling for account in accounts] == [
        pace.declared(5).ceiling,
        pace.declared(7).ceiling,
        inf,
    ]


@pytest.mark.parametrize("rates", [(5.0, 5.0), (5.0, 4.0), (0.4, 0.4, 0.4)])
def test_all_processes_together_keep_a_declared_rate(usage, clock, rates):
    """Each call is a whole gap after the one before, whichever process makes it."""
    all_ = [joined(usage, clock, pace.declared(rate)) for rate in rates]
    sent = []
    for number in range(40):
        one = all_[number % len(all_)]
        # What others did meanwhile is seen with the next event.
        one.change(lambda known: known)
        clock.now = max(clock.now, one.pace.opens(clock.now))
        one.change(lambda known: known.permitted(clock.now))
        one.change(lambda known: known.answered(clock.now))
        sent.append(clock.now)
    gaps = [after - before for before, after in pairwise(sent)]
    assert min(gaps) >= 1 / max(rates) - pace.CATCH_UP


@pytest.mark.parametrize("rate", [0.01, 0.5, 5.0])
def test_a_declared_rate_outlasts_its_run(usage, clock, rate):
    """The next one's first call is a whole gap after the last one's last."""
    began = clock.now
    joined(usage, clock, pace.declared(rate)).change(lambda known: known.permitted(clock.now))
    clock.now += 0.3 / rate
    after = joined(usage, clock, pace.declared(rate)).pace
    assert after.opens(clock.now) >= began + 1 / rate - pace.CATCH_UP
    clock.now += 2 / rate
    assert joined(usage, clock, pace.declared(rate)).pace.opens(clock.now) == clock.now


@pytest.mark.parametrize(("before", "now"), [(1.0, 50.0), (50.0, 1.0)])
def test_a_run_begins_at_its_own_declared_rate_right_after_one_with_another(usage, clock, before, now):
    joined(usage, clock, pace.declared(before)).change(lambda known: known.permitted(clock.now))
    clock.now += 1
    one = joined(usage, clock, pace.declared(now))
    one.change(lambda known: known.permitted(clock.now))
    assert one.pace.rate(clock.now) == one.pace.allowed * (1 - pace.MARGIN) == now * (1 - pace.MARGIN)


def test_a_limit_that_was_just_met_holds_for_a_run_with_another_declared_rate(usage, clock):
    one = joined(usage, clock, pace.declared(50.0))
    for _ in range(9):
        one.change(lambda known: known.permitted(clock.now).throttled(clock.now, clock.now, None))
    assert joined(usage, clock, pace.declared(40.0)).pace.peak == one.pace.peak < 10


def test_a_slot_of_an_earlier_boot_delays_a_call_by_one_gap_at_most(usage, clock):
    clock.now = 1e6
    joined(usage, clock, pace.declared(0.5)).change(lambda known: known.permitted(clock.now))
    clock.now += PRESENT + 1
    after = SharedPace(usage, "k", pace.declared(0.5), 3.0, no_warning).pace
    assert after.opens(3.0) <= 3.0 + 1 / pace.declared(0.5).ceiling


def test_accounts_begin_at_the_declared_rate_or_search_and_read_at_the_published_rate(usage):
    limits = limits_of(usage, a1=Quota(per_second=5), b1=Quota())
    account, other = (limits.new_state(name, wait=False) for name in ("a1", "b1"))
    assert account.pacer.pace == pace.declared(5)
    assert other.pacer.pace == Pace()
    assert account.read_pacer.pace == pace.declared(10)


def test_a_log_that_breaks_where_no_call_is_counted_is_a_warning(path, clock):
    with CallLog(path, clock) as usage:
        path.unlink()
        account = applied(limits_of(usage, a1=Quota()), "a1")
    assert account.pacer.pace == Pace()
    (warning,) = account.warnings
    assert "no longer shared" in warning


def test_a_log_that_breaks_where_calls_are_counted_lets_no_call_leave(path, clock):
    with CallLog(path, clock) as usage:
        path.unlink()
        account = applied(limits_of(usage, a1=PER_DAY), "a1")
        assert account.pacer.meter is not None
        with pytest.raises(StorageError):
            account.pacer.meter.reserve()


# -- how it will go ------------------------------------------------------------------------------------


def summarised(found: AccountForecast) -> tuple[float, str, tuple[int, ...]]:
    return found.rate, found.basis, found.used


@pytest.mark.parametrize(
    ("quota", "rows", "rate", "expected", "ends_in"),
    [
        (Quota(per_second=5, per_hour=60, per_day=100), 100, None, (5, "declared", (0, 0)), HOUR + 39 / 5),
        (Quota(per_second=5), 11, 2.0, (2.0, "measured", ()), 5),
        (Quota(per_day=100), 150, None, (PUBLISHED_RATE, "assumed", (0,)), DAY + 49),
    ],
)
@pytest.mark.parametrize("logged", [True, False])
def test_a_forecast_uses_the_rate_measured_by_this_run_or_declared(
    usage, quota, rows, rate, expected, ends_in, logged
):
    found = limits_of(usage if logged else None, a1=quota).forecast("a1", rows, rate)
    assert summarised(found) == expected
    assert found.windows == windows(quota)
    assert found.forecast.ends_in == pytest.approx(ends_in)


def test_a_forecast_uses_the_rate_learned_by_an_earlier_run(usage, clock):
    seeking = limits_of(usage, a1=Quota())
    assert summarised(seeking.forecast("a1", 10)) == (PUBLISHED_RATE, "assumed", ())
    account = applied(seeking, "a1")
    assert summarised(seeking.forecast("a1", 10))[1] == "assumed", "nothing was learned yet"
    account.pacer.store.change(lambda _: measured(0.0, 12.0).permitted(0.0))
    usage.update_note("aws/1 pace sought", lambda *_: pace_handover.dump(measured(0.0, 12.0)))
    clock.now += LEARNED_FOR - 1
    assert summarised(limits_of(usage, a1=Quota()).forecast("a1", 10)) == (12.0, "learned", ())
    clock.now += 2
    assert summarised(limits_of(usage, a1=Quota()).forecast("a1", 10)) == (PUBLISHED_RATE, "assumed", ())


def test_a_forecast_counts_what_is_used_of_each_window_without_any_call(usage, clock):
    """By another run, an hour ago and just now; whose account it is was found out then."""
    quota = Quota(per_second=1, per_hour=50, per_day=100)
    meter = applied(limits_of(usage, a1=quota), "a1").pacer.meter
    assert meter is not None
    for _ in range(2):
        for _ in range(30):
            reservation = meter.reserve()
            assert isinstance(reservation, int)
            meter.finish(reservation)
        clock.now += HOUR + 1
    clock.now -= HOUR
    found = limits_of(usage, a1=quota).forecast("a1", 70)
    assert found.used == (30, 60)
    # 20 now, 20 when the hour is over, the rest when the first of yesterday's are a day old.
    assert [span.rows for span in found.forecast.spans] == [20, 20, 30]
    assert found.forecast.ends_in == pytest.approx(DAY - HOUR - 2 + 29, abs=2)


@pytest.mark.parametrize(
    "other",
    [
        {"endpoint": "http://localhost:1"},
        {"a1": Account("a1", profile="other")},
        {"a1": Account("a1", profile="a1", role_arn="arn:aws:iam::123456789012:role/R")},
        {"a1": Account("a1", profile="a1", region="eu-west-1")},
        {"a1": Account("a1", profile="a1", endpoint_url="http://localhost:2")},
    ],
    ids=["endpoint", "profile", "role", "region", "endpoint of its own"],
)
def test_other_account_settings_are_not_taken_for_a_known_account(usage, other):
    known = Account("a1", profile="a1", quota=PER_DAY)

    def used(**changes) -> tuple[int, ...]:
        account = changes.get("a1", known)
        account = Account(**{name: getattr(account, name) for name in account.__slots__} | {"quota": PER_DAY})
        return (
            AccountLimits({"a1": account}, changes.get("endpoint", "aws"), usage, {}).forecast("a1", 1).used
        )

    applied(AccountLimits({"a1": known}, "aws", usage, {}), "a1").pacer.meter.reserve()  # type: ignore[union-attr]
    assert used() == (1,)
    assert used(**other) == (0,)


def test_ambient_credentials_are_told_apart_by_what_names_them(usage):
    def outlook(**environ: str) -> AccountForecast:
        limits = AccountLimits({"m1": Account("m1", quota=PER_DAY)}, "aws", usage, environ)
        return limits.forecast("m1", 1)

    mine = {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "one"}
    ambient = AccountLimits({"m1": Account("m1", quota=PER_DAY)}, "aws", usage, mine)
    applied(ambient, "m1").pacer.meter.reserve()  # type: ignore[union-attr]
    assert outlook(**mine).used == (1,)
    assert outlook(**mine | {"AWS_SECRET_ACCESS_KEY": "rotated"}).used == (1,)
    assert outlook(**mine | {"AWS_ACCESS_KEY_ID": "AKIA2"}).used == (0,)
    assert outlook(AWS_PROFILE="p").used == (0,)
    kept = " ".join(notes(usage))
    assert "AKIA" not in kept
    assert "one" not in kept.split()


# -- a backfill over days ------------------------------------------------------------------------------


@pytest.fixture
def log_in_memory():
    """A folder in memory, where there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        yield Path(made) / "usage.sqlite"


def test_a_backfill_over_days_uses_its_whole_quota_and_never_exceeds_it(log_in_memory, monkeypatch):
    """1,200 rows at one a second and 330 a day; killed in mid-call and stopped in mid-wait.

    So many that what is in no window any more is purged on its way.
    """
    # A quarter of a million looks at a window that is known to be spent would prove nothing.
    monkeypatch.setattr(pacer, "LOOK_AGAIN", 600.0)
    monkeypatch.setattr(call_log, "PURGE_EVERY", 500)
    count, a_day, latency = 1_200, 330, 0.2
    calls: list[float] = []
    done: set[int] = set()

    async def work(rows: Iterator[int], permits: Pacer) -> None:
        for row in rows:
            with await permits.acquire() as permit:
                permit.used()
                calls.append(anyio.current_time())
                await anyio.sleep(latency)
                done.add(row)
                permit.answered()

    async def run(seconds: float, *, killed: bool = False) -> None:
        """One run of four workers; a killed one writes nothing more to the log."""
        rows = iter([row for row in range(count) if row not in done])
        usage = CallLog(log_in_memory, clock=lambda: 1e6 + trio.current_time())
        with usage, anyio.move_on_after(seconds):
            meter = WindowMeter(usage, "k", windows(Quota(per_second=1, per_day=a_day)))
            permits = Pacer(pace.declared(1), meter, wait=True)
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(work, rows, permits)
                if killed:
                    await anyio.sleep(seconds - 1e-3)
                    usage.close()

    async def backfill() -> float:
        for seconds, killed in ((100.35, 1), (200.15, 0), (40_000, 1), (50_000, 0), (70_000, 1)):
            await run(seconds, killed=bool(killed))
            assert len(done) < count
        await run(inf)
        return anyio.current_time()

    days, rest = divmod(count - 1, a_day)
    assert in_virtual_time(backfill) <= 1.01 * (days * DAY + rest)
    assert len(done) == count < len(calls) <= count + 5, "a kill met a call in flight"
    # The service counts a call at any time between its leaving and its end.
    distances = [later - earlier for earlier, later in zip(calls, calls[a_day:], strict=False)]
    assert min(distances) > DAY + latency - 1e-5


# -- calls in flight: each account has its share of them, whichever engine calls for it


def test_the_share_of_an_account_is_rounded_up():
    limit = ConcurrencyLimit(32)
    assert limit.share(1) == 32
    assert limit.share(3) == 11
    assert limit.share(100) == 1


def test_accounts_of_other_engines_have_their_share_kept():
    limit = ConcurrencyLimit(32)
    limit.expected = 8
    assert limit.share(1) == 4
    limit.expected = 1
    assert limit.share(1) == 32
