"""When an account stops or pauses: kinds of failures, and the engine in virtual time against each of them."""

from collections import Counter
from itertools import pairwise

import anyio
import pytest

from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.failures import breakers
from batch_snapshot.failures.breakers import LIMIT, Breaker, Pause
from batch_snapshot.failures.error_codes import client_failure, invalid_response, service_failure
from batch_snapshot.models import Receipt, Status
from tests.support.engine_world import BROKEN, CONFLICT, DENIED, Windows, World, doubtful, refusal, requests

pytestmark = pytest.mark.anyio


def html(status):
    return service_failure(code=str(status), message="<html><b>no</b></html>", http_status=status)


REFUSED = client_failure(
    ["ClientConnectorError", "Exception"], "cannot reach api.example:443: connection refused"
)
QUOTA = refusal("ServiceQuotaExceededException", 402)
GARBAGE = invalid_response("no snapshot", http_status=200, request_id=None)
RESET = client_failure(["ClientOSError", "ClientError"], "reset")
NOT_FOUND = refusal("ResourceNotFoundException")

#: What stops an account, and what its reason says.
STOPPING = {
    "html 403": (html(403), "20 answers in a row were HTML with status 403: a proxy, a firewall"),
    "html 404": (html(404), "20 answers in a row were HTML with status 404"),
    "json 403": (
        refusal("403", 403),
        "20 answers in a row were not an answer of the service with status 403",
    ),
    "redirect": (refusal("302", 302), "20 rows in a row were answered by a redirect (status 302)"),
    "operation": (
        refusal("UnknownOperationException", 404),
        "20 answers in a row were UnknownOperationException",
    ),
    "501": (html(501), "20 rows in a row ended with a server error (status 501)"),
    "503": (html(503), "20 rows in a row ended with a server error (status 503)"),
    "500": (refusal("InternalServerException", 500), "20 rows in a row ended with a server error"),
    "garbage": (GARBAGE, "20 rows in a row were answered by a success that names no snapshot"),
    "reset": (RESET, "20 rows in a row got no answer that can be read"),
    "denied": (DENIED, "20 denials in a row: allow these credentials partnercentral:CreateResourceSnapshot"),
    "not found": (
        NOT_FOUND,
        "20 rows in a row were not found (ResourceNotFoundException): check the catalog",
    ),
    "conflict": (CONFLICT, "20 rows in a row met a conflict"),
    "unknown": (refusal("WeirdException"), "20 rows in a row were refused with WeirdException"),
    "invalid": (refusal("ValidationException"), "20 rows in a row were refused with the same message"),
}


@pytest.mark.parametrize(("failure", "said"), STOPPING.values(), ids=STOPPING)
@pytest.mark.parametrize("latency", [0, 20.0])
async def test_a_server_that_refuses_all_rows_in_one_way_sees_few_of_them(failure, said, latency):
    world = World(latency=latency, answer=lambda *_: failure, rate=1000, max_attempts=2)
    await world.run(requests(300))
    assert len({request.row for _, request in world.sent}) == LIMIT
    assert len(world.outcomes) == LIMIT, "the other rows are unattempted"
    assert world.ending().kind is StopKind.STOPPED
    assert world.ending().reason.startswith(f"account main: {said}")


async def test_the_start_is_slowed_down_no_longer_than_the_first_call_lasts():
    world = World(latency=10, concurrency=32, rate=1000)
    await world.run(requests(200))
    assert world.peak == 32
    assert anyio.current_time() < 10 * (1 + -(-180 // 32)) + 1


@pytest.mark.parametrize(("failure", "allowed"), [(DENIED, 100), (html(403), 20), (refusal("500", 500), 20)])
async def test_after_a_success_only_failures_of_single_rows_are_tolerated_longer(failure, allowed):
    world = World(
        answer=lambda request, _: None if request.row.resource == "O0" else failure,
        concurrency=1,
        max_attempts=1,
    )
    await world.run(requests(300))
    assert world.statuses()[Status.SUCCEEDED] == 1
    assert len(world.outcomes) == 1 + allowed
    assert world.ending().kind is StopKind.STOPPED


async def test_a_success_in_between_resets_the_breaker():
    world = World(
        answer=lambda request, _: html(403) if int(request.row.resource[1:]) % 15 else None, concurrency=1
    )
    await world.run(requests(150))
    assert world.engine.ending is None
    assert len(world.outcomes) == 150


async def test_refusals_with_different_messages_stop_no_account():
    def answer(request, _):
        word = chr(ord("a") + int(request.row.resource[1:]) % 26)
        return service_failure(code="ValidationException", message=f"{word} is bad", http_status=400)

    world = World(answer=answer)
    await world.run(requests(100))
    assert world.statuses() == {Status.FAILED: 100}
    assert world.engine.ending is None


@pytest.mark.parametrize(
    "message",
    [
        "resource {resource} of {engagement} is closed",
        "arn:aws:partnercentral:us-east-1::catalog/{engagement} is closed",
        "closed; request 4e7c-{number}",
    ],
)
def test_messages_that_differ_by_ids_alone_are_the_same(message):
    found = Breaker()
    for number in range(LIMIT):
        said = message.format(resource=f"O{number}", engagement=f"eng-{number:014}", number=number)
        found = found.after(service_failure(code="ValidationException", message=said, http_status=400))
    assert found.tripped


def test_another_pattern_starts_the_count_again():
    found = Breaker(limit=2).after(DENIED).after(html(403))
    assert (found.count, found.tripped) == (1, False)
    assert not found.after(html(404)).tripped
    assert found.after(html(403)).tripped


def test_a_reason_quotes_no_whole_html_page():
    page = service_failure(code="403", message="<html>" + "x" * 1900, http_status=403)
    assert len(Breaker().after(page).reason) < 500


async def test_one_accounts_breaker_stops_no_other():
    world = World(
        accounts=("a", "b"), answer=lambda request, _: html(403) if request.row.account == "a" else None
    )
    await world.run([*requests(100, "a"), *requests(100, "b", "eng-of-its-own")])
    assert Counter(o.request.row.account for o in world.outcomes) == {"a": 20, "b": 100}
    assert world.engine.accounts["b"].stop is None


# -- no network ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 32])
@pytest.mark.parametrize("latency", [0, 10.0], ids=["refused", "timed out"])
async def test_without_a_network_the_run_is_deferred_within_three_minutes(concurrency, latency):
    world = World(latency=latency, answer=lambda *_: REFUSED, concurrency=concurrency, max_attempts=2)
    account = world.engine.accounts["main"]
    account.pacer.meter, account.read_pacer.meter = Windows(10_000), Windows(10_000)
    await world.run(requests(300))
    assert 120 <= anyio.current_time() < 180
    assert world.ending().kind is StopKind.DEFERRED
    assert "cannot reach api.example:443: connection refused for" in world.ending().reason
    assert world.outcomes == [], "all rows are unattempted"
    assert account.traffic.calls == 0
    assert (account.pacer.meter.used, account.pacer.meter.in_flight) == (0, set())
    assert len(world.sent) < 60
    assert len({request.row for _, request in world.sent}) <= LIMIT


async def test_a_first_read_that_does_not_leave_is_a_probe_before_any_intent():
    world = World(first_read=lambda _: REFUSED)
    account = world.engine.accounts["main"]
    account.read_pacer.meter = reads = Windows(10_000)
    await world.run(requests(300))
    assert world.ending().kind is StopKind.DEFERRED
    assert world.intended == world.sent == world.outcomes == account.warnings == []
    assert (reads.used, reads.in_flight) == (0, set())
    assert 120 <= anyio.current_time() < 180


async def test_probes_come_one_at_a_time_and_ever_more_seldom():
    world = World(latency=0, answer=lambda *_: REFUSED, rate=1000)
    await world.run(requests(300))
    times = [at for at, _ in world.sent if at > world.sent[0][0] + 0.5]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[:-1] == pytest.approx([2, 4, 8, 16, 30, 30], abs=0.1)
    assert max(gaps) <= 30.1


async def test_a_run_continues_when_the_network_comes_back():
    world = World(answer=lambda *_: REFUSED if 1 < anyio.current_time() < 60 else None, rate=50)
    await world.run(requests(500))
    assert world.engine.ending is None
    assert world.statuses() == {Status.SUCCEEDED: 500}
    assert {outcome.attempts for outcome in world.outcomes} == {1}
    assert world.engine.accounts["main"].traffic.calls == 500
    assert world.engine.accounts["main"].pause is None
    assert anyio.current_time() < 60 + 30 + 11


async def test_any_answer_ends_the_pause():
    world = World(answer=lambda *_: REFUSED if anyio.current_time() < 5 else NOT_FOUND)
    await world.run(requests(10))
    assert world.statuses() == {Status.FAILED: 10}
    assert world.engine.ending is None


async def test_a_server_error_ends_the_pause_too_though_no_row_has_ended():
    pauses = []

    def answer(request, nth):
        if anyio.current_time() < 5:
            return REFUSED
        pauses.append(world.engine.accounts["main"].pause)
        return BROKEN if len(pauses) < 4 else None

    world = World(answer=answer, rate=1000)
    await world.run(requests(10))
    assert pauses[0] is not None
    assert not any(pauses[1:])


async def test_calls_that_were_under_way_when_the_pause_began_are_no_probes():
    world = World(latency=0.5, answer=lambda *_: REFUSED, rate=1000)
    await world.run(requests(300))
    times = [at for at, _ in world.sent]
    assert [at - times[0] for at in times[LIMIT : LIMIT + 4]] == pytest.approx([1.5, 4, 8.5, 17], abs=0.1)


async def test_a_single_refused_connection_delays_other_rows_little():
    world = World(
        answer=lambda request, nth: REFUSED if request.row.resource == "O50" and nth < 3 else None, rate=50
    )
    await world.run(requests(200))
    assert world.statuses() == {Status.SUCCEEDED: 200}
    assert anyio.current_time() < 8


async def test_a_row_in_doubt_stays_in_doubt_without_a_network():
    world = World(answer=lambda request, nth: RESET if nth == 0 else REFUSED, concurrency=1)
    await world.run(requests(1))
    assert [(o.status, o.attempts, o.error.message) for o in world.outcomes] == [
        (Status.IN_DOUBT, 1, "reset")
    ]
    assert world.ending().kind is StopKind.DEFERRED


async def test_a_look_up_that_never_left_waits_for_the_next_probe():
    world = World(look=lambda _: REFUSED if anyio.current_time() < 60 else Receipt("arn:found", 1))
    await world.run([doubtful(7000)])
    assert [(o.status, o.reconciled) for o in world.outcomes] == [(Status.SUCCEEDED, True)]
    assert world.engine.ending is None


async def test_a_try_that_never_left_gives_its_permit_back_to_the_pace():
    world = World(latency=0, answer=lambda request, nth: REFUSED if nth == 0 else None, rate=0.1)
    await world.run(requests(1))
    (first, _), (second, _) = world.sent
    assert second - first == pytest.approx(1, abs=0.01), "the pause, not ten seconds more"


async def test_a_row_that_never_left_was_never_first_sent():
    world = World(answer=lambda *_: REFUSED if anyio.current_time() < 30 else None)
    await world.run(requests(1))
    assert (world.outcomes[0].first_sent_at - world.outcomes[0].started_at).total_seconds() > 25
    assert not world.outcomes[0].ambiguous


@pytest.mark.parametrize("count", [1, 5])
async def test_wrong_proxy_settings_stop_the_account_at_once(count):
    wrong = client_failure(["InvalidProxyError"], "the URL of the proxy has no usable host")
    world = World(answer=lambda *_: wrong)
    account = world.engine.accounts["main"]
    account.pacer.meter = Windows(100)
    await world.run(requests(count))
    assert world.outcomes == []
    assert (world.ending().kind, account.traffic.calls, account.pacer.meter.used) == (StopKind.STOPPED, 0, 0)
    assert "the URL of the proxy has no usable host" in world.ending().reason


async def test_a_stop_ends_a_pause():
    world = World(answer=lambda *_: REFUSED)
    async with anyio.create_task_group() as group:
        group.start_soon(world.run, requests(100))
        await anyio.sleep(50)
        world.engine.request_stop(Stop(StopKind.INTERRUPTED, "SIGINT"))
    assert anyio.current_time() == 50
    assert world.outcomes == []


async def test_an_account_that_pauses_delays_no_other():
    world = World(
        accounts=("a", "b"),
        answer=lambda request, _: REFUSED if request.row.account == "a" else None,
        rate=50,
    )
    await world.run([*requests(100, "a"), *requests(100, "b", "eng-of-its-own")])
    done = {o.request.row.account: o.finished_at for o in world.outcomes}
    assert [*done] == ["b"]
    assert world.statuses() == {Status.SUCCEEDED: 100}
    assert world.engine.accounts["b"].stop is None


# -- quotas -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [0, 20.0])
async def test_a_quota_that_refuses_all_rows_defers_the_run(latency):
    world = World(latency=latency, answer=lambda *_: QUOTA, rate=1000)
    await world.run(requests(300))
    assert LIMIT < len(world.outcomes) <= 40
    assert world.ending().kind is StopKind.DEFERRED
    assert "rows in a row exceeded a service quota: have the quota raised" in world.ending().reason
    assert anyio.current_time() < 180


async def test_a_quota_that_opens_again_lets_the_run_continue():
    world = World(answer=lambda *_: QUOTA if anyio.current_time() < 20 else None, rate=100)
    await world.run(requests(500))
    assert world.engine.ending is None
    assert world.statuses()[Status.SUCCEEDED] > 500 - 30
    assert anyio.current_time() < 60


def test_the_last_probe_leaves_when_the_pause_ends():
    pause = Pause.begin(breakers.UNREACHABLE, "down", 100, 10)
    times = []
    while pause.next_at < pause.ends:
        times.append(pause.next_at)
        pause = pause.after_probe("down", pause.next_at)
    assert [*times, pause.next_at] == [101, 103, 107, 110]
