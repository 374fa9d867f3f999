"""What the lines of a ledger mean: the records, and the state of each row after the last of them.

Pure. A succeeded row is 16 bytes in a set; only rows that are not done carry more, so that a
history of a million results stays small.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from batch_snapshot.errors import DamagedError, LedgerError
from batch_snapshot.models import ErrorKind, Row, Skip, Status, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from datetime import datetime


class Header(NamedTuple):
    """A run line: it opens every invocation."""

    run_id: str
    command: str
    name: str
    manifest: str | None
    manifest_sha256: str | None
    #: Rows of the whole ledger: those of the manifest, and those that vanished from it.
    rows: int
    accounts: Mapping[str, Mapping[str, Any]]
    endpoint: str
    started_at: datetime
    settings: Mapping[str, Any]
    #: Over the file of the pairs that the run has found at the service; None: it looked for none.
    discovered_sha256: str | None = None
    #: Lines were lost that can have named rows since then which no other line names (see `repair`).
    unrecorded_since: datetime | None = None


class Intent(NamedTuple):
    """A batch of rows, durable before any of them may be sent."""

    at: datetime
    #: (client token, row, generation)
    rows: tuple[tuple[str, Row, int], ...]
    #: The service's clock less ours, in seconds; None: the service had not told.
    clock_skew: float | None = None
    #: Who signs for their account (see `signer`); None: not known.
    signer: str | None = None


class Result(NamedTuple):
    """What became of a row, as far as a later invocation needs it."""

    row: Row
    client_token: str
    generation: int
    status: Status
    ambiguous: bool
    first_sent_at: datetime | None
    kind: ErrorKind | None
    code: str | None
    message: str | None
    #: As the line says; None where the record was not read from one.
    run_id: str | None = None
    #: All that the line says, unchecked; only where it was asked for.
    fields: Mapping[str, Any] | None = None
    arn: str | None = None
    revision: int | None = None
    #: The service's clock less ours at `first_sent_at`, in seconds; None: not known.
    clock_skew: float | None = None


class Skipped(NamedTuple):
    """Rows that an invocation left out, and why."""

    at: datetime
    reason: Skip
    rows: tuple[Row, ...]
    run_id: str | None = None


class End(NamedTuple):
    """Closes an invocation: what an intent named and no result followed was not sent."""

    outcome: str
    counts: Mapping[str, int]
    finished_at: datetime
    run_id: str | None = None

    @property
    def settled(self) -> bool:
        """Whether it left `run` nothing to do."""
        return not (self.counts.get("unattempted") or self.counts.get("in_doubt"))


Record = Header | Intent | Result | Skipped | End


class Line(NamedTuple):
    """A record and where it stands: byte offset, and line number from 1."""

    offset: int
    number: int
    record: Record


@dataclass(frozen=True, slots=True)
class RowState:
    """A row that is not done: where it stands and under which token it was last named."""

    #: None: named by an intent, and known not to have been sent.
    status: Status | None
    client_token: str
    generation: int
    ambiguous: bool
    first_sent_at: datetime | None
    kind: ErrorKind | None = None
    code: str | None = None
    #: Of the line that says so; the row's names are read from there again when needed.
    offset: int = 0
    #: The service's clock less ours at `first_sent_at`, in seconds; None: not known.
    clock_skew: float | None = None


class IntentRef(NamedTuple):
    """When rows were named by an intent, and in which line."""

    at: datetime
    offset: int
    clock_skew: float | None


#: How a row was named: under which token and generation, and when.
Named = tuple[str, int, IntentRef]


class FailureGroup(NamedTuple):
    """Rows that failed, or are in doubt, alike."""

    status: Status
    kind: ErrorKind
    code: str


#: The code shown for a row that a crash left in doubt: it has no error of its own.
CRASHED = "RunCrashed"


@dataclass(slots=True)
class History:
    """The state of every row a ledger names."""

    first: Header | None = None
    last: Header | None = None
    #: The end of the last invocation; None while it runs, or after a crash.
    end: End | None = None
    #: Keys of the rows that succeeded.
    succeeded: set[bytes] = field(default_factory=set)
    unfinished: dict[bytes, RowState] = field(default_factory=dict)
    #: By reason, of those that there were: the rows that were left out.
    skipped: dict[Skip, set[bytes]] = field(default_factory=dict)
    #: Who signed for an account last.
    signers: dict[str, str] = field(default_factory=dict)
    #: Rows that no line names as sent can have been sent since then; None: none can.
    unrecorded_since: datetime | None = None
    #: Whether each line has to follow from those before it, as far as that is free while reading.
    checked: bool = field(default=False, compare=False)
    #: What the last invocation has named and not settled.
    _pending: dict[tuple[str, ...], Named] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Take in the next line.

        Raises:
            LedgerError: for a line that no invocation opened, or one of another run.
        """
        record = line.record
        if isinstance(record, Header):
            self._open(record)
            return
        if self.first is None:
            raise LedgerError("no run line before it: this is no ledger, or its head is missing")
        if isinstance(record, Intent):
            if self.checked:
                self._check(record)
            self._intend(record, line.offset)
            return
        if record.run_id is not None and record.run_id != self.first.run_id:
            raise LedgerError(
                f"run_id {record.run_id!r} is not the ledger's {self.first.run_id!r}: two ledgers were mixed"
            )
        if self.checked:
            self._check(record)
        if isinstance(record, Result):
            self._settle(record, line.offset)
        elif isinstance(record, Skipped):
            self._skip(record)
        else:
            self._close(record)

    def _open(self, header: Header) -> None:
        if self.first is None:
            self.first = header
        elif header.run_id != self.first.run_id:
            raise LedgerError(
                f"run_id {header.run_id!r} follows {self.first.run_id!r}: two ledgers were mixed"
            )
        self.crashed()
        self.last, self.end = header, None
        self.unrecorded_since = min(
            filter(None, (self.unrecorded_since, header.unrecorded_since)), default=None
        )

    def _intend(self, intent: Intent, offset: int) -> None:
        naming = IntentRef(intent.at, offset, intent.clock_skew)
        for token, row, generation in intent.rows:
            self._pending[row] = token, generation, naming
            if intent.signer:
                self.signers[row.account] = intent.signer

    def _check(self, record: Intent | Result | Skipped | End) -> None:
        """Refuse a line that does not follow from those before it."""
        if self.end is not None:
            raise DamagedError("follows an end line, but does not open an invocation")
        if isinstance(record, Intent):
            for _, row, _ in record.rows:
                if row in self._pending:
                    name = f"{row.engagement}/{row.resource}"
                    raise DamagedError(f"names {name} a second time in one invocation")
        elif isinstance(record, Result):
            self._check_result(record)
        elif isinstance(record, End) and record.counts:
            known = self.stated()
            if any(record.counts.get(name, 0) != known.get(name, 0) for name in known.keys() | record.counts):
                raise DamagedError(f"counts {dict(record.counts)}, but the lines before say {known}")

    def _check_result(self, result: Result) -> None:
        row = f"{result.row.engagement}/{result.row.resource}"
        named = self._pending.get(result.row)
        if named is None:
            raise DamagedError(f"a result of {row}, which no intent named before")
        if named[0] != result.client_token:
            raise DamagedError(f"a result of {row} under another token than intended")

    def named(self, row: tuple[str, ...], token: str | None = None) -> bool:
        """Whether this invocation has named the row, under that token if one is given, and not settled it."""
        named = self._pending.get(row)
        return named is not None and (token is None or named[0] == token)

    def stated(self) -> dict[str, int]:
        """The counts that an end line has to have here."""
        counts = self.counts()
        known = {status.value: counts.get(status, 0) for status in Status}
        skipped = {reason.value: counts[reason] for reason in Skip if counts[reason]}
        total = self.last.rows if self.last else 0
        known["unattempted"] = total - sum(known.values()) - sum(skipped.values())
        return known | skipped

    def _settle(self, result: Result, offset: int) -> None:
        key = result.row.key
        self._pending.pop(result.row, None)
        for left_out in self.skipped.values():
            left_out.discard(key)
        if result.status is Status.SUCCEEDED:
            self.succeeded.add(key)
            self.unfinished.pop(key, None)
            return
        self.succeeded.discard(key)
        self.unfinished[key] = RowState(
            status=result.status,
            client_token=result.client_token,
            generation=result.generation,
            ambiguous=result.ambiguous,
            first_sent_at=result.first_sent_at,
            kind=result.kind,
            code=result.code,
            offset=offset,
            clock_skew=result.clock_skew,
        )

    def _skip(self, skipped: Skipped) -> None:
        for row in skipped.rows:
            key = row.key
            if row in self._pending or self.knows(key):
                raise LedgerError(f"leaves out {row.engagement}/{row.resource}, which was named before")
            self.skip(skipped.reason, key)

    def skip(self, reason: Skip, key: bytes) -> None:
        """Note that a row without a state is left out."""
        self.skipped.setdefault(reason, set()).add(key)

    def left_out(self, key: bytes) -> bool:
        """Whether the row was left out."""
        return bool(self.skipped) and any(key in keys for keys in self.skipped.values())

    def _close(self, end: End) -> None:
        self.end = end
        for row, (token, generation, naming) in self._pending.items():
            key = key_of(row)
            if key not in self.unfinished and key not in self.succeeded:
                self.unfinished[key] = RowState(
                    status=None,
                    client_token=token,
                    generation=generation,
                    ambiguous=False,
                    first_sent_at=None,
                    offset=naming.offset,
                )
        self._pending.clear()

    def crashed(self) -> None:
        """The invocation so far has no end and will get none: what it intended is in doubt."""
        for row, (token, generation, naming) in self._pending.items():
            key = key_of(row)
            if key in self.succeeded:
                continue
            before = self.unfinished.get(key)
            if before and before.client_token == token and before.status is Status.IN_DOUBT:
                continue
            self.unfinished[key] = RowState(
                status=Status.IN_DOUBT,
                client_token=token,
                generation=generation,
                ambiguous=True,
                first_sent_at=min(naming.at, self.unrecorded_since or naming.at),
                kind=ErrorKind.TRANSIENT,
                code=CRASHED,
                offset=naming.offset,
                clock_skew=naming.clock_skew,
            )
        self._pending.clear()

    @property
    def in_flight(self) -> int:
        """Rows that a running invocation has named and not settled."""
        return len(self._pending)

    def fresh(self) -> set[bytes]:
        """Keys of the rows without a state that the present invocation has named."""
        return {key for key in map(key_of, self._pending) if self.status(key) is None}

    def knows(self, key: bytes) -> bool:
        """Whether a result tells of the row, or an intent of an invocation that is over."""
        return key in self.succeeded or key in self.unfinished

    def status(self, key: bytes) -> Status | None:
        """The state of a row; None: unattempted."""
        if key in self.succeeded:
            return Status.SUCCEEDED
        past = self.unfinished.get(key)
        return past.status if past else None

    def counts(self) -> Counter[Status | Skip]:
        """How many rows have each status, or were left out; unattempted ones are not counted."""
        counts: Counter[Status | Skip] = Counter(
            past.status for past in self.unfinished.values() if past.status
        )
        counts[Status.SUCCEEDED] = len(self.succeeded)
        counts.update({reason: len(keys) for reason, keys in self.skipped.items() if keys})
        return counts

    def keys(self) -> Iterator[bytes]:
        """The keys of all rows with a status, and of those left out."""
        yield from self.succeeded
        for keys in self.skipped.values():
            yield from keys
        yield from (key for key, past in self.unfinished.items() if past.status)

    def failures(self) -> Counter[FailureGroup]:
        """Rows that failed or are in doubt, grouped by status, kind and code."""
        return Counter(group(past) for past in self.unfinished.values() if past.status)

    @property
    def finished(self) -> bool:
        """Whether `run` has nothing left to do for the rows it was last given."""
        return self.end is not None and self.end.settled


def group(past: RowState) -> FailureGroup:
    """The group that a failed or doubtful row belongs to."""
    return FailureGroup(past.status or Status.IN_DOUBT, past.kind or ErrorKind.UNKNOWN, past.code or "")


def _at_line(number: int, error: LedgerError) -> LedgerError:
    return LedgerError(f"line {number}: {error}")


def fold(
    lines: Iterable[Line],
    *,
    live: bool = False,
    checked: bool = False,
    locate: Callable[[int, LedgerError], LedgerError] = _at_line,
) -> History:
    """The history after all `lines`.

    Args:
        lines: of one ledger, in its order.
        live: the last invocation may still be running, so what it has named is not in doubt yet.
        checked: refuse a ledger of which lines are lost or were edited, as far as the fold shows it.
        locate: adds the line's number to an error.

    Raises:
        LedgerError: for lines that make no ledger; the message says where.
    """
    history = History(checked=checked)
    for line in lines:
        try:
            history.add(line)
        except LedgerError as error:
            raise locate(line.number, error) from None
    if not live:
        history.crashed()
    return history


def rows_of(lines: Iterable[Line], history: History) -> Iterator[tuple[Row, RowState]]:
    """Each unfinished row with its state, in the order of the lines that say so."""
    for line in lines:
        record = line.record
        named: tuple[Row, ...]
        if isinstance(record, Result):
            named = (record.row,) if record.status is not Status.SUCCEEDED else ()
        elif isinstance(record, Intent):
            named = tuple(row for _, row, _ in record.rows)
        else:
            continue
        for row in named:
            past = history.unfinished.get(row.key)
            if past is not None and past.offset == line.offset:
                yield row, past


def names(lines: Iterable[Line], keys: Collection[bytes], limit: int) -> list[str]:
    """The first `limit` of the rows that `keys` stand for, in words."""
    found: dict[bytes, str] = {}
    enough = min(limit, len(keys))
    for line in lines:
        record = line.record
        rows: Iterable[Row] = ()
        if isinstance(record, Result):
            rows = (record.row,)
        elif isinstance(record, Intent):
            rows = (row for _, row, _ in record.rows)
        elif isinstance(record, Skipped):
            rows = record.rows
        for row in rows:
            if row.key in keys:
                found.setdefault(row.key, f"{row.engagement}/{row.resource}")
            if len(found) == enough:
                return list(found.values())
    return list(found.values())
