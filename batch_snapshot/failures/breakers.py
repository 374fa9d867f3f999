"""When an account makes no further call: rows failed in one way, one after the other. Pure.

A kind is finer than `ErrorKind` where that matters. Some failures speak of the way to the service or of
the account (a proxy's HTML, 5xx, a quota): they count since the last success. Others may be the row's own
(a denial, a missing engagement): once the account has had a success, more of them are tolerated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from batch_snapshot.models import INVALID_RESPONSE, ErrorKind
from batch_snapshot.operations import SNAPSHOT, iam_action

if TYPE_CHECKING:
    from batch_snapshot.models import Failure

#: So many failed rows of one kind in a row are the account's affair, not the rows'.
LIMIT = 20
#: Failures that may be the rows' own: so many times more are tolerated once the account has had a success.
AFTER_SUCCESS = 5
#: Seconds of the first pause before a probe; each further one is twice as long, up to the longest.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0

#: Characters of the last message that a reason quotes: it may be a page of HTML.
SHOWN = 200

#: What differs between messages that say the same: ids, ARNs, and whatever else has a digit.
_IDS = re.compile(r"arn:\S+|eng-[0-9a-z]+|[\w.:/-]*\d[\w.:/-]*", re.IGNORECASE)
#: Codes that name no row: what answers does not know the operation, or cannot read the call.
_NOT_THE_API = frozenset({"UnknownOperationException", "SerializationException", "MalformedQueryString"})


#: The key of a pause in which no call leaves this machine.
UNREACHABLE = "unreachable"


class FailurePattern(NamedTuple):
    """What one failed row says about those that would follow."""

    #: Failures with the same key are of one kind.
    key: str
    #: What the failures were, after their number.
    what: str
    #: What a person can do.
    way_out: str
    #: It speaks of the way to the service or of the account, never of the row alone.
    general: bool = True
    #: It may pass by itself: the account pauses, and is deferred if it does not.
    passes: bool = False


#: No row has failed.
NONE = FailurePattern("", "", "")


def trouble(failure: Failure) -> FailurePattern:
    """What a failed row says about those that would follow."""
    if failure.kind is ErrorKind.QUOTA:
        return FailurePattern(
            "quota",
            "rows in a row exceeded a service quota",
            "have the quota raised, or run the same command another day; retry takes up the refused rows",
            passes=True,
        )
    return _of_the_way(failure) or _of_the_service(failure)


def _of_the_way(failure: Failure) -> FailurePattern | None:
    """Answers that are not the service's own, or none at all."""
    status = failure.http_status or 0
    if 300 <= status < 400:
        return FailurePattern(
            "redirect",
            f"rows in a row were answered by a redirect (status {status}), which the service never sends",
            "a login page or a proxy stands in between; check HTTPS_PROXY, the network and --endpoint-url",
        )
    if failure.kind is ErrorKind.TRANSIENT and failure.may_have_landed:
        return _unanswered(failure, status)
    if re.fullmatch("[1-4][0-9]{2}|Unknown", failure.code):
        form = "HTML" if failure.message.lstrip().startswith("<") else "no answer of the service's"
        return FailurePattern(
            f"foreign {status}",
            f"answers in a row were {form} with status {status}",
            "a proxy, a firewall or something else than Partner Central answers; check HTTPS_PROXY, NO_PROXY "
            "and --endpoint-url",
        )
    if failure.code in _NOT_THE_API:
        return FailurePattern(
            f"{failure.code} {status}",
            f"answers in a row were {failure.code}",
            "what answers does not know the call; check --endpoint-url, AWS_ENDPOINT_URL and the region",
        )
    return None


def _unanswered(failure: Failure, status: int) -> FailurePattern:
    if failure.code == INVALID_RESPONSE:
        return FailurePattern(
            "garbage",
            "rows in a row were answered by a success that names no snapshot",
            "something else than Partner Central may answer; check HTTPS_PROXY and --endpoint-url",
        )
    if status:
        return FailurePattern(
            "server error",
            f"rows in a row ended with a server error (status {status})",
            "the service, or a proxy before it, is down; run the same command later",
        )
    return FailurePattern(
        "no answer",
        "rows in a row got no answer that can be read",
        "check the network, HTTPS_PROXY and --endpoint-url, then run the same command",
    )


def _of_the_service(failure: Failure) -> FailurePattern:
    """Refusals that may be the row's own."""
    code = failure.code
    what, way_out = {
        ErrorKind.DENIED: (
            "denials in a row",
            f"allow these credentials {iam_action(SNAPSHOT.name)}, then run the same command",
        ),
        ErrorKind.NOT_FOUND: (
            f"rows in a row were not found ({code})",
            "check the catalog, the account and the ids, then run the same command",
        ),
        ErrorKind.INVALID: (
            f"rows in a row were refused with the same message ({code})",
            "correct the manifest, then run it",
        ),
        ErrorKind.CONFLICT: (
            f"rows in a row met a conflict ({code})",
            "see whether something else makes these snapshots, then run the same command",
        ),
    }.get(
        failure.kind,
        (
            f"rows in a row were refused with {code}, which this version does not know",
            "read the message, then run the same command",
        ),
    )
    same = _IDS.sub("#", failure.message) if failure.kind is ErrorKind.INVALID else ""
    status = failure.http_status or ""
    return FailurePattern(f"{failure.kind} {code} {status} {same}", what, way_out, general=False)


@dataclass(frozen=True, slots=True)
class Breaker:
    """Counts failed rows of one kind since the last success of an account."""

    limit: int = LIMIT
    succeeded: bool = False
    count: int = 0
    trouble: FailurePattern = NONE
    last: Failure | None = None

    def after_success(self) -> Breaker:
        """The breaker after a row succeeded."""
        return self if self.succeeded and not self.count else Breaker(self.limit, succeeded=True)

    def after(self, failure: Failure) -> Breaker:
        """The breaker after one more row failed so, or was left in doubt."""
        found = trouble(failure)
        count = self.count + 1 if found.key == self.trouble.key else 1
        return replace(self, count=count, trouble=found, last=failure)

    @property
    def _allowed(self) -> int:
        lenient = self.succeeded and not self.trouble.general
        return self.limit * AFTER_SUCCESS if lenient else self.limit

    @property
    def tripped(self) -> bool:
        """Whether the account should make no further call, or pause."""
        return self.count >= self._allowed

    @property
    def room(self) -> int | None:
        """Rows that may be on their way, so that no more fail in one way than the limit; None: any number."""
        if self.succeeded and not self.count:
            return None
        return max(1, self._allowed - self.count)

    @property
    def reason(self) -> str:
        """What tripped it, and the way out."""
        if self.last is None:
            return ""
        message = self.last.message
        shown = message if len(message) <= SHOWN else f"{message[:SHOWN]}…"
        last = f"{self.last.code}: {shown}"
        return f"{self.count} {self.trouble.what}: {self.trouble.way_out}; the last: {last}"


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of an account, and when the next try, a probe, leaves. Times are monotonic seconds."""

    #: What it is for: `unreachable`, or the key of a trouble.
    key: str
    what: str
    began: float
    #: When it is over, whatever came of the probes.
    ends: float
    next_at: float
    probes: int = 0

    @property
    def rest(self) -> float:
        """Seconds from one probe to the next."""
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**self.probes)

    @property
    def shown(self) -> str:
        """What it is for, as far as a line has room."""
        return self.what.partition(": ")[0] if self.key != UNREACHABLE else self.what

    @classmethod
    def begin(cls, key: str, what: str, now: float, longest: float) -> Pause:
        """Pause from `now` on."""
        return cls(key, what, now, now + longest, now + min(FIRST_PAUSE, longest))

    def after_probe(self, what: str, now: float) -> Pause:
        """The pause after a probe failed as well; the last probe leaves when it is over."""
        probed = replace(self, what=what, probes=self.probes + 1)
        return replace(probed, next_at=max(self.next_at, min(now + probed.rest, self.ends)))
