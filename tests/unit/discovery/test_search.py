"""Lists whose tokens expire, and which give fewer items a page than their model says."""

from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from batch_snapshot.discovery.search import Search
from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.reader import RESTARTS as BEGINNINGS
from batch_snapshot.engine.reader import Reader
from batch_snapshot.errors import ServiceError
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.models import ApiError, ErrorKind, Failure, Verdict
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.pacer import Pacer
from tests.support.virtual_time import in_virtual_time

NOW = datetime(2026, 3, 2, tzinfo=UTC)
TASKS = "ListEngagementFromOpportunityTasks"
SEARCH = Filters(
    account="main", catalog="Sandbox", template="T", resource_type="Opportunity", sources=("tasks",)
)


def refusal(code: str, message: str, kind: ErrorKind = ErrorKind.INVALID) -> ApiError:
    return ApiError(Failure(kind, code, message, Verdict.REFUSED, may_have_landed=False, http_status=400))


EXPIRED = [
    refusal("ValidationException", "NextToken: token expired (INVALID_VALUE)"),
    refusal("ValidationException", "The pagination token is not valid"),
    refusal("ExpiredNextTokenException", "expired", ErrorKind.UNKNOWN),
]


class Service:
    """Twelve pairs in one list, five a page at most, and tokens that are forgotten so many times."""

    def __init__(self, forgotten: Counter[int], error: ApiError = EXPIRED[0], most: int = 5) -> None:
        self.forgotten = forgotten
        self.error = error
        self.most = most
        self.asked: list[tuple[int, int]] = []
        self.progress: list[str] = []

    async def call(self, account: str, operation: str, parameters: Any) -> dict[str, Any]:
        if operation != TASKS:  # newer SDKs know another list of tasks
            return {"TaskSummaries": []}
        start, size = int(parameters.get("NextToken", "0")), parameters["MaxResults"]
        self.asked.append((start, size))
        if self.forgotten[start]:
            self.forgotten[start] -= 1
            raise self.error
        if size > self.most > 10:
            raise refusal("ValidationException", f"1000 at 'maxResults' must be at most {self.most}")
        end = min(start + 5, 12)
        pairs = [
            {"EngagementId": f"eng-{number:014d}", "OpportunityId": f"O{number}"}
            for number in range(start, end)
        ]
        return {"TaskSummaries": pairs, "NextToken": str(end) if end < 12 else ""}

    async def identify(self, account: AccountState) -> None:
        """No account is identified."""

    def reader(self) -> Reader:
        account = AccountState("main", Pacer(pace.declared(1)), Pacer(pace.declared(10)))
        return Reader(account, self.call, self.identify, now=lambda: NOW, rng=Random(0))


def found(service: Service, path: Any = None) -> list[str]:
    """The opportunities that a search finds."""

    async def search() -> list[str]:
        with Search(path, [SEARCH], "", NOW) as one:
            await one.read({"main": service.reader()}, jobs=False, on_progress=service.progress.append)
            return [found.row.resource for found in one.pairs()]

    listed: list[str] = in_virtual_time(search)
    return listed


ALL = [f"O{number}" for number in range(12)]


@pytest.mark.parametrize("error", EXPIRED, ids=lambda error: error.failure.code)
@pytest.mark.parametrize("times", [1, BEGINNINGS])
def test_a_list_whose_token_expired_is_read_from_the_start(error, times):
    service = Service(Counter({10: times}), error)
    assert found(service) == ALL
    assert [start for start, _ in service.asked] == [0, 5, 10] * (times + 1)
    assert f"{TASKS}: 12" in service.progress


def test_tokens_that_always_expire_end_the_search_and_the_next_one_succeeds(tmp_path):
    service = Service(Counter({10: BEGINNINGS + 1}))
    with pytest.raises(ServiceError, match="token expired"):
        found(service, tmp_path / "partial")
    assert len(service.asked) == 3 * (BEGINNINGS + 1)
    # The token that was kept is refused once more, and then none is.
    service = Service(Counter({10: 1}))
    assert found(service, tmp_path / "partial") == ALL
    assert [start for start, _ in service.asked] == [10, 0, 5, 10]


def test_errors_not_caused_by_a_token_do_not_restart_the_list():
    service = Service(Counter({0: 1}))
    with pytest.raises(ServiceError, match="token expired"):
        found(service)
    service = Service(Counter({5: 1}), refusal("AccessDeniedException", "no", ErrorKind.DENIED))
    with pytest.raises(ServiceError, match="AccessDenied"):
        found(service)
    assert len(service.asked) == 2


def test_pages_have_a_hundred_items_where_a_thousand_are_refused():
    service = Service(Counter(), most=100)
    assert found(service) == ALL
    assert service.asked == [(0, 1000), (0, 100), (5, 100), (10, 100)]


def test_pages_that_are_still_too_large_are_an_error():
    with pytest.raises(ServiceError, match="maxResults"):
        found(Service(Counter(), most=50))
