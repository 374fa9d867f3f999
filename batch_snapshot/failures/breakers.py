"""When an account pauses or stops, because many rows in a row failed in the same way. Pure.

A pattern is finer than `ErrorKind` where that matters. Some failures concern the way to the service or the
account (a proxy's HTML, 5xx, a quota): they count since the last success. Others may concern the row alone
(a denial, a missing engagement): once the account has had a success, more of them are tolerated.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from batch_snapshot.failures.error_codes import is_foreign
from batch_snapshot.models import INVALID_RESPONSE, ErrorKind, Failure
from batch_snapshot.operations import SNAPSHOT, iam_action

#: Failed rows of one pattern in a row that trip the breaker.
LIMIT = 20
#: After a success this many times more failures are tolerated, if they may concern the rows alone.
AFTER_SUCCESS = 5
#: Seconds before the first probe of a pause; doubled from probe to probe, up to the longest.
FIRST_PROBE_AFTER = 1.0
LONGEST_PROBE_GAP = 30.0

#: Characters of the last message that a reason quotes: it may be a page of HTML.
QUOTED = 200

#: What differs between otherwise equal messages: ids, ARNs, and anything else with a digit.
_IDS = re.compile(r"arn:\S+|eng-[0-9a-z]+|[\w.:/-]*\d[\w.:/-]*", re.IGNORECASE)
#: Codes of a server that does not know the operation, or cannot parse the call.
_WRONG_API = frozenset({"UnknownOperationException", "SerializationException", "MalformedQueryString"})

#: The key of a pause because no call leaves this machine.
UNREACHABLE = "unreachable"


class FailurePattern(NamedTuple):
    """What one failed row says about the next ones."""

    #: Failures with the same key count together.
    key: str
    #: A description, which follows the count, and what a person can do.
    what: str
    #: It concerns the way to the service or the account, never the row alone.
    general: bool = True
    #: It may pass by itself: the account pauses first, and is deferred later.
    passes: bool = False


_NONE = FailurePattern("", "")

#: What failures of one pattern are, behind their number, and what a person can do; `{code}`, `{status}` and
#: `{form}` are those of the failure.
_TEXTS: Mapping[str, str] = {
    "quota": "rows in a row exceeded a service quota: have the quota raised, or run the same command "
    "another day; retry sends the refused rows again",
    "redirect": "rows in a row were answered by a redirect (status {status}), which the service never "
    "sends: a login page or a proxy answers instead of the service; check HTTPS_PROXY, the network and "
    "--endpoint-url",
    "garbage": "rows in a row were answered by a success that names no snapshot: another server than "
    "Partner Central may answer; check HTTPS_PROXY and --endpoint-url",
    "server error": "rows in a row ended with a server error (status {status}): the service, or a proxy "
    "before it, is down; run the same command later",
    "no answer": "rows in a row got no answer that can be read: check the network, HTTPS_PROXY and "
    "--endpoint-url, then run the same command",
    "foreign": "answers in a row were {form} with status {status}: a proxy, a firewall or another server "
    "answers instead of Partner Central; check HTTPS_PROXY, NO_PROXY and --endpoint-url",
    "wrong API": "answers in a row were {code}: the server does not know the call; check --endpoint-url, "
    "AWS_ENDPOINT_URL and the region",
    ErrorKind.DENIED: f"denials in a row: allow these credentials {iam_action(SNAPSHOT.name)}, then run "
    "the same command",
    ErrorKind.NOT_FOUND: "rows in a row were not found ({code}): check the catalog, the account and the "
    "ids, then run the same command",
    ErrorKind.INVALID: "rows in a row were refused with the same message ({code}): correct the manifest, "
    "then run it",
    ErrorKind.CONFLICT: "rows in a row met a conflict ({code}): see whether something else makes these "
    "snapshots, then run the same command",
    ErrorKind.UNKNOWN: "rows in a row were refused with {code}, which this version does not know: read "
    "the message, then run the same command",
}


def failure_pattern(failure: Failure) -> FailurePattern:
    code, status = failure.code, failure.http_status or 0
    general = _general_pattern(failure, status)
    what = _TEXTS.get(general or failure.kind, _TEXTS[ErrorKind.UNKNOWN])
    form = "HTML" if failure.message.lstrip().startswith("<") else "not an answer of the service"
    what = what.format(code=code, status=status, form=form)
    if general:
        key = {"foreign": f"foreign {status}", "wrong API": f"{code} {status}"}.get(general, general)
        return FailurePattern(key, what, passes=general == "quota")
    same = _IDS.sub("#", failure.message) if failure.kind is ErrorKind.INVALID else ""
    return FailurePattern(f"{failure.kind} {code} {status or ''} {same}", what, general=False)


def _general_pattern(failure: Failure, status: int) -> str | None:
    """What failures have in common that concern the way to the service or the account."""
    if failure.kind is ErrorKind.QUOTA:
        return "quota"
    if 300 <= status < 400:
        return "redirect"
    if failure.kind is ErrorKind.TRANSIENT and failure.may_have_landed:
        unread = "server error" if status else "no answer"
        return "garbage" if failure.code == INVALID_RESPONSE else unread
    if is_foreign(failure.code):
        return "foreign"
    return "wrong API" if failure.code in _WRONG_API else None


@dataclass(frozen=True, slots=True)
class Breaker:
    """Counts failed rows of one pattern since the last success of an account."""

    limit: int = LIMIT
    succeeded: bool = False
    count: int = 0
    pattern: FailurePattern = _NONE
    last: Failure | None = None

    def after_success(self) -> Self:
        return self if self.succeeded and not self.count else type(self)(self.limit, succeeded=True)

    def after(self, failure: Failure) -> Self:
        pattern = failure_pattern(failure)
        count = self.count + 1 if pattern.key == self.pattern.key else 1
        return replace(self, count=count, pattern=pattern, last=failure)

    @property
    def _allowed(self) -> int:
        lenient = self.succeeded and not self.pattern.general
        return self.limit * AFTER_SUCCESS if lenient else self.limit

    @property
    def tripped(self) -> bool:
        return self.count >= self._allowed

    @property
    def allowed_rows(self) -> int | None:
        """Rows that may be in progress, so that no more fail in one way than the limit; None: any number."""
        if self.succeeded and not self.count:
            return None
        return max(1, self._allowed - self.count)

    @property
    def reason(self) -> str:
        if self.last is None:
            return ""
        message = self.last.message
        shown = message if len(message) <= QUOTED else f"{message[:QUOTED]}…"
        return f"{self.count} {self.pattern.what}; the last: {self.last.code}: {shown}"


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of an account, and when the next try, a probe, leaves. Times are monotonic seconds."""

    #: `UNREACHABLE`, or the key of a pattern.
    key: str
    what: str
    began: float
    #: When the account is deferred, if every probe failed.
    ends: float
    next_at: float
    probes: int = 0

    @property
    def short(self) -> str:
        """Why, for the display."""
        return self.what.partition(": ")[0] if self.key != UNREACHABLE else self.what

    @classmethod
    def begin(cls, key: str, what: str, now: float, longest: float) -> Self:
        return cls(key, what, now, now + longest, now + min(FIRST_PROBE_AFTER, longest))

    def shifted(self, seconds: float) -> Self:
        """The same by a clock that is `seconds` ahead."""
        return replace(
            self, began=self.began + seconds, ends=self.ends + seconds, next_at=self.next_at + seconds
        )

    def after_probe(self, what: str, now: float) -> Self:
        """The pause after a failed probe; the last probe leaves when the pause ends."""
        probes = self.probes + 1
        next_at = now + min(LONGEST_PROBE_GAP, FIRST_PROBE_AFTER * 2.0**probes)
        return replace(self, what=what, probes=probes, next_at=max(self.next_at, min(next_at, self.ends)))
