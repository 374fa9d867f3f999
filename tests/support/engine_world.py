"""An engine in virtual time, with a service, a ledger and quota windows that are made of functions."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any

import anyio

from batch_snapshot.cluster.coordinator import Coordinator
from batch_snapshot.config.options import Settings
from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.pool import Engine
from batch_snapshot.engine.seams import Seams
from batch_snapshot.errors import LedgerWriteError, StorageError
from batch_snapshot.failures.error_codes import client_failure, service_failure
from batch_snapshot.models import ApiError, Failure, Receipt, Request, Row, client_token
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.pacer import Pacer
from batch_snapshot.ratelimit.windows import DAY, QuotaWindow, WindowFull
from tests.support.cluster_world import FakeWorkers

START = datetime(2026, 3, 1, tzinfo=UTC)


def now():
    return START + timedelta(seconds=anyio.current_time())


def refusal(code, status=400, **more):
    return service_failure(code=code, message=f"{code} was said", http_status=status, **more)


THROTTLED = refusal("ThrottlingException")
DENIED = refusal("AccessDeniedException")
CONFLICT = refusal("ConflictException")
BROKEN = refusal("InternalServerException", 500)
REFUSED_CONNECTION = client_failure(["ClientConnectorError", "Exception"], "refused")
INVALID = refusal("ValidationException")
EXPIRED = refusal("ExpiredTokenException", 403)


def requests(count, account="main", engagement=None):
    for number in range(count):
        row = Row(account, "Sandbox", engagement or f"eng-{number:014}", "Opportunity", f"O{number}", "View")
        yield Request(row, client_token("run", row, 0))


def doubtful(age, **more):
    row = Row("main", "Sandbox", "eng-1", "Opportunity", "O1", "View")
    return Request(row, "token", ambiguous=True, first_sent_at=START - timedelta(seconds=age), **more)


class World:
    """A service, a ledger and an engine between them: the local one, or a cluster's."""

    #: Of every world that names none.
    engine_kind = "local"

    def __init__(
        self,
        *,
        fate=None,
        latency=0.1,
        answer=None,
        look=None,
        first_read=None,
        whose=None,
        accounts=("main",),
        rate=None,
        wait=False,
        **bounds,
    ):
        self.latency = latency
        self.answer = answer or (lambda request, nth: None)
        self.look = look or (lambda request: None)
        self.first_read = first_read or (lambda request: None)
        self.whose = whose or (lambda account: None)
        self.identified, self.probed = [], []
        self.sent, self.looked, self.outcomes, self.intended = [], [], [], []
        self.in_flight: Counter[tuple[str, ...]] = Counter()
        self.overlaps = 0
        self.peak = 0
        self.full = False
        self.sent_until_full = 0
        self.skew = None
        start = pace.declared(rate) if rate else pace.Pace()
        seams = Seams(
            intend=self.intend,
            send=self.send,
            record=self.record,
            look_up=self.look_up,
            identify=self.identify,
            probe=self.probe,
            clock_skew=lambda _: self.skew,
            now=now,
            rng=Random(7),
        )
        states = {
            name: AccountState(name, Pacer(start, wait=wait), Pacer(pace.declared(10), wait=wait))
            for name in accounts
        }
        settings = Settings(**bounds)
        if self.engine_kind == "local":
            self.engine: Any = Engine(states, seams, settings)
            return
        service = SimpleNamespace(
            send=self.send, look_up=self.look_up, clock_skew=seams.clock_skew, identify=self.recognise
        )
        self.workers = FakeWorkers(service, settings, now, fate or (lambda _: None))
        self.engine = Coordinator(states, seams, settings, self.workers)  # type: ignore[arg-type]

    async def send(self, request):
        pair = request.row[1:3] + request.row[4:5]
        assert request.row in self.intended, "sent before its intent was durable"
        self.in_flight[pair] += 1
        self.overlaps += self.in_flight[pair] > 1
        self.peak = max(self.peak, self.in_flight.total())
        nth = sum(1 for _, earlier in self.sent if earlier.row == request.row)
        self.sent.append((anyio.current_time(), request))
        try:
            await anyio.sleep(self.latency(request) if callable(self.latency) else self.latency)
        finally:
            self.in_flight[pair] -= 1
        failure = self.answer(request, nth)
        if failure:
            raise ApiError(failure)
        return Receipt(f"arn:{request.client_token}", 1, "req")

    async def look_up(self, request):
        self.looked.append((anyio.current_time(), request))
        found = self.look(request)
        if isinstance(found, Failure):
            raise ApiError(found)
        return found

    async def identify(self, account):
        self.identified.append(
            (account.name, account.pacer.pace.next_call_at, account.read_pacer.pace.next_call_at)
        )
        await anyio.sleep(0.5)
        failure = self.whose(account)
        if failure:
            raise ApiError(failure) if isinstance(failure, Failure) else failure

    async def recognise(self, account):
        return f"aws:{account}"

    async def probe(self, request):
        self.probed.append((len(self.sent), request.row.account, request.row.catalog))
        failure = self.first_read(request)
        if failure:
            raise ApiError(failure)

    async def intend(self, batch):
        await anyio.sleep(0.01)
        self.intended += [request.row for request in batch]

    def record(self, outcome):
        if self.full:
            self.sent_until_full = self.sent_until_full or len(self.sent)
            raise LedgerWriteError("disk full")
        self.outcomes.append(outcome)

    async def run(self, rows, size=16):
        rows = list(rows)
        await self.engine.run(rows[at : at + size] for at in range(0, len(rows), size))

    def ending(self):
        assert self.engine.ending is not None
        return self.engine.ending

    def statuses(self):
        return Counter(outcome.status for outcome in self.outcomes)


class Windows:
    """A window of so many calls; all of it opens again at `opens_at`."""

    def __init__(self, limit, opens_at=float("inf"), width=None):
        self.limit, self.opens_at = limit, opens_at
        self.width = width or QuotaWindow("per_day", 10_000, DAY)
        self.in_flight, self.used, self.reserved = set(), 0, 0
        self.broken = set()
        #: When a call was asked for, and how each reservation ended.
        self.looks, self.ended = [], []

    def reserve(self):
        self._fail_if_broken("reserve")
        at = anyio.current_time()
        self.looks.append(at)
        if self.used + len(self.in_flight) >= self.limit and at < self.opens_at:
            return WindowFull(self.width, self.opens_at - at)
        self.reserved += 1
        self.in_flight.add(self.reserved)
        return self.reserved

    def free_calls(self):
        full = self.used + len(self.in_flight) >= self.limit and anyio.current_time() < self.opens_at
        return 0 if full else max(1, self.limit - self.used - len(self.in_flight))

    def finish(self, reservation):
        self._fail_if_broken("finish")
        self.in_flight.remove(reservation)
        self.ended.append(("finish", reservation))
        self.used += 1

    def cancel(self, reservation):
        self.in_flight.remove(reservation)
        self.ended.append(("cancel", reservation))

    def _fail_if_broken(self, what):
        if what in self.broken:
            raise StorageError("the log of calls cannot be written")
