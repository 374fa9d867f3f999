"""Reads of one account, single or page by page. Each takes a permit first.

Throttles are flow control. Transient failures are tried again. Refusals and a spent quota end the work that
depends on the read.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from random import Random
from typing import Any, NamedTuple, TypeVar

import anyio

from batch_snapshot.config.options import DEFAULT_SETTINGS
from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.seams import Identify
from batch_snapshot.errors import BatchSnapshotError, DeferredError, ServiceError
from batch_snapshot.failures import retry
from batch_snapshot.models import ApiError, ErrorKind, Failure, Verdict
from batch_snapshot.operations import LISTS, iam_action
from batch_snapshot.ratelimit.pacer import Permit, WindowFullError

Call = Callable[[str, str, Mapping[str, Any]], Awaitable[dict[str, Any]]]

#: Attempts of a read; throttles cost none.
ATTEMPTS = DEFAULT_SETTINGS.max_attempts
#: Seconds of nothing but throttles at the lowest rate after which the quota counts as spent.
PATIENCE = DEFAULT_SETTINGS.patience
#: Items of a page that every list gives: AWS documents fewer than its model allows.
SAFE_PAGE_SIZE = 100
#: Times that one list is started again because a page token was refused, for example as expired.
RESTARTS = 3
#: Independent reads in flight at once.
CONCURRENT_READS = 8

Item = TypeVar("Item")


class Page(NamedTuple):
    """A page of a list."""

    items: list[dict[str, Any]]
    #: Of the next page; None: this is the last.
    token: str | None
    #: The list was started again: its items may have been returned before.
    restarted: bool = False


class Reader:
    """Makes the reads of one account.

    What the service refuses for good raises `ApiError`; what cannot be read, because the account cannot sign
    or the service keeps failing, `ServiceError`; a spent quota of reads `DeferredError`; and a log of calls
    that cannot be used `StorageError`.
    """

    def __init__(
        self,
        account: AccountState,
        call: Call,
        identify: Identify,
        *,
        now: Callable[[], datetime],
        rng: Random,
    ) -> None:
        self.name = account.name
        #: By operation, throttled ones included.
        self.calls: Counter[str] = Counter()
        self.throttled = 0
        self._account = account
        self._call = call
        self._identify = identify
        self._now = now
        self._rng = rng
        self._identified = False
        #: Items of a page by operation, if the service refuses as many as its model allows.
        self._page_sizes: dict[str, int] = {}
        self._identifying = anyio.Lock()

    async def pages(self, operation: str, token: str | None = None, **parameters: Any) -> AsyncIterator[Page]:
        """Read every page of a list, or those from `token` on, one at a time.

        If the token of a page is refused the list is started again, so items may be returned twice.
        """
        member = LISTS[operation].items
        restarts, restarted = 0, False
        while True:
            try:
                answer = await self._page(operation, token, parameters)
            except ApiError as error:
                restarts += 1
                if token is None or restarts > RESTARTS or not _refuses_token(error.failure):
                    raise
                token, restarted = None, True
                continue
            items, following = answer.get(member), answer.get("NextToken") or None
            if not isinstance(items, list) or (following is not None and following == token):
                raise ServiceError(f"account {self.name}: {operation}: the answer is not a page of a list")
            yield Page(items, following, restarted)
            if following is None:
                return
            token, restarted = following, False

    async def _page(self, operation: str, token: str | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
        more = {} if token is None else {"NextToken": token}
        size = self._page_sizes.get(operation, LISTS[operation].page_size)
        try:
            return await self.read(operation, **parameters, MaxResults=size, **more)
        except ApiError as error:
            too_many = "maxresults" in error.failure.message.lower()
            if size <= SAFE_PAGE_SIZE or error.failure.kind is not ErrorKind.INVALID or not too_many:
                raise
        self._page_sizes[operation] = SAFE_PAGE_SIZE
        return await self.read(operation, **parameters, MaxResults=SAFE_PAGE_SIZE, **more)

    async def read(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Read until there is an answer."""
        failures = 0
        while True:
            answer = await self._try(operation, parameters)
            if not isinstance(answer, Failure):
                return answer
            if answer.verdict is Verdict.THROTTLED:
                if self._account.read_pacer.starved(PATIENCE):
                    raise DeferredError(
                        f"account {self.name}: nothing but throttles for {PATIENCE:g} s at the lowest rate: "
                        "its quota of reads is spent; run the same command later"
                    )
                continue
            if answer.verdict is Verdict.REFUSED:
                raise ApiError(answer)
            failures += 1
            if answer.verdict is Verdict.STOP_ACCOUNT or failures >= ATTEMPTS:
                raise read_failed(self.name, operation, answer)
            await anyio.sleep(retry.backoff(failures, self._rng))

    async def _try(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any] | Failure:
        async with self._identifying:
            if not self._identified:
                try:
                    await self._identify(self._account)
                except ApiError as error:
                    return error.failure
                self._identified = True
        with await self._permit() as permit:
            permit.used()
            self.calls[operation] += 1
            try:
                answer = await self._call(self.name, operation, parameters)
            except ApiError as error:
                if error.failure.verdict is Verdict.THROTTLED:
                    self.throttled += 1
                    permit.throttled(error.failure.retry_after)
                elif error.failure.never_left:
                    self.calls[operation] -= 1
                    permit.never_left()
                elif error.failure.http_status is not None:
                    permit.answered()
                return error.failure
            permit.answered()
            return answer

    async def _permit(self) -> Permit:
        try:
            return await self._account.read_pacer.acquire()
        except WindowFullError as error:
            stop = self._account.window_spent(self._account.read_pacer, error.spent, self._now())
            raise DeferredError(stop.reason) from None


def _refuses_token(failure: Failure) -> bool:
    """Whether the page token may be what is refused; the request itself was accepted before."""
    return failure.kind is ErrorKind.INVALID or "token" in failure.code.lower()


async def map_concurrently(items: Iterable[Item], work: Callable[[Item], Awaitable[None]]) -> None:
    """Do `work` for each item, several at once, so that latency does not slow the reads down.

    The first error ends it and is raised, not in a group.
    """
    queue = iter(items)
    errors: list[Exception] = []

    async def worker() -> None:
        for item in queue:
            if errors:
                return
            try:
                await work(item)
            except (ApiError, BatchSnapshotError) as error:
                errors.append(error)

    async with anyio.create_task_group() as workers:
        for _ in range(CONCURRENT_READS):
            workers.start_soon(worker)
    if errors:
        raise errors[0]


def read_failed(account: str, operation: str, failure: Failure) -> ServiceError:
    """The error for people when a read on which the work depends failed."""
    denied = failure.code == "AccessDeniedException"
    hint = f"; allow {iam_action(operation)}, which this needs" if denied else ""
    kind = DeferredError if failure.unreachable else ServiceError
    return kind(f"account {account}: {operation}: {failure.code}: {failure.message}{hint}")
