"""The simulator is called by a path that names the operation too, as other clients of the API do."""

import json

import aiohttp
import pytest

from tests.support.simulator_client import CREATE, PAIR, service, signed

pytestmark = pytest.mark.asyncio

BODY = {**PAIR, "ClientToken": "t"}


@pytest.mark.parametrize(
    ("path", "changed", "code"),
    [
        (f"/{CREATE}", {}, None),
        (f"/{CREATE}", {"X-Amz-Target": None}, None),
        (f"/{CREATE}", {"X-Amz-Target": None, "Content-Type": "application/json; charset=utf-8"}, None),
        ("/ListEngagements", {"X-Amz-Target": None}, None),
        ("/", {}, None),
        ("/", {"X-Amz-Target": None}, "UnknownOperationException"),
        ("/", {"Content-Type": "application/json"}, "UnknownOperationException"),
        (f"/{CREATE}", {"Content-Type": "text/plain"}, "UnknownOperationException"),
        (
            f"/{CREATE}",
            {"X-Amz-Target": "AWSPartnerCentralSelling.ListEngagements"},
            "UnknownOperationException",
        ),
        ("/CreateEverything", {"X-Amz-Target": None}, "UnknownOperationException"),
        ("/CreateEngagement", {"X-Amz-Target": None}, "UnknownOperationException"),
    ],
)
async def test_an_operation_is_named_by_path_or_header(path, changed, code):
    async with service() as served:
        headers = {**signed(served.url), **changed}
        headers = {name: value for name, value in headers.items() if value is not None}
        body = {"Catalog": "Sandbox"} if path == "/ListEngagements" else BODY
        async with (
            aiohttp.ClientSession() as client,
            client.post(served.url + path, data=json.dumps(body), headers=headers) as answer,
        ):
            said = json.loads(await answer.read())
        assert said.get("__type", "").rpartition("#")[2] == (code or "")
        made = served.simulator.record()["snapshots"]
        assert len(made) == (0 if code or path == "/ListEngagements" else 1)


async def test_token_is_the_same_by_path_and_by_header():
    async with service() as served:
        headers = signed(served.url)
        answers = []
        async with aiohttp.ClientSession() as client:
            for path in ("/", f"/{CREATE}"):
                async with client.post(served.url + path, data=json.dumps(BODY), headers=headers) as answer:
                    answers.append(json.loads(await answer.read()))
        assert answers[0] == answers[1]
        assert answers[0]["Revision"] == 1
