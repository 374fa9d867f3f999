"""From a request to its answer: decided at once, without a socket and without waiting."""

import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from batch_snapshot.simulator.answers import Refusal, Response, check_engagement, denied, throttled
from batch_snapshot.simulator.faults import HANG_UP, INTERNAL_ERROR, NOTHING_DONE, broken, draw
from batch_snapshot.simulator.model import SERVICE, load_model, parse_time
from batch_snapshot.simulator.quotas import Throttle, gates
from batch_snapshot.simulator.reads import READS, ReadApi
from batch_snapshot.simulator.simulator import LoggedCall, Simulator
from batch_snapshot.simulator.world import Series, Snapshot

_CREATE: Final = "CreateResourceSnapshot"
#: All others answer UnknownOperationException.
OPERATIONS: Final = READS | {_CREATE}
#: Of calls to `/`, and of those to a path that names the operation, as other clients make them.
_CONTENT_TYPES: Final = ("application/x-amz-json-1.0", "application/json")
#: Seconds that a stray throttle asks to wait.
_STRAY_WAIT: Final = 0.1


@dataclass(slots=True)
class Call:
    """What is known of a call so far."""

    #: When it arrived, by our clock.
    at: float
    operation: str = "unknown"
    access_key: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    #: Set for a valid CreateResourceSnapshot.
    series: Series | None = None
    fault: str | None = None


class Service:
    def __init__(self, simulator: Simulator) -> None:
        settings = simulator.settings
        self._simulator = simulator
        self._settings = settings
        self._world = simulator.world
        self._model = load_model(os.environ.get("AWS_DATA_PATH"))
        self._reader = ReadApi(self._model, simulator.world, settings.read_lag)
        self._writes = Throttle(lambda: gates(settings.rate, settings.burst, settings.windows))
        self._reads = Throttle(lambda: gates(settings.read_rate, settings.read_burst))
        self._ordinal = 0

    def answer(self, call: Call, headers: Mapping[str, str], body: bytes, path: str = "/") -> Response:
        """Answer a call and log it; `call` is filled in on the way."""
        try:
            answer = self._answer(call, headers, body, path)
        except Refusal as refusal:
            answer = self._refused(refusal)
        token = call.params.get("ClientToken")
        self._simulator.note(
            LoggedCall(call.at, call.operation, call.access_key, token, answer.label, call.fault)
        )
        return answer

    def _refused(self, refusal: Refusal) -> Response:
        body = {"__type": refusal.code, "Message": refusal.message, **refusal.members}
        headers = {}
        if self._settings.retry_after and refusal.retry_after > 0:
            headers["x-amz-retry-after"] = str(math.ceil(refusal.retry_after * 1000))
        return Response(self._model.statuses[refusal.code], orjson.dumps(body), refusal.code, headers=headers)

    def _answer(self, call: Call, headers: Mapping[str, str], body: bytes, path: str) -> Response:
        self._route(call, headers, path)
        # Clients sign by their real clock, whatever clock the world runs on.
        call.access_key = check_signature(headers, time.time() + self._settings.clock_offset)
        try:
            params = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Refusal("SerializationException", f"The request's body is no JSON: {error}") from None
        self._model.validate(call.operation, params)
        call.params = params
        if call.operation == _CREATE:
            call.series = Series.of(params)
            return self._create(call)
        self._admit(self._reads, call)
        check_engagement(call.operation, params.get("EngagementIdentifier"), create=False)
        result = self._reader.read(call.operation, params, self._server_time(call))
        return Response(200, orjson.dumps(result), "ok")

    def _route(self, call: Call, headers: Mapping[str, str], path: str) -> None:
        """Find the operation by the header, by a path such as /ListEngagements, or by both."""
        named = path.strip("/")
        target = headers.get("X-Amz-Target", f"{self._model.target_prefix}.{named}" if named else "")
        prefix, _, operation = target.partition(".")
        content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if prefix == self._model.target_prefix and operation in self._model.inputs:
            call.operation = operation
        known = call.operation in OPERATIONS and named in {"", operation}
        if not known or content_type not in (_CONTENT_TYPES if named else _CONTENT_TYPES[:1]):
            raise Refusal("UnknownOperationException", "The requested operation is not recognized")

    def _create(self, call: Call) -> Response:
        at = self._server_time(call)
        made = None
        if self._settings.token_check == "first":  # noqa: S105 - no secret
            made = self._world.made_by_token(call.params, at)
        if made is None:
            self._admit(self._writes, call)
            check_engagement(_CREATE, call.params["EngagementIdentifier"], create=True)
            made = self._world.made_by_token(call.params, at)
        if made is None:
            self._world.check_changed(call.params)
        ordinal, self._ordinal = self._ordinal, self._ordinal + 1
        call.fault = self._settings.faults.pick(self._settings.seed, ordinal, call.params)
        if call.fault is None:
            return self._work(call, made)
        return self._break(call, call.fault, ordinal, made)

    def _work(self, call: Call, made: Snapshot | None) -> Response:
        snapshot = made or self._world.create(call.params, call.access_key, self._server_time(call))
        result = {"Arn": snapshot.arn, "Revision": snapshot.revision}
        return Response(200, orjson.dumps(result), "replay" if made else "ok")

    def _break(self, call: Call, kind: str, ordinal: int, made: Snapshot | None) -> Response:
        faults = self._settings.faults
        if kind == "throttle":
            raise throttled(_STRAY_WAIT)
        if kind == "late":
            if made is None:
                self._postpone(call)
            return INTERNAL_ERROR if draw(self._settings.seed, ordinal, "late") < 0.5 else HANG_UP
        if kind in NOTHING_DONE:
            return broken(kind, INTERNAL_ERROR, faults)
        return broken(kind, self._work(call, made), faults)

    def _postpone(self, call: Call) -> None:
        """Do the work later; the token conflicts until then."""
        self._world.hold(call.params, self._server_time(call))

        def work() -> None:
            self._world.release(call.params)
            try:
                self._world.create(call.params, call.access_key, self._simulator.clock())
            except Refusal:
                # Another call did the work first, and this one is answered already.
                return

        self._simulator.later(self._settings.faults.late_delay, work)

    def _admit(self, throttle: Throttle, call: Call) -> None:
        if call.access_key.startswith("AKIADENIED") or call.operation in self._settings.denied:
            raise denied(call.operation)
        wait = throttle.admit(call.access_key, call.at)
        if wait > 0:
            raise throttled(wait)

    def _server_time(self, call: Call) -> float:
        return call.at + self._settings.clock_offset


# -- signatures -------------------------------------------------------------------------------------------

#: Seconds by which AWS lets a signature's date differ from its own clock.
_TOLERANCE: Final = 300.0
_STAMP: Final = "%Y%m%dT%H%M%SZ"
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
        raise Refusal("MissingAuthenticationTokenException", "Missing Authentication Token")
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None or stamp is None:
        what = "Authorization header is malformed" if match is None else "X-Amz-Date is missing"
        message = f"{what}. Authorization={authorization.partition(' ')[0]!a}"
        raise Refusal("IncompleteSignatureException", message)
    # The basic form alone: ISO 8601 has others.
    signed_at = parse_time(stamp) if len(stamp) == len("20260301T120000Z") else None
    if signed_at is None:
        message = f"Date must be in ISO-8601 'basic format'. Got: {stamp!a}"
        raise Refusal("IncompleteSignatureException", message)
    problem = _scope_problem(match, stamp) or _age_problem(stamp, signed_at, clock)
    if problem:
        raise Refusal("InvalidSignatureException", problem)
    key = match["key"]
    if key.startswith("AKIAEXPIRED"):
        raise Refusal("ExpiredTokenException", "The security token included in the request is expired")
    if key.startswith("AKIAUNKNOWN"):
        raise Refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
    return key


def _scope_problem(match: re.Match[str], stamp: str) -> str | None:
    if match["service"] != SERVICE:
        return f"Credential should be scoped to correct service: '{SERVICE}'."
    if match["date"] != stamp[:8]:
        return f"Date in Credential scope does not match YYYYMMDD of X-Amz-Date: {match['date']}, {stamp}"
    missing = {"host", "x-amz-date"} - set(match["headers"].split(";"))
    return f"'{min(missing)}' must be a 'SignedHeader' in the AWS Authorization." if missing else None


def _age_problem(stamp: str, signed_at: float, clock: float) -> str | None:
    if abs(signed_at - clock) <= _TOLERANCE:
        return None
    late = signed_at < clock
    bound, server = (
        datetime.fromtimestamp(at, UTC).strftime(_STAMP)
        for at in (clock - _TOLERANCE if late else clock + _TOLERANCE, clock)
    )
    if late:
        return f"Signature expired: {stamp} is now earlier than {bound} ({server} - 5 min.)"
    return f"Signature not yet current: {stamp} is still later than {bound} ({server} + 5 min.)"
