"""An answer belongs to the request that asked for it: late, double or foreign ones are not taken."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from batch_snapshot.aws import answers
from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import utc_now
from batch_snapshot.models import Account, ApiError, Request, Row
from batch_snapshot.operations import SNAPSHOT

ROW = Row("main", "Sandbox", "eng-0123456789abcd", "Opportunity", "O1234567", "OpportunitySummaryView")
ARN = "arn:aws:partnercentral:us-east-1::catalog/Sandbox"
#: The revision of answers that no request asked for.
STRAY = 999


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


def answer(revision):
    body = json.dumps({"Arn": f"{ARN}/snapshot/{revision}", "Revision": revision}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@asynccontextmanager
async def straying(stray):
    """Answers the nth request with revision n; `stray` sends more, and sets the event then."""
    seen, writers, sent = [], [], asyncio.Event()

    async def handle(reader, writer):
        writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
                seen.append(head)
                await stray(writer, answer(len(seen)), sent)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sent
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def at_once(writer, wanted, sent):
    writer.write(wanted + answer(STRAY))
    await writer.drain()
    sent.set()


async def rubbish(writer, wanted, sent):
    writer.write(wanted + b"HTTP/1.1 200 OK\r\n")
    await writer.drain()
    sent.set()


async def late(writer, wanted, sent):
    writer.write(wanted)
    await writer.drain()

    def more():
        if not writer.is_closing():
            writer.write(answer(STRAY))
        sent.set()

    asyncio.get_running_loop().call_later(0.02, more)


@pytest.mark.asyncio
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("stray", [at_once, rubbish, late])
async def test_unrequested_answer_is_not_taken(stray, plain):
    async with straying(stray) as (url, sent):
        target = Target(endpoint_url=url, plain=plain)
        async with Clients({"main": Account("main")}, target, utc_now) as clients:
            for number in range(1, 4):
                row = ROW._replace(resource=f"O{number}")
                sent.clear()
                receipt = await clients.send(Request(row, f"token-{number}"))
                assert receipt.revision == number
                await asyncio.wait_for(sent.wait(), 10)


def receipt(arn, row=ROW, **more):
    return answers.receipt(SNAPSHOT, {"Arn": arn, "Revision": 1, **more}, str, row)


OTHER = ROW._replace(engagement="eng-zzzzzzzzzzzzzz", resource="O999")


@pytest.mark.parametrize("account", ["", "123456789012"])
def test_arn_that_names_another_row_is_an_invalid_response(account):
    def arn(row):
        where = f"arn:aws:partnercentral:us-east-1:{account}:catalog/Sandbox/engagement/{row.engagement}"
        return f"{where}/resource/Opportunity/{row.resource}/template/{row.template}/snapshot/1"

    assert receipt(arn(ROW)).arn == arn(ROW)
    for other in (ROW._replace(engagement=OTHER.engagement), ROW._replace(resource=OTHER.resource)):
        with pytest.raises(ApiError) as caught:
            receipt(arn(other))
        assert caught.value.failure.code == "InvalidResponse"
        assert caught.value.failure.may_have_landed
    with pytest.raises(ApiError):
        receipt("arn:x", ResourceId=OTHER.resource)
    with pytest.raises(ApiError):
        receipt("arn:x", EngagementId=OTHER.engagement)


@pytest.mark.parametrize("arn", ["arn:x", f"{ARN}/snapshot/1", "opaque"])
def test_arn_that_names_no_row_is_accepted(arn):
    assert receipt(arn, EngagementId=ROW.engagement, ResourceId=ROW.resource).arn == arn
