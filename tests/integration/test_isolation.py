"""Accounts in one run, each with a trouble of its own: none is another's, and each is told apart.

Real processes throughout: the program, and a service for each kind of limit.
"""

import asyncio
import json
from typing import Any
from urllib.request import urlopen

import pytest

from tests.support.processes import Clustered, Json, Place, of_type, pairs, service, write_profiles

pytestmark = pytest.mark.asyncio

#: What carries a run out; each must keep accounts apart.
ENGINES = ["local", pytest.param("dask", marks=pytest.mark.long)]

CREATE = "CreateResourceSnapshot"
HEALTHY_ROWS, THROTTLED_ROWS, OTHER_ROWS = 200, 6, 60
KEYS = {
    "healthy": "AKIAHEALTHY000000000",
    "throttled": "AKIATHROTTLED0000000",
    "denied": "AKIADENIED0000000000",
    "expired": "AKIAEXPIRED000000000",
}


async def log(url: str, key: str) -> list[Json]:
    """The writes of one access key as the service met them, in their order."""

    def fetch() -> Any:
        with urlopen(f"{url}/_simulator/record?log=1") as answer:
            return json.load(answer)["log"]

    calls = await asyncio.to_thread(fetch)
    return [call for call in calls if call["operation"] == CREATE and call["access_key"] == key]


def write(place: Place, plain: str, tight: str, *names: str, name: str) -> list[Json]:
    """A manifest of these accounts, the troubled ones first, each with credentials of its own."""
    place.env["AWS_SHARED_CREDENTIALS_FILE"] = write_profiles(place.folder / "credentials", **KEYS)
    sizes = {"healthy": HEALTHY_ROWS, "throttled": THROTTLED_ROWS}
    first = {"alone": 0, "together": 1_000}[name]
    rows: list[Json] = []
    for number, who in enumerate(names):
        rows += pairs(sizes.get(who, OTHER_ROWS), first=first + 10_000 * number, account=who)
    endpoints = {who: tight if who == "throttled" else plain for who in names}
    accounts = {who: {"profile": who, "endpoint_url": url} for who, url in endpoints.items()}
    place.manifest(rows, f"{name}.yaml", name=name, accounts=accounts)
    return rows


def span(calls: list[Json]) -> float:
    """Seconds from the first call to the last."""
    times: list[float] = [call["time"] for call in calls]
    return max(times) - min(times)


@pytest.mark.parametrize("engine", ENGINES)
async def test_one_denied_one_throttled_one_expired_and_one_healthy(tmp_path, engine):
    place = Clustered(tmp_path) if engine == "dask" else Place(tmp_path)
    more = ["--engine", engine]
    async with (
        service(place, "--latency", "0.02s") as plain,
        service(place, "--latency", "0.02s", "--rate", "2", "--burst", "1", "--no-retry-hint") as tight,
    ):
        write(place, plain, tight, "healthy", name="alone")
        alone = await place.call("run", "alone.yaml", *more)
        assert alone.code == 0, alone.stderr
        before = await log(plain, KEYS["healthy"])

        write(place, plain, tight, "denied", "throttled", "expired", "healthy", name="together")
        said = await place.call("run", "together.yaml", "--format", "json", *more)
        healthy = (await log(plain, KEYS["healthy"]))[len(before) :]
        throttled = await log(tight, KEYS["throttled"])
        denied = await log(plain, KEYS["denied"])
        expired = await log(plain, KEYS["expired"])

    # The healthy one, as if it were alone: no call too many, and nothing waited for.
    assert [call["answer"] for call in healthy] == ["ok"] * HEALTHY_ROWS
    assert span(healthy) < 2 * span(before) + 1
    slow = [call["time"] for call in throttled if call["answer"] == "ok"]
    assert max(call["time"] for call in healthy) < slow[-2], "it was done while the throttled one went on"
    assert {call["answer"] for call in throttled} == {"ok", "ThrottlingException"}
    assert 20 <= len(denied) <= 20 + 32
    assert expired == [], "the first read has told"

    # And what is told of each.
    assert said.code == 3, said.stderr
    told = said.json
    counts = {name: one["counts"] for name, one in told["accounts"].items()}
    assert counts["healthy"] == {"succeeded": HEALTHY_ROWS, "failed": 0, "in_doubt": 0, "unattempted": 0}
    assert counts["throttled"] == {"succeeded": THROTTLED_ROWS, "failed": 0, "in_doubt": 0, "unattempted": 0}
    assert counts["denied"]["failed"] == len(denied)
    assert counts["denied"]["unattempted"] == OTHER_ROWS - len(denied)
    assert counts["expired"] == {"succeeded": 0, "failed": 0, "in_doubt": 0, "unattempted": OTHER_ROWS}
    stopped = {name: one["stopped"] for name, one in told["accounts"].items()}
    assert stopped["healthy"] is stopped["throttled"] is None
    assert "20 denials in a row" in stopped["denied"]
    assert "AccessDeniedException" in stopped["denied"]
    assert "ExpiredTokenException" in stopped["expired"]
    assert "renew the credentials of profile expired" in stopped["expired"]
    assert told["accounts"]["throttled"]["throttled_calls"] > 0
    assert told["accounts"]["healthy"]["throttled_calls"] == 0
    end = of_type(place.folder / "ledgers" / "together.ndjson", "end")[-1]
    assert (end["outcome"], end["counts"]["succeeded"]) == ("stopped", HEALTHY_ROWS + THROTTLED_ROWS)
