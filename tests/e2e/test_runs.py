"""Whole runs over real HTTP: manifest in, snapshots at the simulator, every claim of the ledger checked.

What the service made is judged by the simulator's own record, never by the ledger.
"""

import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path, PosixPath
from typing import Any, NamedTuple

import boto3
import pytest
from aiohttp import web
from botocore.config import Config

import batch_snapshot
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.errors import InputError, LedgerError
from batch_snapshot.jobs import plan
from batch_snapshot.ledger.writer import Ledger
from batch_snapshot.reporting.progress import RunView
from batch_snapshot.reporting.summary import Summary
from batch_snapshot.simulator import KINDS, Faults, Simulator, SimulatorSettings, serve
from tests.support.haste import Hasty, WallClock
from tests.support.http_server import endpoint
from tests.support.processes import (
    TEMPLATE,
    Json,
    assert_exactly_once,
    by_engagement,
    of_type,
    pairs,
    results,
    write_manifest,
    write_profiles,
)

pytestmark = pytest.mark.asyncio

CREATE, GET = "CreateResourceSnapshot", "GetResourceSnapshot"
MANIFEST = Path("trial.yaml")
LEDGER = Path("ledgers/trial.ndjson")

#: No refusal of these may ever be taken for a lasting one.
CURABLE = {"transient", "conflict", "quota"}


@pytest.fixture(autouse=True)
def place(cwd):
    CLOCK.ahead = 0.0
    return cwd


CLOCK = WallClock()


async def leap(_: RunView) -> None:
    """Five seconds pass as a run begins, so that reads are sure to show what was sent before."""
    CLOCK.ahead += 5.0


HOOKS = batch_snapshot.Hooks(rng=Hasty(), now=CLOCK.now, watch=leap)


def options(url: str | None, *, rate: float | str | None = 2000.0, **given: Any) -> Options:
    """Options for an endpoint; those of the engine are told apart by name."""
    driven = {name: given.pop(name) for name in list(given) if name in Settings.__slots__}
    return Options(endpoint_url=url, rate=rate, engine=Settings(**driven), **given)


async def run(url: str | None, **given: Any) -> Summary:
    return await batch_snapshot.run(MANIFEST, options(url, **given), HOOKS)


async def retry(
    url: str | None, selection: Callable[[Any], plan.Selection] | None = None, **given: Any
) -> Summary:
    return await batch_snapshot.retry(LEDGER, selection, options(url, **given), HOOKS)


async def retry_until_settled(url: str, simulator: Simulator, **given: Any) -> Summary:
    """Retry until nothing is in doubt, and nothing failed that another try can fix."""
    for _ in range(20):
        await simulator.settled()
        summary = await retry(url, **given)
        if not any(group.status == "in_doubt" or group.kind in CURABLE for group in summary.failures):
            return summary
    raise AssertionError(f"not settled after 20 retries: {summary.failures}")


#: All but the one whose conflicts take seconds to settle, and the one that only another run settles.
PROMPT = tuple(kind for kind in KINDS if kind not in {"late", "blocked-after"})


def faults(*, every: int = 5, kinds: tuple[str, ...] = PROMPT) -> Faults:
    """Break every so-and-so-many-th call, each kind in its turn."""

    def choose(ordinal: int, params: Json) -> str | None:
        turn, rest = divmod(ordinal, every)
        return None if rest else kinds[turn % len(kinds)]

    return Faults(plan=choose, late_delay=0.05, slow_delay=0.05)


def profiles(folder: Path, **keys: str) -> None:
    """Write a credentials file with a profile for each access key id."""
    # The fixture puts back what stood there.
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = write_profiles(folder / "credentials", **keys)


class Arrival(NamedTuple):
    """A create call as the service saw it."""

    at: float
    row: tuple[str, ...]


def arrivals(simulator: Simulator, ledger: Path) -> list[Arrival]:
    """When which row was sent: the service's log, its tokens read with the ledger's help."""
    rows = {line["client_token"]: key for key, line in results(ledger).items()}
    return [
        Arrival(call.time, rows[call.client_token])
        for call in simulator.log
        if call.operation == CREATE and call.client_token in rows
    ]


# -- exactly once, whatever breaks -------------------------------------------------------------------


async def test_every_row_has_one_snapshot_whatever_breaks():
    rows = pairs(130)
    write_manifest(MANIFEST, rows)
    # Where a replay conflicts, only looking tells what an unanswered try has made.
    async with serve(SimulatorSettings(faults=faults(kinds=tuple(KINDS)), replay="conflict")) as (
        url,
        simulator,
    ):
        # It shows at once what was made, and after 0.05 s what is made late.
        first = await run(url, read_lag=0.5)
        assert (first.outcome, first.counts.total) == ("completed", 130)
        assert set(simulator.faults) == set(KINDS)
        assert "ConflictException" in {call.answer for call in simulator.log}
        last = await retry_until_settled(url, simulator)
        assert (last.exit_code, last.counts) == (0, (130, 0, 0, 0))
        assert_exactly_once(simulator, LEDGER, rows)
        # Nothing was refused before any work was done, so no row may ever have changed its token.
        assert {line["generation"] for line in of_type(LEDGER, "result")} == {0}
        assert any(line.get("reconciled") for line in results(LEDGER).values())


async def test_every_row_has_one_snapshot_by_retries_alone():
    rows = pairs(130)
    write_manifest(MANIFEST, rows)
    # With a single attempt every fault ends the row's part in the run, and `retry` has all the work.
    async with serve(SimulatorSettings(faults=faults(kinds=tuple(KINDS)))) as (url, simulator):
        first = await run(url, max_attempts=1)
        assert (first.exit_code, first.counts.failed) == (1, 0)
        assert 10 < first.counts.in_doubt < 30
        last = await retry_until_settled(url, simulator, max_attempts=1)
        assert (last.exit_code, last.counts) == (0, (130, 0, 0, 0))
        assert_exactly_once(simulator, LEDGER, rows)
        assert {line["generation"] for line in of_type(LEDGER, "result")} == {0}


async def test_every_exchange_is_a_try_of_the_ledger_and_none_is_hidden():
    rows = pairs(60)
    write_manifest(MANIFEST, rows)
    async with serve(SimulatorSettings(faults=faults(every=3))) as (url, simulator):
        summary = await run(url)
        assert_exactly_once(simulator, LEDGER, rows)
        lines = of_type(LEDGER, "result")
        assert len(lines) == 60
        tries = sum(line["attempts"] + line["throttles"] for line in lines)
        assert simulator.calls[CREATE] == tries
        assert summary.calls == tries
        assert sum(line["throttles"] for line in lines) == simulator.throttled == summary.throttled_calls > 0


# -- refusals ----------------------------------------------------------------------------------------

REFUSALS = {
    "eng-denied00000001": ("denied", "AccessDeniedException", None, "not authorized", 1),
    "eng-missing0000001": ("not_found", "ResourceNotFoundException", None, "not found", 1),
    "eng-quota000000001": ("quota", "ServiceQuotaExceededException", None, "too many snapshots", 1),
    "eng-conflict000001": ("conflict", "ConflictException", None, "being changed", 3),
    "eng-invalid0000001": (
        "invalid",
        "ValidationException",
        "BUSINESS_VALIDATION_FAILED",
        "INVALID_RESOURCE_STATE",
        1,
    ),
}


async def test_refusals_are_told_as_the_service_told_them():
    good = pairs(3)
    write_manifest(MANIFEST, [*good, *({"engagement": name, "resource": "O1"} for name in REFUSALS)])
    async with serve() as (url, simulator):
        summary = await run(url)
        assert summary.exit_code == 1
        assert summary.counts == (3, 5, 0, 0)
        found = by_engagement(LEDGER)
        for name, (kind, code, reason, words, attempts) in REFUSALS.items():
            line = found[name]
            error = line["error"]
            assert (line["status"], line["ambiguous"], line["arn"]) == ("failed", False, None)
            assert (error["kind"], error["code"], error["reason"]) == (kind, code, reason)
            assert words in error["message"]
            assert error["http_status"] == 400
            assert line["attempts"] == attempts
            assert line["request_id"]
        assert {(g.kind, g.code): n for g, n in summary.failures.items()} == {
            (kind, code): 1 for kind, code, *_ in REFUSALS.values()
        }
        assert {snapshot.engagement for snapshot in simulator.snapshots} == {
            row["engagement"] for row in good
        }


async def test_run_leaves_refused_rows_to_retry_and_retry_takes_what_it_was_asked_for():
    write_manifest(MANIFEST, [{"engagement": name, "resource": "O1"} for name in REFUSALS])
    async with serve() as (url, simulator):
        await run(url)
        calls = simulator.calls[CREATE]
        tokens = {name: line["client_token"] for name, line in by_engagement(LEDGER).items()}
        again = await run(url)
        assert simulator.calls[CREATE] == calls, "failed rows wait for retry"
        assert again.exit_code == 1

        def generations() -> dict[str, int]:
            return {REFUSALS[name][0]: line["generation"] for name, line in by_engagement(LEDGER).items()}

        assert generations() == {"denied": 0, "quota": 0, "conflict": 0, "not_found": 0, "invalid": 0}
        await retry(url)
        assert generations() == {"denied": 0, "quota": 1, "conflict": 1, "not_found": 0, "invalid": 0}
        await retry(url, lambda past: plan.parse_only("denied,ServiceQuotaExceededException", codes(past)))
        assert generations() == {"denied": 1, "quota": 2, "conflict": 1, "not_found": 0, "invalid": 0}
        await retry(url, lambda _: plan.all_unfinished())
        assert generations() == {"denied": 2, "quota": 3, "conflict": 2, "not_found": 1, "invalid": 1}
        assert simulator.snapshots == []
        now = {name: line["client_token"] for name, line in by_engagement(LEDGER).items()}
        assert not set(now.values()) & set(tokens.values()), "a new generation is a new token"


def codes(past: Any) -> list[str]:
    return [group.code for group in past.failures()]


# -- interrupted, resumed, edited --------------------------------------------------------------------


async def test_a_complete_ledger_is_left_alone_and_the_way_to_a_new_run_is_told():
    rows = pairs(4)
    write_manifest(MANIFEST, rows)
    async with serve() as (url, simulator):
        await run(url)
        before, calls = LEDGER.read_bytes(), simulator.calls.copy()
        again = await run(url)
        assert (again.exit_code, again.calls, again.counts) == (0, 0, (4, 0, 0, 0))
        assert any("--ledger" in warning for warning in again.warnings)
        assert (LEDGER.read_bytes(), simulator.calls) == (before, calls)
        anew = await run(url, ledger="second.ndjson")
        assert (anew.exit_code, anew.calls) == (0, 4)
        assert anew.run_id != again.run_id
        assert {snapshot.revision for snapshot in simulator.snapshots} == {1, 2}


async def test_an_edited_manifest_runs_what_was_added_and_names_what_vanished():
    refused = [
        {"engagement": name, "resource": "O77"} for name in ("eng-denied00000001", "eng-missing0000001")
    ]
    rows = [*pairs(6), *refused]
    write_manifest(MANIFEST, rows)
    async with serve() as (url, simulator):
        first = await run(url)
        assert first.counts == (6, 2, 0, 0)
        kept, gone, added = rows[2:7], [*rows[:2], rows[7]], pairs(3, first=50)
        write_manifest(MANIFEST, [*added, *reversed(kept)])
        second = await run(url)
        assert second.calls == 3, "what failed waits for retry"
        assert second.counts == (9, 2, 0, 0), "rows that vanished keep their state"
        assert second.vanished == 3
        assert set(second.vanished_rows) == {f"{row['engagement']}/{row['resource']}" for row in gone}
        assert len(simulator.snapshots) == 9
        assert len({snapshot.engagement for snapshot in simulator.snapshots}) == 9
        assert of_type(LEDGER, "run")[-1]["rows"] == 11
        third = await run(url)
        assert (third.calls, third.vanished, third.counts) == (0, 3, (9, 2, 0, 0))


# -- one pair at a time ------------------------------------------------------------------------------


async def test_never_two_calls_of_one_pair_in_flight(place):
    latency = 0.05
    profiles(place, one="AKIAONE0000000000000", two="AKIATWO0000000000000")
    accounts = {"one": {"profile": "one"}, "two": {"profile": "two"}}
    rows = [
        {**row, "account": account, "template": template}
        for row in pairs(3)
        for template in (TEMPLATE, "AwsOpportunitySummaryFullView")
        for account in accounts
    ]
    write_manifest(MANIFEST, rows, accounts=accounts)
    async with serve(SimulatorSettings(latency=latency)) as (url, simulator):
        summary = await run(url)
        assert summary.exit_code == 0
        assert_exactly_once(simulator, LEDGER, rows)
        assert {snapshot.access_key[:7] for snapshot in simulator.snapshots} == {"AKIAONE", "AKIATWO"}
        # The simulator tells templates apart; so does a pair that is sent twice at once.
        times = defaultdict(list)
        for at, (_, engagement, resource, _) in arrivals(simulator, LEDGER):
            times[engagement, resource].append(at)
        assert {len(sent) for sent in times.values()} == {4}
        for sent in map(sorted, times.values()):
            gaps = [later - earlier for earlier, later in pairwise(sent)]
            assert min(gaps) >= latency * 0.95
        # Different pairs do meet.
        assert 1 < simulator.max_in_flight <= 3


# -- in doubt, and older than the token may live -----------------------------------------------------


def settled() -> Json:
    (line,) = results(LEDGER).values()
    return line


async def test_a_snapshot_from_before_does_not_settle_a_doubt():
    ago = 3600.0
    write_manifest(MANIFEST, pairs(1))
    breaks = Faults(plan=lambda ordinal, params: "internal" if ordinal == 1 else None)
    async with serve(SimulatorSettings(faults=breaks), now=lambda: time.time() - ago) as (url, simulator):
        assert (await run(url, ledger="yesterday.ndjson")).exit_code == 0
        ago = 0.0
        assert (await run(url, max_attempts=1)).counts.in_doubt == 1
        assert (await run(url, token_ttl=0)).exit_code == 0
        assert "reconciled" not in settled()
        assert settled()["revision"] == 2
        assert [snapshot.revision for snapshot in simulator.snapshots] == [1, 2]


# -- what goes over the wire -------------------------------------------------------------------------


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """An endpoint that keeps what it was sent, byte by byte."""
    heard: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.json_response({"Arn": "arn:aws:partnercentral:us-east-1::x", "Revision": 1})

    async with endpoint(answer) as url:
        yield url, heard


async def test_requests_are_those_of_boto3_byte_by_byte():
    (row,) = pairs(1)
    write_manifest(MANIFEST, [row])
    async with listening() as (url, heard):

        def sent() -> list[tuple[dict[str, str], bytes]]:
            return [(headers, body) for headers, body in heard if headers["x-amz-target"].endswith(CREATE)]

        assert (await run(url)).exit_code == 0
        # botocore keeps the order in which parameters are named.
        parameters = json.loads(sent()[0][1])
        assert parameters == {
            "Catalog": "Sandbox",
            "ClientToken": settled()["client_token"],
            "EngagementIdentifier": row["engagement"],
            "ResourceIdentifier": row["resource"],
            "ResourceSnapshotTemplateIdentifier": TEMPLATE,
            "ResourceType": "Opportunity",
        }

        def reference() -> None:
            client = boto3.Session().client(
                "partnercentral-selling",
                region_name="us-east-1",
                endpoint_url=url,
                config=Config(retries={"total_max_attempts": 1}),
            )
            client.create_resource_snapshot(**parameters)
            client.close()

        await asyncio.to_thread(reference)
        (ours, our_body), (theirs, their_body) = sent()
        assert our_body == their_body
        for name in ("x-amz-target", "content-type", "content-length", "host"):
            assert ours[name] == theirs[name], name
        scopes = [headers["authorization"].rpartition(", Signature=")[0] for headers in (ours, theirs)]
        assert scopes[0] == scopes[1], "the same key, day, region, service and signed headers"
        assert "batch-snapshot/" in ours["user-agent"]
        assert settled()["arn"] == "arn:aws:partnercentral:us-east-1::x"


# -- accounts apart ----------------------------------------------------------------------------------


async def test_only_the_accounts_that_were_named_are_called(place):
    profiles(place, one="AKIAONE0000000000000", two="AKIATWO0000000000000")
    accounts = {"one": {"profile": "one"}, "two": {"profile": "two"}}
    rows = [*pairs(4, account="one"), *pairs(4, first=10, account="two")]
    write_manifest(MANIFEST, rows, accounts=accounts)
    async with serve() as (url, simulator):
        first = await run(url, accounts=("one",))
        assert first.counts == (4, 0, 0, 4)
        assert {snapshot.access_key for snapshot in simulator.snapshots} == {"AKIAONE0000000000000"}
        assert (await run(url)).exit_code == 0
        assert_exactly_once(simulator, LEDGER, rows)


# -- a ledger means one run --------------------------------------------------------------------------


async def test_a_ledger_of_something_else_is_refused_and_nothing_is_called(place):
    rows = pairs(2)
    write_manifest(MANIFEST, rows)
    profiles(place, other="AKIAOTHER00000000000")
    async with serve() as (url, simulator), serve() as (elsewhere, other):
        await run(url)
        before, calls = LEDGER.read_bytes(), simulator.calls.copy()
        write_manifest(MANIFEST, pairs(4))
        renamed = write_manifest(Path("renamed.yaml"), pairs(4), name="renamed")
        with pytest.raises(LedgerError, match="belongs to manifest 'trial'"):
            await batch_snapshot.run(renamed, options(url, ledger=str(LEDGER)), HOOKS)
        with pytest.raises(LedgerError, match="was written against"):
            await run(elsewhere)
        with pytest.raises(LedgerError, match="was written against"):
            await run(None)
        with pytest.raises(LedgerError, match="has run id"):
            await run(url, run_id="another")
        with pytest.raises(LedgerError, match="has other settings for account 'default'"):
            await run(url, profile="other")
        with pytest.raises(InputError, match="cannot be used together"):
            await run(url, simulate=True)
        with pytest.raises(LedgerError, match="was written against"):
            await retry(elsewhere)
        with pytest.raises(LedgerError, match="has run id"):
            await retry(url, run_id="another")
        assert LedgerError.exit_code == 2
        assert LEDGER.read_bytes() == before
        assert simulator.calls == calls
        assert not other.calls


async def test_a_given_run_id_makes_the_tokens():
    rows = pairs(3)
    write_manifest(MANIFEST, rows)
    async with serve() as (url, simulator):
        first = await run(url, run_id="nightly-7")
        second = await run(url, run_id="nightly-7", ledger="lost.ndjson")
        assert (first.exit_code, second.exit_code) == (0, 0)
        assert len(simulator.snapshots) == 3, "a ledger that was lost costs no second snapshot"
        assert {line["run_id"] for line in of_type(LEDGER, "result")} == {"nightly-7"}


async def test_the_ledger_tells_what_the_contract_promises(place):
    write_manifest(MANIFEST, pairs(3))
    async with serve() as (url, simulator):
        before = time.time()
        summary = await batch_snapshot.run(MANIFEST, options(url))
    (head,), (intent,), lines, (end,) = (of_type(LEDGER, t) for t in ("run", "intent", "result", "end"))
    assert LEDGER.stat().st_mode & 0o777 == 0o600
    assert (head["schema"], head["command"], head["name"], head["rows"]) == (1, "run", "trial", 3)
    assert (head["endpoint"], head["run_id"], head["manifest"]) == (
        url,
        summary.run_id,
        str(place / MANIFEST),
    )
    assert head["accounts"] == {"default": {"role_arn": None, "profile": None, "region": None}}
    assert [row[0] for row in intent["rows"]] == [
        by_engagement(LEDGER)[row["engagement"]]["client_token"] for row in pairs(3)
    ]
    assert intent["rows"][0][1:] == [
        "default", "Sandbox", "eng-00000000000000", "Opportunity", "O1", TEMPLATE, 0
    ]  # fmt: skip
    made = {snapshot.client_token: snapshot for snapshot in simulator.snapshots}
    for line in lines:
        assert (line["status"], line["error"], line["attempts"], line["throttles"]) == (
            "succeeded",
            None,
            1,
            0,
        )
        assert line["arn"] == made[line["client_token"]].arn
        stamps = [line[name] for name in ("started_at", "first_sent_at", "finished_at")]
        assert all(len(stamp) == 24 and stamp.endswith("Z") for stamp in stamps)
        times = [datetime.fromisoformat(stamp).timestamp() for stamp in stamps]
        assert before - 0.001 <= times[0] <= times[1] <= times[2] <= time.time()
        assert intent["at"] <= line["first_sent_at"]
    assert (end["outcome"], end["counts"]) == ("completed", summary.counts._asdict())
    assert b"secret-of-the-example" not in LEDGER.read_bytes()


async def test_a_line_that_is_written_while_another_is_synced_is_no_damage(place):
    """The loop goes on writing while a thread syncs: the file may be longer than it was, never shorter."""

    class Busy(PosixPath):
        """A path that is looked at just as the next line is written."""

        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            book.append(b'{"type":"later"}\n')
            return super().stat(follow_symlinks=follow_symlinks)

    with Ledger(Busy(place / "ledger.ndjson")) as book:
        book.append(b'{"type":"first"}\n')
        book.sync()
