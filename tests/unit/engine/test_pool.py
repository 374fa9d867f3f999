"""The worker pool in virtual time: fakes at the seams, hours in milliseconds."""

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from random import Random

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.errors import LedgerWriteError, StorageError
from batch_snapshot.failures import retry
from batch_snapshot.failures.error_codes import client_failure
from batch_snapshot.failures.retry import FailureLimit
from batch_snapshot.models import Failure, Receipt, Request, Row, Status, Verdict, client_token
from batch_snapshot.ratelimit.windows import QuotaWindow
from tests.support.engine_world import (
    BROKEN,
    CONFLICT,
    DENIED,
    EXPIRED,
    INVALID,
    REFUSED_CONNECTION,
    START,
    THROTTLED,
    Windows,
    World,
    doubtful,
    now,
    refusal,
    requests,
)
from tests.support.virtual_time import in_virtual_time

#: What the budget of a batch shifts by seconds, or what only an engine with one queue does.
LOCAL_ONLY = {
    "test_never_more_calls_in_flight_than_concurrency",
    "test_the_backoff_is_drawn_from_the_injected_source_and_grows",
    "test_with_more_accounts_than_calls_in_flight_each_has_its_turn",
    "test_a_spent_window_defers_its_account_and_no_other",
    "test_credentials_that_expire_in_the_last_calls_of_a_window_stop_the_account",
    "test_with_wait_a_spent_window_is_waited_for",
    "test_a_stop_cancels_the_permit_of_a_call_that_waits_for_concurrency",
    "test_a_stop_at_the_very_moment_of_a_permit_gives_it_back",
    "test_the_time_a_spent_window_opens_is_computed_once_no_call_is_in_flight",
}


def pytest_generate_tests(metafunc):
    kinds = ["local"] if metafunc.function.__name__ in LOCAL_ONLY else ["local", "cluster"]
    metafunc.parametrize("engine_kind", kinds, indirect=True)


@pytest.fixture(autouse=True)
def engine_kind(request):
    World.engine_kind = request.param
    yield
    World.engine_kind = "local"


pytestmark = pytest.mark.anyio


async def test_never_more_calls_in_flight_than_concurrency():
    world = World(concurrency=5, latency=10, rate=1000)
    await world.run(requests(100))
    assert world.peak == 5
    assert anyio.current_time() == pytest.approx(200, rel=0.1)


async def test_with_more_accounts_than_calls_in_flight_each_keeps_its_pace():
    """Who waited for others to end leaves late, and the next call of the account keeps its distance."""
    names = ("a", "b", "c", "d")
    world = World(concurrency=1, latency=3, accounts=names, rate=2)

    def sooner(_, __):
        world.latency = 3 if len(world.sent) % 5 == 0 else 0.01

    world.answer = sooner
    await world.run(request for name in names for request in requests(10, name))
    assert world.peak == 1
    for name in names:
        left = [at for at, request in world.sent if request.row.account == name]
        assert len(left) == 10
        assert min(after - before for before, after in pairwise(left)) > 0.45


async def test_attempts_are_bounded():
    world = World(answer=lambda *_: BROKEN, max_attempts=5)
    await world.run(requests(3))
    assert len(world.sent) == 15
    assert {(o.status, o.attempts, o.ambiguous) for o in world.outcomes} == {(Status.IN_DOUBT, 5, True)}


@pytest.mark.parametrize(
    "second", [DENIED, CONFLICT, refusal("ValidationException"), refusal("ResourceNotFoundException")]
)
async def test_ambiguity_is_sticky(second):
    world = World(answer=lambda request, nth: BROKEN if nth == 0 else second)
    await world.run(requests(1))
    assert [o.status for o in world.outcomes] == [Status.IN_DOUBT]
    assert world.outcomes[0].error.code == second.code


async def test_a_conflict_without_an_ambiguous_try_gets_few_tries():
    world = World(answer=lambda *_: CONFLICT)
    await world.run(requests(1))
    assert len(world.sent) == retry.CONFLICT_ATTEMPTS
    assert world.looked == []
    assert world.outcomes[0].status is Status.FAILED


async def test_a_throttle_costs_no_attempt_and_loses_no_row():
    world = World(answer=lambda request, nth: THROTTLED if nth < 12 else None, max_attempts=1, patience=1e9)
    await world.run(requests(5))
    assert world.statuses() == {Status.SUCCEEDED: 5}
    assert {(o.attempts, o.throttles) for o in world.outcomes} == {(1, 12)}


async def test_a_spent_quota_defers_the_run_and_records_no_outcome_for_its_rows():
    world = World(answer=lambda *_: THROTTLED, patience=300)
    await world.run(requests(50))
    assert world.ending().kind is StopKind.DEFERRED
    assert world.outcomes == []
    assert anyio.current_time() >= 300


async def test_one_success_keeps_a_throttled_run_going():
    world = World(answer=lambda request, nth: None if now().second % 10 == 0 else THROTTLED, patience=300)
    await world.run(requests(12))
    assert world.engine.ending is None
    assert world.statuses() == {Status.SUCCEEDED: 12}
    assert anyio.current_time() > 2 * 300


async def test_never_two_calls_of_one_pair_in_flight():
    templates = [
        Request(Row("main", "Sandbox", "eng-1", "Opportunity", "O1", f"View{n}"), f"token{n}")
        for n in range(20)
    ]
    world = World(latency=1)
    await world.run(templates)
    assert world.overlaps == 0
    assert world.statuses() == {Status.SUCCEEDED: 20}


async def test_a_row_in_doubt_has_its_pair_to_itself_until_it_is_settled():
    """Else its look-up could take the other row's snapshot for its own."""
    in_doubt = doubtful(1000)
    world = World(latency=1)
    await world.run([in_doubt, Request(in_doubt.row._replace(template="Other"), "other")])
    (first, one), (second, other) = world.sent
    assert (one.client_token, other.client_token) == ("token", "other")
    assert second >= first + 1


async def test_a_row_in_doubt_that_waits_for_a_window_keeps_its_pair():
    class LaterB(World):
        async def identify(self, account):
            await anyio.sleep(5 * (account.name == "b"))
            await super().identify(account)

    world: World = LaterB(accounts=("main", "b"), wait=True)
    world.engine.accounts["main"].pacer.meter = Windows(0, opens_at=100)
    in_doubt = doubtful(5)
    await world.run([in_doubt, Request(in_doubt.row._replace(account="b"), "other")])
    assert [one.client_token for _, one in world.sent] == ["token", "other"]


async def test_a_row_that_was_throttled_keeps_its_pair_until_it_is_settled():
    """A later try may leave it in doubt, and what is looked for then is any snapshot since the first."""
    world: World = World(accounts=("a", "b"), answer=lambda *_: THROTTLED if len(world.sent) == 1 else None)
    await world.run([*requests(1, "a"), *requests(1, "b")])
    (_, first), (_, second), (_, other) = world.sent
    assert first.row == second.row != other.row


async def test_expired_credentials_stop_the_account_and_leave_its_rows():
    world = World(
        accounts=("good", "bad"), answer=lambda request, _: EXPIRED if request.row.account == "bad" else None
    )
    await world.run([*requests(100, "bad"), *requests(100, "good")])
    assert world.statuses() == {Status.SUCCEEDED: 100}
    assert {outcome.request.row.account for outcome in world.outcomes} == {"good"}
    assert world.engine.accounts["good"].stop is None
    assert world.ending().kind is StopKind.STOPPED
    assert "ExpiredTokenException" in world.ending().reason


async def test_expired_credentials_after_an_ambiguous_try_leave_the_row_in_doubt():
    world = World(answer=lambda request, nth: BROKEN if nth == 0 else EXPIRED)
    await world.run(requests(1))
    assert [o.status for o in world.outcomes] == [Status.IN_DOUBT]


async def test_too_many_failures_stop_the_run():
    bad = refusal("ValidationException")
    world = World(answer=lambda *_: bad, concurrency=1, failure_limit=FailureLimit(count=3))
    await world.run(requests(100))
    assert len(world.outcomes) == 4
    assert world.ending().kind is StopKind.STOPPED


async def test_too_many_failures_of_the_calls_in_flight_stop_a_run_whose_time_is_over():
    limit = FailureLimit(count=1)
    world = World(answer=lambda *_: INVALID, latency=4, concurrency=4, max_duration=2, failure_limit=limit)
    await world.run(requests(100))
    assert len(world.outcomes) == 4
    assert world.ending() == Stop(StopKind.STOPPED, "2 of 2 rows did not succeed: --max-failures is reached")


async def test_the_time_limit_defers_the_rest_and_drains_what_is_in_flight():
    world = World(latency=4, concurrency=2, rate=100, max_duration=10)
    await world.run(requests(100))
    assert world.ending().kind is StopKind.DEFERRED
    assert world.statuses() == {Status.SUCCEEDED: 6}
    assert len(world.sent) == 6


async def test_a_stop_drains_calls_in_flight_and_begins_none():
    world = World(latency=5, concurrency=4, rate=1000)
    async with anyio.create_task_group() as group:
        group.start_soon(world.run, requests(100))
        await anyio.sleep(7)
        before = len(world.sent)
        world.engine.request_stop(Stop(StopKind.INTERRUPTED, "SIGINT"))
    assert len(world.sent) == before == world.statuses()[Status.SUCCEEDED]


async def test_a_stop_wakes_rows_in_backoff_and_at_the_pacer():
    world = World(answer=lambda *_: THROTTLED)
    async with anyio.create_task_group() as group:
        group.start_soon(world.run, requests(100))
        await anyio.sleep(100)
        stopped_at = anyio.current_time()
        world.engine.request_stop(Stop(StopKind.INTERRUPTED, "SIGINT"))
    assert anyio.current_time() - stopped_at < 1
    assert world.outcomes == []


async def test_calls_that_outlive_the_drain_are_in_doubt():
    world = World(latency=1000, concurrency=4, rate=1000, drain_timeout=30)
    async with anyio.create_task_group() as group:
        group.start_soon(world.run, requests(100))
        await anyio.sleep(5)
        world.engine.request_stop(Stop(StopKind.INTERRUPTED, "SIGTERM"))
    assert anyio.current_time() == pytest.approx(35)
    assert world.statuses() == {Status.IN_DOUBT: 4}
    assert {o.request.row for o in world.outcomes} == {request.row for _, request in world.sent}


async def test_an_abort_drops_calls_at_once_and_records_them_in_doubt():
    world = World(latency=1000, concurrency=4, rate=1000)
    async with anyio.create_task_group() as group:
        group.start_soon(world.run, requests(100))
        await anyio.sleep(5)
        world.engine.abort()
    assert anyio.current_time() == pytest.approx(5)
    assert world.statuses() == {Status.IN_DOUBT: 4}


async def test_what_cannot_be_recorded_is_not_begun():
    world = World(latency=1, concurrency=4, rate=1000)

    async def fill():
        await anyio.sleep(3.5)
        world.full = True

    async def both():
        async with anyio.create_task_group() as group:
            group.start_soon(fill)
            group.start_soon(world.run, requests(100))

    with pytest.raises(BaseExceptionGroup) as raised:
        await both()
    assert raised.value.subgroup(LedgerWriteError)
    await anyio.sleep(100)
    assert len(world.sent) == world.sent_until_full
    assert world.engine.accounts["main"].halted


FOUND = Receipt("arn:found", 3)


@pytest.mark.parametrize(
    ("age", "found", "resend", "sent", "outcome"),
    [
        (500, FOUND, False, True, (Status.SUCCEEDED, False)),
        (700, FOUND, False, False, (Status.SUCCEEDED, True)),
        (700, None, False, True, (Status.SUCCEEDED, False)),
        (700, DENIED, False, False, (Status.IN_DOUBT, False)),
        (700, DENIED, True, True, (Status.SUCCEEDED, False)),
    ],
    ids=["young", "found", "not found", "not looked up", "to be resent"],
)
async def test_an_old_row_in_doubt_is_looked_up_before_it_is_sent_under_its_token(
    age, found, resend, sent, outcome
):
    world = World(token_ttl=600, look=lambda _: found, resend_in_doubt=resend)
    await world.run([doubtful(age)])
    assert len(world.looked) == (age > 600)
    assert [request.client_token for _, request in world.sent] == ["token"] * sent
    (settled,) = world.outcomes
    assert (settled.status, settled.reconciled) == outcome
    if settled.reconciled:
        assert (settled.arn, settled.revision) == ("arn:found", 3)
    elif sent:
        assert settled.first_sent_at == START - timedelta(seconds=age)
    else:
        assert settled.error.code == "AccessDeniedException"


async def test_denied_look_ups_do_not_trip_the_breaker():
    rows = [
        Request(request.row, request.client_token, ambiguous=True, first_sent_at=START - timedelta(hours=1))
        for request in requests(40)
    ]
    world = World(look=lambda _: DENIED)
    await world.run(rows)
    assert world.statuses() == {Status.IN_DOUBT: 40}


async def test_a_look_up_is_tried_again_and_throttles_are_waited_out():
    said = [BROKEN, THROTTLED, REFUSED_CONNECTION]
    world = World(look=lambda _: said.pop(0) if said else Receipt("arn:found", 1))
    await world.run([doubtful(7000)])
    assert len(world.looked) == 4
    assert [o.status for o in world.outcomes] == [Status.SUCCEEDED]


async def test_a_token_that_expires_at_the_pacer_is_looked_up_before_it_is_sent_again():
    def answer(request, nth):
        return BROKEN if nth == 0 else refusal("ThrottlingException", retry_after=250) if nth < 6 else None

    world = World(answer=answer, token_ttl=600, patience=1e9)
    await world.run(requests(1))
    looked_at = world.looked[0][0]
    assert looked_at > 600
    assert not any(600 < at < looked_at for at, _ in world.sent)


async def test_a_retry_hint_is_honoured():
    world = World(
        answer=lambda request, nth: refusal("ThrottlingException", retry_after=40) if nth == 0 else None
    )
    await world.run(requests(1))
    first, second = (at for at, _ in world.sent)
    assert second - first >= 40


async def test_the_backoff_is_drawn_from_the_injected_source_and_grows():
    world = World(latency=0, answer=lambda *_: BROKEN, max_attempts=8)
    await world.run(requests(1))
    times = [at for at, _ in world.sent]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    draws = [retry.backoff(attempt, rng) for rng in [Random(7)] for attempt in range(1, 8)]
    assert gaps == pytest.approx(draws, abs=0.2)


async def test_intents_cover_every_row_before_it_is_sent_and_no_stopped_account():
    world = World(
        accounts=("a", "b"), answer=lambda request, _: EXPIRED if request.row.account == "a" else None
    )
    await world.run([*requests(64, "a"), *requests(64, "b"), *requests(640, "a")], size=16)
    named = Counter(row.account for row in world.intended)
    assert named["b"] == 64
    assert named["a"] < 200


FAILURES = [
    THROTTLED,
    DENIED,
    CONFLICT,
    BROKEN,
    REFUSED_CONNECTION,
    refusal("ValidationException"),
    refusal("Weird"),
    None,
]


@settings(max_examples=40, deadline=None)
@given(
    script=st.lists(st.sampled_from(FAILURES), min_size=1, max_size=60),
    rows=st.integers(1, 40),
    concurrency=st.integers(1, 9),
)
def test_nothing_is_forgotten_and_no_answer_is_misread(script, rows, concurrency):
    """Whatever the service says, each row ends once, and as its own answers say."""
    heard: dict[Row, list[Failure | None]] = {}

    async def body():
        calls = 0

        def answer(request, nth):
            nonlocal calls
            failure = script[calls % len(script)] if calls < 400 else None
            calls += 1
            heard.setdefault(request.row, []).append(failure)
            return failure

        world = World(answer=answer, concurrency=concurrency)
        await world.run(requests(rows))
        return world

    world = in_virtual_time(body)
    assert len({o.request.row for o in world.outcomes}) == len(world.outcomes)
    if world.engine.ending is None:
        assert len(world.outcomes) == rows
    assert len({request.client_token for _, request in world.sent}) == len(heard)
    for outcome in world.outcomes:
        answers = heard[outcome.request.row]
        if outcome.status is Status.SUCCEEDED:
            assert outcome.arn == f"arn:{client_token('run', outcome.request.row, 0)}"
        landed = any(failure and failure.may_have_landed for failure in answers)
        expected = Status.SUCCEEDED if answers[-1] is None else Status.IN_DOUBT if landed else Status.FAILED
        assert outcome.status is expected
        arrived = [failure for failure in answers if failure is None or not failure.never_left]
        assert outcome.attempts + outcome.throttles == len(arrived)
        assert outcome.ambiguous == landed
        assert not any(failure and failure.verdict is Verdict.REFUSED for failure in answers[:-1])


@pytest.mark.parametrize(("skewed", "reads", "sent"), [(1, 2, 3), (9, 2, 0)])
async def test_a_first_read_that_shows_a_wrong_clock_is_made_once_more_under_a_permit_of_its_own(
    skewed, reads, sent
):
    world: World = World(
        first_read=lambda _: refusal("RequestTimeTooSkewed", 403) if len(world.probed) <= skewed else None
    )
    world.engine.accounts["main"].read_pacer.meter = windows = Windows(10)
    await world.run(requests(3))
    assert (len(world.probed), len(world.sent)) == (reads, sent)
    if World.engine_kind == "local":
        assert windows.used == reads


async def test_each_account_is_identified_and_each_catalog_read_once_before_its_first_write():
    world = World(accounts=("a", "b"))
    production = [
        Request(request.row._replace(catalog="AWS"), request.client_token) for request in requests(30, "a")
    ]
    await world.run([*requests(30, "a"), *production, *requests(30, "b")])
    assert sorted(world.identified) == [("a", 0.0, 0.0), ("b", 0.0, 0.0)], "before anything leaves"
    assert sorted(one[1:] for one in world.probed) == [("a", "AWS"), ("a", "Sandbox"), ("b", "Sandbox")]
    assert world.probed[0][0] == 0
    assert world.statuses() == {Status.SUCCEEDED: 90}


async def test_a_first_read_that_cannot_sign_stops_the_account_before_any_write():
    world = World(first_read=lambda _: EXPIRED)
    await world.run(requests(50))
    assert world.sent == world.outcomes == []
    assert world.ending().kind is StopKind.STOPPED


async def test_a_first_read_that_is_refused_is_a_warning():
    world = World(first_read=lambda _: DENIED)
    await world.run(requests(5))
    assert world.statuses() == {Status.SUCCEEDED: 5}
    assert "AccessDeniedException" in world.engine.accounts["main"].warnings[0]


async def test_a_conflict_after_an_ambiguous_try_is_settled_by_a_look_up():
    """A service that answers every replay with a conflict: the snapshot is there all the same."""
    world = World(
        answer=lambda request, nth: BROKEN if nth == 0 else CONFLICT, look=lambda _: Receipt("arn:found", 2)
    )
    await world.run(requests(1))
    assert [(o.status, o.reconciled, o.revision) for o in world.outcomes] == [(Status.SUCCEEDED, True, 2)]
    assert len(world.sent) == 2


@pytest.mark.parametrize("found", [DENIED, None])
async def test_a_conflict_whose_look_up_does_not_tell_is_replayed(found):
    world = World(
        answer=lambda request, nth: BROKEN if nth == 0 else CONFLICT if nth < 4 else None,
        look=lambda _: found,
    )
    await world.run(requests(1))
    assert world.statuses() == {Status.SUCCEEDED: 1}


async def test_a_look_up_waits_until_reads_show_what_was_sent_last():
    """An earlier run may have sent it the moment before this one began."""
    world = World(look=lambda _: Receipt("arn:found", 1))
    await world.run([doubtful(7000)])
    assert world.looked[0][0] >= retry.READ_LAG


async def test_a_throttled_account_delays_no_other():
    """A thousand rows of a throttled account come first; the others' rows are done in seconds."""
    world = World(
        accounts=("stuck", "free"),
        answer=lambda request, _: THROTTLED if request.row.account == "stuck" else None,
        patience=1e9,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(world.run, [*requests(1000, "stuck"), *requests(100, "free", "eng-of-its-own")])
        await anyio.sleep(30)
        assert world.statuses() == {Status.SUCCEEDED: 100}
        world.engine.abort()


@pytest.mark.parametrize(
    ("accounts", "expected"),
    [(("main",), None), (("main", "idle"), {"main": 10_000})],
    ids=["no row can be taken", "the other account has no rows"],
)
async def test_the_manifest_is_read_no_further_ahead_than_needed(accounts, expected):
    """That an account has no row is known from the validation: else it might be the last of a million."""
    world = World(latency=1e6, concurrency=4, rate=1000, accounts=accounts)
    read = 0

    def batches():
        nonlocal read
        for request in requests(10_000):
            read += 1
            yield [request]

    async with anyio.create_task_group() as group:
        group.start_soon(world.engine.run, batches(), expected)
        await anyio.sleep(100)
        assert read < 100
        world.engine.abort()


async def test_the_share_of_an_account_that_is_done_goes_to_the_others():
    world = World(latency=1.0, concurrency=8, accounts=tuple("abcdefgh"))
    few = [one for name in "abcdefg" for one in requests(2, name, f"eng-{name}")]
    async with anyio.create_task_group() as group:
        group.start_soon(world.run, [*requests(400, "h"), *few])
        await anyio.sleep(120)
    assert world.peak == 8
    assert world.statuses() == {Status.SUCCEEDED: 414}


async def test_accounts_without_rows_have_no_share():
    world = World(latency=1.0, concurrency=8, accounts=tuple("abcdefgh"), rate=1000)
    async with anyio.create_task_group() as group:
        group.start_soon(world.engine.run, [list(requests(64, "h"))], {"h": 64})
        await anyio.sleep(20)
    assert world.peak == 8


async def test_with_more_accounts_than_calls_in_flight_each_has_its_turn():
    """Two hundred accounts, eight at once: none has its second row before nearly all have had their first."""
    names = tuple(f"account-{number}" for number in range(200))
    world = World(latency=0.5, concurrency=8, accounts=names)
    rows = [one for name in names for one in requests(3, name, f"eng-{name}")]
    await world.run(rows)
    assert world.peak <= 8
    turns = [request.row.account for _, request in world.sent]
    assert len(turns) == 600
    assert len({*turns[:200]}) >= 190


async def test_an_account_whose_calls_hang_takes_no_other_accounts_share():
    def latency(request):
        return 90 if request.row.account == "slow" else 0.1

    world = World(accounts=("slow", "quick"), concurrency=8, rate=100, latency=latency)
    async with anyio.create_task_group() as group:
        group.start_soon(world.run, [*requests(60, "slow"), *requests(60, "quick", "eng-of-its-own")])
        await anyio.sleep(10)
        assert sum(o.request.row.account == "quick" for o in world.outcomes) == 60
        world.engine.abort()


async def test_a_throttle_that_may_have_landed_leaves_its_row_in_doubt():
    """A 5xx with a throttle's code: it may have been carried out."""
    world = World(answer=lambda *_: refusal("ThrottlingException", 503), max_duration=20)
    await world.run(requests(3))
    assert world.sent
    assert {o.request.row for o in world.outcomes} == {request.row for _, request in world.sent}
    assert {o.status for o in world.outcomes} == {Status.IN_DOUBT}


async def test_reads_that_are_only_throttled_leave_the_row_in_doubt_in_the_end():
    world = World(look=lambda _: THROTTLED, patience=300)
    await world.run([doubtful(7000)])
    assert world.sent == []
    assert world.statuses() == {Status.IN_DOUBT: 1}


async def test_the_pace_of_reads_recovers():
    throttles = [THROTTLED] * 10
    world = World(look=lambda _: throttles.pop() if throttles else Receipt("arn:found", 1), concurrency=1)
    await world.run([doubtful(7000)])
    assert world.engine.accounts["main"].read_pacer.pace.starved_since is None


# -- whose account it is -------------------------------------------------------------------------------


async def test_an_account_without_valid_credentials_stops_before_its_first_permit():
    world = World(
        accounts=("good", "bad"), whose=lambda account: EXPIRED if account.name == "bad" else None, rate=1000
    )
    await world.run([*requests(100, "bad"), *requests(100, "good", "eng-of-its-own")])
    assert world.statuses() == {Status.SUCCEEDED: 100}
    assert {account for _, account, _ in world.probed} == {"good"}
    bad = world.engine.accounts["bad"]
    assert bad.stop is not None
    assert bad.stop.kind is StopKind.STOPPED
    assert "ExpiredTokenException" in bad.stop.reason
    assert bad.pacer.pace.next_call_at == bad.read_pacer.pace.next_call_at == 0
    assert world.engine.accounts["good"].stop is None
    assert [name for name, *_ in world.identified].count("bad") == 1


async def test_a_transient_failure_to_identify_is_tried_again():
    """What fails without saying anything about the account costs no row."""
    said = [BROKEN]
    world = World(whose=lambda _: said.pop() if said else None, concurrency=1)
    await world.run(requests(5))
    assert len(world.identified) == 2
    assert world.statuses() == {Status.SUCCEEDED: 5}


# -- windows -------------------------------------------------------------------------------------------


async def test_a_spent_window_defers_its_account_and_no_other():
    world = World(accounts=("a", "b"), rate=1000)
    world.engine.accounts["a"].pacer.meter = Windows(40, opens_at=7200)
    await world.run([*requests(100, "a"), *requests(100, "b", "eng-of-its-own")])
    assert Counter(o.request.row.account for o in world.outcomes) == {"a": 40, "b": 100}
    assert world.statuses() == {Status.SUCCEEDED: 140}, "what was not sent has no outcome"
    stop = world.engine.accounts["a"].stop
    assert stop is not None
    assert stop == world.ending()
    assert stop.kind is StopKind.DEFERRED
    assert "account a: per_day is spent (10,000 calls in any 24 hours)" in stop.reason
    opens = (START + timedelta(seconds=7200)).astimezone()
    assert f"opens {opens:%H:%M}" in stop.reason
    assert "(in 1:59:59" in stop.reason or "(in 2:00:00)" in stop.reason
    assert "--wait" in stop.reason
    assert world.engine.accounts["b"].stop is None
    assert anyio.current_time() < 60


async def test_rows_that_wait_for_a_window_hold_back_no_other_account_that_lists_their_pairs():
    world = World(
        accounts=("a", "b"),
        rate=1000,
        wait=True,
        latency=lambda request: 1.0 if request.row.account == "b" else 0.1,
    )
    world.engine.accounts["a"].pacer.meter = Windows(40, opens_at=7200)
    at = {}

    def record(outcome):
        at[outcome.request.row] = anyio.current_time()

    world.engine._write_outcome = record
    await world.run(
        [request for pair in zip(requests(100, "a"), requests(100, "b"), strict=True) for request in pair]
    )
    assert max(moment for row, moment in at.items() if row.account == "b") < 60
    assert len(at) == 200
    assert world.overlaps == 0


async def test_credentials_that_expire_in_the_last_calls_of_a_window_stop_the_account():
    """Of several reasons the gravest counts: the same command would meet it again."""
    world = World(rate=1000, latency=4, answer=lambda *_: EXPIRED)
    world.engine.accounts["main"].pacer.meter = Windows(5, opens_at=7200)
    await world.run(requests(10))
    assert len(world.sent) == 5
    assert world.ending().kind is StopKind.STOPPED
    assert "ExpiredTokenException" in world.ending().reason


async def test_a_window_that_allows_no_call_says_what_to_change():
    world = World()
    world.engine.accounts["main"].pacer.meter = Windows(0, width=QuotaWindow("per_hour", 0, 3600.0))
    await world.run(requests(10))
    assert world.sent == world.outcomes == []
    assert world.ending().kind is StopKind.DEFERRED
    assert "per_hour less its reserve leaves room for no call" in world.ending().reason


async def test_with_wait_a_spent_window_is_waited_for():
    world = World(rate=1000, wait=True)
    world.engine.accounts["main"].pacer.meter = Windows(40, opens_at=7200)
    await world.run(requests(100))
    assert world.statuses() == {Status.SUCCEEDED: 100}
    assert world.engine.ending is None
    assert [7200 <= at < 7201 for at, _ in world.sent] == [False] * 40 + [True] * 60


async def test_a_stop_ends_the_wait_for_a_window():
    world = World(rate=1000, wait=True)
    world.engine.accounts["main"].pacer.meter = windows = Windows(40, opens_at=7200)
    async with anyio.create_task_group() as group:
        group.start_soon(world.run, requests(100))
        await anyio.sleep(100)
        world.engine.request_stop(Stop(StopKind.INTERRUPTED, "SIGINT"))
    assert anyio.current_time() < 101
    assert world.statuses() == {Status.SUCCEEDED: 40}
    assert windows.in_flight == set()


async def test_a_spent_window_of_reads_leaves_the_row_in_doubt():
    world = World()
    world.engine.accounts["main"].read_pacer.meter = Windows(1, opens_at=7200)
    await world.run([doubtful(7000)])
    assert world.looked == world.sent == []
    assert world.outcomes == [], "its earlier lines stand"
    assert world.ending().kind is StopKind.DEFERRED
    stop = world.engine.accounts["main"].stop
    assert stop is not None
    assert "per_day is spent (10,000 reads in any 24 hours)" in stop.reason
    assert "in 1:59:" in stop.reason, "it is the window of reads that opens then"


async def test_a_stop_cancels_the_permit_of_a_call_that_waits_for_concurrency():
    """It has a permit but never leaves, so it uses nothing of the window."""
    world = World(latency=5, accounts=("a", "b"), rate=1000, concurrency=1)
    meters = {name: Windows(100) for name in ("a", "b")}
    for name, account in world.engine.accounts.items():
        account.pacer.meter = meters[name]
    async with anyio.create_task_group() as group:
        group.start_soon(world.run, [*requests(5, "a"), *requests(5, "b", "eng-of-its-own")])
        await anyio.sleep(3)
        assert len(world.sent) == 1
        assert sum(len(meter.in_flight) for meter in meters.values()) == 2
        world.engine.request_stop(Stop(StopKind.INTERRUPTED, "SIGINT"))
    assert len(world.sent) == 1
    assert sum(meter.used for meter in meters.values()) == 1
    assert not any(meter.in_flight for meter in meters.values())
    assert [account.pacer.pace.in_flight for account in world.engine.accounts.values()] == [0, 0]


async def test_a_stop_at_the_very_moment_of_a_permit_gives_it_back():
    """A signal can come between a permit and the call: what never left spends nothing."""
    world = World(rate=1000)

    class Signalled(Windows):
        def reserve(self):
            reservation = super().reserve()
            if reservation == 7:
                world.engine.request_stop(Stop(StopKind.INTERRUPTED, "SIGINT"))
            return reservation

    account = world.engine.accounts["main"]
    account.pacer.meter = windows = Signalled(100)
    await world.run(requests(20))
    assert len(world.sent) == windows.used == 6
    assert windows.in_flight == set()
    assert account.pacer.pace.in_flight == 0
    assert world.ending().kind is StopKind.INTERRUPTED


async def test_calls_that_are_dropped_in_flight_count_in_their_windows():
    world = World(latency=1000, concurrency=4, rate=1000)
    world.engine.accounts["main"].pacer.meter = windows = Windows(100)
    async with anyio.create_task_group() as group:
        group.start_soon(world.run, requests(100))
        await anyio.sleep(5)
        world.engine.abort()
    assert (windows.used, windows.in_flight) == (4, set())


@pytest.mark.parametrize("breaks", ["finish", "reserve"])
async def test_a_log_of_calls_that_fails_loses_no_outcome_and_lets_no_call_follow(breaks):
    world = World(latency=1, concurrency=2, rate=1000)
    world.engine.accounts["main"].pacer.meter = windows = Windows(100)

    async def breaking():
        await anyio.sleep(3.2)
        windows.broken.add(breaks)

    async with anyio.create_task_group() as group:
        group.start_soon(breaking)
        group.start_soon(world.run, requests(100))
    assert len(world.sent) == len(world.outcomes) >= 6
    assert set(world.statuses()) == {Status.SUCCEEDED}
    assert isinstance(world.engine.call_log_error, StorageError)
    ending = world.ending()
    assert (ending.kind, ending.reason) == (StopKind.STOPPED, "the log of calls cannot be written")


async def test_a_log_of_calls_that_cannot_be_read_lets_no_call_leave():
    world = World(whose=lambda _: StorageError("the log of calls cannot be read"))
    await world.run(requests(10))
    assert (world.sent, world.outcomes) == ([], [])
    assert isinstance(world.engine.call_log_error, StorageError)


async def test_the_time_a_spent_window_opens_is_computed_once_no_call_is_in_flight():
    """A call in flight may count for minutes; once it is over, the time is exact."""
    world = World(latency=2, concurrency=8, rate=1000)
    windows = Windows(4, opens_at=360)
    account = world.engine.accounts["main"]
    account.pacer.meter = windows

    async def over():
        while account.stop is None:
            await anyio.sleep(0.1)
        assert "in 0:05:" in account.stop.reason
        assert windows.in_flight
        windows.opens_at = anyio.current_time() + 62

    async with anyio.create_task_group() as group:
        group.start_soon(over)
        group.start_soon(world.run, requests(100))
    assert "in 0:01:0" in (account.stop.reason if account.stop else "")
    assert windows.in_flight == set()


# -- what counts for the pace ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (client_failure(["ClientOSError", "ClientError"], "reset"), False),
        (client_failure(["SomethingNew", "Exception"], "?"), False),
        (BROKEN, False),
        (CONFLICT, True),
        (INVALID, True),
        (DENIED, True),
        (None, True),
    ],
    ids=lambda value: getattr(value, "code", value),
)
async def test_only_answers_of_the_service_without_throttle_count_for_the_pace(failure, says):
    """Neither a connection that was reset nor a service that broke says anything about limits."""
    world = World(answer=lambda *_: failure, max_attempts=1, look=lambda _: DENIED)
    await world.run(requests(1))
    assert len(world.sent) == 1
    assert world.engine.accounts["main"].pacer.pace.found == says
    assert world.engine.accounts["main"].pacer.pace.in_flight == 0


async def test_every_call_of_a_run_is_counted_and_those_that_were_throttled():
    world = World(answer=lambda request, nth: THROTTLED if nth < 2 else None, patience=1e9)
    await world.run(requests(5))
    traffic = world.engine.accounts["main"].traffic
    assert (traffic.calls, traffic.throttled) == (15, 10)
