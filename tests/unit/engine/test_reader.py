"""Reads from the service: permits, retries, quotas, in virtual time."""

from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import Any

import anyio
import pytest

from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.reader import ATTEMPTS, Reader
from batch_snapshot.errors import DeferredError, ServiceError
from batch_snapshot.models import ApiError, ErrorKind, Failure, Verdict
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit import windows as quota
from batch_snapshot.ratelimit.pacer import Pacer
from tests.support.engine_world import Windows
from tests.support.virtual_time import in_virtual_time

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def failure(verdict: Verdict, code: str = "X", **more: Any) -> Failure:
    return Failure(ErrorKind.TRANSIENT, code, "reason", verdict, may_have_landed=False, **more)


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

    async def identify(self, account: AccountState) -> None:
        self.identified += 1

    def reader(self, **pacer: Any) -> Reader:
        account = AccountState("main", Pacer(pace.declared(1)), Pacer(pace.declared(10), **pacer))
        return Reader(account, self.call, self.identify, now=lambda: NOW, rng=Random(0))


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
    windows = Windows(10)
    reader = Service(UNREACHED, page(1)).reader(meter=windows)
    assert in_virtual_time(lambda: walk(reader)) == [1]
    assert (windows.reserved, windows.used, reader.calls.total()) == (2, 1, 1)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (REFUSED, ApiError, "ValidationException"),
        (BROKEN, ServiceError, "account main: ListOpportunities: X: reason"),
        (
            failure(Verdict.STOP_ACCOUNT, "AccessDeniedException"),
            ServiceError,
            "allow partnercentral:ListOpp",
        ),
        (THROTTLED, DeferredError, "its quota of reads is spent"),
        (UNREACHED, DeferredError, "account main: ListOpportunities: X: reason"),
        ({}, ServiceError, "not a page of a list"),
        ({"OpportunitySummaries": [], "NextToken": "same"}, ServiceError, "not a page of a list"),
    ],
)
def test_an_incurable_read_error_is_raised(answer, error, message):
    with pytest.raises(error, match=message) as caught:
        in_virtual_time(lambda: walk(Service(answer).reader()))
    assert type(caught.value) is error


def test_a_spent_quota_of_reads_defers():
    full = Windows(0, 60.0, quota.QuotaWindow("per_day", 100_000, quota.DAY))
    service = Service(page(1))
    with pytest.raises(DeferredError, match=r"per_day is spent \(100,000 reads in any 24 hours\)"):
        in_virtual_time(lambda: walk(service.reader(meter=full)))
    assert not service.asked
    assert (DeferredError.exit_code, ServiceError.exit_code) == (4, 3)
