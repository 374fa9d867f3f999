"""The simulated service: it answers requests at once, without a socket, and records what was asked."""

import asyncio
import math
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final, NamedTuple

import orjson

from batch_snapshot.simulator.answers import (
    CREATE,
    Refusal,
    Response,
    check_engagement,
    denied,
    forbidden,
    throttled,
)
from batch_snapshot.simulator.faults import HANG_UP, INTERNAL_ERROR, NOTHING_DONE, broken, draw
from batch_snapshot.simulator.model import SERVICE, load_model, parse_time, validate
from batch_snapshot.simulator.quotas import Throttle
from batch_snapshot.simulator.reads import READS, ReadApi
from batch_snapshot.simulator.settings import SimulatorSettings
from batch_snapshot.simulator.world import Series, Snapshot, World

#: All others answer UnknownOperationException.
OPERATIONS: Final = READS | {CREATE}
#: Of calls to `/`, and of those to a path that names the operation, as other clients make them.
_CONTENT_TYPES: Final = ("application/x-amz-json-1.0", "application/json")
#: Seconds that a stray throttle asks to wait.
_STRAY_WAIT: Final = 0.1


class LoggedCall(NamedTuple):
    #: When it arrived, seconds since the epoch by our clock (not the server's).
    time: float
    operation: str
    access_key: str
    client_token: str | None
    #: `ok`, `replay`, the error's code, or what a fault sent instead: `http-503`, `reset`, `hang-up`,
    #: `cut`, `junk`.
    answer: str
    #: The fault that hit it.
    fault: str | None


@dataclass(slots=True, eq=False)
class Call:
    """What is known of a call so far."""

    #: When it arrived, by our clock and by the server's.
    at: float
    server_at: float
    #: Whether its client is still there.
    is_open: Callable[[], bool]
    operation: str = "unknown"
    access_key: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    #: Set for a valid CreateResourceSnapshot.
    series: Series | None = None
    fault: str | None = None


class Simulator:
    def __init__(
        self, settings: SimulatorSettings | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings = settings or SimulatorSettings()
        self.world = World(settings)
        #: In the order in which they were made.
        self.snapshots: list[Snapshot] = self.world.snapshots
        #: The time by our clock; the server's is `clock_offset` ahead.
        self.now = now
        #: How many calls each operation met, refused ones too.
        self.calls: Counter[str] = Counter()
        #: How many calls each kind of fault hit.
        self.faults: Counter[str] = Counter()
        #: How many ThrottlingExceptions were answered.
        self.throttled = 0
        #: The most calls that were in flight at once.
        self.max_in_flight = 0
        #: How often a CreateResourceSnapshot arrived while another of the same catalog, engagement, resource
        #: type, resource and template was in flight on an open connection.
        self.pair_overlaps = 0
        #: The last million calls, in the order in which they were answered.
        self.log: deque[LoggedCall] = deque(maxlen=1_000_000)
        self._in_flight: set[Call] = set()
        self._late_work: set[asyncio.Task[None]] = set()
        self._model = load_model(os.environ.get("AWS_DATA_PATH"))
        self._reader = ReadApi(self._model, self.world, settings.read_lag)
        self._writes = Throttle(settings.rate, settings.burst, settings.windows)
        self._reads = Throttle(settings.read_rate, settings.read_burst)
        self._ordinals = count()

    def touch(self, opportunity: str) -> float:
        """Modify an opportunity now; return its LastModifiedDate in seconds since the epoch."""
        return self.world.touch(opportunity, self.now() + self.settings.clock_offset)

    def record(self) -> dict[str, Any]:
        """Sum up what happened; everything in it can be written as JSON."""
        return {
            "calls": dict(self.calls),
            "faults": dict(self.faults),
            "throttled": self.throttled,
            "max_in_flight": self.max_in_flight,
            "pair_overlaps": self.pair_overlaps,
            "late_pending": len(self._late_work),
            "snapshots": [asdict(snapshot) for snapshot in self.snapshots],
        }

    async def settled(self) -> None:
        while self._late_work:
            await asyncio.wait(self._late_work)

    async def close(self) -> None:
        late = list(self._late_work)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self.world.close()

    @contextmanager
    def in_flight(self, is_open: Callable[[], bool]) -> Iterator[Call]:
        """A call that has arrived, until its answer is sent."""
        at = self.now()
        call = Call(at, at + self.settings.clock_offset, is_open)
        self._in_flight.add(call)
        self.max_in_flight = max(self.max_in_flight, len(self._in_flight))
        try:
            yield call
        finally:
            self._in_flight.remove(call)

    def answer(self, call: Call, headers: Mapping[str, str], body: bytes, path: str = "/") -> Response:
        """Answer a call, count it and log it; `call` is filled in on the way."""
        try:
            answer = self._answer(call, headers, body, path)
        except Refusal as refusal:
            answer = self._refused(refusal)
        self.calls[call.operation] += 1
        if call.fault is not None:
            self.faults[call.fault] += 1
        self.throttled += answer.label == "ThrottlingException"
        token = call.params.get("ClientToken")
        self.log.append(LoggedCall(call.at, call.operation, call.access_key, token, answer.label, call.fault))
        if call.series is not None:
            self.pair_overlaps += any(
                one.series == call.series and one is not call and one.is_open() for one in self._in_flight
            )
        return answer

    def _refused(self, refusal: Refusal) -> Response:
        body = {"__type": refusal.code, "Message": refusal.message, **refusal.members}
        headers = {}
        if self.settings.retry_after and refusal.retry_after > 0:
            headers["x-amz-retry-after"] = str(math.ceil(refusal.retry_after * 1000))
        return Response(refusal.status, orjson.dumps(body), refusal.code, headers=headers)

    def _answer(self, call: Call, headers: Mapping[str, str], body: bytes, path: str) -> Response:
        self._route(call, headers, path)
        # Clients sign by their real clock, whatever clock the world runs on.
        call.access_key = check_signature(headers, time.time() + self.settings.clock_offset)
        try:
            params = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Refusal("SerializationException", f"The request's body is no JSON: {error}") from None
        validate(self._model.operation_model(call.operation).input_shape, params)
        call.params = params
        if call.operation == CREATE:
            call.series = Series.of(params)
            return self._create(call)
        self._admit(self._reads, call)
        check_engagement(call.operation, params)
        result = self._reader.read(call.operation, params, call.server_at)
        return Response(200, orjson.dumps(result), "ok")

    def _route(self, call: Call, headers: Mapping[str, str], path: str) -> None:
        """Find the operation by the header, by a path such as /ListEngagements, or by both."""
        named, own_prefix = path.strip("/"), self._model.metadata["targetPrefix"]
        target = headers.get("X-Amz-Target", f"{own_prefix}.{named}" if named else "")
        prefix, _, operation = target.partition(".")
        content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if prefix == own_prefix and operation in self._model.operation_names:
            call.operation = operation
        known = call.operation in OPERATIONS and named in {"", operation}
        if not known or content_type not in (_CONTENT_TYPES if named else _CONTENT_TYPES[:1]):
            raise Refusal("UnknownOperationException", "The requested operation is not recognized")

    def _create(self, call: Call) -> Response:
        world, faults, seed = self.world, self.settings.faults, self.settings.seed
        made = None
        if self.settings.token_check == "first":  # noqa: S105 - no secret
            made = world.made_by_token(call.params, call.server_at)
        if made is None:
            self._admit(self._writes, call)
            check_engagement(CREATE, call.params)
            made = world.made_by_token(call.params, call.server_at)
        if made is None:
            world.check_changed(call.params)
        ordinal = next(self._ordinals)
        call.fault = faults.pick(seed, ordinal, call.params)
        if call.fault == "throttle":
            raise throttled(_STRAY_WAIT)
        if call.fault == "late":
            if made is None:
                world.hold(call.params, call.server_at)
                task = asyncio.get_running_loop().create_task(self._work_late(call))
                self._late_work.add(task)
                task.add_done_callback(self._late_work.discard)
            return INTERNAL_ERROR if draw(seed, ordinal, "late") < 0.5 else HANG_UP
        if call.fault in NOTHING_DONE:
            return broken(call.fault, INTERNAL_ERROR, faults)
        snapshot = made or world.create(call.params, call.access_key, call.server_at)
        body = orjson.dumps({"Arn": snapshot.arn, "Revision": snapshot.revision})
        whole = Response(200, body, "replay" if made else "ok")
        return broken(call.fault, whole, faults) if call.fault else whole

    async def _work_late(self, call: Call) -> None:
        await asyncio.sleep(self.settings.faults.late_delay)
        self.world.release(call.params)
        # Refused where another call did the work first; this one is answered already.
        with suppress(Refusal):
            self.world.create(call.params, call.access_key, self.now() + self.settings.clock_offset)

    def _admit(self, throttle: Throttle, call: Call) -> None:
        if call.access_key.startswith("AKIADENIED") or call.operation in self.settings.denied:
            raise denied(call.operation)
        wait = throttle.admit(call.access_key, call.at)
        if wait > 0:
            raise throttled(wait)


# -- signatures -------------------------------------------------------------------------------------------

#: Seconds by which AWS lets a signature's date differ from its own clock.
_TOLERANCE: Final = 300.0
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<key>[\w-]{1,128})/(?P<date>\d{8})/(?P<region>[a-z0-9-]+)/"
    r"(?P<service>[a-z0-9-]+)/aws4_request, *SignedHeaders=(?P<headers>[a-z0-9;-]+), *"
    r"Signature=[0-9a-f]{64}",
    re.ASCII,
)


def check_signature(headers: Mapping[str, str], clock: float) -> str:
    """The access key id of a request whose SigV4 signature has the form that AWS wants.

    Secrets are not known here, so the signature's value is not checked. `clock` is the server's time.
    """
    authorization, stamp = headers.get("Authorization"), headers.get("X-Amz-Date")
    if authorization is None:
        raise forbidden("MissingAuthenticationTokenException", "Missing Authentication Token")
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None or stamp is None:
        what = "Authorization header is malformed" if match is None else "X-Amz-Date is missing"
        message = f"{what}. Authorization={authorization.partition(' ')[0]!a}"
        raise forbidden("IncompleteSignatureException", message)
    # The basic form alone: ISO 8601 has others.
    signed_at = parse_time(stamp) if len(stamp) == len("20260301T120000Z") else None
    if signed_at is None:
        message = f"Date must be in ISO-8601 'basic format'. Got: {stamp!a}"
        raise forbidden("IncompleteSignatureException", message)
    if problem := _scope_problem(match, stamp) or _age_problem(stamp, signed_at, clock):
        raise forbidden("InvalidSignatureException", problem)
    key = match["key"]
    if key.startswith("AKIAEXPIRED"):
        raise forbidden("ExpiredTokenException", "The security token included in the request is expired")
    if key.startswith("AKIAUNKNOWN"):
        raise forbidden(
            "UnrecognizedClientException", "The security token included in the request is invalid."
        )
    return key


def _scope_problem(match: re.Match[str], stamp: str) -> str | None:
    if match["service"] != SERVICE:
        return f"Credential should be scoped to correct service: '{SERVICE}'."
    if match["date"] != stamp[:8]:
        return f"Date in Credential scope does not match YYYYMMDD of X-Amz-Date: {match['date']}, {stamp}"
    missing = {"host", "x-amz-date"} - set(match["headers"].split(";"))
    return f"'{min(missing)}' must be a 'SignedHeader' in the AWS Authorization." if missing else None


def _age_problem(stamp: str, signed_at: float, clock: float) -> str | None:
    off = signed_at - clock
    if abs(off) <= _TOLERANCE:
        return None
    bound, server = (
        datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
        for at in (clock + math.copysign(_TOLERANCE, off), clock)
    )
    if off < 0:
        return f"Signature expired: {stamp} is now earlier than {bound} ({server} - 5 min.)"
    return f"Signature not yet current: {stamp} is still later than {bound} ({server} + 5 min.)"
