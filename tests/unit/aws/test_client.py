"""What real failures of a real socket become: kind, verdict, and "may it have been carried out?"."""

import asyncio
import gzip
import json
import socket
import sys
import tracemalloc
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random

import anyio
import pytest
from botocore.exceptions import ClientError

from batch_snapshot.aws import answers, client
from batch_snapshot.aws import http as transport
from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import utc_now
from batch_snapshot.models import Account, ApiError, ErrorKind, Receipt, Request, Row, Verdict
from batch_snapshot.simulator import Faults, SimulatorSettings, serve
from tests.support.processes import move_in

pytestmark = pytest.mark.asyncio

ROW = Row("main", "Sandbox", "eng-0123456789abcd", "Opportunity", "O1234567", "OpportunitySummaryView")
REQUEST = Request(ROW, "00000000-0000-5000-8000-000000000000")
RETRY, REFUSED, THROTTLED = Verdict.RETRY, Verdict.REFUSED, Verdict.THROTTLED
#: The body of a success.
DONE = b'{"Arn": "arn", "Revision": 1}'


@pytest.fixture(autouse=True)
def credentials(monkeypatch, tmp_path):
    move_in(monkeypatch, tmp_path)
    monkeypatch.delenv("HTTPS_PROXY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def calling(url, account=None, *, now=utc_now, **target):
    return Clients({"main": account or Account("main")}, Target(endpoint_url=url, **target), now)


async def outcome(url, request=REQUEST, **more):
    """What one send comes to: a receipt or a failure."""
    async with calling(url, **more) as clients:
        try:
            return await clients.send(request)
        except ApiError as error:
            return error.failure


def assert_transient(failure, *, landed):
    assert (failure.kind, failure.verdict, failure.may_have_landed) == (ErrorKind.TRANSIENT, RETRY, landed)


@asynccontextmanager
async def raw_server(answer, *, requests=1, **options):
    """A server that reads so many requests of a connection and lets `answer` do the rest for each."""

    async def handle(reader, writer):
        try:
            for _ in range(requests):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                await answer(writer, head, body)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    # Not `async with`: since Python 3.12 its end waits for every handler, and one here may hang.
    with closing(await asyncio.start_server(handle, "127.0.0.1", 0, **options)) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def outcome_of(answer, **more):
    """What one send to a server comes to that answers so."""
    async with raw_server(answer) as url:
        return await outcome(url, **more)


def http(status, body, *headers, length=None):
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def answering(data):
    async def answer(writer, head, body):
        writer.write(data)
        await writer.drain()

    return answer


async def hang(writer, head, body):
    await asyncio.Event().wait()


async def reset(writer, head, body):
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def close(writer, head, body):
    writer.close()


@pytest.mark.parametrize("plain", [False, True])
async def test_calls_one_after_another_use_one_connection(plain):
    connections = set()

    async def answer(writer, head, body):
        connections.add(writer)
        writer.write(http(200, DONE))

    async with raw_server(answer, requests=9) as url, calling(url, plain=plain) as clients:
        for _ in range(5):
            await clients.send(REQUEST)
    assert len(connections) == 1


async def test_a_refused_connection_never_left():
    assert_transient(await outcome("http://127.0.0.1:1"), landed=False)


async def test_a_name_that_does_not_resolve_never_left():
    assert_transient(await outcome("http://no-such-host.invalid"), landed=False)


@pytest.mark.parametrize(
    "greeting",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x16\x03\x03\x10\x00",
        b"",
        None,
    ],
    ids=["plain HTTP", "an alert", "half of a handshake", "nothing", "a reset"],
)
async def test_refused_tls_never_left(greeting):
    async def greet(reader, writer):
        await reader.read(1)
        if greeting is None:
            await reset(writer, b"", b"")
        else:
            writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        failure = await outcome(f"https://127.0.0.1:{port}")
    assert_transient(failure, landed=False)


@pytest.mark.parametrize(
    "broken",
    [
        reset,
        close,
        answering(b""),
        answering(b"not http at all\r\n\r\n"),
        answering(http(200, b'{"Arn": "a', length=5000)),
        answering(http(200, b"<html>Sign in</html>", "Content-Type: text/html")),
        answering(http(503, b"<html>Service Unavailable</html>", "Content-Type: text/html")),
        *(
            answering(http(status, body))
            for status, body in [
                (200, b""),
                (200, b"{}"),
                (200, b'{"Arn": "a"}'),
                *(
                    (200, b'{"Arn": "a", "Revision": %s}' % x)
                    for x in (b"0", b'"1"', b"true", b"1.0", b"9" * 22)
                ),
                (200, b'{"Arn": "", "Revision": 1}'),
                (200, b'{"Arn": null, "Revision": 1}'),
                (200, b"[]"),
                (200, b"null"),
                (200, b"\xff\xfe{}"),
                (200, json.dumps({"junk": "x" * 5_000_000}).encode()),
                (200, b"[" * 100_000),
                (503, b"[" * 100_000),
                (502, b""),
                (500, b'{"__type": "InternalServerException", "Message": "oops"}'),
                (500, b'{"__type": "NewServerTrouble"}'),
                (400, b'{"__type": "InternalServerException", "Message": "oops"}'),
            ]
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_exchange_that_breaks_may_have_been_carried_out(broken):
    failure = await outcome_of(broken)
    assert_transient(failure, landed=True)
    assert failure.message
    assert len(failure.message) <= 2001


async def test_answer_that_drips_ends_at_the_time_out():
    async def drip(writer, head, body):
        writer.write(http(200, b"", length=10_000))
        for _ in range(1000):
            writer.write(b" ")
            await writer.drain()
            await anyio.sleep(0.05)

    with anyio.fail_after(10):
        failure = await outcome_of(drip, call_timeout=0.5)
    assert (failure.code, failure.verdict, failure.may_have_landed) == ("TimeoutError", RETRY, True)


# -- answers without bound, or of someone else ------------------------------------------------------

#: What an endless answer sends before it says no more, so that a client that reads it all shows.
FLOOD = 64 * 1024 * 1024


def flooding(head, *, chunked=False):
    """An answer that goes on and on: far more than any client should keep, and never its end."""
    block = b" " * 65_536
    if chunked:
        block = b"10000\r\n" + block + b"\r\n"

    async def flood(writer, request, body):
        writer.write(f"HTTP/1.1 {head}\r\n\r\n".encode())
        for _ in range(FLOOD // 65_536):
            writer.write(block)
            await writer.drain()
        await asyncio.Event().wait()

    return flood


@contextmanager
def little_memory():
    """Whatever is done in the block, it never holds a good part of what was sent."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < FLOOD / 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "flood",
    [
        flooding("200 OK\r\nTransfer-Encoding: chunked", chunked=True),
        flooding("200 OK\r\nContent-Length: 100000000000"),
        flooding("200 OK"),
        flooding("400 Bad Request"),
    ],
    ids=["chunked", "of a huge length", "until it closes", "an error"],
)
async def test_an_answer_without_end_is_not_read_to_its_end(flood):
    with little_memory(), anyio.fail_after(10):
        failure = await outcome_of(flood)
    assert_transient(failure, landed=True)
    assert failure.code == "AnswerTooLongError"
    assert "longer than 1,048,576 bytes" in failure.message


async def test_an_answer_that_unpacks_to_more_than_memory_is_not_unpacked():
    bomb = gzip.compress(bytes(FLOOD))
    assert len(bomb) < transport.LONGEST_ANSWER
    with little_memory():
        failure = await outcome_of(answering(http(200, bomb, "Content-Encoding: gzip")))
    assert_transient(failure, landed=True)


async def test_answer_that_is_too_long_does_not_affect_others():
    """Up to the bound it is an answer like any other; one beyond it takes only its own connection."""
    rest = transport.LONGEST_ANSWER - len(json.dumps({"Arn": "arn", "Revision": 1, "junk": ""}))
    lengths = iter([rest, rest + 1, 0])

    async def answer(writer, head, request):
        body = json.dumps({"Arn": "arn", "Revision": 1, "junk": "x" * next(lengths)}).encode()
        writer.write(http(200, body))
        await writer.drain()

    async with raw_server(answer, requests=3) as url, calling(url) as clients:
        assert (await clients.send(REQUEST)).arn == "arn"
        with pytest.raises(ApiError, match="longer than"):
            await clients.send(REQUEST)
        assert (await clients.send(REQUEST)).arn == "arn"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status):
    """What signs the call is not for whomever it names, and his answer is not the service's."""
    seen = []

    async def elsewhere(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(200, DONE))
        writer.close()

    async with await asyncio.start_server(elsewhere, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        redirect = http(status, b"", f"Location: http://localhost:{port}/")
        async with raw_server(answering(redirect)) as url:
            failure = await outcome(url)
    assert seen == []
    assert_transient(failure, landed=True)
    assert failure.message == "a redirect, which is not followed"


async def test_no_cookie_is_kept():
    heads = []

    async def keep(writer, head, body):
        heads.append(head)
        writer.write(http(200, DONE, "Set-Cookie: a=b"))
        await writer.drain()

    async with raw_server(keep, requests=2) as url, calling(url.replace("127.0.0.1", "localhost")) as clients:
        for _ in range(2):
            await clients.send(REQUEST)
    assert len(heads) == 2
    assert not any(b"cookie" in head.lower() for head in heads)


@pytest.mark.parametrize("redirected", [False, True])
async def test_sts_answers_are_bounded_and_its_redirects_not_followed(monkeypatch, redirected):
    role = Account("main", role_arn="arn:aws:iam::123456789012:role/Snapshot")
    flood = flooding("200 OK")
    async with raw_server(flood) as endless:
        answer = answering(http(307, b"", f"Location: {endless}/")) if redirected else flood
        async with raw_server(answer) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
            with little_memory(), anyio.fail_after(20):
                failure = await outcome("http://127.0.0.1:1", account=role)
    assert (failure.verdict, failure.may_have_landed) == (Verdict.STOP_ACCOUNT, False)
    assert failure.code == ("ResponseParserError" if redirected else "AnswerTooLongError")


@pytest.mark.parametrize("code", ["", "²", "٥٠٣", "9" * 5000, "x" * 100_000, "\0", "\ud800", "5 0"])
@pytest.mark.parametrize("status", [400, 500])
async def test_error_with_any_code_is_classified(code, status):
    failure = await outcome_of(answering(http(status, json.dumps({"__type": code}).encode())))
    assert failure.may_have_landed == (status == 500 or not code)
    assert failure.code.isprintable()
    assert len(failure.code) <= 101


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 01 Jan 0100 00:00:00 GMT", "soon"])
async def test_invalid_date_does_not_affect_later_calls(date):
    answers = iter([http(503, b"", f"Date: {date}"), http(200, DONE)])
    seconds = count(step=2)

    def our_clock():
        return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=next(seconds))

    async def answer(writer, head, body):
        writer.write(next(answers))
        await writer.drain()

    async with raw_server(answer, requests=2) as url, calling(url, now=our_clock) as clients:
        with pytest.raises(ApiError):
            await clients.send(REQUEST)
        assert await clients.send(REQUEST)


# -- connections that are half dead ------------------------------------------------------------------


def answer_first_then(then):
    """The first request of a connection gets its answer, whatever follows on it gets `then`."""
    seen = []

    async def answer(writer, head, body):
        seen.append(body)
        if len(seen) == 1:
            writer.write(http(200, DONE))
            await writer.drain()
        else:
            await then(writer, head, body)

    return answer, seen


@pytest.mark.parametrize(
    ("then", "code"), [(hang, "TimeoutError"), (reset, None), (close, "ServerDisconnectedError")]
)
async def test_dead_connection_costs_one_exchange(then, code):
    """Half open: the server is gone, and only the request finds out. It is not sent again by itself."""
    answer, seen = answer_first_then(then)
    async with raw_server(answer, requests=2) as url, calling(url, call_timeout=0.5) as clients:
        assert await clients.send(REQUEST)
        with pytest.raises(ApiError) as raised:
            await clients.send(REQUEST)
    failure = raised.value.failure
    assert_transient(failure, landed=True)
    assert failure.code == code or code is None
    assert len(seen) == 2


#: Gives up on a name that is looked up for ten minutes, and ends.
HANGING = """
import time, anyio
from batch_snapshot.aws.http import Resolver

def hang(*_, **__):
    time.sleep(600)

async def give_up():
    with anyio.move_on_after(0.2):
        await Resolver(hang).resolve("a.example", 443)

anyio.run(give_up)
"""


async def test_hanging_name_server_does_not_keep_the_process_alive():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HANGING)
    try:
        with anyio.fail_after(20):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("error", [socket.gaierror(-3, "try again"), OSError("no"), UnicodeError("label")])
async def test_unknown_name_is_reported_to_each_caller(error):
    def fail(*_, **__):
        raise error

    with pytest.raises(type(error)):
        await transport.Resolver(fail).resolve("a.example", 443)


def numbered(revision):
    return http(200, json.dumps({"Arn": "arn", "Revision": revision}).encode())


#: The revision of answers that no request asked for.
STRAY = 999


async def at_once(writer, wanted, sent):
    writer.write(wanted + numbered(STRAY))
    sent.set()


async def rubbish(writer, wanted, sent):
    writer.write(wanted + b"HTTP/1.1 200 OK\r\n")
    sent.set()


async def late(writer, wanted, sent):
    writer.write(wanted)

    def more():
        if not writer.is_closing():
            writer.write(numbered(STRAY))
        sent.set()

    asyncio.get_running_loop().call_later(0.02, more)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("stray", [at_once, rubbish, late])
async def test_unrequested_answer_is_not_taken(stray, plain):
    numbers, sent = count(1), asyncio.Event()

    async def answer(writer, head, body):
        await stray(writer, numbered(next(numbers)), sent)

    async with raw_server(answer, requests=4) as url, calling(url, plain=plain) as clients:
        for number in range(1, 4):
            sent.clear()
            assert (await clients.send(REQUEST)).revision == number
            await asyncio.wait_for(sent.wait(), 10)


async def test_a_connection_that_the_service_has_closed_is_replaced():
    only = answering(http(200, DONE))
    async with raw_server(only) as url, calling(url) as clients:
        for _ in range(3):
            assert await clients.send(REQUEST)
            await anyio.sleep(0.05)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_connection_that_no_process_accepts_ends_at_the_time_out(scheme):
    """The kernel completes it, or drops it; no process ever answers, be it a greeting or TLS."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        async with calling(f"{scheme}://127.0.0.1:{port}", call_timeout=0.5, concurrency=8) as clients:
            await clients._account_client("main")  # which is nothing to be timed
            with anyio.fail_after(10):
                sent = [clients.send(REQUEST) for _ in range(8)]
                ended = await asyncio.gather(*sent, return_exceptions=True)
    for error in ended:
        assert isinstance(error, ApiError)
        assert (error.failure.code, error.failure.verdict) == ("TimeoutError", RETRY)


# -- what the service says ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["x-amz-retry-after: 1500"], 1.5),
        (["Retry-After: 7"], 7.0),
        (["x-amz-retry-after: 1500", "Retry-After: 7"], 1.5),
        (["Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"], None),
        (["x-amz-retry-after: soon"], None),
        (["Retry-After: -3"], None),
        (["Retry-After: nan"], None),
        ([], None),
    ],
)
async def test_a_throttle_carries_the_services_hint(headers, seconds):
    body = b'{"__type": "ThrottlingException", "Message": "slow down"}'
    failure = await outcome_of(answering(http(400, body, *headers)))
    assert (failure.verdict, failure.may_have_landed, failure.retry_after) == (THROTTLED, False, seconds)


async def test_one_try_is_one_http_exchange():
    async with serve(SimulatorSettings(faults=Faults(rates={"internal": 1.0}))) as (url, simulator):
        await outcome(url)
    assert simulator.calls["CreateResourceSnapshot"] == 1


async def test_the_client_is_set_up_for_one_exchange_and_enough_connections():
    async with calling("http://127.0.0.1:1", Account("main", region="eu-west-1"), concurrency=77) as clients:
        opened = await clients._account_client("main")
        config = opened.client.meta.config
        assert config.retries["total_max_attempts"] == 1
        assert config.max_pool_connections >= 77
        assert config.connect_timeout == client.CONNECT_TIMEOUT
        assert config.read_timeout == client.READ_TIMEOUT
        assert isinstance(config.connector_args["resolver"], transport.Resolver)
        assert opened.client.meta.region_name == "eu-west-1"


def sent_at(moment, skew=None):
    return Request(ROW, REQUEST.client_token, ambiguous=True, first_sent_at=moment, clock_skew=skew)


async def test_a_look_up_finds_only_what_was_created_since():
    async with serve() as (url, simulator), calling(url) as clients:
        before = utc_now()
        assert await clients.look_up(sent_at(before)) is None
        receipt = await clients.send(REQUEST)
        found = await clients.look_up(sent_at(before))
        assert (found.arn, found.revision) == (receipt.arn, 1)
        assert await clients.look_up(sent_at(utc_now() + timedelta(seconds=60))) is None
        assert simulator.calls == {"GetResourceSnapshot": 3, "CreateResourceSnapshot": 1}


@pytest.mark.parametrize("offset", [-200, 200])
async def test_look_up_compares_times_by_the_services_clock(offset):
    """Our clock is wrong by minutes: what we sent is found, what was there before is not."""

    def our_clock():
        return utc_now() - timedelta(seconds=offset)

    async with serve() as (url, _), calling(url, now=our_clock) as clients:
        first = our_clock()
        await clients.send(REQUEST)
        skew = clients.clock_skew("main")
        assert await clients.look_up(sent_at(first, skew)) is not None
        assert await clients.look_up(sent_at(first + timedelta(seconds=30), skew)) is None
        # Where it was not known by how much our clock was off, it may have been right.
        with pytest.raises(ApiError, match="ClocksDisagree") as raised:
            await clients.look_up(sent_at(first + timedelta(seconds=30 if offset > 0 else -30)))
        assert raised.value.failure.verdict is Verdict.REFUSED


async def test_look_up_finds_a_snapshot_whose_time_has_whole_seconds():
    """The service may note when it made a snapshot as it notes its dates: without the fraction."""
    second = datetime(2026, 3, 1, 12, tzinfo=UTC)
    found = {"Catalog": "Sandbox", "Arn": "arn", "Revision": 1, "CreatedAt": second.timestamp()}
    answer = http(200, json.dumps(found).encode(), "Date: Sun, 01 Mar 2026 12:00:05 GMT")

    def our_clock():
        return second + timedelta(seconds=5.05)

    async with raw_server(answering(answer)) as url, calling(url, now=our_clock) as clients:
        assert await clients.look_up(sent_at(second + timedelta(seconds=0.9)))


KEYS = ["__type", "code", "Message", "message", "ErrorList", "Reason", "FieldName", "Arn", "Revision"]
VALUES = [
    None, True, -1, 0.5, 1e308, "", "²",
    "9" * 5000,
    "\ud800",
    "\0",
    "503",
    "ValidationException",
    "a#b:c",
]  # fmt: skip
HEADERS = ["Date", "Retry-After", "x-amz-retry-after", "x-amzn-requestid", "x-amzn-query-error", "Location"]


def random_json(rng, depth=3):
    """JSON that holds the words of the API in places of chance."""
    if depth == 0 or rng.random() < 0.4:
        return rng.choice(VALUES)
    if rng.random() < 0.3:
        return [random_json(rng, depth - 1) for _ in range(rng.randrange(3))]
    return {rng.choice(KEYS): random_json(rng, depth - 1) for _ in range(rng.randrange(5))}


def almost_an_error(rng):
    """An error answer of the service's own, in which some values are of chance."""
    item = {"FieldName": "f", "Message": "m", "Code": "c"}
    whole = {"__type": "ValidationException", "Message": "x", "Reason": "R", "ErrorList": [item]}
    spoiled = {**item, rng.choice([*item]): random_json(rng, 1)}
    lists = [[None], [item, None], [spoiled], [[]], [random_json(rng)], random_json(rng), {"0": item}]
    return {**whole, "ErrorList": rng.choice(lists), rng.choice([*whole]): random_json(rng, 1)}


@pytest.mark.parametrize("errors", [[None], ["x"], [[]], [1, {"Message": "text"}], "text", {"a": 1}, 7])
async def test_validation_with_any_error_list_is_classified(errors):
    body = json.dumps({"__type": "ValidationException", "Message": "x", "ErrorList": errors}).encode()
    failure = await outcome_of(answering(http(400, body)))
    assert failure.code in {"ValidationException", "ResponseParserError", "AttributeError", "TypeError"}


async def test_answer_that_cannot_be_classified_may_have_been_carried_out():
    error = ClientError(
        {"Error": {"Code": "X"}, "ResponseMetadata": {"HTTPHeaders": 7}}, "CreateResourceSnapshot"
    )
    failure = answers.failure(error, str)
    assert (failure.kind, failure.verdict) == (ErrorKind.UNKNOWN, Verdict.REFUSED)
    assert failure.may_have_landed
    assert failure.code == "UnreadableAnswer"


async def test_thousand_random_answers_raise_only_api_errors():
    """Seeded noise where an answer should be: each ends as a classified failure that can be recorded."""
    rng = Random(11)
    statuses = [200, 200, 200, 204, 301, 400, 400, 403, 404, 429, 500, 503, 999]

    async def noise(writer, head, body):
        data = bytes(rng.randrange(256) for _ in range(rng.randrange(60)))
        error = json.dumps(rng.choice([random_json, almost_an_error])(rng)).encode()
        words = [str(word) for word in VALUES if str(word).isprintable() and str(word).isascii()]
        headers = [f"{rng.choice(HEADERS)}: {rng.choice(words)}" for _ in range(rng.randrange(3))]
        body = rng.choice([data, error, error, error])
        writer.write(
            http(rng.choice(statuses), body, *headers, length=rng.choice([None, None, len(body) + 1]))
        )
        await writer.drain()

    async with raw_server(noise) as url, calling(url) as clients:
        for _ in range(1_000):
            with pytest.raises(ApiError) as raised:
                await clients.send(REQUEST)
            failure = raised.value.failure
            texts = (failure.code, failure.message, failure.reason or "x", failure.request_id or "x")
            assert all(word.isprintable() and word.encode() for word in texts)
            assert failure.kind is not ErrorKind.UNKNOWN or failure.http_status


@pytest.mark.parametrize("offset", [-3600, -400, 400, 86400])
async def test_wrong_clock_is_corrected_by_the_services_date(offset):
    async with serve(SimulatorSettings(clock_offset=offset)) as (url, simulator), calling(url) as clients:
        with pytest.raises(ApiError):
            await clients.probe(REQUEST)
        await clients.probe(REQUEST)
        receipt = await clients.send(REQUEST)
    assert simulator.snapshots[0].arn == receipt.arn
    assert simulator.calls["CreateResourceSnapshot"] == 1


async def test_skewed_call_without_a_first_read_is_tried_again():
    async with serve(SimulatorSettings(clock_offset=3600)) as (url, _), calling(url) as clients:
        with pytest.raises(ApiError) as raised:
            await clients.send(REQUEST)
        assert (raised.value.failure.verdict, raised.value.failure.may_have_landed) == (RETRY, False)
        assert await clients.send(REQUEST)


async def test_a_signature_refused_by_a_clock_like_ours_stops_the_account():
    body = b'{"__type": "InvalidSignatureException", "message": "Signature expired: x is now earlier than y"}'
    failure = await outcome_of(answering(http(403, body)))
    assert failure.verdict is Verdict.STOP_ACCOUNT


async def test_an_echoed_secret_is_not_kept(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CanaryCanaryCanary")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "TokenTokenToken")
    body = b'{"__type": "ValidationException", "Message": "CanaryCanaryCanary and TokenTokenToken"}'
    failure = await outcome_of(answering(http(400, body)))
    assert failure.message == "[secret] and [secret]"
    body = b'{"Arn": "arn:CanaryCanaryCanary", "Revision": 1}'
    receipt = await outcome_of(answering(http(200, body)))
    assert receipt.arn == "arn:[secret]"


@pytest.mark.parametrize(
    ("profile", "advice"), [(None, "renew the credentials and"), ("partner", "of profile partner")]
)
async def test_message_of_a_stopped_account_says_what_to_do(monkeypatch, tmp_path, profile, advice):
    (tmp_path / "credentials").write_text(
        "[partner]\naws_access_key_id=AKIAEXPIRED1\naws_secret_access_key=x\n", "utf-8"
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXPIRED2")
    async with serve() as (url, _):
        failure = await outcome(url, account=Account("main", profile=profile))
    assert advice in failure.message


async def test_environment_sets_neither_proxy_nor_endpoint_for_a_simulator(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    async with serve() as (url, _):
        assert isinstance(await outcome(url, simulated=True), Receipt)
    async with calling(None) as clients:
        opened = await clients._account_client("main")
        assert opened.client.meta.endpoint_url.startswith("https://partnercentral-selling.us-east-1.")


@pytest.mark.parametrize(
    ("role", "simulated", "whose"),
    [
        ("arn:aws:iam::123456789012:role/S", False, "http://127.0.0.1:1:123456789012:us-east-1"),
        ("arn:aws:iam::123456789012:role/S", True, "simulator:123456789012:us-east-1"),
        (None, True, "simulator key:"),
    ],
)
async def test_account_of_a_role_is_known_by_its_arn_at_any_endpoint(role, simulated, whose):
    """Its keys, and a simulator's port, change: quota windows by these would start empty each time."""
    account = Account("main", role_arn=role)
    async with calling("http://127.0.0.1:1", account, simulated=simulated) as clients:
        assert (await clients.quota_owner("main")).startswith(whose)


async def test_a_thousand_accounts_share_one_client_and_its_connections(monkeypatch):
    # A simulator needs no credentials.
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    accounts = {f"a{n}": Account(f"a{n}") for n in range(1_000)}
    async with (
        serve() as (url, simulator),
        Clients(accounts, Target(endpoint_url=url, simulated=True), utc_now) as clients,
    ):
        opened = [await clients._account_client(name) for name in accounts]
        assert len({id(one.client) for one in opened}) == len({id(one.fast_calls) for one in opened}) == 1
        assert len({id(one.credentials) for one in opened}) == 1_000
        for name in ("a0", "a999"):
            await clients.send(Request(ROW._replace(account=name), name))
        keys = {snapshot.access_key for snapshot in simulator.snapshots}
        assert len(keys) == 2, "each signs for itself"


async def test_regions_and_endpoints_have_clients_of_their_own():
    accounts = {
        "a": Account("a"),
        "b": Account("b", region="eu-west-1"),
        "c": Account("c", endpoint_url="http://127.0.0.1:8"),
    }
    async with Clients(accounts, Target(simulated=True), utc_now) as clients:
        assert len({id((await clients._account_client(name)).client) for name in accounts}) == 3


# -- errors whose code stands in the header `x-amzn-ErrorType` alone


FORMS = [
    "{}",
    "{}:",
    "{}:http://internal.amazon.com/coral/com.amazon.coral.validate/",
    "com.amazon.coral.service#{}",
    "com.amazon.coral.service#{}:http://internal.amazon.com/coral/",
]
BODIES = [b"", b"{}", b"<html>no</html>", b'{"message": "no"}', b"[]", b'"no"', b"null", b"\xff\xfe"]


async def refused(status, body, header, *, plain):
    head = f"X-Amzn-ErrorType: {header}"
    return await outcome_of(answering(http(status, body, head)), plain=plain)


@pytest.mark.parametrize("plain", [True, False])
async def test_error_code_in_the_header_is_read_in_every_form_and_with_any_body(plain):
    cases = [(FORMS[0], body) for body in BODIES] + [(form, b"") for form in FORMS[1:]]
    for form, body in cases:
        failure = await refused(400, body, form.format("ThrottlingException"), plain=plain)
        assert (failure.code, failure.verdict) == ("ThrottlingException", Verdict.THROTTLED), (form, body)


@pytest.mark.parametrize("plain", [True, False])
async def test_error_code_in_the_body_wins_over_the_header(plain):
    body = json.dumps({"__type": "ConflictException", "message": "twice"}).encode()
    failure = await refused(400, body, "ThrottlingException", plain=plain)
    assert (failure.code, failure.message) == ("ConflictException", "twice")


@pytest.mark.parametrize("plain", [True, False])
async def test_message_and_reason_of_the_body_are_kept(plain):
    body = json.dumps({"Message": "not allowed", "Reason": "ACCESS_DENIED"}).encode()
    failure = await refused(403, body, "a#AccessDeniedException:http://x/", plain=plain)
    assert (failure.kind, failure.message) == (ErrorKind.DENIED, "not allowed")
    assert not failure.may_have_landed


@pytest.mark.parametrize("plain", [True, False])
async def test_server_error_with_another_code_in_the_header_stays_ambiguous(plain):
    failure = await refused(500, b"", "ValidationException", plain=plain)
    assert failure.may_have_landed
    failure = await refused(400, b"", ":", plain=plain)
    assert failure.code == "400"
