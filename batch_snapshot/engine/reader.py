"""Reads of one account, single or page by page: each takes a permit first and is one exchange.

Throttles are flow control; passing trouble is tried again; what is refused for good, and a spent
quota, end the work that depends on it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import anyio

from batch_snapshot.errors import BatchSnapshotError, DeferredError, ServiceError
from batch_snapshot.failures import retry
from batch_snapshot.models import ApiError, ErrorKind, Failure, Verdict
from batch_snapshot.operations import LISTS, iam_action
from batch_snapshot.ratelimit.pacer import WindowFullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from datetime import datetime
    from random import Random

    from batch_snapshot.engine.account import AccountState
    from batch_snapshot.ratelimit.pacer import Permit

    Call = Callable[[str, str, Mapping[str, Any]], Awaitable[dict[str, Any]]]
    Identify = Callable[[AccountState], Awaitable[None]]

#: Tries of a read; throttled ones are free.
ATTEMPTS = 8

#: Items of a page that every list gives: the documentation names fewer than the model does.
FEWER = 100

#: Times that one list is begun again because a page's token is refused, as one that has expired is.
BEGINNINGS = 3

#: Seconds of nothing but throttles at the lowest rate after which the quota is taken for spent.
PATIENCE = 300.0


#: Reads in flight at once, where one does not depend on the other.
SIDE_BY_SIDE = 8

Item = TypeVar("Item")


class Page(NamedTuple):
    """A page of a list."""

    items: list[dict[str, Any]]
    #: Of the next page; None: this was the last.
    token: str | None
    #: The list was begun again: this is its first page, and its items may have been given out before.
    anew: bool = False


class Reader:
    """Makes the reads of one account.

    Attributes:
        name: of the account.
        calls: exchanges by operation, throttled ones too.
    """

    def __init__(
        self, lane: AccountState, call: Call, identify: Identify, *, now: Callable[[], datetime], rng: Random
    ) -> None:
        """Wire the seams.

        Args:
            lane: of the account; its reads' pacer gives the permits.
            call: makes one exchange; raises `ApiError`.
            identify: finds out whose quota is spent, before the first permit; raises `ApiError`.
            now: the wall clock.
            rng: draws the jitter.
        """
        self.name = lane.name
        self.calls: Counter[str] = Counter()
        self.throttled = 0
        self._lane = lane
        self._call = call
        self._identify = identify
        self._now = now
        self._rng = rng
        self._identified = False
        #: Items of a page by operation, where the service refuses as many as its model allows.
        self._sizes: dict[str, int] = {}
        self._identifying = anyio.Lock()

    async def pages(self, operation: str, token: str | None = None, **parameters: Any) -> AsyncIterator[Page]:
        """Every page of a list, or those from `token` on; each is read when it is asked for.

        Where the token of a page is refused the list is begun again, so that items may be given out twice.

        Raises:
            ApiError: the service refuses the request.
            ServiceError: it cannot be read, or not now.
        """
        member = LISTS[operation].items
        begun, anew = 0, False
        while True:
            try:
                answer = await self._page(operation, token, parameters)
            except ApiError as error:
                begun += 1
                if token is None or begun > BEGINNINGS or not _refuses_token(error.failure):
                    raise
                token, anew = None, True
                continue
            items, following = answer.get(member), answer.get("NextToken") or None
            if not isinstance(items, list) or (following is not None and following == token):
                raise ServiceError(f"account {self.name}: {operation}: the answer is no page of a list")
            yield Page(items, following, anew)
            if following is None:
                return
            token, anew = following, False

    async def _page(self, operation: str, token: str | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """One page, of as many items as the service gives."""
        more = {} if token is None else {"NextToken": token}
        size = self._sizes.get(operation, LISTS[operation].page_size)
        try:
            return await self.read(operation, **parameters, MaxResults=size, **more)
        except ApiError as error:
            if size <= FEWER or not _refuses_size(error.failure):
                raise
        self._sizes[operation] = FEWER
        return await self.read(operation, **parameters, MaxResults=FEWER, **more)

    async def read(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Read until there is an answer.

        Raises:
            ApiError: the service refuses the request; nothing cures that.
            ServiceError: the account cannot sign, or the service stays broken.
            DeferredError: the quota of reads is spent.
            StorageError: the log of calls cannot be read or written.
        """
        failures = 0
        while True:
            answer = await self._try(operation, parameters)
            if not isinstance(answer, Failure):
                return answer
            if answer.verdict is Verdict.THROTTLED:
                if self._lane.read_pacer.starved(PATIENCE):
                    raise DeferredError(
                        f"account {self.name}: nothing but throttles for {PATIENCE:g} s at the lowest rate: "
                        "its quota of reads is spent; run the same command another time"
                    )
                continue
            if answer.verdict is Verdict.REFUSED:
                raise ApiError(answer)
            failures += 1
            if answer.verdict is Verdict.STOP_ACCOUNT or failures >= ATTEMPTS:
                raise broken(self.name, operation, answer)
            await anyio.sleep(retry.backoff(failures, self._rng))

    async def _try(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any] | Failure:
        """One exchange under its permit."""
        try:
            await self._know()
        except ApiError as error:
            return error.failure
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

    async def _know(self) -> None:
        async with self._identifying:
            if not self._identified:
                await self._identify(self._lane)
                self._identified = True

    async def _permit(self) -> Permit:
        try:
            return await self._lane.read_pacer.acquire()
        except WindowFullError as error:
            stop = self._lane.deferred(self._lane.read_pacer, error.spent, self._now())
            raise DeferredError(stop.reason) from None


def _refuses_token(failure: Failure) -> bool:
    """Whether the token of a page may be what is refused; the request itself was taken before."""
    return failure.kind is ErrorKind.INVALID or "token" in failure.code.lower()


def _refuses_size(failure: Failure) -> bool:
    return failure.kind is ErrorKind.INVALID and "maxresults" in failure.message.lower()


async def beside(items: Iterable[Item], work: Callable[[Item], Awaitable[None]]) -> None:
    """Do work for each item, several side by side, so that latency does not slow the reads down.

    The first trouble ends it, and is raised as it is.
    """
    queue = iter(items)
    troubles: list[Exception] = []

    async def worker() -> None:
        for item in queue:
            if troubles:
                return
            try:
                await work(item)
            except (ApiError, BatchSnapshotError) as error:
                troubles.append(error)

    async with anyio.create_task_group() as workers:
        for _ in range(SIDE_BY_SIDE):
            workers.start_soon(worker)
    if troubles:
        raise troubles[0]


def broken(account: str, operation: str, failure: Failure) -> ServiceError:
    """A read that the work depends on and that does not succeed, for people."""
    hint = (
        f"; allow {iam_action(operation)}, which this needs"
        if failure.code == "AccessDeniedException"
        else ""
    )
    kind = DeferredError if failure.unreachable else ServiceError
    return kind(f"account {account}: {operation}: {failure.code}: {failure.message}{hint}")
