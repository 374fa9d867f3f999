"""Values that every package uses: rows, requests, outcomes.

All are frozen, and nothing here does I/O. Times are aware datetimes in UTC.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID, uuid5

import orjson

#: Tokens are uuid5 under this namespace. Never change it: a resumed run would send tokens that the service
#: has never seen.
TOKEN_NAMESPACE = UUID("3f1d5c52-8d4e-5b0c-9a57-6a1f0f6f2b7e")

#: The only region that serves the API; botocore builds a URL for any region.
REGION = "us-east-1"

#: Prefix of the quota name of an account whose AWS account id is unknown: the access key stands for it.
UNKNOWN_ACCOUNT = "aws key:"

#: The code of a success that names no snapshot.
INVALID_RESPONSE = "InvalidResponse"

#: Endpoints as a ledger names them; any other endpoint is a URL.
AWS, SIMULATOR = "aws", "simulator"

#: Seconds. A clock without battery says 1970; a larger skew is no clock's, and its times cannot be signed.
LARGEST_SKEW = 36_525 * 86_400.0

#: Calls in flight at most, whatever is asked for.
LARGEST_CONCURRENCY = 1024
#: The largest count in a ledger: `diff` holds counts in SQLite, whose integers are not larger.
LARGEST_COUNT = 2**63 - 1

#: Years of the times in a ledger; a time zone or a skew added to them is still a valid date.
YEARS = range(1970, 9000)


class Status(StrEnum):
    """The outcome of a row. A row without one is unattempted."""

    #: The service returned the snapshot's Arn and Revision.
    SUCCEEDED = "succeeded"
    #: Refused, and nothing was done.
    FAILED = "failed"
    #: An attempt may have been carried out, and no answer has settled it since.
    IN_DOUBT = "in_doubt"


class Skip(StrEnum):
    """Why a run skipped a row, as its flags ask; a resume keeps it skipped."""

    #: Its opportunity was not modified since the snapshot that exists.
    UNCHANGED = "unchanged"
    #: A snapshot job of AWS takes care of it.
    ACTIVE_JOB = "active_job"


class ErrorKind(StrEnum):
    """Why a row did not succeed, as users select it with `retry --only`."""

    #: Network errors, 5xx, invalid responses: another attempt may well succeed.
    TRANSIENT = "transient"
    #: ConflictException: a concurrent change, or a token used with other parameters.
    CONFLICT = "conflict"
    #: ServiceQuotaExceededException: resolved by another day or a higher quota.
    QUOTA = "quota"
    #: AccessDeniedException.
    DENIED = "denied"
    #: ResourceNotFoundException; may mean "not visible to these credentials".
    NOT_FOUND = "not_found"
    #: ValidationException, or parameters that botocore refused before sending.
    INVALID = "invalid"
    #: An error this version does not know.
    UNKNOWN = "unknown"


#: Kinds that another attempt can resolve although nothing else changes.
CURABLE = frozenset({ErrorKind.TRANSIENT, ErrorKind.CONFLICT, ErrorKind.QUOTA})


class Verdict(StrEnum):
    """What to do about one failed attempt."""

    #: Try again after a backoff; counts as an attempt.
    RETRY = "retry"
    #: Flow control: try again when the pacer allows; does not count as an attempt.
    THROTTLED = "throttled"
    #: No further attempt in this run.
    REFUSED = "refused"
    #: The account's credentials don't work: stop the account.
    STOP_ACCOUNT = "stop_account"


#: Created once, as it is used for every row.
_as_json = json.JSONEncoder(separators=(",", ":")).encode


class Row(NamedTuple):
    """One (engagement, resource) pair and everything else that identifies its snapshot.

    A row is identified by its values, never by its line. The order of the fields is fixed: tokens hash them
    and intents list them in this order.
    """

    account: str
    catalog: str
    engagement: str
    resource_type: str
    resource: str
    template: str

    @property
    def key(self) -> bytes:
        """16 bytes that stand for this row in sets of millions.

        Among 10 million rows two share a key with a probability of about 10⁻²⁵.
        """
        try:
            text = orjson.dumps(tuple(self))
        except orjson.JSONEncodeError:
            # Half of a surrogate pair is not UTF-8. Its JSON escape equals that of no valid text.
            text = _as_json(self).encode()
        return blake2b(text, digest_size=16).digest()

    @property
    def pair(self) -> tuple[str, str, str]:
        """What no two calls in flight may share."""
        return self.catalog, self.engagement, self.resource


def client_token(run_id: str, row: Row, generation: int) -> str:
    """The idempotency token of `row` in the run: 36 printable characters.

    A JSON array is hashed, so that different rows never concatenate to the same text.
    """
    return str(uuid5(TOKEN_NAMESPACE, _as_json([run_id, *row, generation])))


@dataclass(frozen=True, slots=True)
class Quota:
    """The declared limits of an account; None: not declared."""

    #: Calls per second.
    per_second: float | None = None
    #: Calls in any 60 seconds, 3,600 seconds and 24 hours: exact sliding windows.
    per_minute: int | None = None
    per_hour: int | None = None
    per_day: int | None = None
    #: Calls of each window that are left to other programs.
    reserve: int = 0


@dataclass(frozen=True, slots=True)
class Account:
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
        """The id of the AWS account, if the role's ARN names it."""
        parts = (self.role_arn or "").split(":")
        return parts[4] if len(parts) > 5 and parts[4] else None


#: Stands for the time of a first try that is not known, because lines of the ledger are lost.
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Request:
    row: Row
    client_token: str
    generation: int = 0
    #: An earlier attempt under this token may have been carried out; true until the service settles it.
    ambiguous: bool = False
    #: When the first attempt under this token may have left, by this machine's clock.
    first_sent_at: datetime | None = None
    #: The service's clock minus this machine's at that time, in seconds; None: unknown.
    clock_skew: float | None = None
    #: Where that first attempt is `LONG_AGO`: a later one that a crash cut off; the skew is that of this one.
    sent_again_at: datetime | None = None
    #: Earlier tries of this run that cost an attempt, and those that were throttled.
    attempts: int = 0
    throttles: int = 0


class Receipt(NamedTuple):
    arn: str
    revision: int
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt: what failed, what to do, and whether it may have been carried out."""

    kind: ErrorKind
    code: str
    message: str
    verdict: Verdict
    #: False only if the attempt provably never left, or was refused before any work was done.
    may_have_landed: bool
    reason: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    #: The service's Retry-After, in seconds.
    retry_after: float | None = None
    #: Provably nothing reached the service: no quota was used.
    never_left: bool = False

    @property
    def unreachable(self) -> bool:
        """Whether the service could not be reached, which may work another time."""
        return self.never_left and self.verdict is Verdict.RETRY


class ApiError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure


@dataclass(frozen=True, slots=True)
class RowError:
    kind: ErrorKind
    code: str
    message: str
    reason: str | None = None
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one request: a result line of the ledger."""

    request: Request
    status: Status
    #: Attempts, and throttled calls (which are no attempts), in this invocation.
    attempts: int
    throttles: int
    #: An attempt under this token may have been carried out without an answer.
    ambiguous: bool
    first_sent_at: datetime | None
    started_at: datetime
    finished_at: datetime
    arn: str | None = None
    revision: int | None = None
    request_id: str | None = None
    error: RowError | None = None
    #: Settled by a look-up of the snapshot, not by an answer to the call.
    reconciled: bool = False
    #: The service's clock minus this machine's at `first_sent_at`, in seconds; None: unknown.
    clock_skew: float | None = None
