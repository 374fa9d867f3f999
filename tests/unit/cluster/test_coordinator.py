"""The coordinator of a cluster in virtual time: workers that are lost, slow, or go on for a while unheard."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_snapshot.cluster.coordinator import Coordinator
from batch_snapshot.cluster.lease import Bulletin, LostError, Started, Tale, Used
from batch_snapshot.config.options import Settings
from batch_snapshot.engine.account import AccountState, Stop, StopKind
from batch_snapshot.errors import LedgerWriteError
from batch_snapshot.models import Outcome, Request, Row, Status, client_token
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.pacer import Pacer
from batch_snapshot.ratelimit.windows import QuotaWindow, WindowFull

if TYPE_CHECKING:
    from collections.abc import Callable


START = datetime(2026, 3, 1, tzinfo=UTC)
LEASE = 10.0


def now() -> datetime:
    return START + timedelta(seconds=anyio.current_time())


@dataclass
class Service:
    """One snapshot a token; knows what it was asked at once."""

    made: dict[str, Row] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    looks: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[tuple[str, str]] = field(default_factory=Counter)
    overlaps: int = 0

    async def call(self, request: Request, seconds: float) -> None:
        pair = (request.row.engagement, request.row.resource)
        self.calls[request.row.account] += 1
        self.in_flight[pair] += 1
        self.overlaps += self.in_flight[pair] > 1
        try:
            self.made.setdefault(request.client_token, request.row)
            await anyio.sleep(seconds)
        finally:
            self.in_flight[pair] -= 1


@dataclass
class Host:
    """A worker: `cut` off it is heard no more, though it calls until its lease is over."""

    number: int
    lost: bool = False
    cut: bool = False
    heard: int = 0
    told_so_far: int = 0
    silent: anyio.Event = field(default_factory=anyio.Event)

    def told(self, at: datetime, heard_at: datetime) -> None:
        assert at <= heard_at


@dataclass
class Post:
    account: str
    host: Host
    rows: list[Request] = field(default_factory=list)
    claims: list[int] = field(default_factory=list)
    #: Slots for reads; None: they are not counted.
    reads: list[int] | None = None
    numbers: set[int] = field(default_factory=set)
    ended: bool = False
    stopped: bool = False
    changed: anyio.Event = field(default_factory=anyio.Event)

    def poke(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class Posts:
    """Workers in this process; takes the place of those of a cluster."""

    def __init__(
        self,
        group: Any,
        service: Service,
        rng: Random,
        *,
        losses: float,
        windowed: bool,
        hung: frozenset[str],
    ) -> None:
        self._group, self._service, self._rng = group, service, rng
        self._losses, self._windowed, self._hung = losses, windowed, hung
        self._hosts = [Host(0), Host(1)]
        self.posts: dict[str, Post] = {}
        self._send, self.news = anyio.create_memory_object_stream[Any](math.inf)
        self.reachable = True
        self.dismissed = False

    def close(self) -> None:
        self._send.close()
        self.news.close()

    def clock_skew(self, account: str) -> float | None:
        return None

    def learn_skew(self, account: str, host: Host, seconds: float | None) -> None:
        pass

    async def place(self, account: str) -> Post:
        await anyio.sleep(0.3 * self._rng.random())
        number = self._rng.randrange(2)
        if self._hosts[number].lost or self._hosts[number].cut:
            self._hosts[number] = Host(self._hosts[number].number + 2)
        post = self.posts[account] = Post(account, self._hosts[number])
        return post

    async def start(self, post: Post, start: Any) -> Started:
        await anyio.sleep(0.01)
        if post.host.cut:
            raise LostError("it is gone")
        post.reads = None if start.reads is None else [*start.reads]
        self._group.start_soon(self._work, post)
        return Started(None, 0.5, now())

    async def gone(self, post: Post) -> bool:
        while not post.host.lost:
            await anyio.sleep(1)
        return True

    async def hand_out(self, post: Post, parcel: Any) -> None:
        await anyio.sleep(0.01)
        if parcel.number in post.numbers or post.host.lost:
            return
        post.numbers.add(parcel.number)
        post.rows.extend(parcel.requests)
        post.claims.extend(parcel.claims)
        if post.reads is not None:
            post.reads.extend(parcel.reads)
        post.poke()

    async def tell(self, post: Post, method: str, *arguments: Any) -> None:
        if self._rng.random() < 0.2:
            return
        post.ended = True
        post.stopped = post.stopped or method == "halt"
        post.poke()

    def order(self, stop: Stop | None, *, abort: bool = False) -> None:
        for post in self.posts.values():
            post.stopped = True
            post.poke()

    async def dismiss(self) -> None:
        self.dismissed = True
        for host in self._hosts:
            host.silent.set()

    def release(self, account: str) -> None:
        pass

    async def lose_one(self, after: float) -> None:
        """Kill the worker that has most accounts by then."""
        await anyio.sleep(after)
        while not self.posts:
            await anyio.sleep(0.05)
        accounts = Counter(post.host.number for post in self.posts.values())
        number, _ = accounts.most_common(1)[0]
        host = next(host for host in self._hosts if host.number == number)
        host.silent.set()
        await self.lose(host)

    async def lose(self, host: Host) -> None:
        """It is cut off; once its lease is over, it is taken for lost."""
        host.cut = True
        await anyio.sleep(self._rng.random() * LEASE)
        host.silent.set()
        await anyio.sleep(0.5)
        host.lost = True
        # Others may look at it before its end is told.
        await anyio.sleep(3 * self._rng.random())
        self._send.send_nowait((host, None))

    async def _work(self, post: Post) -> None:
        async with anyio.create_task_group() as working:

            async def fall_silent() -> None:
                await post.host.silent.wait()
                working.cancel_scope.cancel()

            working.start_soon(fall_silent)
            await self._send_rows(post)
            working.cancel_scope.cancel()

    async def _send_rows(self, post: Post) -> None:
        while True:
            while post.stopped or not post.rows or (self._windowed and not post.claims) or post.reads == []:
                if post.stopped or (post.ended and not post.rows):
                    self._tell(post, over=True, unused=tuple(post.claims))
                    return
                if (self._windowed and not post.claims) or post.reads == []:
                    self._tell(post)
                await post.changed.wait()
            request = post.rows.pop(0)
            if post.reads:
                # Each row is looked up before it is sent.
                self._service.looks[post.account] += 1
                self._tell(post, looked=(post.reads.pop(0),))
            finished = (post.claims.pop(0),) if self._windowed else ()
            if self._rng.random() < self._losses and not post.host.cut:
                self._group.start_soon(self.lose, post.host)
            seconds = 0.05 + self._rng.random() * 0.2
            await self._service.call(request, 1_000 if post.account in self._hung else seconds)
            if self._windowed and self._rng.random() < 0.2:
                # Throttled: the row needs another slot.
                post.rows.append(request)
                self._tell(post, finished=finished)
                continue
            self._tell(post, outcomes=(succeeded(request),), finished=finished)

    def _tell(
        self,
        post: Post,
        finished: tuple[int, ...] = (),
        unused: tuple[int, ...] = (),
        looked: tuple[int, ...] = (),
        **more: Any,
    ) -> None:
        host = post.host
        if host.cut:
            return
        host.told_so_far += 1
        slots = Used(finished, unused, short=self._windowed and not post.claims)
        parcel = max(post.numbers, default=0)
        reads = Used(looked, (), short=post.reads == [])
        tale = Tale(account=post.account, parcel=parcel, slots=slots, reads=reads, **more)
        bulletin = Bulletin(host.told_so_far, now(), (tale,))
        self._send.send_nowait((host, bulletin))
        if self._rng.random() < 0.2:
            self._send.send_nowait((host, bulletin))


def succeeded(request: Request) -> Outcome:
    return Outcome(
        request=request,
        status=Status.SUCCEEDED,
        attempts=1,
        throttles=0,
        ambiguous=request.ambiguous,
        first_sent_at=request.first_sent_at or now(),
        started_at=now(),
        finished_at=now(),
        arn=f"arn:{request.client_token}",
        revision=1,
    )


class Meter:
    """So many calls in any minute; a slot is free a minute after its call was over."""

    def __init__(self, limit: int) -> None:
        self.window = QuotaWindow("per_minute", limit, 60.0)
        self._ended: dict[int, float] = {}
        self._next = 0
        #: Slots that were claimed and not given back.
        self.made = 0

    def reserve(self) -> int | WindowFull:
        time = anyio.current_time()
        self._ended = {claim: end for claim, end in self._ended.items() if end > time - 60 + 1e-6}
        if len(self._ended) >= self.window.limit:
            return WindowFull(self.window, min(self._ended.values()) + 60 - time)
        self._next += 1
        self.made += 1
        self._ended[self._next] = time + 300
        return self._next

    def free_calls(self) -> int:
        time = anyio.current_time()
        return max(0, self.window.limit - sum(end > time - 60 + 1e-6 for end in self._ended.values()))

    def finish(self, reservation: int) -> None:
        self._ended[reservation] = anyio.current_time()

    def cancel(self, reservation: int) -> None:
        self._ended.pop(reservation, None)
        self.made -= 1


@dataclass
class Trial:
    """A run, and what it left behind."""

    coordinator: Coordinator
    posts: Posts
    service: Service
    intended: list[str] = field(default_factory=list)
    #: Calls that had left when the ledger could not be written any more.
    called_by_then: int = 0
    #: How often it was found out whose an account is.
    identified: Counter[str] = field(default_factory=Counter)
    outcomes: dict[bytes, list[Outcome]] = field(default_factory=lambda: defaultdict(list))


async def run(
    requests: list[Request],
    seed: int,
    *,
    losses: float = 0.0,
    meters: dict[str, Meter] | None = None,
    reads: dict[str, Meter] | None = None,
    hung: frozenset[str] = frozenset(),
    lose_after: float | None = None,
    wait: bool = True,
    stop_after: float | None = None,
    refuse_after: int | None = None,
    refuse_intents_after: float = math.inf,
    slow_disk: float = 0.005,
    begun: Callable[[Trial], None] = lambda _: None,
) -> Trial:
    service, meters = Service(), meters or {}
    async with anyio.create_task_group() as group:
        posts = Posts(group, service, Random(seed), losses=losses, windowed=bool(meters), hung=hung)
        if lose_after is not None:
            group.start_soon(posts.lose_one, lose_after)
        lanes = {}
        for name in sorted({request.row.account for request in requests}):
            writer = Pacer(pace.Pace(), meters.get(name), wait=wait)
            lanes[name] = AccountState(name, writer, Pacer(pace.Pace(), (reads or {}).get(name), wait=wait))
        trial = Trial(None, posts, service)  # type: ignore[arg-type]

        async def intend(batch):
            if len(trial.intended) > refuse_intents_after:
                trial.called_by_then = trial.called_by_then or service.calls.total()
                raise LedgerWriteError("no room")
            trial.intended.extend(request.client_token for request in batch)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(slow_disk)

        def record(outcome):
            if refuse_after is not None and sum(map(len, trial.outcomes.values())) >= refuse_after:
                trial.called_by_then = trial.called_by_then or service.calls.total()
                raise LedgerWriteError("no room")
            assert outcome.request.client_token in trial.intended
            trial.outcomes[outcome.request.row.key].append(outcome)

        async def identify(lane):
            trial.identified[lane.name] += 1
            await anyio.sleep(0.01)

        trial.coordinator = coordinator = Coordinator(
            accounts=lanes,
            posts=posts,  # type: ignore[arg-type] # it stands in for them
            identify=identify,
            intend=intend,
            record=record,
            suspend=record,
            now=now,
            settings=Settings(drain_timeout=1.0),
        )
        begun(trial)
        if stop_after is not None:

            async def stop():
                await anyio.sleep(stop_after)
                coordinator.request_stop(Stop(StopKind.INTERRUPTED, "SIGINT"))

            group.start_soon(stop)
        try:
            await coordinator.run([requests[i : i + 7] for i in range(0, len(requests), 7)])
        finally:
            posts.close()
            group.cancel_scope.cancel()
    return trial


def listed(accounts: int, rows: int, *, pairs: int | None = None) -> list[Request]:
    return [
        request_of(account, number if pairs else number * accounts + account)
        for number in range(rows)
        for account in range(accounts)
    ]


@cache
def request_of(account: int, which: int) -> Request:
    row = Row(f"a{account}", "Sandbox", f"eng-{which:014d}", "Opportunity", f"O{which}", "T")
    return Request(row, client_token("run", row, 0))


def virtually(body):
    """Run in virtual time, which has an end."""

    async def bounded():
        with anyio.fail_after(20_000):
            return await body()

    return anyio.run(
        bounded, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)}
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, 150),
    st.sampled_from([0.0, 0.01, 0.03]),
    st.booleans(),
)
def test_whatever_is_lost_each_row_is_made_once_and_told(seed, accounts, rows, losses, shared):
    requests = listed(accounts, rows, pairs=1 if shared else None)

    async def body():
        return await run(requests, seed, losses=losses)

    trial = virtually(body)
    assert Counter(trial.service.made.values()) == Counter(request.row for request in requests)
    assert {key: told[-1].status for key, told in trial.outcomes.items()} == {
        request.row.key: Status.SUCCEEDED for request in requests
    }
    assert trial.service.overlaps == 0
    for told in trial.outcomes.values():
        assert all(outcome.status is Status.IN_DOUBT and outcome.ambiguous for outcome in told[:-1])
        assert told[-1].request.ambiguous is (len(told) > 1), (
            "its next worker knows that it may have been made"
        )
    assert trial.coordinator.ending is None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.sampled_from([0.0, 0.02]), st.booleans())
def test_no_window_holds_more_calls_than_its_limit(seed, limit, losses, wait):
    requests = listed(2, 40)
    meters = {"a0": Meter(limit), "a1": Meter(limit)}

    async def body():
        return await run(requests, seed, losses=losses, meters=meters, wait=wait)

    trial = virtually(body)
    made = Counter(trial.service.made.values())
    assert all(number == 1 for number in made.values())
    if wait:
        assert len(made) == len(requests)
    else:
        assert all(trial.service.calls[name] <= limit for name in meters)
        assert trial.coordinator.ending is not None
        assert trial.coordinator.ending.kind is StopKind.DEFERRED


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.sampled_from([0.0, 0.02]), st.booleans())
def test_reads_at_the_workers_keep_to_their_own_quota(seed, limit, losses, wait):
    requests = listed(2, 40)
    reads = {"a0": Meter(limit), "a1": Meter(limit)}

    async def body():
        return await run(requests, seed, losses=losses, reads=reads, wait=wait)

    trial = virtually(body)
    if wait:
        assert len(set(trial.service.made.values())) == len(requests)
        assert sum(meter.made for meter in reads.values()) >= trial.service.looks.total() >= len(requests)
    else:
        assert all(trial.service.looks[name] <= limit for name in reads)
        for lane in trial.coordinator.accounts.values():
            assert lane.stop is None or "(in 0:00:00)" not in lane.stop.reason, "only its reads are spent"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.1, 3))
def test_a_worker_that_is_lost_takes_little_of_a_shared_window_with_it(seed, after):
    requests, shared = listed(4, 60), Meter(60)

    async def body():
        meters = {f"a{number}": shared for number in range(4)}
        return await run(requests, seed, meters=meters, lose_after=after, wait=False)

    calls = virtually(body).service.calls.total()
    # It may have had all four, each with a portion and a half that it had not used.
    assert 60 - 4 * 6 <= calls <= 60


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_an_account_whose_calls_hang_keeps_little_of_a_shared_window_from_the_others(seed):
    requests, shared = listed(4, 60), Meter(60)

    async def body():
        meters = {f"a{number}": shared for number in range(4)}
        hung = frozenset({"a0", "a1"})
        return await run(requests, seed, meters=meters, hung=hung, stop_after=50, wait=False)

    calls = virtually(body).service.calls
    assert calls["a0"] + calls["a1"] <= 2
    assert calls["a2"] + calls["a3"] >= 60 - 2 * 8


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.1, 8), st.sampled_from([0.0, 0.05]))
def test_a_stop_leaves_no_row_without_a_word(seed, after, losses):
    requests = listed(3, 60)

    async def body():
        return await run(requests, seed, losses=losses, stop_after=after)

    trial = virtually(body)
    told = {key: outcomes[-1].status for key, outcomes in trial.outcomes.items()}
    for row in trial.service.made.values():
        assert told.get(row.key) in {Status.SUCCEEDED, Status.IN_DOUBT}, row
    assert len(trial.service.made) == len(set(trial.service.made.values()))


def test_what_cannot_be_recorded_ends_the_calls():
    requests = listed(2, 200)

    trials: list[Trial] = []

    async def body():
        with pytest.raises(BaseExceptionGroup) as caught:
            # Whoever waits for the disk is waited for.
            await run(requests, 1, refuse_after=50, slow_disk=3.0, begun=trials.append)
        return caught.value

    assert virtually(body).subgroup(LedgerWriteError) is not None
    (trial,) = trials
    assert sum(map(len, trial.outcomes.values())) == 50, "nothing is written after what could not be"
    assert trial.posts.dismissed, "all workers were told, and are silent"
    assert trial.service.calls.total() == trial.called_by_then < len(requests), "no call left after that"


def test_an_intent_that_cannot_be_recorded_ends_the_calls():
    requests = listed(2, 200)
    trials: list[Trial] = []

    async def body():
        with pytest.raises(BaseExceptionGroup) as caught:
            # Of the two accounts one waits for the disk when the other finds it full.
            await run(requests, 1, refuse_intents_after=100, slow_disk=3.0, begun=trials.append)
        return caught.value

    assert virtually(body).subgroup(LedgerWriteError) is not None
    (trial,) = trials
    assert trial.service.calls.total() == trial.called_by_then < len(requests), "no call left after that"


def test_a_row_in_doubt_keeps_the_time_of_its_first_try():
    first = START - timedelta(hours=1)
    requests = [replace(one, ambiguous=True, first_sent_at=first) for one in listed(1, 50)]

    async def body():
        return await run(requests, 5, losses=0.05)

    trial = virtually(body)
    lost = [outcome for told in trial.outcomes.values() for outcome in told[:-1]]
    assert lost
    assert trial.identified["a0"] > 1, "its next worker may sign as somebody else"
    assert all(outcome.first_sent_at == first for outcome in lost)
