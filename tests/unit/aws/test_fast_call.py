"""A fast call has the same bytes as botocore's call, or is not used."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aioboto3
import pytest
from botocore.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_snapshot.aws import fast_call
from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.http import HttpAnswer
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import utc_now
from batch_snapshot.models import Account
from batch_snapshot.operations import SERVICE, SNAPSHOT

pytestmark = pytest.mark.asyncio

CREATE = SNAPSHOT.name
EXAMPLE = {
    "Catalog": "Sandbox",
    "EngagementIdentifier": "eng-0123456789abcd",
    "ResourceIdentifier": "O1",
    "ResourceSnapshotTemplateIdentifier": "OpportunitySummaryView",
    "ResourceType": "Opportunity",
    "ClientToken": "token",
}
KEYS = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "secret"}
OTHERS = {**KEYS, "aws_secret_access_key": "another"}
SESSION = {**KEYS, "aws_session_token": "a/token+of=a session"}


@asynccontextmanager
async def opened(url="http://127.0.0.1:1", keys=KEYS, **config):
    """A client of botocore's, and the credentials that it signs with."""
    session = aioboto3.Session(**keys)
    once = {"total_max_attempts": 1}
    plain = Config(ignore_configured_endpoint_urls=True, retries=once, **config)
    async with session.client(SERVICE, region_name="us-east-1", endpoint_url=url, config=plain) as made:
        yield made, await (await session.get_credentials()).get_frozen_credentials()


async def unsent(_):
    raise AssertionError("nothing is sent to learn")


async def learned(client, credentials, exchange=unsent):
    return await fast_call.learn(client, CREATE, exchange, EXAMPLE, credentials)


@pytest.mark.parametrize("keys", [KEYS, SESSION])
@pytest.mark.parametrize(
    "url", [None, "http://127.0.0.1:8080", "https://proxy.example/prefix", "http://[::1]:99/a/"]
)
async def test_fast_call_is_learned_from_this_botocore(url, keys):
    """Fails with a botocore that calls differently: then botocore makes every call, which is slower."""
    async with opened(url, keys) as (client, credentials):
        assert await learned(client, credentials) is not None


@settings(max_examples=5, deadline=None)
@given(
    calls=st.lists(
        st.lists(st.text(min_size=1, max_size=40), min_size=6, max_size=6), min_size=10, max_size=10
    ),
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60),
)
async def test_fast_call_has_the_bytes_of_botocores_call(calls, secret):
    async with opened(keys={**SESSION, "aws_secret_access_key": secret}) as (client, credentials):
        fast = await learned(client, credentials)
        for texts in calls:
            parameters = dict(zip(EXAMPLE, texts, strict=True))
            theirs = await fast_call._captured(client, CREATE, parameters)
            at = datetime.strptime(theirs.headers["X-Amz-Date"].decode(), "%Y%m%dT%H%M%S%z")
            ours = fast.signed(parameters, credentials, at)
            assert ours.body == theirs.body
            assert ours.headers["Authorization"] == theirs.headers["Authorization"].decode()


@pytest.mark.parametrize(
    "changed",
    [
        lambda request, **_: request.headers.add_header("X-Amz-New", "1"),
        lambda request, **_: request.headers.__delitem__("Content-Type"),
        lambda request, **_: setattr(request, "url", request.url + "?version=2"),
        lambda request, **_: setattr(request, "data", b'{"Catalog": "AWS"}'),
    ],
)
async def test_no_fast_call_is_learned_from_a_changed_botocore(changed):
    async with opened() as (client, credentials):
        client.meta.events.register_first(f"request-created.{SERVICE}.{CREATE}", changed)
        assert await learned(client, credentials) is None


@pytest.mark.parametrize("event", ["before-sign", "choose-signer"])
async def test_no_fast_call_is_learned_where_signing_fails(event):
    def fail(**_):
        raise ValueError("no")

    async with opened() as (client, credentials):
        client.meta.events.register(f"{event}.{SERVICE}.{CREATE}", fail)
        assert await learned(client, credentials) is None


async def test_signing_key_changes_with_day_and_credentials():
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    async with opened() as (client, credentials), opened(keys=OTHERS) as (_, others):
        used = await learned(client, credentials)
        request = await fast_call._captured(client, CREATE, EXAMPLE)
        for who, when in (
            (credentials, noon),
            (others, noon),
            (others, noon.replace(day=2)),
            (credentials, noon),
        ):
            fresh = fast_call.FastCall(client, CREATE, unsent, request)
            ours, expected = (
                call.signed(EXAMPLE, who, when).headers["Authorization"] for call in (used, fresh)
            )
            assert ours == expected


ANSWERS = [
    (200, {"Arn": "arn", "Revision": 3}),
    (200, {"Arn": "arn", "Revision": 3, "More": [1]}),
    (200, {}),
    (200, None),
    (200, [1]),
    (200, b""),
    (200, b"not JSON"),
    (204, b""),
    (301, b""),
    (400, {"__type": "ThrottlingException", "message": "slow down"}),
    (
        400,
        {"__type": "com.amazon#ValidationException", "Message": "no", "Reason": "REQUEST_VALIDATION_FAILED"},
    ),
    (400, {"__type": "NobodyKnowsException"}),
    (400, {"message": "no type"}),
    (403, b"<html>no</html>"),
    (500, {"__type": "InternalServerException", "message": "oh"}),
    (503, b"<html>busy</html>"),
    (503, b""),
]


@pytest.mark.parametrize(("status", "said"), ANSWERS)
async def test_answer_of_a_fast_call_is_read_as_botocore_reads_it(status, said):
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    headers = {"x-amzn-requestid": "id", "date": "Sun, 01 Mar 2026 12:00:00 GMT", "retry-after": "2"}

    async def answer(_):
        return HttpAnswer("", status, (), headers, body)

    async with opened() as (client, credentials):
        fast = await learned(client, credentials, answer)
        found = await read(fast.call(EXAMPLE, credentials, datetime(2026, 3, 1, tzinfo=UTC)))
        client.meta.events.register(
            f"before-send.{SERVICE}.{CREATE}", lambda **_: Canned(status, headers, body)
        )
        assert found == await read(client.create_resource_snapshot(**EXAMPLE))


class Canned:
    """An answer as aiobotocore's HTTP session gives it."""

    raw = None

    def __init__(self, status, headers, body):
        self.status_code, self.headers, self._body = status, headers, body

    @property
    async def content(self):
        return self._body


async def read(call):
    """The parts of a call's answer that the package uses."""
    try:
        answer = await call
    except Exception as error:  # noqa: BLE001 - whatever it is
        answer = getattr(error, "response", {})
        answer = {"raised": type(error).__name__, **answer}
    metadata = answer.pop("ResponseMetadata", {})
    members = {name: answer.get(name) for name in ("Arn", "Revision", "Error", "Reason", "raised")}
    hint = dict(metadata.get("HTTPHeaders", {})).get("retry-after")
    return members, metadata.get("HTTPStatusCode"), metadata.get("RequestId"), hint


async def test_no_fast_call_is_made_through_a_proxy(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for proxy, fast in (("", True), ("http://127.0.0.1:9", False)):
        monkeypatch.setenv("https_proxy", proxy)
        target = Target(endpoint_url="https://service.example")
        async with Clients({"main": Account("main")}, target, utc_now) as clients:
            client = await clients._account_client("main")
            assert bool(client.fast_calls) is fast


async def test_call_of_another_account_during_learning_is_sent():
    """Clients are shared: an account may call while the fast call of another one is learned."""
    learning, called = asyncio.Event(), asyncio.Event()

    async def pause(**_):
        if not learning.is_set():
            learning.set()
            await called.wait()

    async with opened() as (client, credentials):
        answer = Canned(200, {}, b'{"Arn": "arn", "Revision": 1}')
        client.meta.events.register_last(f"before-send.{SERVICE}.{CREATE}", lambda **_: answer)
        client.meta.events.register(f"before-sign.{SERVICE}.{CREATE}", pause)
        learning_task = asyncio.ensure_future(learned(client, credentials))
        await learning.wait()
        assert (await client.create_resource_snapshot(**EXAMPLE))["Arn"] == "arn"
        called.set()
        assert await learning_task is not None
