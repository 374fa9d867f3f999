"""The state of each row after the lines of a ledger: one fold, which every reader of ledgers uses.

Pure. A succeeded row takes a key of 16 bytes in a set. Only the other rows carry more, so that a history of a
million results stays small.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from batch_snapshot.errors import DamagedError, LedgerError
from batch_snapshot.ledger.records import Control, End, Header, Intent, Line, Result, Skipped, named_rows
from batch_snapshot.models import LONG_AGO, ErrorKind, Row, Skip, Status


class RowState(NamedTuple):
    """A row that has not succeeded, and the token under which it was last named."""

    #: None: named by an intent, and known not to have been sent.
    status: Status | None
    client_token: str
    generation: int
    ambiguous: bool = False
    first_sent_at: datetime | None = None
    kind: ErrorKind | None = None
    code: str | None = None
    #: Of the line that says so; the row's names are read again from there.
    offset: int = 0
    #: The service's clock less ours at `first_sent_at`, in seconds; None: not known.
    clock_skew: float | None = None
    #: As in `Request`.
    sent_again_at: datetime | None = None


class FailureGroup(NamedTuple):
    """What rows that failed or are in doubt have in common."""

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
    succeeded: set[bytes] = field(default_factory=set)
    unfinished: dict[bytes, RowState] = field(default_factory=dict)
    #: By reason, the keys of the rows that were left out.
    skipped: dict[Skip, set[bytes]] = field(default_factory=dict)
    #: By account, who signed for it last.
    signers: dict[str, str] = field(default_factory=dict)
    #: Since then, rows can have been sent that no line names; None: none can.
    unrecorded_since: datetime | None = None
    #: Whether a line that does not follow from those before it is refused.
    checked: bool = field(default=False, compare=False)
    #: Rows with a definite result in this invocation; None: they are not kept. Where they are, the check is
    #: complete: a row named again after its result is refused too, and an end line that lacks a count.
    settled: set[bytes] | None = field(default=None, compare=False)
    #: Of the last line.
    number: int = field(default=0, compare=False)
    #: Keys that the caller holds, each mapped to itself: a million keys of succeeded rows take 60 MB once.
    shared_keys: Mapping[bytes, bytes] = field(default_factory=dict, compare=False)
    #: Rows that the last invocation has named and that have no result yet, as they are if it has crashed.
    _pending: dict[Row, RowState] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        record, self.number = line.record, line.number
        if isinstance(record, Header):
            self._open(record)
            return
        if isinstance(record, Control):
            return
        if self.first is None:
            raise DamagedError("no run line before it: this is not a ledger, or its head is missing")
        run_id, ours = None if isinstance(record, Intent) else record.run_id, self.first.run_id
        if run_id not in {None, ours}:
            raise LedgerError(f"run_id {run_id!r} is not the ledger's {ours!r}: two ledgers were mixed")
        if self.checked:
            self._check(record)
        if isinstance(record, Intent):
            self._intend(record, line.offset)
        elif isinstance(record, Result):
            self._settle(record, line.offset)
        elif isinstance(record, Skipped):
            self._skip(record)
        else:
            self._close(record)

    def _open(self, header: Header) -> None:
        if self.checked and self.first is None and header.resumes:
            raise DamagedError("resumes a run, and the lines of that run are missing")
        self.first = self.first or header
        run_id, ours = header.run_id, self.first.run_id
        if run_id != ours:
            raise LedgerError(f"run_id {run_id!r} follows {ours!r}: two ledgers were mixed")
        self.mark_crashed()
        self.last, self.end = header, None
        self.settled = None if self.settled is None else set()
        known = (self.unrecorded_since, header.unrecorded_since)
        self.unrecorded_since = min(filter(None, known), default=None)

    def _intend(self, intent: Intent, offset: int) -> None:
        sent = min(intent.at, self.unrecorded_since or intent.at)
        for one in intent.rows:
            self._pending[one.row] = RowState(
                Status.IN_DOUBT,
                one.client_token,
                one.generation,
                ambiguous=True,
                first_sent_at=sent,
                kind=ErrorKind.TRANSIENT,
                code=CRASHED,
                offset=offset,
                clock_skew=intent.clock_skew_s,
                sent_again_at=intent.at if sent == LONG_AGO else None,
            )
            if intent.signer:
                self.signers[one.account] = intent.signer

    def _check(self, record: Intent | Result | Skipped | End) -> None:
        if self.end is not None:
            raise DamagedError("follows an end line, but does not open an invocation")
        if isinstance(record, Intent):
            for row in named_rows(record):
                if self.is_named(row):
                    raise DamagedError(f"names {_name(row)} a second time in one invocation")
        elif isinstance(record, Result):
            pending = self._pending.get(record.row)
            if pending is None:
                raise DamagedError(f"a result of {_name(record.row)}, which no intent named before")
            if pending.client_token != record.client_token:
                raise DamagedError(f"a result of {_name(record.row)} under another token than intended")
        elif isinstance(record, End):
            known, counts = self.expected_counts(), dict(record.counts)
            # An older ledger may leave out what is zero, or every count.
            same = not counts or Counter(counts) == Counter(known)
            if counts != known if self.settled is not None else not same:
                raise DamagedError(f"counts {_counted(counts)}, but the lines before say {_counted(known)}")

    def is_pending(self, row: Row, token: str) -> bool:
        """Whether this invocation has named the row under the token, and there is no result yet."""
        pending = self._pending.get(row)
        return pending is not None and pending.client_token == token

    def is_named(self, row: Row) -> bool:
        """Whether this invocation has named the row, and will not again."""
        return row in self._pending or bool(self.settled and row.key in self.settled)

    def expected_counts(self) -> dict[str, int]:
        counts = self.counts()
        known = {status.value: counts.get(status, 0) for status in Status}
        skipped = {reason.value: counts[reason] for reason in Skip if counts[reason]}
        total = self.last.rows if self.last else 0
        known["unattempted"] = total - sum(known.values()) - sum(skipped.values())
        return known | skipped

    def _settle(self, result: Result, offset: int) -> None:
        row, error = result.row, result.error
        key = row.key
        self._pending.pop(row, None)
        for left_out in self.skipped.values():
            left_out.discard(key)
        if self.settled is not None and result.status is not Status.IN_DOUBT:
            # A row of a lost worker is in doubt, and is named again for another worker.
            self.settled.add(key)
        if result.status is Status.SUCCEEDED:
            self.succeeded.add(self.shared_keys.get(key, key))
            self.unfinished.pop(key, None)
            return
        self.succeeded.discard(key)
        self.unfinished[key] = RowState(
            status=result.status,
            client_token=result.client_token,
            generation=result.generation,
            ambiguous=result.ambiguous,
            first_sent_at=result.first_sent_at,
            kind=error.kind if error else None,
            code=error.code if error else None,
            offset=offset,
            clock_skew=result.clock_skew_s,
        )

    def _skip(self, skipped: Skipped) -> None:
        for row in skipped.rows:
            key = row.key
            if row in self._pending or self.has_state(key):
                raise LedgerError(f"leaves out {_name(row)}, which was named before")
            self.add_skipped(skipped.reason, key)

    def add_skipped(self, reason: Skip, key: bytes) -> None:
        self.skipped.setdefault(reason, set()).add(key)

    def is_skipped(self, key: bytes) -> bool:
        return bool(self.skipped) and any(key in keys for keys in self.skipped.values())

    def _close(self, end: End) -> None:
        self.end = end
        for row, named in self._pending.items():
            if not self.has_state(row.key):
                unsent = RowState(None, named.client_token, named.generation, offset=named.offset)
                self.unfinished[row.key] = unsent
        self._pending.clear()

    def mark_crashed(self) -> None:
        """The last invocation has no end and will get none: its pending rows are in doubt."""
        for row, named in self._pending.items():
            before = self.unfinished.get(row.key)
            doubted = before and (before.status, before.client_token) == (named.status, named.client_token)
            if not doubted and row.key not in self.succeeded:
                self.unfinished[row.key] = named
        self._pending.clear()

    @property
    def pending(self) -> Collection[Row]:
        """Rows that the last invocation has named and that have no result yet."""
        return self._pending

    def pending_without_state(self) -> set[bytes]:
        """Keys of the pending rows that have no state from an earlier invocation."""
        return {row.key for row in self._pending if self.status(row.key) is None}

    def has_state(self, key: bytes) -> bool:
        """Whether the row has a result, or was named by an invocation that is over."""
        return key in self.succeeded or key in self.unfinished

    def status(self, key: bytes) -> Status | None:
        """The state of a row; None: unattempted."""
        if key in self.succeeded:
            return Status.SUCCEEDED
        state = self.unfinished.get(key)
        return state.status if state else None

    def counts(self) -> Counter[Status | Skip]:
        """How many rows have each status, or were left out; unattempted rows are not counted."""
        counts: Counter[Status | Skip] = Counter(
            state.status for state in self.unfinished.values() if state.status
        )
        counts[Status.SUCCEEDED] = len(self.succeeded)
        counts.update({reason: len(keys) for reason, keys in self.skipped.items() if keys})
        return counts

    def keys(self) -> Iterator[bytes]:
        """The keys of all rows that have a status or were left out."""
        yield from self.succeeded
        for keys in self.skipped.values():
            yield from keys
        yield from (key for key, state in self.unfinished.items() if state.status)

    def failures(self) -> Counter[FailureGroup]:
        return Counter(failure_group(state) for state in self.unfinished.values() if state.status)

    @property
    def finished(self) -> bool:
        """Whether `run` has nothing left to do for the rows it was last given."""
        return self.end is not None and self.end.settled


def failure_group(state: RowState) -> FailureGroup:
    return FailureGroup(state.status or Status.IN_DOUBT, state.kind or ErrorKind.UNKNOWN, state.code or "")


def _name(row: Row) -> str:
    return f"{row.engagement}/{row.resource}"


def _counted(counts: Mapping[str, int]) -> str:
    words = (f"{number:,} {name.replace('_', ' ')}" for name, number in counts.items())
    return ", ".join(words) or "none"


def fold(
    lines: Iterable[Line],
    *,
    live: bool = False,
    checked: bool = False,
    complete: bool = False,
    shared_keys: Mapping[bytes, bytes] | None = None,
    locate: Callable[[int, LedgerError], LedgerError] = lambda number, error: LedgerError(
        f"line {number}: {error}"
    ),
) -> History:
    """The history after all `lines` of a ledger; `locate` adds a line's number to an error.

    `live`: the last invocation may still run, so what it has named is not in doubt yet. `checked`: refuse a
    ledger of which lines are lost or were edited, as far as the fold shows it; `complete`: refuse any, at the
    price of a key more for each row (see `History.settled`).
    """
    history = History(
        checked=checked or complete, settled=set() if complete else None, shared_keys=shared_keys or {}
    )
    for line in lines:
        try:
            history.add(line)
        except LedgerError as error:
            raise locate(line.number, error) from None
    if not live:
        history.mark_crashed()
    return history


def unfinished_rows(lines: Iterable[Line], history: History) -> Iterator[tuple[Row, RowState]]:
    """Each unfinished row with its state, in the order of the lines that say so."""
    for line in lines:
        record = line.record
        if isinstance(record, Result) and record.status is Status.SUCCEEDED:
            continue
        for row in named_rows(record):
            state = history.unfinished.get(row.key)
            if state is not None and state.offset == line.offset:
                yield row, state


def row_names(lines: Iterable[Line], keys: Collection[bytes], limit: int) -> list[str]:
    """The first `limit` of the rows that `keys` stand for, in words."""
    rows = (row for line in lines for row in named_rows(line.record) if row.key in keys)
    found: dict[bytes, str] = {}
    while len(found) < min(limit, len(keys)) and (row := next(rows, None)):
        found.setdefault(row.key, _name(row))
    return list(found.values())
