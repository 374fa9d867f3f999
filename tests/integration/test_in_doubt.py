"""Rows in doubt at services of every temper: each ends with one snapshot, by the service's own record."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web

import batch_snapshot
from batch_snapshot.config import options
from batch_snapshot.config.options import Options
from batch_snapshot.failures import retry
from batch_snapshot.jobs import plan
from batch_snapshot.models import Outcome
from batch_snapshot.reporting import status
from batch_snapshot.reporting.progress import RunView
from batch_snapshot.reporting.summary import Summary
from batch_snapshot.simulator import Faults, Simulator, SimulatorSettings, serve
from tests.support.haste import Hasty, WallClock
from tests.support.http_server import endpoint
from tests.support.processes import (
    Json,
    assert_exactly_once,
    move_in,
    of_type,
    pairs,
    results,
    write_manifest,
)

pytestmark = pytest.mark.asyncio

CREATE, GET = "CreateResourceSnapshot", "GetResourceSnapshot"

#: The work is done, and the answer does not say so.
AFTER = ("internal-after", "unavailable-after", "reset-after", "truncated", "garbage", "no-arn")

GOOD, DENIED = "AKIAEXAMPLE000000000", "AKIADENIED0000000001"


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    move_in(monkeypatch, tmp_path)


#: A lag of reads, in seconds, for services that have none.
AT_ONCE = 0.1


class Trial(NamedTuple):
    """A manifest of some rows, its ledger, and the service it is run against."""

    url: str
    simulator: Simulator
    manifest: Path
    ledger: Path
    rows: list[Json]
    clock: WallClock

    async def run(self, *, pass_by: float = 0.0, **driven: Any) -> Summary:
        """Run or resume; so many seconds pass as soon as it has begun."""
        return await batch_snapshot.run(self.manifest, self._options(driven), self._hooks(pass_by))

    async def retry(self, *, pass_by: float = 0.0, **driven: Any) -> Summary:
        return await batch_snapshot.retry(
            self.ledger, lambda _: plan.all_unfinished(), self._options(driven), self._hooks(pass_by)
        )

    def _options(self, driven: dict[str, Any]) -> Options:
        settings = options.Settings(**driven)
        return Options(ledger=str(self.ledger), endpoint_url=self.url, rate=1000.0, engine=settings)

    def _hooks(self, pass_by: float) -> batch_snapshot.Hooks:
        async def leap(_: RunView) -> None:
            self.clock.ahead += pass_by

        return batch_snapshot.Hooks(rng=Hasty(7), now=self.clock.now, watch=leap)

    @property
    def states(self) -> set[tuple[str, bool, int]]:
        """What the rows are: status, ambiguous, generation."""
        return {
            (line["status"], line["ambiguous"], line["generation"]) for line in results(self.ledger).values()
        }

    @property
    def reconciled(self) -> int:
        return sum(line.get("reconciled", False) for line in results(self.ledger).values())

    def assert_settled(self) -> None:
        assert_exactly_once(self.simulator, self.ledger, self.rows)
        assert {line["generation"] for line in of_type(self.ledger, "result")} == {0}
        assert status.check_ledger(self.ledger) == len(self.rows)


@asynccontextmanager
async def trial(rows: int, *, first: int = 0, **settings: Any) -> AsyncIterator[Trial]:
    """A trial of its own, beside others."""
    clock, name = WallClock(), f"trial-{first}"
    listed = pairs(rows, first=first)
    manifest = write_manifest(Path(f"{name}.yaml"), listed, name=name)
    async with serve(SimulatorSettings(**settings), now=clock.time) as (url, simulator):
        yield Trial(url, simulator, manifest, Path(f"ledgers/{name}.ndjson"), listed, clock)


def breaks(*kinds: str, first: int, late_delay: float = 0.0) -> Faults:
    """Break the first so many calls, each kind in its turn."""

    def choose(ordinal: int, _: Json) -> str | None:
        return kinds[ordinal % len(kinds)] if ordinal < first else None

    return Faults(plan=choose, late_delay=late_delay)


def answers(simulator: Simulator) -> list[str]:
    return [call.answer for call in simulator.log if call.operation == CREATE]


# -- how long tokens are remembered ------------------------------------------------------------------


async def test_a_service_that_remembers_for_ever_is_asked_again_under_the_same_token():
    async with trial(14, faults=breaks(*AFTER, "blocked-after", first=14)) as it:
        assert (await it.run(max_attempts=1)).counts == (0, 0, 14, 0)
        assert it.states == {("in_doubt", True, 0)}
        # Within the time to live nothing needs to be looked up.
        assert (await it.run(pass_by=200.0)).exit_code == 0
        assert answers(it.simulator)[14:] == ["replay"] * 14
        assert it.reconciled == 0
        it.assert_settled()


async def test_a_service_that_forgets_after_a_minute_is_looked_into_first():
    """What was done is found; what was not is sent, under its token; what the answer hid is no matter."""
    kinds = (*AFTER, "internal", "reset-before")
    async with trial(8, forget_after=60.0, faults=breaks(*kinds, first=8)) as it:
        assert (await it.run(max_attempts=1, token_ttl=30.0)).counts == (0, 0, 8, 0)
        assert len(it.simulator.snapshots) == 6
        assert (await it.run(pass_by=61.0, token_ttl=30.0)).exit_code == 0
        assert answers(it.simulator)[8:] == ["ok"] * 2
        assert it.reconciled == 6
        it.assert_settled()


async def test_so_does_retry_out_of_the_ledger_alone():
    async with trial(4, forget_after=60.0, faults=breaks(*AFTER[:3], "blocked-after", first=4)) as it:
        assert (await it.run(max_attempts=1, token_ttl=30.0)).counts == (0, 0, 4, 0)
        it.manifest.unlink()
        assert (await it.retry(pass_by=61.0, token_ttl=30.0)).exit_code == 0
        assert (len(answers(it.simulator)), it.reconciled) == (4, 4)
        it.assert_settled()


async def test_a_doubt_keeps_the_time_of_its_first_try_over_run_after_run():
    """Each resume comes soon after the one before, and the last one long after the first."""
    kinds = ["internal-after", "internal", "internal", "internal"]
    faults = Faults(plan=lambda ordinal, _: kinds[ordinal] if ordinal < len(kinds) else None)
    async with trial(1, forget_after=60.0, token_check="last", faults=faults) as it:
        for passed in (0.0, 20.0, 20.0):
            assert (await it.run(pass_by=passed, max_attempts=1, token_ttl=50.0)).counts == (0, 0, 1, 0)
        assert (await it.run(pass_by=21.0, token_ttl=50.0)).exit_code == 0
        assert len(answers(it.simulator)) == 3, "then it was older than the token may live"
        assert it.reconciled == 1
        it.assert_settled()


async def test_a_token_that_is_forgotten_while_its_row_waits_for_its_turn_is_looked_up_first():
    """It was young when the row was taken up."""
    faults = Faults(plan=lambda ordinal, _: {0: "internal", 1: "internal-after"}.get(ordinal))
    async with trial(2, forget_after=60.0, faults=faults) as it:
        assert (await it.run(max_attempts=1, concurrency=1)).counts == (0, 0, 2, 0)

        def leap(_: Outcome) -> None:
            it.clock.ahead += 61.0

        # The first row has its turn at once, the second half a second later.
        slowly = replace(it._options({"token_ttl": 30.0}), rate=2.0)
        hooks = batch_snapshot.Hooks(now=it.clock.now, outcome=leap)
        assert (await batch_snapshot.run(it.manifest, slowly, hooks)).exit_code == 0
        assert it.reconciled == 1
        it.assert_settled()


# -- in which order the service checks ---------------------------------------------------------------


async def test_throttles_that_come_before_tokens_settle_nothing_and_cost_nothing():
    """A replay that is throttled is still a row that may have been carried out."""
    async with trial(12, token_check="last", rate=40.0, burst=3, faults=breaks(*AFTER, first=8)) as it:
        assert (await it.run()).exit_code == 0
        assert it.simulator.throttled > 0
        assert "replay" in answers(it.simulator)
        it.assert_settled()


async def test_a_denial_that_comes_before_tokens_settles_nothing(monkeypatch):
    """The row was done, its replay is denied: it is in doubt, and never sent under another token."""
    async with trial(4, token_check="last", faults=breaks("internal-after", first=4)) as it:
        assert (await it.run(max_attempts=1)).counts == (0, 0, 4, 0)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", DENIED)
        assert (await it.run()).counts == (0, 0, 4, 0)
        assert answers(it.simulator)[4:] == ["AccessDeniedException"] * 4
        assert {line["error"]["kind"] for line in results(it.ledger).values()} == {"denied"}
        assert it.states == {("in_doubt", True, 0)}
        assert (await it.retry()).counts == (0, 0, 4, 0), "not even by `retry --all`"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", GOOD)
        assert (await it.retry()).exit_code == 0
        assert set(answers(it.simulator)[12:]) == {"replay"}
        it.assert_settled()


# -- where looks are denied --------------------------------------------------------------------------


@asynccontextmanager
async def without_reads(url: str) -> AsyncIterator[str]:
    """The same service for someone who may write and not read."""
    async with aiohttp.ClientSession() as session:

        async def answer(request: web.Request) -> web.Response:
            headers = {name: value for name, value in request.headers.items() if name != "Host"}
            if request.headers["X-Amz-Target"].endswith(GET):
                body = {"__type": "AccessDeniedException", "Message": "not authorized to read"}
                return web.Response(
                    status=400, text=json.dumps(body), content_type="application/x-amz-json-1.0"
                )
            async with session.post(url, data=await request.read(), headers=headers) as behind:
                return web.Response(
                    status=behind.status,
                    body=await behind.read(),
                    headers={"Content-Type": behind.headers["Content-Type"]},
                )

        async with endpoint(answer) as reads_denied:
            yield reads_denied


async def test_where_looks_are_denied_an_old_doubt_waits_for_someone_who_says_send():
    kinds = ("internal-after", "internal")
    async with trial(2, faults=breaks(*kinds, first=2)) as behind, without_reads(behind.url) as url:
        it = behind._replace(url=url)
        first = await it.run(max_attempts=1)
        assert first.counts == (0, 0, 2, 0)
        assert any("a first read failed" in warning for warning in first.warnings)
        calls = len(answers(it.simulator))
        for command in (it.run, it.retry):
            assert (await command(pass_by=31.0, token_ttl=30.0)).counts == (0, 0, 2, 0)
        assert len(answers(it.simulator)) == calls, "nothing is sent on a guess"
        assert it.states == {("in_doubt", True, 0)}
        assert (await it.run(pass_by=5.0, token_ttl=30.0, resend_in_doubt=True)).exit_code == 0
        it.assert_settled()


async def test_where_looks_are_denied_a_young_doubt_is_settled_by_its_token():
    async with trial(6, faults=breaks(*AFTER, first=6)) as behind, without_reads(behind.url) as url:
        it = behind._replace(url=url)
        assert (await it.run()).exit_code == 0
        it.assert_settled()


# -- clocks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-3600.0, 3600.0])
async def test_a_look_tells_ours_from_what_was_there_before_by_the_services_clock(offset):
    """The service's clock is an hour off; a minute ago someone else made snapshots of the same pairs."""
    kinds = ("internal-after", "internal")
    faults = Faults(plan=lambda ordinal, _: kinds[ordinal % 2] if 4 <= ordinal < 8 else None)
    async with trial(4, clock_offset=offset, forget_after=1.0, faults=faults) as it:
        other = it._replace(ledger=Path("ledgers/other.ndjson"))
        it.clock.ahead = -60.0
        assert (await other.run()).exit_code == 0
        it.clock.ahead = 0.0
        assert (await it.run(max_attempts=1)).counts == (0, 0, 4, 0)
        assert (await it.run(pass_by=5.0, token_ttl=0.0)).exit_code == 0
        assert it.reconciled == 2
        by_token: dict[str, int] = {}
        for snapshot in it.simulator.snapshots[4:]:
            by_token[snapshot.client_token] = snapshot.revision
        assert len(it.simulator.snapshots) == 8
        lines = results(it.ledger).values()
        assert {line["client_token"]: line["revision"] for line in lines} == by_token
        assert set(by_token.values()) == {2}


@pytest.mark.parametrize("error", [7200.0, -7200.0])
@pytest.mark.parametrize("kind", ["internal-after", "internal"])
async def test_a_clock_that_is_set_between_two_runs_makes_nothing_twice_and_loses_nothing(error, kind):
    """Ours was two hours off when the rows were sent, and is right when they are looked for."""
    faults = Faults(plan=lambda ordinal, _: kind if 4 <= ordinal < 8 else None)
    async with trial(4, forget_after=0.001, faults=faults) as it:
        other = it._replace(ledger=Path("ledgers/other.ndjson"))
        it.clock.ahead = -60.0
        assert (await other.run()).exit_code == 0
        it.clock.ahead = 0.0
        off = batch_snapshot.Hooks(rng=Hasty(7), now=lambda: it.clock.now() + timedelta(seconds=error))
        doubtful = await batch_snapshot.run(it.manifest, it._options({"max_attempts": 1}), off)
        assert doubtful.counts == (0, 0, 4, 0)
        assert (await it.run(token_ttl=0.0, read_lag=AT_ONCE)).exit_code == 0
        assert len(it.simulator.snapshots) == 8, "four of another run, and one a row"
        assert it.reconciled == (4 if kind == "internal-after" else 0)
        assert {line["revision"] for line in results(it.ledger).values()} == {2}


@pytest.mark.parametrize("error", [7200.0, -7200.0])
@pytest.mark.parametrize("kind", ["internal-after", "internal"])
async def test_a_clock_that_is_set_during_a_run_makes_nothing_twice_and_loses_nothing(error, kind):
    """It is set by two hours between the answer about the first row and the tries of the second."""
    off = 0.0

    def set_clock(_: Outcome) -> None:
        nonlocal off
        off = error

    faults = Faults(plan=lambda _, row: kind if off and row["ResourceIdentifier"] == "O2" else None)
    async with trial(2, forget_after=60.0, faults=faults) as it:
        other = it._replace(ledger=Path("ledgers/other.ndjson"))
        it.clock.ahead = -120.0
        assert (await other.run()).exit_code == 0
        it.clock.ahead = 0.0
        hooks = batch_snapshot.Hooks(
            rng=Hasty(7), now=lambda: it.clock.now() + timedelta(seconds=off), outcome=set_clock
        )
        doubtful = it._options({"max_attempts": 2, "concurrency": 1})
        assert (await batch_snapshot.run(it.manifest, doubtful, hooks)).counts == (1, 0, 1, 0)
        off = 0.0
        assert (await it.run(pass_by=61.0, token_ttl=0.0)).exit_code == 0
        assert len(it.simulator.snapshots) == 4, "two of another run, and one a row"
        assert it.reconciled == (kind == "internal-after")
        assert {line["revision"] for line in results(it.ledger).values()} == {2}


async def test_where_nobody_knows_by_how_much_the_clock_was_off_a_found_snapshot_settles_nothing():
    faults = Faults(plan=lambda ordinal, _: "internal" if 1 <= ordinal < 2 else None)
    async with trial(1, forget_after=1.0, faults=faults, clock_offset=-3600.0) as it:
        other = it._replace(ledger=Path("ledgers/other.ndjson"))
        assert (await other.run()).exit_code == 0
        it.clock.ahead = 60.0
        assert (await it.run(max_attempts=1)).counts == (0, 0, 1, 0)
        lines = it.ledger.read_text("utf-8")
        assert '"clock_skew_s":-36' in lines
        it.ledger.write_text(re.sub(r'"clock_skew_s":-[0-9.]+', '"clock_skew_s":null', lines), "utf-8")
        assert (await it.run(pass_by=1800.0, token_ttl=1.0, read_lag=AT_ONCE)).counts == (0, 0, 1, 0)
        (line,) = results(it.ledger).values()
        assert line["error"]["code"] == "ClocksDisagree"
        assert (await it.run(token_ttl=1.0, read_lag=AT_ONCE, resend_in_doubt=True)).exit_code == 0
        assert len(it.simulator.snapshots) == 2


# -- what takes the service a while ------------------------------------------------------------------
#
# A look waits until reads are sure to show what was sent; those who wait do it side by side.


async def works_late() -> None:
    """It says no or nothing, does the work a moment later, and answers Conflict to a replay meanwhile."""
    faults = breaks("late", first=8, late_delay=0.5)
    async with trial(10, first=100, faults=faults) as it:
        assert (await it.run(read_lag=1.5)).exit_code == 0
        assert "ConflictException" in answers(it.simulator)
        it.assert_settled()


async def works_late_and_never_says_so() -> None:
    """A replay is a Conflict for ever: only a look can tell."""
    faults = breaks("late", "internal-after", first=8, late_delay=0.5)
    async with trial(10, first=200, replay="conflict", faults=faults) as it:
        assert (await it.run(read_lag=1.5)).exit_code == 0
        assert it.reconciled == 8
        it.assert_settled()


async def works_late_for_a_run_that_has_ended() -> None:
    """The doubtful row is taken up while the work of its first try is still to be done."""
    faults = breaks("late", first=6, late_delay=1.0)
    async with trial(6, first=300, faults=faults) as it:
        assert (await it.run(max_attempts=1)).counts == (0, 0, 6, 0)
        assert not it.simulator.snapshots
        assert (await it.run(token_ttl=0.0, read_lag=1.5)).exit_code == 0
        it.assert_settled()


async def shows_late() -> None:
    """Reads lag, and tokens are forgotten: a look that comes too early makes it twice."""
    assert retry.READ_LAG > 3.0, "a lag of three seconds has been reported"
    faults = breaks(*AFTER, first=6)
    async with trial(6, first=400, read_lag=1.0, forget_after=0.001, faults=faults) as it:
        assert (await it.run(max_attempts=1)).counts == (0, 0, 6, 0)
        assert (await it.run(token_ttl=0.0, read_lag=1.5)).exit_code == 0
        assert it.reconciled == 6
        it.assert_settled()


LATE = (works_late, works_late_and_never_says_so, works_late_for_a_run_that_has_ended, shows_late)


async def test_services_that_take_a_while():
    outcomes = await asyncio.gather(*(late() for late in LATE), return_exceptions=True)
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if failed:
        raise BaseExceptionGroup("of the services that take a while", failed)
