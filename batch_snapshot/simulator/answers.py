"""Answers as values: what goes over the wire is decided first, and sent by `server`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batch_snapshot.simulator.faults import Faults
    from batch_snapshot.simulator.refusals import Refusal

_JSON: Final = "application/x-amz-json-1.0"
_HUGE: Final = 5_000_000


class Delivery(Enum):
    """How an answer leaves."""

    #: As HTTP wants it.
    WHOLE = auto()
    #: Part of the declared body, then the connection is closed.
    CUT = auto()
    #: Nothing; the connection is reset.
    RESET = auto()
    #: Nothing; the connection is closed.
    HANG_UP = auto()


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int
    body: bytes
    #: What the log calls it.
    label: str
    content_type: str = _JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    delivery: Delivery = Delivery.WHOLE
    #: Seconds beyond the latency.
    delay: float = 0.0
    #: Work to be done some seconds after the answer.
    late: tuple[float, Callable[[], None]] | None = None


def success(result: Mapping[str, Any], label: str = "ok") -> Response:
    """Answer an operation's result."""
    return Response(200, orjson.dumps(result), label)


def refused(refusal: Refusal, statuses: Mapping[str, int], *, hint: bool) -> Response:
    """Answer an error; `hint` says whether throttles tell how long to wait."""
    body = {"__type": refusal.code, "Message": refusal.message, **refusal.members}
    headers: dict[str, str] = {}
    if hint and refusal.retry_after > 0:
        headers["x-amz-retry-after"] = str(math.ceil(refusal.retry_after * 1000))
    return Response(statuses[refusal.code], orjson.dumps(body), refusal.code, headers=headers)


def broken(kind: str, whole: Response, faults: Faults) -> Response:
    """Make of a good answer what the fault makes of it.

    Kinds that do nothing look exactly like those that break after the work.
    """
    return _DISGUISES[kind](whole, faults)


def internal_error() -> Response:
    """Answer InternalServerException."""
    body = b'{"__type":"InternalServerException","Message":"An internal error occurred"}'
    return Response(500, body, "InternalServerException")


def hang_up() -> Response:
    """Answer nothing and close the connection."""
    return Response(0, b"", "hang-up", delivery=Delivery.HANG_UP)


def _reset() -> Response:
    return Response(0, b"", "reset", delivery=Delivery.RESET)


@cache
def _huge() -> bytes:
    return b'{"Junk":"' + b"x" * _HUGE + b'"}'


_UNAVAILABLE: Final = (
    b"<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n<body>\r\n"
    b"<center><h1>503 Service Temporarily Unavailable</h1></center>\r\n</body>\r\n</html>\r\n"
)
_GARBAGE: Final = b"<html><body><h1>Welcome</h1>You are not logged in to this network.</body></html>"
_DISGUISES: Final[Mapping[str, Callable[[Response, Faults], Response]]] = {
    "internal": lambda _whole, _faults: internal_error(),
    "internal-after": lambda _whole, _faults: internal_error(),
    "unavailable": lambda _whole, _faults: Response(503, _UNAVAILABLE, "http-503", "text/html"),
    "unavailable-after": lambda _whole, _faults: Response(503, _UNAVAILABLE, "http-503", "text/html"),
    "reset-before": lambda _whole, _faults: _reset(),
    "reset-after": lambda _whole, _faults: _reset(),
    "slow": lambda whole, faults: replace(whole, delay=faults.slow_delay),
    "truncated": lambda whole, _faults: replace(whole, label="cut", delivery=Delivery.CUT),
    "garbage": lambda _whole, _faults: Response(200, _GARBAGE, "junk", "text/html"),
    "no-arn": lambda _whole, _faults: Response(200, b"{}", "junk"),
    "huge": lambda _whole, _faults: Response(200, _huge(), "junk"),
}
