"""From a request to its answer: decided at once, without a socket and without waiting."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from batch_snapshot.simulator import signature
from batch_snapshot.simulator.answers import Refusal, check_engagement, denied, refused, success, throttled
from batch_snapshot.simulator.faults import HANG_UP, INTERNAL_ERROR, NOTHING_DONE, broken, draw
from batch_snapshot.simulator.model import OPERATIONS, load_model
from batch_snapshot.simulator.quotas import Throttle, gates
from batch_snapshot.simulator.reads import ReadApi
from batch_snapshot.simulator.simulator import LoggedCall
from batch_snapshot.simulator.world import Series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_snapshot.simulator.answers import Response
    from batch_snapshot.simulator.simulator import Simulator
    from batch_snapshot.simulator.world import Snapshot

_CREATE: Final = "CreateResourceSnapshot"
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
    """Answers calls out of a simulator's world."""

    def __init__(self, simulator: Simulator) -> None:
        settings = simulator.settings
        self._simulator = simulator
        self._settings = settings
        self._world = simulator.world
        self._model = load_model()
        self._reader = ReadApi(simulator.world, settings.read_lag)
        self._writes = Throttle(lambda: gates(settings.rate, settings.burst, settings.windows))
        self._reads = Throttle(lambda: gates(settings.read_rate, settings.read_burst))
        self._ordinal = 0

    def answer(self, call: Call, headers: Mapping[str, str], body: bytes, path: str = "/") -> Response:
        """Answer a call and log it; `call` is filled in on the way."""
        try:
            answer = self._answer(call, headers, body, path)
        except Refusal as refusal:
            answer = refused(refusal, self._model.statuses, hint=self._settings.retry_after)
        token = call.params.get("ClientToken")
        self._simulator.note(
            LoggedCall(call.at, call.operation, call.access_key, token, answer.label, call.fault)
        )
        return answer

    def _answer(self, call: Call, headers: Mapping[str, str], body: bytes, path: str) -> Response:
        self._route(call, headers, path)
        # Clients sign by their real clock, whatever clock the world runs on.
        call.access_key = signature.check(headers, time.time() + self._settings.clock_offset)
        try:
            params = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Refusal("SerializationException", f"The request's body is no JSON: {error}") from None
        self._model.validate(call.operation, params)
        call.params = params
        if call.operation == _CREATE:
            call.series = Series.of(params)
            return self._create(call)
        self._authorize(call)
        self._admit(self._reads, call)
        check_engagement(call.operation, params.get("EngagementIdentifier"), create=False)
        return success(self._reader.read(call.operation, params, self._server_time(call)))

    def _route(self, call: Call, headers: Mapping[str, str], path: str) -> None:
        """Find the operation by the header, by a path such as /ListEngagements, or by both."""
        named = path.strip("/")
        target = headers.get("X-Amz-Target", f"{self._model.target_prefix}.{named}" if named else "")
        prefix, _, operation = target.partition(".")
        content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if prefix == self._model.target_prefix and operation in self._model.operations:
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
            self._authorize(call)
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
        label = "ok" if made is None else "replay"
        snapshot = made or self._world.create(call.params, call.access_key, self._server_time(call))
        return success({"Arn": snapshot.arn, "Revision": snapshot.revision}, label)

    def _break(self, call: Call, kind: str, ordinal: int, made: Snapshot | None) -> Response:
        faults = self._settings.faults
        if kind == "throttle":
            raise throttled(_STRAY_WAIT)
        if kind == "late":
            answer = INTERNAL_ERROR if draw(self._settings.seed, ordinal, "late") < 0.5 else HANG_UP
            return answer if made else self._postpone(call, answer)
        if kind in NOTHING_DONE:
            return broken(kind, INTERNAL_ERROR, faults)
        return broken(kind, self._work(call, made), faults)

    def _postpone(self, call: Call, answer: Response) -> Response:
        """Answer now and do the work later; the token conflicts until then."""
        params, access_key = call.params, call.access_key
        self._world.hold(params, self._server_time(call))

        def work() -> None:
            self._world.release(params)
            try:
                self._world.create(params, access_key, self._simulator.clock())
            except Refusal:
                # Another call did the work first, and this one is answered already.
                return

        self._simulator.later(self._settings.faults.late_delay, work)
        return answer

    def _authorize(self, call: Call) -> None:
        if call.access_key.startswith("AKIADENIED"):
            raise denied(call.operation)

    def _admit(self, throttle: Throttle, call: Call) -> None:
        wait = throttle.admit(call.access_key, call.at)
        if wait > 0:
            raise throttled(wait)

    def _server_time(self, call: Call) -> float:
        return call.at + self._settings.clock_offset
