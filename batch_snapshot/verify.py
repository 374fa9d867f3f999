"""A ledger against the service: whether what it claims is there, and nothing beside it.

A read of a list for each engagement tells most. A revision that no ledger names is asked for its date
(a read each): one made since the run began is an extra, such as a duplicate would be.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from batch_snapshot import paths, sqlite
from batch_snapshot.aws import profiles
from batch_snapshot.config.accounts import recorded_accounts, resolve_targets
from batch_snapshot.config.options import isolate_simulated_state, state_folder_of
from batch_snapshot.discovery.readers import open_readers
from batch_snapshot.engine.reader import beside, broken
from batch_snapshot.errors import InputError, LedgerError
from batch_snapshot.ledger import locks
from batch_snapshot.ledger.reader import head, lines
from batch_snapshot.ledger.records import Header, Result, Skipped
from batch_snapshot.ledger.snapshot_index import SnapshotIndex, service_of
from batch_snapshot.models import SIMULATOR, ApiError, Row, Status
from batch_snapshot.operations import NOT_FOUND, create_operation
from batch_snapshot.text import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from batch_snapshot.config.options import Options
    from batch_snapshot.discovery.readers import Environment
    from batch_snapshot.engine.reader import Reader
    from batch_snapshot.operations import CreateOperation
    from batch_snapshot.sqlite import Connection

#: A snapshot that a clock this far off dates before the run was made in it all the same.
MARGIN = timedelta(minutes=1)

#: Revisions of a pair that its list leaves out are asked for, if they are no more than these.
GAPS = 100

#: Refusals of an engagement that say nothing about the others.
_OF_ONE = frozenset({NOT_FOUND, "AccessDeniedException", "ValidationException"})

_TABLES = """
CREATE TABLE rows (account TEXT, catalog TEXT, engagement TEXT, resource_type TEXT, resource TEXT,
    template TEXT, status TEXT, arn TEXT, revision INTEGER, chance BLOB,
    PRIMARY KEY (account, catalog, engagement, resource_type, resource, template)) WITHOUT ROWID
"""


class Claim(NamedTuple):
    """What the ledger says of a row."""

    row: Row
    status: str
    arn: str | None
    revision: int | None


class Listed(NamedTuple):
    """A snapshot as the service lists it."""

    revision: int
    arn: str
    created_by: str


class Finding(NamedTuple):
    """Something that is off."""

    #: missing, mismatched, extra, or unreadable (the engagement, to these credentials).
    what: str
    row: Row
    revision: int | None
    arn: str | None
    #: What the service has instead, or says.
    found: str
    created_at: datetime | None = None


@dataclass(slots=True)
class Verification:
    """What became of it."""

    ledger: str
    #: Rows of the ledger that succeeded, and how many of them were looked at.
    succeeded: int = 0
    checked: int = 0
    engagements: int = 0
    findings: list[Finding] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    throttled: int = 0
    elapsed_s: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 where something is off."""
        return 1 if self.findings else 0


async def verify(
    path: Path, options: Options, around: Environment, sample: int | None = None
) -> Verification:
    """Compare the ledger at `path` with the service.

    Args:
        path: of the ledger; no run may be writing it.
        options: for whom, and where; where the ledger says otherwise they are refused.
        around: clock and chance.
        sample: so many of the succeeded rows, the same ones each time; None: all of them.

    Raises:
        InputError: it is no ledger, or the options don't fit it.
        ServiceError: the service cannot be read, or not now.
        StorageError: the log of calls or the index cannot be used.
    """
    header = head(path)
    if header is None:
        raise LedgerError(f"{path}: no ledger: it does not begin with a run line")
    if locks.is_held(paths.ledger_lock(path)):
        raise InputError(f"{path}: a run is writing it; wait until that has ended")
    began = around.clock()
    told = Verification(str(path))
    simulated = options.simulate or header.endpoint == SIMULATOR
    with (
        isolate_simulated_state(options, simulated=simulated) as own,
        sqlite.temporary_tables(_TABLES) as db,
        SnapshotIndex(paths.index_file(state_folder_of(own))) as known,
    ):
        last = _take(db, path, sample, told)
        whom = resolve_targets(recorded_accounts(path, last), options, profiles.endpoints, last.endpoint)
        _check_place(path, last, whom.endpoint)
        told.warnings += known.refresh(path.parent)
        async with open_readers(whom, own, around.now, around.rng) as readers:
            verifier = _Verifier(db, known, service_of(last), header.started_at, told)
            for name, reader in readers.items():
                try:
                    await verifier.account(name, reader, around)
                finally:
                    told.calls.update(reader.calls)
                    told.throttled += reader.throttled
    told.findings.sort(key=lambda one: (one.row, one.what, one.revision or 0))
    told.elapsed_s = around.clock() - began
    return told


def _check_place(path: Path, header: Header, endpoint: str) -> None:
    if header.endpoint != endpoint:
        raise LedgerError(f"{path}: was written against {header.endpoint}, not {endpoint}: name that one")


def _take(db: Connection, path: Path, sample: int | None, told: Verification) -> Header:
    """Lay the rows out by engagement; the last line of a row wins."""
    last: Header | None = None
    for line in lines(path):
        record = line.record
        if isinstance(record, Header):
            last = record
        elif isinstance(record, Result):
            claim = (record.status, record.arn, record.revision)
            _put(db, record.row, *claim)
        elif isinstance(record, Skipped):
            for row in record.rows:
                _put(db, row, record.reason, None, None)
    if last is None:
        raise LedgerError(f"{path}: no run has begun in it; name a ledger that a run has written")
    count = "SELECT count(*) FROM rows WHERE status = ?"
    (told.succeeded,) = db.execute(count, (Status.SUCCEEDED,)).fetchone()
    if sample is not None:
        # What is not drawn is none of our business; the draw is the same each time.
        db.execute(
            "DELETE FROM rows WHERE status <> ? OR chance > (SELECT chance FROM rows WHERE status = ?"
            " ORDER BY chance LIMIT 1 OFFSET ?)",
            (Status.SUCCEEDED, Status.SUCCEEDED, max(0, min(sample, told.succeeded) - 1)),
        )
    (told.checked,) = db.execute(count, (Status.SUCCEEDED,)).fetchone()
    return last


def _put(db: Connection, row: Row, status: str, arn: str | None, revision: int | None) -> None:
    chance = blake2b(row.key, digest_size=8, person=b"sample").digest()
    db.execute(
        "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, status, arn, revision, chance),
    )


class _Verifier:
    """Goes through the engagements of an account, one after the other."""

    def __init__(
        self, db: Connection, known: SnapshotIndex, world: str | None, began: datetime, told: Verification
    ) -> None:
        self._db = db
        self._known = known
        self._world = world
        self._began = began - MARGIN
        self._told = told

    async def account(self, name: str, reader: Reader, around: Environment) -> None:
        """Check all rows of an account whose engagements hold one that was sent."""
        engagements = self._db.execute(
            "SELECT DISTINCT catalog, engagement FROM rows WHERE account = ? AND status IN (?, ?)"
            " ORDER BY catalog, engagement",
            (name, Status.SUCCEEDED, Status.FAILED),
        ).fetchall()
        begun = self._told.engagements

        async def one(place: tuple[str, str]) -> None:
            await self._engagement(reader, *place)
            self._told.engagements += 1
            done = self._told.engagements - begun
            around.on_progress(f"{name}: {done:,} of {len(engagements):,} engagements")

        await beside(engagements, one)

    async def _engagement(self, reader: Reader, catalog: str, engagement: str) -> None:
        claims = [
            Claim(Row(*values[:6]), *values[6:])
            for values in self._db.execute(
                "SELECT account, catalog, engagement, resource_type, resource, template, status, arn,"
                " revision FROM rows WHERE account = ? AND catalog = ? AND engagement = ?",
                (reader.name, catalog, engagement),
            )
        ]
        listed: dict[tuple[Any, ...], list[Listed]] = {}
        try:
            for operation in dict.fromkeys(create_operation(claim.row) for claim in claims):
                where = {
                    operation.parameters["catalog"]: catalog,
                    operation.parameters["engagement"]: engagement,
                }
                async for page in reader.pages(operation.listing.name, **where):
                    for item in page.items:
                        series, one = _listed(operation, item)
                        listed.setdefault(series, []).append(one)
        except ApiError as error:
            if error.failure.code not in _OF_ONE:
                raise broken(reader.name, operation.listing.name, error.failure) from error
            why = f"{error.failure.code}: {error.failure.message}"
            self._told.findings += [
                Finding("unreadable", one.row, one.revision, one.arn, why) for one in claims
            ]
            return
        for claim in claims:
            row = claim.row
            await self._claim(reader, claim, listed.get((row.resource_type, row.resource, row.template), []))

    async def _claim(self, reader: Reader, claim: Claim, listed: Sequence[Listed]) -> None:
        found = disagreement(claim, listed) if claim.status == Status.SUCCEEDED else None
        # A list may lag behind what it lists: the snapshot itself has the last word.
        if found and not (found.what == "missing" and await self._exists(reader, claim)):
            self._told.findings.append(found)
        if claim.status == Status.IN_DOUBT:
            return  # whose snapshot it is, if there is one, is for a run or a retry to find out
        ours = {claim.revision} if claim.revision else set()
        known = ours | (self._known.revisions(self._world, claim.row) if self._world else set())
        for one in suspects(listed, known):
            answer = await self._snapshot(reader, claim.row, one.revision)
            created = answer.get("CreatedAt") if answer else None
            if not isinstance(created, datetime):
                continue
            if created < self._began:
                break  # and so were all that come before it
            maker = answer.get("CreatedBy") or one.created_by or "somebody"
            about = f"made {timestamp(created)} by {maker}"
            arn = str(answer.get("Arn") or one.arn)
            self._told.findings.append(Finding("extra", claim.row, one.revision, arn, about, created))

    async def _exists(self, reader: Reader, claim: Claim) -> bool:
        answer = await self._snapshot(reader, claim.row, claim.revision or 0)
        return answer.get("Arn") == claim.arn

    async def _snapshot(self, reader: Reader, row: Row, revision: int) -> Mapping[str, Any]:
        """A snapshot itself; nothing: there is none."""
        operation = create_operation(row)
        try:
            return await reader.read(operation.look_up, **operation.read_parameters(row), Revision=revision)
        except ApiError as error:
            if error.failure.code != NOT_FOUND:
                raise broken(reader.name, operation.look_up, error.failure) from error
            return {}


def _listed(operation: CreateOperation, item: Mapping[str, Any]) -> tuple[tuple[Any, ...], Listed]:
    series = tuple(item.get(operation.members[field]) for field in ("resource_type", "resource", "template"))
    revision = item.get("Revision")
    number = revision if isinstance(revision, int) else 0
    return series, Listed(number, str(item.get("Arn") or ""), str(item.get("CreatedBy") or ""))


def disagreement(claim: Claim, listed: Sequence[Listed]) -> Finding | None:
    """In what a claim of success and a list disagree; None: it is there as claimed."""
    if any((one.arn, one.revision) == (claim.arn, claim.revision) for one in listed):
        return None
    for one in listed:
        if one.arn == claim.arn or one.revision == claim.revision:
            found = f"the service has revision {one.revision}, {one.arn}"
            return Finding("mismatched", claim.row, claim.revision, claim.arn, found)
    return Finding("missing", claim.row, claim.revision, claim.arn, "the service lists no such snapshot")


def suspects(listed: Sequence[Listed], known: set[int]) -> Iterator[Listed]:
    """The snapshots that no ledger names, the latest first; a few that the list leaves out too."""
    there = {one.revision: one for one in listed if one.revision > 0}
    highest = max((*there, *known), default=0)
    counted = range(highest, 0, -1) if highest <= len(there) + GAPS else sorted(there, reverse=True)
    for revision in counted:
        if revision not in known:
            yield there.get(revision, Listed(revision, "", ""))


def as_json(told: Verification) -> dict[str, Any]:
    """The one object that `--format json` prints."""
    kinds = Counter(finding.what for finding in told.findings)
    return {
        "outcome": "off" if told.findings else "verified",
        "ledger": told.ledger,
        "succeeded": told.succeeded,
        "checked": told.checked,
        "engagements": told.engagements,
        "counts": {what: kinds[what] for what in ("missing", "mismatched", "extra", "unreadable")},
        "findings": [
            {
                "what": one.what,
                **one.row._asdict(),
                "revision": one.revision,
                "arn": one.arn,
                "found": one.found,
                "created_at": timestamp(one.created_at) if one.created_at else None,
            }
            for one in told.findings
        ],
        "calls": sum(told.calls.values()),
        "calls_by_operation": dict(sorted(told.calls.items())),
        "throttled_calls": told.throttled,
        "elapsed_s": round(told.elapsed_s, 3),
        "warnings": list(told.warnings),
    }


#: Findings that the text names.
SHOWN = 20


def as_text(told: Verification) -> str:
    """The same for people."""
    part = "" if told.checked == told.succeeded else f" of {told.succeeded:,}"
    kinds = Counter(finding.what for finding in told.findings)
    off = ", ".join(f"{number:,} {what}" for what, number in sorted(kinds.items()))
    what = off or "every one is there, and nothing beside them"
    lines = [
        f"{told.ledger}: {told.checked:,}{part} succeeded rows in {told.engagements:,} engagements: {what}"
    ]
    for one in told.findings[:SHOWN]:
        revision = f" revision {one.revision}" if one.revision else ""
        lines.append(f"  {one.what:<10} {one.row.engagement}/{one.row.resource}{revision}: {one.found}")
    if len(told.findings) > SHOWN:
        lines.append(f"  … and {len(told.findings) - SHOWN:,} more: --format json names them all")
    return "\n".join(lines)
