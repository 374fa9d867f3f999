"""The records: what the lines of a ledger say, each a value."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from batch_snapshot.models import ErrorKind, Row, Skip, Status


class Header(NamedTuple):
    run_id: str
    command: str
    name: str
    manifest: str | None
    manifest_sha256: str | None
    #: Rows of the whole ledger: those in the manifest, and those that vanished from it.
    rows: int
    accounts: Mapping[str, Mapping[str, Any]]
    endpoint: str
    started_at: datetime
    settings: Mapping[str, Any]
    #: Digest of the file of pairs that the run has found at the service; None: it looked for none.
    discovered_sha256: str | None = None
    #: Since then, lost lines can have named rows that no other line names (see `repair`).
    unrecorded_since: datetime | None = None
    #: Of batch-snapshot, which wrote the line; None: not read from a line.
    version: str | None = None


class Intent(NamedTuple):
    """A batch of rows, durable before any of them may be sent."""

    at: datetime
    #: (client token, row, generation)
    rows: tuple[tuple[str, Row, int], ...]
    #: The service's clock less ours, in seconds; None: not known yet.
    clock_skew: float | None = None
    signer: str | None = None


class Result(NamedTuple):
    row: Row
    client_token: str
    generation: int
    status: Status
    ambiguous: bool
    first_sent_at: datetime | None
    kind: ErrorKind | None
    code: str | None
    message: str | None
    #: None where the record was not read from a line.
    run_id: str | None = None
    #: All fields of the line, unchecked; only if asked for.
    fields: Mapping[str, Any] | None = None
    arn: str | None = None
    revision: int | None = None
    #: The service's clock less ours at `first_sent_at`, in seconds; None: not known.
    clock_skew: float | None = None


class Skipped(NamedTuple):
    at: datetime
    reason: Skip
    rows: tuple[Row, ...]
    run_id: str | None = None


class End(NamedTuple):
    """Closes an invocation: a row that an intent named and that has no result was not sent."""

    outcome: str
    counts: Mapping[str, int]
    finished_at: datetime
    run_id: str | None = None

    @property
    def settled(self) -> bool:
        """Whether `run` has nothing left to do."""
        return not (self.counts.get("unattempted") or self.counts.get("in_doubt"))


class Control(NamedTuple):
    """What the run was told while it ran (see `jobs.control`); it says nothing about rows."""

    at: datetime
    action: str
    value: float | None = None
    account: str | None = None


Record = Header | Intent | Result | Skipped | End | Control


def named_rows(record: Record) -> Iterable[Row]:
    if isinstance(record, Result):
        return (record.row,)
    if isinstance(record, Intent):
        return (row for _, row, _ in record.rows)
    return record.rows if isinstance(record, Skipped) else ()


class Line(NamedTuple):
    """A record, its byte offset, and its line number from 1."""

    offset: int
    number: int
    record: Record
