"""Faults: which CreateResourceSnapshot call breaks, and how its answer then looks.

The seed and the call's ordinal alone decide, so a run can be repeated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final

from batch_snapshot.simulator.answers import Response

#: What can happen to a call, in the order in which a draw is dealt out.
KINDS: Final[Mapping[str, str]] = {
    "internal": "InternalServerException, nothing done",
    "internal-after": "the work done, then InternalServerException",
    "unavailable": "a load balancer's HTML 503, nothing done",
    "unavailable-after": "the work done, then the HTML 503",
    "blocked-after": "the work done, then a filter's HTML 403",
    "reset-before": "the connection reset, nothing done",
    "reset-after": "the work done, then the connection reset",
    "late": "InternalServerException or a hang-up at once, the work done late_delay seconds afterwards",
    "slow": "the work done, the answer slow_delay seconds late",
    "truncated": "the work done, an answer shorter than its Content-Length",
    "garbage": "the work done, a 200 whose body is HTML",
    "no-arn": "the work done, a 200 whose body is {}",
    "huge": "the work done, a 200 with 5 MB of JSON and no Arn",
    "throttle": "a stray ThrottlingException, nothing done",
}
NOTHING_DONE: Final = frozenset({"internal", "unavailable", "reset-before"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How CreateResourceSnapshot breaks; at most one fault a call. Impossible rates raise ValueError."""

    #: Probability by kind.
    rates: Mapping[str, float] = field(default_factory=dict)
    #: Seconds after which a `late` call's work is done.
    late_delay: float = 1.0
    #: Seconds by which a `slow` call's answer is late.
    slow_delay: float = 5.0
    #: Decides instead of the rates: `(ordinal from 0, request parameters) -> kind or None`.
    plan: Callable[[int, dict[str, Any]], str | None] | None = None

    def __post_init__(self) -> None:
        for kind, rate in self.rates.items():
            if kind not in KINDS:
                raise ValueError(f"unknown fault {kind!r}; known: {', '.join(KINDS)}")
            if not 0 <= rate <= 1:
                raise ValueError(f"fault {kind}={rate} is not a probability between 0 and 1")
        total = sum(self.rates.values())
        if total > 1 + 1e-9:
            raise ValueError(f"the faults' probabilities sum to {total:g}; at most one fault hits a call")
        for name, delay in (("late-delay", self.late_delay), ("slow-delay", self.slow_delay)):
            if not 0 <= delay < float("inf"):
                raise ValueError(f"{name}={delay} is not a number of seconds")

    @classmethod
    def parse(cls, text: str) -> "Faults":
        """Read `internal=0.05,reset-after=0.1`; `late-delay` and `slow-delay` (seconds) may be named too."""
        numbers: dict[str, float] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, _, value = (piece.strip() for piece in part.partition("="))
            try:
                numbers[name] = float(value)
            except ValueError:
                raise ValueError(f"fault {part}: name a kind and its share, such as internal=0.05") from None
        late, slow = numbers.pop("late-delay", 1.0), numbers.pop("slow-delay", 5.0)
        return cls(rates=numbers, late_delay=late, slow_delay=slow)

    def pick(self, seed: int, ordinal: int, params: dict[str, Any]) -> str | None:
        if self.plan is not None:
            return self.plan(ordinal, params)
        left = draw(seed, ordinal, "kind") if self.rates else 1.0
        for kind in KINDS:
            left -= self.rates.get(kind, 0.0)
            if left < 0:
                return kind
        return None


def draw(seed: int, ordinal: int, purpose: str) -> float:
    """A number in 0..1 that is the same on every machine for the same arguments."""
    digest = blake2b(f"{seed}:{ordinal}:{purpose}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56


# -- broken answers ---------------------------------------------------------------------------------------

INTERNAL_ERROR: Final = Response(
    500,
    b'{"__type":"InternalServerException","Message":"An internal error occurred"}',
    "InternalServerException",
)
HANG_UP: Final = Response(0, b"", "hang-up")
_UNAVAILABLE: Final = (
    b"<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n<body>\r\n"
    b"<center><h1>503 Service Temporarily Unavailable</h1></center>\r\n</body>\r\n</html>\r\n"
)
_BLOCKED: Final = b"<html><body><h1>Access denied</h1>This answer was held back.</body></html>"
_GARBAGE: Final = b"<html><body><h1>Welcome</h1>You are not logged in to this network.</body></html>"
#: Answers that hide the good one, by kind without `-before` and `-after`: they look the same either way.
_DISGUISES: Final = {
    "internal": INTERNAL_ERROR,
    "reset": Response(0, b"", "reset"),
    "unavailable": Response(503, _UNAVAILABLE, "http-503", "text/html"),
    "blocked": Response(403, _BLOCKED, "http-403", "text/html"),
    "garbage": Response(200, _GARBAGE, "junk", "text/html"),
    "no-arn": Response(200, b"{}", "junk"),
}


def broken(kind: str, whole: Response, faults: Faults) -> Response:
    if kind == "slow":
        return replace(whole, delay=faults.slow_delay)
    if kind == "truncated":
        return replace(whole, label="cut")
    if kind == "huge":
        return Response(200, b'{"Junk":"' + b"x" * 5_000_000 + b'"}', "junk")
    return _DISGUISES[kind.removesuffix("-after").removesuffix("-before")]
