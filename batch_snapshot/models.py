"""The values that flow through the house: rows, requests, outcomes.

Everything here is frozen and free of I/O. Times are aware datetimes in UTC.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid5

import orjson

if TYPE_CHECKING:
    from datetime import datetime

#: Tokens are uuid5 under this namespace. Fixed for ever: another value would make a resumed run
#: send under tokens the service has never seen.
TOKEN_NAMESPACE = UUID("3f1d5c52-8d4e-5b0c-9a57-6a1f0f6f2b7e")


#: Only this region serves the API; botocore would build a URL for any.
REGION = "us-east-1"

#: What a name of AWS's quotas begins with where the account is not known, only the key that signs for it.
UNKNOWN_ACCOUNT = "aws key:"

#: The code of a success that names no snapshot.
INVALID_RESPONSE = "InvalidResponse"

#: Endpoints as a ledger names them; any other is a URL.
AWS, SIMULATOR = "aws", "simulator"


#: Seconds: a clock that lost its battery says 1970; beyond that it is garbage, and times that cannot be
#: signed.
LARGEST_SKEW = 36_525 * 86_400.0

#: The largest count in a ledger: SQLite, in which ledgers are compared, holds no larger one.
LARGEST = 2**63 - 1

#: Years of the times in a ledger, with room to count from them in any zone and by any clock.
YEARS = range(1970, 9000)


class Status(StrEnum):
    """What became of a row. A row with none of these is unattempted."""

    #: The service named the snapshot's Arn and Revision.
    SUCCEEDED = "succeeded"
    #: Refused, and nothing was done.
    FAILED = "failed"
    #: A try may have been carried out, and no answer has settled it since.
    IN_DOUBT = "in_doubt"


class Skip(StrEnum):
    """Why a row was left out by a run that was asked to: a state of its own, which a resume keeps."""

    #: Its opportunity was not modified since the snapshot that exists.
    UNCHANGED = "unchanged"
    #: A snapshot job of AWS's own takes care of it.
    ACTIVE_JOB = "active_job"


class ErrorKind(StrEnum):
    """Why a row did not succeed, as users select it with `retry --only`."""

    #: Network, 5xx, answers that make no sense: another try may well succeed.
    TRANSIENT = "transient"
    #: ConflictException: a concurrent change, or a token used with other parameters.
    CONFLICT = "conflict"
    #: ServiceQuotaExceededException: another day, or a raised quota, cures it.
    QUOTA = "quota"
    #: AccessDeniedException.
    DENIED = "denied"
    #: ResourceNotFoundException; may mean "not visible to these credentials".
    NOT_FOUND = "not_found"
    #: ValidationException, or parameters that never left.
    INVALID = "invalid"
    #: An error this version does not know.
    UNKNOWN = "unknown"


#: What another try can cure without anybody changing anything.
CURABLE = frozenset({ErrorKind.TRANSIENT, ErrorKind.CONFLICT, ErrorKind.QUOTA})


class Verdict(StrEnum):
    """What to do about one failed try."""

    #: Try again after a backoff; it costs an attempt.
    RETRY = "retry"
    #: Flow control: try again when the pacer allows; it costs no attempt.
    THROTTLED = "throttled"
    #: No further try in this run.
    REFUSED = "refused"
    #: The account's credentials don't work: none of its rows can be tried.
    STOP_ACCOUNT = "stop_account"


class Row(NamedTuple):
    """One (engagement, resource) pair and all that identifies its snapshot.

    A row is its values, never its place in a file. The order of the fields is the contract's
    (it is hashed into tokens and written in intents).
    """

    account: str
    catalog: str
    engagement: str
    resource_type: str
    resource: str
    template: str

    @property
    def key(self) -> bytes:
        """16 bytes that stand for this row in sets over millions of them."""
        return key_of(tuple(self))


#: Bytes of a row's key.
KEY_SIZE = 16


def key_of(names: tuple[str, ...]) -> bytes:
    """The key of the row of these names, in the order of `Row`.

    At 10 million rows two rows share a key with a probability of about 10⁻²⁵.
    """
    try:
        text = orjson.dumps(names)
    except orjson.JSONEncodeError:
        # Half of a surrogate pair is no UTF-8; escaped, it is like nothing that is.
        text = _canonical(names)
    return blake2b(text, digest_size=KEY_SIZE).digest()


def client_token(run_id: str, row: Row, generation: int) -> str:
    """The idempotency token of `row` in the run: 36 printable characters, a pure function.

    A JSON array is hashed, so that no two rows can meet by concatenation.
    """
    return str(uuid5(TOKEN_NAMESPACE, _canonical([run_id, *row, generation]).decode()))


#: Made once: it is used for every row.
_encode = json.JSONEncoder(separators=(",", ":")).encode


def _canonical(values: object) -> bytes:
    return _encode(values).encode()


@dataclass(frozen=True, slots=True)
class Quota:
    """What an account may use, as declared; None: not declared."""

    #: Calls a second.
    per_second: float | None = None
    #: Calls in any 60 seconds, 3,600 seconds and 24 hours: exact sliding windows.
    per_minute: int | None = None
    per_hour: int | None = None
    per_day: int | None = None
    #: Calls of each window that are left to other programs.
    reserve: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """Who signs the calls; with neither profile nor role the ambient AWS credentials do."""

    name: str
    #: From here to `quota`: texts, which the ledger keeps in this order.
    role_arn: str | None = None
    profile: str | None = None
    region: str | None = None
    external_id: str | None = None
    session_name: str | None = None
    endpoint_url: str | None = None
    quota: Quota = Quota()
    tags: tuple[str, ...] = ()

    @property
    def number(self) -> str | None:
        """The number of the AWS account, as far as the role's ARN tells it."""
        parts = (self.role_arn or "").split(":")
        return parts[4] if len(parts) > 5 and parts[4] else None


@dataclass(frozen=True, slots=True)
class Request:
    """A row as it is to be sent: under which token, and what earlier tries left behind."""

    row: Row
    client_token: str
    generation: int = 0
    #: An earlier try under this token may have been carried out. Sticky until the service settles it.
    ambiguous: bool = False
    #: When the first try under this token may have left, by our clock.
    first_sent_at: datetime | None = None
    #: The service's clock less ours then, in seconds; None: the service had not told.
    clock_skew: float | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The service's answer: the snapshot that exists now."""

    arn: str
    revision: int
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed try, classified: what it was, what to do, whether it may have been carried out."""

    kind: ErrorKind
    code: str
    message: str
    verdict: Verdict
    #: False only where the try provably never left or was refused before any work.
    may_have_landed: bool
    reason: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    #: The service's own hint, in seconds.
    retry_after: float | None = None
    #: It is proven that nothing reached the service: no quota was used, and no row was tried.
    never_left: bool = False

    @property
    def unreachable(self) -> bool:
        """Whether it was the way to the service that failed, which another time may be open."""
        return self.never_left and self.verdict is Verdict.RETRY


class ApiError(Exception):
    """Carries the `Failure` of one try from the client to the engine."""

    def __init__(self, failure: Failure) -> None:
        """Wrap one classified failure."""
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row failed or is in doubt, as the ledger tells it."""

    kind: ErrorKind
    code: str
    message: str
    reason: str | None = None
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request: a result line of the ledger."""

    request: Request
    status: Status
    #: Tries that cost an attempt, and those that were throttled, in this invocation.
    attempts: int
    throttles: int
    #: A try under this token may have been carried out without an answer.
    ambiguous: bool
    first_sent_at: datetime | None
    started_at: datetime
    finished_at: datetime
    arn: str | None = None
    revision: int | None = None
    request_id: str | None = None
    error: RowError | None = None
    #: Settled by looking the snapshot up, not by an answer to the call.
    reconciled: bool = False
    #: The service's clock less ours at `first_sent_at`, in seconds; None: it had not told.
    clock_skew: float | None = None
