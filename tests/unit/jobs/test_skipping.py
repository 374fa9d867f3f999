"""What is left out, and the reads that find it out: pure decisions by properties, waits in virtual time."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.discovery import changes
from batch_snapshot.engine.account import AccountState, Stop, StopKind
from batch_snapshot.engine.reader import ATTEMPTS, Reader
from batch_snapshot.errors import DeferredError, LedgerError, ManifestError, ServiceError
from batch_snapshot.failures import retry
from batch_snapshot.jobs import plan, skip_filter, skipping
from batch_snapshot.ledger import check as audit
from batch_snapshot.ledger import codec, history
from batch_snapshot.ledger.records import End, Intent, Record, Skipped
from batch_snapshot.manifest import filters
from batch_snapshot.models import ApiError, ErrorKind, Failure, Skip, Verdict, client_token
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit import windows as quota
from batch_snapshot.ratelimit.pacer import Pacer
from batch_snapshot.verify import Claim, ListedSnapshot, disagreement, unknown_snapshots
from tests.support import strategies
from tests.support.strategies import POOL, RUN_ID, START, header, histories, lines_of, numbered, patient

NOW = datetime(2026, 6, 1, tzinfo=UTC)

# -- changes -----------------------------------------------------------------------------------------


@given(st.none() | st.floats(0, 1e10), st.none() | st.floats(0, 1e10), st.floats(0, 1e4))
@patient
def test_a_row_without_known_dates_is_sent(modified, since, margin):
    left_out = changes.unchanged(modified, since, margin)
    assert left_out == (modified is not None and since is not None and modified < since - margin)


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (NOW, True),
        (NOW + timedelta(hours=23), True),
        (NOW + timedelta(hours=25), False),
        (datetime(1970, 1, 1, tzinfo=UTC), False),
        (NOW.replace(tzinfo=None), False),
        ("2026-06-01T00:00:00Z", False),
        (None, False),
    ],
)
def test_an_impossible_date_counts_as_none(value, known):
    assert (changes.moment(value, NOW.timestamp()) is not None) is known


@given(st.integers(0, 10**6))
def test_finding_the_dates_never_costs_much_more_than_the_best_way(wanted):
    pages, named = changes.approach(wanted)
    assert named * changes.NAMED_AT_ONCE >= wanted
    assert pages + named <= 1.5 * named


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("36h", NOW - timedelta(hours=36)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T20:00:00+02:00", datetime(2026, 1, 31, 18, tzinfo=UTC)),
        ("2026-01-31T18:00:00Z", datetime(2026, 1, 31, 18, tzinfo=UTC)),
    ],
)
def test_times_and_spans(text, expected):
    assert filters.since(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "h", "2x", "yesterday", "2026-13-01", "-3h", "9" * 400 + "d"])
def test_an_invalid_time_is_refused(text):
    with pytest.raises(ValueError, match="is no time: write"):
        filters.since(text, NOW)


# -- rows that were left out -------------------------------------------------------------------------


@given(histories, st.sets(st.sampled_from(POOL)), st.sampled_from(Skip))
@patient
def test_a_row_that_was_left_out_is_not_sent_and_the_states_still_sum(past, rows, reason):
    lines = lines_of(past)
    before = history.fold(lines)
    named = set(before.keys()) | set(before.unfinished)
    chosen = tuple(row for row in sorted(rows) if row.key not in named)
    more: list[Record] = [header(), Skipped(START, reason, chosen, RUN_ID), End("completed", {}, START)]
    after = history.fold(numbered([*(line.record for line in lines), *more]))
    assert after.counts()[reason] == len(chosen)
    assert all(after.is_skipped(row.key) for row in chosen)
    assert set(after.keys()) == set(before.keys()) | {row.key for row in chosen}
    sent = {request.row for request in plan.resumed(POOL, after, RUN_ID) if request}
    assert sent == {request.row for request in plan.resumed(POOL, before, RUN_ID) if request} - set(chosen)
    assert not [request for request in plan.retried([], plan.all_unfinished(), RUN_ID) if request]


@given(st.lists(st.sampled_from(POOL), min_size=1, unique=True), st.sampled_from(Skip), strategies.texts)
@patient
def test_every_skip_line_decodes_back(rows, reason, run_id):
    line = codec.encode_skip(run_id, START, reason, rows)
    assert line.count(b"\n") == 1
    assert codec.decode(line) == Skipped(START, reason, tuple(rows), run_id)


@pytest.mark.parametrize("counts", [{}, {"unchanged": 1}, {"active_job": 2}])
def test_an_end_line_without_the_skipped_rows_fails_the_check(counts):
    rows = tuple(POOL[:2])
    four = {"succeeded": 0, "failed": 0, "in_doubt": 0, "unattempted": 0}

    def check(counted: dict[str, int]) -> None:
        end = End("completed", {**four, **counted}, START)
        audit.check(numbered([header(rows=2), Skipped(START, Skip.UNCHANGED, rows, RUN_ID), end]), "l:")

    check({"unchanged": 2})
    with pytest.raises(LedgerError, match=r"l:3: counts .* but the lines before say"):
        check(counts)


def test_a_row_that_was_named_is_never_left_out():
    row = POOL[0]
    intent = Intent(START, ((client_token(RUN_ID, row, 0), row, 0),))
    records: list[Record] = [header(), intent, Skipped(START, Skip.UNCHANGED, (row,), RUN_ID)]
    with pytest.raises(LedgerError, match="which was named before"):
        history.fold(numbered(records))


class Stopped:
    """An engine that notes why it is to stop."""

    def __init__(self) -> None:
        self.stop: Stop | None = None

    def request_stop(self, stop: Stop) -> None:
        self.stop = stop


def test_a_manifest_that_changes_meanwhile_stops_the_run_gracefully():
    async def choose() -> skip_filter.SkippedRows:
        raise ManifestError(["m.yaml: changed"])

    engine: Any = Stopped()
    assert not in_virtual_time(lambda: skipping.skip_rows(engine, skipping.SkipStep(choose)))
    assert engine.stop == Stop(StopKind.STOPPED, "m.yaml: changed")


def test_skipping_is_cancelled_by_a_signal():
    engine: Any = Stopped()

    async def choose() -> skip_filter.SkippedRows:
        engine.stop = Stop(StopKind.INTERRUPTED, "SIGINT received")
        await anyio.sleep_forever()
        raise AssertionError

    assert not in_virtual_time(lambda: skipping.skip_rows(engine, skipping.SkipStep(choose)))


# -- reads -------------------------------------------------------------------------------------------


def failure(verdict: Verdict, code: str = "X", **more: Any) -> Failure:
    return Failure(ErrorKind.TRANSIENT, code, "told", verdict, may_have_landed=False, **more)


THROTTLED = failure(Verdict.THROTTLED, http_status=400)
BROKEN = failure(Verdict.RETRY)
UNREACHED = failure(Verdict.RETRY, never_left=True)
REFUSED = failure(Verdict.REFUSED, "ValidationException", http_status=400)


class Service:
    """Answers what it was given, one after the other, the last for ever; and notes when it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[float, dict[str, Any]]] = []
        self.identified = 0

    async def call(self, account: str, operation: str, parameters: Any) -> dict[str, Any]:
        self.asked.append((anyio.current_time(), dict(parameters)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Failure):
            raise ApiError(answer)
        found: dict[str, Any] = answer
        return found

    async def identify(self, lane: AccountState) -> None:
        self.identified += 1

    def reader(self, **pacer: Any) -> Reader:
        lane = AccountState("main", Pacer(pace.declared(1)), Pacer(pace.declared(10), **pacer))
        return Reader(lane, self.call, self.identify, now=lambda: NOW, rng=Random(0))


def in_virtual_time(work: Any) -> Any:
    return trio.run(work, clock=trio.testing.MockClock(autojump_threshold=0))


async def walk(reader: Reader) -> list[int]:
    return [
        item["Id"] async for page in reader.pages("ListOpportunities", Catalog="AWS") for item in page.items
    ]


def page(*items: int, token: str | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"OpportunitySummaries": [{"Id": item} for item in items]}
    return answer if token is None else {**answer, "NextToken": token}


def test_every_page_takes_a_permit_and_is_one_exchange():
    service = Service(*(page(number, token=f"t{number}") for number in range(29)), page(29))
    assert in_virtual_time(lambda: walk(service.reader())) == list(range(30))
    times = [at for at, _ in service.asked]
    assert times[-1] - times[0] >= 2.8  # 30 pages at ten a second
    assert [parameters.get("NextToken") for _, parameters in service.asked[:3]] == [None, "t0", "t1"]
    assert service.identified == 1


def test_reads_are_retried_after_throttles_and_errors():
    service = Service(*[THROTTLED] * 5, *[BROKEN] * (ATTEMPTS - 1), page(1))
    reader = service.reader()
    assert in_virtual_time(lambda: walk(reader)) == [1]
    assert (reader.calls, reader.throttled) == (Counter({"ListOpportunities": 5 + ATTEMPTS}), 5)


def test_a_read_that_never_left_uses_no_quota():
    class Windows:
        reserved, used = 0, 0

        def reserve(self) -> int:
            self.reserved += 1
            return self.reserved

        def free_calls(self) -> int:
            return 1

        def finish(self, reservation: int) -> None:
            self.used += 1

        def cancel(self, reservation: int) -> None:
            pass

    windows = Windows()
    reader = Service(UNREACHED, page(1)).reader(meter=windows)
    assert in_virtual_time(lambda: walk(reader)) == [1]
    assert (windows.reserved, windows.used, reader.calls.total()) == (2, 1, 1)


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (REFUSED, ApiError, "ValidationException"),
        (BROKEN, ServiceError, "account main: ListOpportunities: X: told"),
        (
            failure(Verdict.STOP_ACCOUNT, "AccessDeniedException"),
            ServiceError,
            "allow partnercentral:ListOpp",
        ),
        (THROTTLED, DeferredError, "its quota of reads is spent"),
        (UNREACHED, DeferredError, "account main: ListOpportunities: X: told"),
        ({}, ServiceError, "no page of a list"),
        ({"OpportunitySummaries": [], "NextToken": "same"}, ServiceError, "no page of a list"),
    ],
)
def test_an_incurable_read_error_is_raised(answer, error, told):
    with pytest.raises(error, match=told) as caught:
        in_virtual_time(lambda: walk(Service(answer).reader()))
    assert type(caught.value) is error


def test_a_spent_quota_of_reads_defers():
    class WindowFull:
        def reserve(self) -> quota.WindowFull:
            return quota.WindowFull(quota.QuotaWindow("per_day", 100_000, quota.DAY), 60.0)

        def free_calls(self) -> int:
            return 0

        def finish(self, reservation: int) -> None: ...

        def cancel(self, reservation: int) -> None: ...

    service = Service(page(1))
    with pytest.raises(DeferredError, match=r"per_day is spent \(100,000 reads in any 24 hours\)"):
        in_virtual_time(lambda: walk(service.reader(meter=WindowFull())))
    assert not service.asked
    assert DeferredError.exit_code == 4
    assert ServiceError.exit_code == 3
    assert retry.READ_LAG > 0


# -- verify ------------------------------------------------------------------------------------------


revisions = st.integers(1, 6)
listings = st.lists(
    st.builds(ListedSnapshot, revisions, st.sampled_from(["a1", "a2", "a3"]), st.just("")),
    max_size=5,
    unique=True,
)


@given(listings, revisions, st.sampled_from(["a1", "a2", "a3"]))
def test_a_claim_holds_where_the_list_has_just_that(listed, revision, arn):
    found = disagreement(Claim(POOL[0], "succeeded", arn, revision), listed)
    exact = any((one.revision, one.arn) == (revision, arn) for one in listed)
    near = any(one.revision == revision or one.arn == arn for one in listed)
    assert (found.what if found else None) == (None if exact else "mismatched" if near else "missing")


@given(listings, st.sets(revisions))
def test_snapshots_that_no_ledger_names_are_suspects_latest_first(listed, known):
    found = [one.revision for one in unknown_snapshots(listed, known)]
    highest = max([*known, *(one.revision for one in listed)], default=0)
    assert found == sorted(set(range(1, highest + 1)) - known, reverse=True)


def test_a_revision_of_another_endpoint_is_not_counted_down_from():
    assert [one.revision for one in unknown_snapshots([ListedSnapshot(10**15, "a", "")], {1})] == [10**15]
