"""Compares a ledger with the service: every snapshot it names exists, and no others were made since.

One list per engagement answers most of it. Each revision that no ledger names takes one read for its date:
if it was made since the run began it is an extra snapshot, for instance a duplicate.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from batch_snapshot import paths
from batch_snapshot.config.options import Options, isolate_simulated_state, state_folder_of
from batch_snapshot.discovery.output import ROW_ERRORS, Finding, Findings
from batch_snapshot.discovery.readers import Environment, open_ledger_readers
from batch_snapshot.engine.reader import Reader, map_concurrently, read_failed
from batch_snapshot.errors import InputError
from batch_snapshot.ledger import locks
from batch_snapshot.ledger.reader import last_header, run_line
from batch_snapshot.ledger.row_table import KEY, row_tables
from batch_snapshot.ledger.snapshot_index import SnapshotIndex, service_of
from batch_snapshot.models import SIMULATOR, ApiError, Row, Status
from batch_snapshot.operations import NOT_FOUND, create_operation
from batch_snapshot.sqlite import Connection
from batch_snapshot.text import plural, timestamp

#: By how much the service's clock may date a snapshot before the run that made it.
MARGIN = timedelta(minutes=1)

#: Up to this many revisions of a pair that its list leaves out are read one by one.
GAPS = 100

#: The fields of a row that its snapshots in an engagement have in common.
_SERIES = ("resource_type", "resource", "template")

#: Kinds of findings; unreadable: these credentials cannot read the engagement.
KINDS = ("missing", "mismatched", "extra", "unreadable")


class Claim(NamedTuple):
    row: Row
    status: str
    arn: str | None
    revision: int | None


class ListedSnapshot(NamedTuple):
    revision: int
    arn: str
    created_by: str


@dataclass(kw_only=True)
class Verification(Findings):
    ledger: str
    #: Rows of the ledger that succeeded, and how many of them were checked.
    succeeded: int = 0
    checked: int = 0
    engagements: int = 0
    warnings: list[str] = field(default_factory=list)


async def verify(
    path: Path, options: Options, environment: Environment, sample: int | None = None
) -> Verification:
    """Compare the ledger at `path` with the service; no run may be writing it.

    `sample`: check only this many succeeded rows, the same ones each time.
    """
    header = run_line(path)
    if locks.is_held(paths.ledger_lock(path)):
        raise InputError(f"{path}: a run is writing it; wait until that has ended")
    began = environment.clock()
    result = Verification(ledger=str(path))
    simulated = options.simulate or header.endpoint == SIMULATOR
    with (
        isolate_simulated_state(options, simulated=simulated) as own,
        row_tables(rows=path) as db,
        SnapshotIndex(paths.snapshot_index_file(state_folder_of(own))) as known,
    ):
        last = last_header(path)
        _choose_rows(db, sample, result)
        result.warnings += known.refresh(path.parent)
        async with open_ledger_readers(path, last, own, environment, result) as readers:
            verifier = _Verifier(db, known, service_of(last), header.started_at - MARGIN, result)
            for name, reader in readers.items():
                await verifier.check_account(name, reader, environment)
    result.findings.sort(key=lambda one: (one.row, one.what, one.revision or 0))
    result.elapsed_s = environment.clock() - began
    return result


def _choose_rows(db: Connection, sample: int | None, result: Verification) -> None:
    """Count the succeeded rows, and keep only `sample` of them."""
    count = "SELECT count(*) FROM rows WHERE status = ?"
    (result.succeeded,) = db.execute(count, (Status.SUCCEEDED,)).fetchone()
    if sample is not None:
        # The order by hash is random, and the same each time.
        db.create_function("chance", len(Row._fields), _chance, deterministic=True)
        db.execute(
            f"DELETE FROM rows WHERE status <> ? OR chance({KEY}) > (SELECT chance({KEY}) AS drawn FROM rows"  # noqa: S608 - constants
            " WHERE status = ? ORDER BY drawn LIMIT 1 OFFSET ?)",
            (Status.SUCCEEDED, Status.SUCCEEDED, max(0, min(sample, result.succeeded) - 1)),
        )
    (result.checked,) = db.execute(count, (Status.SUCCEEDED,)).fetchone()


def _chance(*row: str) -> bytes:
    return blake2b(Row(*row).key, digest_size=8, person=b"sample").digest()


@dataclass(slots=True)
class _Verifier:
    db: Connection
    known: SnapshotIndex
    service: str | None
    #: Snapshots from then on are the run's, or extra.
    began: datetime
    result: Verification
    #: Those checked so far, each once: two accounts may have rows of the same one.
    _engagements: set[tuple[str, str]] = field(default_factory=set)

    async def check_account(self, name: str, reader: Reader, environment: Environment) -> None:
        engagements = self.db.execute(
            "SELECT DISTINCT catalog, engagement FROM rows WHERE account = ? AND status IN (?, ?)"
            " ORDER BY catalog, engagement",
            (name, Status.SUCCEEDED, Status.FAILED),
        ).fetchall()
        done = 0

        async def one(place: tuple[str, str]) -> None:
            nonlocal done
            await self._check_engagement(reader, *place)
            self._engagements.add(place)
            self.result.engagements = len(self._engagements)
            done += 1
            environment.on_progress(f"{name}: {done:,} of {plural(len(engagements), 'engagement')}")

        await map_concurrently(engagements, one)

    async def _check_engagement(self, reader: Reader, catalog: str, engagement: str) -> None:
        claims = [
            Claim(Row(*values[:6]), *values[6:])
            for values in self.db.execute(
                f"SELECT {KEY}, status, arn, revision FROM rows"  # noqa: S608 - constants
                " WHERE account = ? AND catalog = ? AND engagement = ?",
                (reader.name, catalog, engagement),
            )
        ]
        listed: dict[tuple[Any, ...], list[ListedSnapshot]] = {}
        try:
            for operation in dict.fromkeys(create_operation(claim.row) for claim in claims):
                where = {
                    operation.parameters["catalog"]: catalog,
                    operation.parameters["engagement"]: engagement,
                }
                async for page in reader.pages(operation.listing.name, **where):
                    for item in page.items:
                        series = tuple(item.get(operation.members[field]) for field in _SERIES)
                        listed.setdefault(series, []).append(_listed_snapshot(item))
        except ApiError as error:
            if error.failure.code not in ROW_ERRORS:
                raise read_failed(reader.name, operation.listing.name, error.failure) from error
            why = f"{error.failure.code}: {error.failure.message}"
            self.result.findings += [
                Finding("unreadable", one.row, one.revision, why, one.arn) for one in claims
            ]
            return
        for claim in claims:
            series = tuple(getattr(claim.row, field) for field in _SERIES)
            await self._check_claim(reader, claim, listed.get(series, []))

    async def _check_claim(self, reader: Reader, claim: Claim, listed: Sequence[ListedSnapshot]) -> None:
        found = disagreement(claim, listed) if claim.status == Status.SUCCEEDED else None
        # The list may be out of date: reading the snapshot itself decides.
        if found and found.what == "missing":
            answer = await self._snapshot(reader, claim.row, claim.revision or 0)
            found = None if answer.get("Arn") == claim.arn else found
        if found:
            self.result.findings.append(found)
        if claim.status == Status.IN_DOUBT:
            return  # a run or a retry finds out whether there is a snapshot, and whose
        ours = {claim.revision} if claim.revision else set()
        known = ours | (self.known.revisions(self.service, claim.row) if self.service else set())
        for one in unknown_snapshots(listed, known):
            answer = await self._snapshot(reader, claim.row, one.revision)
            created = answer.get("CreatedAt") if answer else None
            if not isinstance(created, datetime):
                continue
            if created < self.began:
                break  # and so were all earlier ones
            maker = answer.get("CreatedBy") or one.created_by or "an unknown account"
            made_at = timestamp(created)
            about = f"made {made_at} by {maker}"
            arn = str(answer.get("Arn") or one.arn)
            self.result.findings.append(Finding("extra", claim.row, one.revision, about, arn, made_at))

    async def _snapshot(self, reader: Reader, row: Row, revision: int) -> Mapping[str, Any]:
        """The service's answer about a snapshot; empty: there is none."""
        operation = create_operation(row)
        try:
            return await reader.read(operation.look_up, **operation.read_parameters(row), Revision=revision)
        except ApiError as error:
            if error.failure.code != NOT_FOUND:
                raise read_failed(reader.name, operation.look_up, error.failure) from error
            return {}


def _listed_snapshot(item: Mapping[str, Any]) -> ListedSnapshot:
    revision = item.get("Revision")
    number = revision if isinstance(revision, int) else 0
    return ListedSnapshot(number, str(item.get("Arn") or ""), str(item.get("CreatedBy") or ""))


def disagreement(claim: Claim, listed: Sequence[ListedSnapshot]) -> Finding | None:
    """The difference between a claim of success and the list, or None."""
    if any((one.arn, one.revision) == (claim.arn, claim.revision) for one in listed):
        return None
    for one in listed:
        if one.arn == claim.arn or one.revision == claim.revision:
            found = f"the service has revision {one.revision}, {one.arn}"
            return Finding("mismatched", claim.row, claim.revision, found, claim.arn)
    return Finding("missing", claim.row, claim.revision, "the service lists no such snapshot", claim.arn)


def unknown_snapshots(listed: Sequence[ListedSnapshot], known: set[int]) -> Iterator[ListedSnapshot]:
    """The snapshots that no ledger names, latest first, with a few that the list leaves out."""
    by_revision = {one.revision: one for one in listed if one.revision > 0}
    highest = max((*by_revision, *known), default=0)
    few = highest <= len(by_revision) + GAPS
    for revision in range(highest, 0, -1) if few else sorted(by_revision, reverse=True):
        if revision not in known:
            yield by_revision.get(revision, ListedSnapshot(revision, "", ""))


def as_json(result: Verification) -> dict[str, Any]:
    return {
        "outcome": "off" if result.findings else "verified",
        "ledger": result.ledger,
        "succeeded": result.succeeded,
        "checked": result.checked,
        "engagements": result.engagements,
        "counts": {what: result.kinds[what] for what in KINDS},
        "findings": [
            one.row._asdict()
            | {name: getattr(one, name) for name in ("what", "revision", "arn", "found", "created_at")}
            for one in result.findings
        ],
        **result.calls_as_json(),
        "warnings": list(result.warnings),
    }


def as_text(result: Verification) -> str:
    part = "" if result.checked == result.succeeded else f" of {result.succeeded:,}"
    off = ", ".join(f"{number:,} {what}" for what, number in sorted(result.kinds.items()))
    what = off or "all snapshots exist, and no others"
    rows = plural(result.checked, "succeeded row") if not part else f"{result.checked:,}{part} succeeded rows"
    checked = f"{rows} in {plural(result.engagements, 'engagement')}"
    first = f"{result.ledger}: {checked}: {what}"
    return "\n".join([first, *result.as_lines("--format json names them all")])
