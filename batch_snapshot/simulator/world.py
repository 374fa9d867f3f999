"""What exists at the service: snapshots, tokens, opportunities. Time is an argument.

A seeded world has ids that follow from the numbers asked for: engagement 1 is `eng-00000000000001`; its
opportunities, tasks and jobs are numbered through all engagements. The engagements of invitations follow. Of
four invitations two were accepted with an opportunity and one with a lead, of which an opportunity was made
later; one is pending. Every catalog shows the same world.
"""

import os
import stat
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import cycle
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import orjson

from batch_snapshot.simulator.answers import Refusal
from batch_snapshot.simulator.model import CATALOGS, whole_milliseconds
from batch_snapshot.simulator.settings import SimulatorSettings

Params = dict[str, Any]

#: When the oldest of it was made: 2025-01-01T00:00:00Z.
EPOCH: Final = 1735689600.0
#: Opportunities are numbered from here, so that their ids look like the service's.
_FIRST_OPPORTUNITY: Final = 1_000_001
#: What a state file calls the numbers that a world was seeded with.
_SEEDS: Final = ("engagements", "opportunities", "invitations")
#: How invitations, one after the other, led to an opportunity.
_INVITED: Final = ("invitation", "invitation", "engagement", "pending")
#: The first line of a state file.
_OPENING: Final = b'{"type":"simulator","schema":1}\n'


class SeededJob(NamedTuple):
    """An engagement's opportunity, the task that joined them, and the snapshot job that it started."""

    engagement: str
    #: What the task began with: an opportunity, an invitation, or an engagement (that of a lead); `pending`:
    #: there is neither task nor opportunity, only an invitation.
    origin: str
    created_at: float
    opportunity: str
    task_id: str
    job_id: str
    invitation_id: str
    status: str
    #: The number of the context that a lead's opportunity was made from.
    context: str = "1"
    task_status: str = "COMPLETE"


def _seeded(number: int, engagement: str, origin: str = "opportunity") -> SeededJob:
    return SeededJob(
        engagement,
        origin,
        EPOCH + number - 1,
        f"O{_FIRST_OPPORTUNITY + number - 1}",
        f"task-{number:013d}",
        f"job-{number:013d}",
        f"engi-{number:013d}",
        "Running" if number % 2 else "Stopped",
    )


class Series(NamedTuple):
    """What revisions are counted for."""

    catalog: str
    engagement: str
    resource_type: str
    resource: str
    template: str

    @classmethod
    def of(cls, params: Params) -> "Series":
        return cls(
            params["Catalog"],
            params["EngagementIdentifier"],
            params["ResourceType"],
            params["ResourceIdentifier"],
            params["ResourceSnapshotTemplateIdentifier"],
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One immutable snapshot; `created_at` is in seconds since the epoch by the server's clock."""

    arn: str
    catalog: str
    engagement: str
    resource_type: str
    resource: str
    template: str
    revision: int
    client_token: str
    access_key: str
    created_at: float
    #: Modifications of the opportunity that it shows.
    edits: int = 0

    @property
    def series(self) -> Series:
        return Series(self.catalog, self.engagement, self.resource_type, self.resource, self.template)


class _Token(NamedTuple):
    """What a token was used for; without a snapshot its work is still under way."""

    series: Series
    snapshot: Snapshot | None
    at: float


class World:
    """The state. Every change is written to the state file, if there is one."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._tokens: dict[str, _Token] = {}
        self._edits: dict[str, int] = {}
        self._edits_seen: dict[Series, int] = {}
        self.snapshots: list[Snapshot] = []
        self.series: defaultdict[Series, list[Snapshot]] = defaultdict(list)
        self.by_engagement: defaultdict[tuple[str, str], list[Snapshot]] = defaultdict(list)
        self.engagements: list[str] = []
        self.invitations: list[SeededJob] = []
        self.jobs: list[SeededJob] = []
        self.jobs_by_id: dict[str, SeededJob] = {}
        #: Last modification by opportunity, catalog by catalog.
        self.opportunities: dict[str, dict[str, float]] = {catalog: {} for catalog in CATALOGS}
        #: The numbers that the state file was seeded with.
        self._known_seeds = (0, 0, 0)
        asked = (settings.engagements, settings.opportunities_per_engagement, settings.invitations)
        self._seed(*asked)
        self._file: IO[bytes] | None = None
        if settings.state is not None:
            self._file = _opened(settings.state)
            try:
                self._load(settings.state, self._file)
            except BaseException:
                self.close()
                raise
        if any(asked) and asked != self._known_seeds:
            self._write({"type": "seeds", **dict(zip(_SEEDS, asked, strict=True))})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def made_by_token(self, params: Params, at: float) -> Snapshot | None:
        """What the request's token already made, or None where its work has to be done."""
        known = self._tokens.get(params["ClientToken"])
        forget_after = self._settings.forget_after
        if known is None or (forget_after is not None and at - known.at >= forget_after):
            return None
        if known.series != Series.of(params):
            raise Refusal("ConflictException", "ClientToken was used before with other parameters")
        if known.snapshot is None:
            raise Refusal("ConflictException", "A request with this ClientToken is still being processed")
        if self._settings.replay == "conflict":
            raise Refusal("ConflictException", "ClientToken was used before")
        return known.snapshot

    def check_changed(self, params: Params) -> None:
        """Refuse an unchanged resource where the settings ask for it."""
        if self._settings.unchanged == "conflict" and self._unchanged(Series.of(params)):
            raise Refusal("ConflictException", "The resource has not changed since its last snapshot")

    def create(self, params: Params, access_key: str, at: float) -> Snapshot:
        self.check_changed(params)
        series, token, at = Series.of(params), params["ClientToken"], whole_milliseconds(at)
        if self._settings.unchanged == "same" and self._unchanged(series):
            snapshot = self.series[series][-1]
            self._tokens[token] = _Token(series, snapshot, at)
            self._write({"type": "token", "client_token": token, "series": list(series), "at": at})
            return snapshot
        revision = len(self.series.get(series, ())) + 1
        catalog, engagement, kind, resource, template = series
        tail = f"engagement/{engagement}/resource/{kind}/{resource}/template/{template}/snapshot/{revision}"
        edits = self.edits(resource)
        snapshot = Snapshot(arn(catalog, tail), *series, revision, token, access_key, at, edits)
        self._add(snapshot)
        if self._file is not None:  # asdict is slow
            self._write({"type": "snapshot", **asdict(snapshot)})
        return snapshot

    def hold(self, params: Params, at: float) -> None:
        """Mark a token's work as under way."""
        self._tokens[params["ClientToken"]] = _Token(Series.of(params), None, at)

    def release(self, params: Params) -> None:
        """Forget a token whose work was under way."""
        self._tokens.pop(params["ClientToken"], None)

    def touch(self, opportunity: str, at: float) -> float:
        """Modify an opportunity in every catalog, or create it; return the time that is shown."""
        at = whole_milliseconds(at)
        self._touch(opportunity, at)
        self._write({"type": "touch", "opportunity": opportunity, "at": at})
        return at

    def edits(self, opportunity: str) -> int:
        return self._edits.get(opportunity, 0)

    def _seed(self, engagements: int, opportunities: int, invitations: int) -> None:
        """Fill the lists; an opportunity that was modified before keeps its time."""
        names = [f"eng-{number:014d}" for number in range(1, engagements + invitations + 1)]
        owners = [engagement for engagement in names[:engagements] for _ in range(opportunities)]
        self.jobs = [_seeded(number, engagement) for number, engagement in enumerate(owners, start=1)]
        invited = zip(names[engagements:], cycle(_INVITED))
        self.invitations = [
            _seeded(number, *one) for number, one in enumerate(invited, start=len(owners) + 1)
        ]
        accepted = [one for one in self.invitations if one.origin != "pending"]
        self.jobs += accepted
        self.engagements = names[:engagements] + [one.engagement for one in accepted]
        self.jobs_by_id = {job.job_id: job for job in self.jobs}
        for modified in self.opportunities.values():
            for job in self.jobs:
                modified.setdefault(job.opportunity, job.created_at)

    def _unchanged(self, series: Series) -> bool:
        return self._edits_seen.get(series) == self.edits(series.resource)

    def _add(self, snapshot: Snapshot) -> None:
        series = snapshot.series
        self.snapshots.append(snapshot)
        self.series[series].append(snapshot)
        self.by_engagement[snapshot.catalog, snapshot.engagement].append(snapshot)
        self.opportunities[snapshot.catalog].setdefault(snapshot.resource, EPOCH)
        self._edits_seen[series] = self.edits(snapshot.resource)
        self._tokens[snapshot.client_token] = _Token(series, snapshot, snapshot.created_at)

    def _touch(self, opportunity: str, at: float) -> None:
        self._edits[opportunity] = self.edits(opportunity) + 1
        for modified in self.opportunities.values():
            modified[opportunity] = at

    # -- the state file: NDJSON, append only, flushed per record ------------------------------------------

    def _load(self, path: Path, file: IO[bytes]) -> None:
        """Restore every record; a last line that a crash left incomplete is cut off."""
        file.seek(0)
        lines = file.readlines()
        if lines and not _OPENING.startswith(lines[0]):
            raise ValueError(f"{path}:1: not a simulator's state file; name another or remove it")
        complete = [line for line in lines if line.endswith(b"\n")]
        file.truncate(sum(map(len, complete)))
        if not complete:
            file.write(_OPENING)
            file.flush()
        for number, line in enumerate(complete[1:], start=2):
            try:
                self._restore(orjson.loads(line))
            except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
                raise ValueError(f"{path}:{number}: not a record of a simulator's state") from error

    def _restore(self, record: dict[str, Any]) -> None:
        kind = record.pop("type", None)
        if kind == "snapshot":
            self._add(Snapshot(**record))
        elif kind == "token":
            series = Series(*record["series"])
            self._tokens[record["client_token"]] = _Token(series, self.series[series][-1], record["at"])
        elif kind == "touch":
            self._touch(record["opportunity"], record["at"])
        elif kind == "seeds":
            engagements, opportunities, invitations = (record.get(name, 0) for name in _SEEDS)
            self._known_seeds = (engagements, opportunities, invitations)
            if not (self._settings.engagements or self._settings.invitations):
                self._seed(*self._known_seeds)

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(orjson.dumps(record) + b"\n")
            self._file.flush()


def _opened(path: Path) -> IO[bytes]:
    """Open a state file to read and append; it is not locked: users must run one simulator a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without O_NONBLOCK opening a pipe would block.
        number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise ValueError(f"{path}: cannot be used ({error.strerror}); name another file") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ValueError(f"{path}: is a pipe or a device, not a file; name another")
    return os.fdopen(number, "a+b")


def arn(catalog: str, tail: str) -> str:
    return f"arn:aws:partnercentral:us-east-1::catalog/{catalog}/{tail}"


@lru_cache(maxsize=10_000)
def account_of(access_key: str) -> str:
    """The account of an access key id: twelve digits that follow from the key."""
    number = int.from_bytes(blake2b(access_key.encode(), digest_size=8).digest(), "big")
    return f"{number % 10**12:012d}"
