"""A simulated Partner Central, and clients of the real code that call it without HTTP.

It remembers tokens for a while, and its record says what was made. Work can go on after an answer was lost,
reads lag behind, and its clock is off. Faults are drawn by row and try: leaving one out changes no other.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import anyio

from batch_snapshot.aws.client import Clients, _AccountClient
from batch_snapshot.failures.error_codes import client_failure, service_failure
from batch_snapshot.models import ApiError, Failure
from tests.simulation.scenario import Scenario

#: Seconds after which a call without an answer is given up.
GIVEN_UP = 90.0

KEYS = (
    "Catalog",
    "EngagementIdentifier",
    "ResourceType",
    "ResourceIdentifier",
    "ResourceSnapshotTemplateIdentifier",
)
Key = tuple[str, ...]


def refusal(code: str, status: int = 400) -> Failure:
    return service_failure(code=code, message=code, http_status=status)


NO_ANSWER = client_failure(["TimeoutError"], "no answer")
REFUSED_CONNECTION = client_failure(["ClientConnectorError"], "refused", unconnected=True)
REFUSALS = {
    "denied": refusal("AccessDeniedException", 403),
    "invalid": refusal("ValidationException"),
    "expired": refusal("ExpiredTokenException", 403),
    "quota": refusal("ServiceQuotaExceededException", 402),
}


@dataclass(frozen=True)
class Snapshot:
    arn: str
    revision: int
    token: str
    #: True seconds; `seen` is when reads show it.
    made: float
    seen: float


@dataclass
class Service:
    scenario: Scenario
    #: True seconds, which nobody in the program knows.
    true_now: Callable[[], float]
    #: Called wherever a crash is possible.
    point: Callable[[str], None]
    #: Receives what contradicts an invariant.
    violation: Callable[[str], None]
    note: Callable[[str], None]
    #: Whether a write of this invocation has failed: nothing may be sent after it.
    cannot_record: Callable[[], bool]
    snapshots: dict[Key, list[Snapshot]] = field(default_factory=dict)
    #: By token: when and what it made.
    tokens: dict[str, tuple[float, Snapshot]] = field(default_factory=dict)
    #: Work that goes on after its answer was lost: when it is done, its token and its key.
    late: list[tuple[float, str, Key]] = field(default_factory=list)
    #: Every (key, token) that ever arrived as a create.
    arrived: set[tuple[Key, str]] = field(default_factory=set)
    #: By account: when creates arrived.
    arrivals: dict[str, deque[float]] = field(default_factory=dict)
    tries: Counter[Key] = field(default_factory=Counter)
    #: By key without its template.
    in_flight: Counter[Key] = field(default_factory=Counter)
    tokens_left: dict[str, tuple[float, float]] = field(default_factory=dict)
    #: No faults any more.
    calm: bool = False

    def clock(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.true_now())

    async def answer(self, account: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        key = tuple(str(parameters[name]) for name in KEYS)
        if operation == "CreateResourceSnapshot":
            return await self._create(account, key, str(parameters["ClientToken"]))
        return await self._get(key)

    def finish_late_work(self, *, everything: bool = False) -> None:
        for item in sorted(self.late):
            at, token, key = item
            if everything or at <= self.true_now():
                self.late.remove(item)
                self._make(key, token, at)

    async def _create(self, account: str, key: Key, token: str) -> dict[str, Any]:
        self.point("call")
        self.tries[key] += 1
        rng = Random(f"{self.scenario.seed} {key} {self.tries[key]}")
        fate = "ok" if self.calm else self.scenario.draw_fate(rng)
        if fate == "unreachable":
            await anyio.sleep(rng.uniform(0, 3))
            raise ApiError(REFUSED_CONNECTION)
        self._arrive(account, key, token)
        try:
            return await self._handle(account, key, token, fate, rng)
        finally:
            self.in_flight[key[:-1]] -= 1

    async def _handle(self, account: str, key: Key, token: str, fate: str, rng: Random) -> dict[str, Any]:
        latency = rng.choice([0.05, 0.08, 0.3, 2.0])
        if fate == "throttled" or not self._take_token(account):
            await anyio.sleep(0.05)
            raise ApiError(refusal("ThrottlingException", 429))
        await anyio.sleep(latency / 3)
        self.point("at the service")
        if fate in REFUSALS:
            raise ApiError(REFUSALS[fate])
        self.finish_late_work()
        if any(token == other for _, other, _ in self.late):
            raise ApiError(refusal("ConflictException", 409))
        try:
            return await self._work(key, token, fate, latency, rng)
        except BaseException as error:
            # The caller is gone, and the service does not know.
            if not isinstance(error, ApiError) and token not in self.tokens and rng.random() < 0.7:
                self.late.append((self.true_now() + rng.uniform(0, 80), token, key))
            raise

    async def _work(self, key: Key, token: str, fate: str, latency: float, rng: Random) -> dict[str, Any]:
        await anyio.sleep(latency / 3)
        if fate in {"broken before", "lost before"}:
            await self._no_answer(fate, latency)
        if fate == "late":
            self.late.append((self.true_now() + rng.uniform(0, 80), token, key))
            await self._no_answer(fate, latency)
        made = self._make(key, token, self.true_now())
        self.point("made")
        if fate in {"broken after", "lost after"}:
            await self._no_answer(fate, latency)
        await anyio.sleep(latency / 3)
        return {"Arn": made.arn, "Revision": made.revision}

    async def _no_answer(self, fate: str, latency: float) -> None:
        if fate.startswith("broken"):
            await anyio.sleep(latency / 3)
            raise ApiError(refusal("InternalServerException", 500))
        await anyio.sleep(GIVEN_UP)
        raise ApiError(NO_ANSWER)

    async def _get(self, key: Key) -> dict[str, Any]:
        self.point("read")
        await anyio.sleep(0.05)
        self.finish_late_work()
        if self.scenario.reads_denied and not self.calm:
            raise ApiError(REFUSALS["denied"])
        seen = [one for one in self.snapshots.get(key, ()) if one.seen <= self.true_now()]
        if not seen:
            raise ApiError(refusal("ResourceNotFoundException", 404))
        last = seen[-1]
        created = self.clock() + timedelta(seconds=self.scenario.skew + last.made - self.true_now())
        return {"Arn": last.arn, "Revision": last.revision, "CreatedAt": created}

    def _arrive(self, account: str, key: Key, token: str) -> None:
        now = self.true_now()
        if self.cannot_record():
            self.violation(f"{key} was sent after a write had failed")
        self.arrived.add((key, token))
        self.in_flight[pair := key[:-1]] += 1
        if self.in_flight[pair] > 1:
            self.violation(f"two calls of {pair} in flight")
        times = self.arrivals.setdefault(account, deque())
        times.append(now)
        limit = self.scenario.per_minute
        while times[0] <= now - 60:
            times.popleft()
        if limit and len(times) > limit:
            self.violation(f"{len(times)} calls within a minute for {account}, {limit} are declared")

    def _take_token(self, account: str) -> bool:
        rate, burst = self.scenario.service_rate, self.scenario.service_burst
        left, since = self.tokens_left.get(account, (burst, 0.0))
        left = min(burst, left + (self.true_now() - since) * rate)
        taken = left >= 1
        self.tokens_left[account] = (left - taken, self.true_now())
        return taken

    def _make(self, key: Key, token: str, at: float) -> Snapshot:
        known = self.tokens.get(token)
        if known and at - known[0] < self.scenario.token_memory:
            return known[1]
        before = self.snapshots.setdefault(key, [])
        arn = f"arn:aws:partnercentral:::catalog/{key[0]}/engagement/{key[1]}/resource/{key[2]}/{key[3]}"
        made = Snapshot(arn, len(before) + 1, token, at, at + self.scenario.read_lag)
        before.append(made)
        self.tokens[token] = (at, made)
        self.note(f"service: {key[1]}/{key[3]} revision {made.revision} under {token[:8]}")
        if sum(one.token != "" for one in before) > 1:
            self.violation(f"{key} has two snapshots")
        return made


class SimulatedClients(Clients):
    """The real clients, but for the exchange itself."""

    service: Service

    async def read(self, account: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        client = self._clients.setdefault(account, _AccountClient(None, None))
        skew = timedelta(seconds=self.service.scenario.skew)
        try:
            answer = await self.service.answer(account, operation, parameters)
        except ApiError as error:
            if error.failure.http_status:
                client.dated = (self.service.clock() + skew).replace(microsecond=0), self._elapsed()
            raise
        client.dated = (self.service.clock() + skew).replace(microsecond=0), self._elapsed()
        return answer

    async def identify(self, account: str) -> str:
        self.service.point("sign")
        return await self.quota_owner(account)
