"""The records: what the lines of a ledger say, each a value whose types are what a line may hold.

`codec` reads lines into them by these types. Fields that a type does not name are ignored; those with a
default may be missing.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from batch_snapshot.models import LARGEST_COUNT, LARGEST_SKEW, Row, RowError, Skip, Status

OUTCOMES = ("completed", "stopped", "deferred", "interrupted")

Time = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0, le=LARGEST_COUNT)]
#: The service's clock less ours, in seconds; None: not known.
Skew = Annotated[float, Meta(ge=-LARGEST_SKEW, le=LARGEST_SKEW)] | None
#: None where the record was not read from a line; a line without it is refused.
RunId = str | None


class Header(Struct, frozen=True, kw_only=True, tag="run"):
    run_id: str
    command: str
    name: str
    manifest: str | None = None
    manifest_sha256: str | None = None
    #: Rows of the whole ledger: those in the manifest, and those that vanished from it.
    rows: Count
    accounts: Mapping[str, Mapping[str, Any]]
    endpoint: str
    started_at: Time
    #: Of batch-snapshot, which wrote the line; None: not read from a line.
    version: str | None = None
    settings: Mapping[str, Any] = {}
    #: Digest of the file of pairs that the run has found at the service; None: it looked for none.
    discovered_sha256: str | None = None
    #: Since then, lost lines can have named rows that no other line names (see `repair`).
    unrecorded_since: Time | None = None
    #: The ledger has rows of earlier invocations. Earlier versions never said so.
    resumes: bool = False


class IntendedRow(NamedTuple):
    client_token: str
    account: str
    catalog: str
    engagement: str
    resource_type: str
    resource: str
    template: str
    generation: Count

    @property
    def row(self) -> Row:
        return Row(*self[1:7])


class Intent(Struct, frozen=True, tag="intent"):
    """A batch of rows, durable before any of them may be sent."""

    at: Time
    rows: tuple[IntendedRow, ...]
    clock_skew_s: Skew = None
    signer: str | None = None


class Result(Struct, frozen=True, kw_only=True, tag="result"):
    run_id: RunId = None
    account: str
    catalog: str
    engagement: str
    resource_type: str
    resource: str
    template: str
    client_token: str
    generation: Count
    status: Status
    arn: str | None = None
    revision: Count | None = None
    attempts: Count = 0
    throttles: Count = 0
    ambiguous: bool
    request_id: str | None = None
    error: RowError | None
    first_sent_at: Time | None
    started_at: Time | None = None
    finished_at: Time | None = None
    reconciled: bool = False
    #: At `first_sent_at`.
    clock_skew_s: Skew = None

    def __post_init__(self) -> None:
        if self.status is Status.SUCCEEDED and not (self.arn and self.revision):
            raise ValueError("a succeeded row without arn and revision")

    @property
    def row(self) -> Row:
        return Row(
            self.account, self.catalog, self.engagement, self.resource_type, self.resource, self.template
        )


class Skipped(Struct, frozen=True, tag="skip"):
    at: Time
    reason: Skip
    rows: tuple[Row, ...]
    run_id: RunId = None


class End(Struct, frozen=True, tag="end"):
    """Closes an invocation: a row that an intent named and that has no result was not sent."""

    outcome: Annotated[str, Meta(pattern=f"^({'|'.join(OUTCOMES)})$")]
    counts: Mapping[str, Count]
    finished_at: Time
    run_id: RunId = None

    @property
    def settled(self) -> bool:
        """Whether `run` has nothing left to do."""
        return not (self.counts.get("unattempted") or self.counts.get("in_doubt"))


class Control(Struct, frozen=True, tag="control"):
    """What the run was told while it ran (see `jobs.control`); it says nothing about rows."""

    at: Time
    action: str
    #: A later version may write other types here.
    value: Any = None
    account: Any = None


Record = Header | Intent | Result | Skipped | End | Control


def named_rows(record: Record) -> Iterable[Row]:
    if isinstance(record, Result):
        return (record.row,)
    if isinstance(record, Intent):
        return (one.row for one in record.rows)
    return record.rows if isinstance(record, Skipped) else ()


class Line(NamedTuple):
    """A record, its byte offset, and its line number from 1."""

    offset: int
    number: int
    record: Record
