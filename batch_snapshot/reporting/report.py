"""What a report is made of: a ledger and its manifest; and its CSV tables."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO

from batch_snapshot import manifest, paths
from batch_snapshot.engine.limits import AccountForecast
from batch_snapshot.errors import InputError, ManifestError, file_errors
from batch_snapshot.files import atomic_write_text, make_folder, resolved
from batch_snapshot.ledger import reader
from batch_snapshot.ledger.diff import Difference
from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.manifest import Manifest
from batch_snapshot.reporting import entries
from batch_snapshot.reporting.display import Frame
from batch_snapshot.reporting.entries import UNATTEMPTED, ReportEntry, settled
from batch_snapshot.reporting.status import LedgerWatch
from batch_snapshot.reporting.summary import Summary
from batch_snapshot.text import plural

#: Different messages that a group of failures quotes, and the characters of each.
QUOTED, QUOTED_LENGTH = 5, 600


@dataclass(slots=True)
class FailureMessages:
    rows: int = 0
    accounts: Counter[str] = field(default_factory=Counter)
    #: The first different messages, and how many rows have each.
    messages: Counter[str] = field(default_factory=Counter)
    #: Rows with another message.
    others: int = 0

    def add(self, entry: ReportEntry) -> None:
        self.rows += 1
        self.accounts[entry.row.account] += 1
        # Messages that differ in the row's own names alone are one.
        text = entry.message[:QUOTED_LENGTH]
        for name, value in (("engagement", entry.row.engagement), ("resource", entry.row.resource)):
            text = text.replace(value, f"‹{name}›") if value else text
        if text in self.messages or len(self.messages) < QUOTED:
            self.messages[text] += 1
        else:
            self.others += 1


@dataclass(slots=True)
class ReportData:
    watch: LedgerWatch
    summary: Summary
    #: By account: its quota windows now, if they still matter.
    forecasts: Mapping[str, AccountForecast] = field(default_factory=dict)
    manifest: Manifest | None = None
    #: What is missing, and why: shown in every report.
    notes: list[str] = field(default_factory=list)
    #: Of the page: rows by account and status, and failures by group.
    accounts: Mapping[str, Counter[str]] = field(default_factory=dict)
    groups: Mapping[FailureGroup, FailureMessages] = field(default_factory=dict)
    #: To the ledger before it.
    difference: Difference | None = None
    #: Of a run that goes on: its last minute, and the calls a second that are allowed now, and why.
    frame: Frame | None = None
    allowed_now: tuple[float, str] | None = None

    def entries(self) -> Iterator[ReportEntry]:
        """Every row that is known, once; those of the ledger first."""
        past = self.watch.stats.history
        # What a run has written since would name rows a second time: `settled` takes known lines only.
        named = settled(reader.lines(self.watch.path), past, self.watch.stats.repeated)
        if (listed := self.manifest) is None:
            return named
        # A row that was named and not sent, and is no longer listed, is no row of the ledger any more.
        named = (one for one in named if one.status != UNATTEMPTED or one.row.key in listed.keys)
        known = set().union(past.succeeded, past.unfinished, *past.skipped.values())
        rest = (ReportEntry(row, UNATTEMPTED) for row in manifest.rows(listed) if row.key not in known)
        return chain(named, rest)


def load(path: Path, manifest_path: Path | None = None) -> ReportData:
    """Read the ledger at `path`, and its manifest: as named, or where the ledger says."""
    watch = LedgerWatch(path)
    watch.refresh()
    stats = watch.stats
    seconds = sum((each.ended - each.began).total_seconds() for each in stats.invocations)
    forecasts = watch.forecasts(dict.fromkeys(stats.accounts, stats.counts.unattempted))
    data = ReportData(watch, watch.totals(seconds), forecasts)
    if watch.running:
        data.notes.append("A run was writing the ledger when this was made: the last rows may be missing.")
    data.manifest = _load_manifest(data, manifest_path)
    return data


def _load_manifest(data: ReportData, named: Path | None) -> Manifest | None:
    try:
        found = manifest_of(data.watch, named)
    except ManifestError as error:
        if named is not None:
            raise
        named_only = sum(row.status is None for row in data.watch.stats.history.unfinished.values())
        if (unknown := data.watch.stats.counts.unattempted - named_only) > 0:
            data.notes.append(
                f"{plural(unknown, 'unattempted row')} counted but not listed, because only the manifest "
                f"names them ({str(error).splitlines()[0]}): give it with --manifest."
            )
        return None
    if found.sha256 != data.watch.header.manifest_sha256:
        data.notes.append(
            "The manifest has changed since the last run: unattempted rows are those that it lists now."
        )
    return found


def manifest_of(watch: LedgerWatch, named: Path | None = None) -> Manifest:
    header, first = watch.header, watch.stats.history.first
    if named is None and header.manifest is None:
        raise ManifestError(["the ledger does not say which one"])
    path = named or Path(header.manifest or "")
    options = manifest.LoadOptions(header.settings.get("name"), header.settings.get("catalog"))
    searched = first is not None and first.discovered_sha256 is not None
    found = manifest.load(path, paths.discovered_file(watch.path) if searched else None, options)
    if found.name != header.name:
        problem = f"{path}: is manifest {found.name!r}, but the ledger belongs to {header.name!r}"
        raise InputError(problem) if named else ManifestError([problem])
    return found


def write_csv(data: ReportData, folder: Path) -> dict[str, int]:
    """Write the tables into `folder`, which is made; returns the number of rows of each."""
    with file_errors(folder, "name another folder with --csv", InputError, "cannot be made"):
        make_folder(folder)
    with ExitStack() as stack:
        # Spreadsheets take a file for UTF-8 by its mark; a manifest that includes it skips that.
        files = {
            name: stack.enter_context(replacing(data, folder / f"{name}.csv", mark="\ufeff"))
            for name in entries.COLUMNS
            if name != "left_out" or any(data.watch.stats.history.skipped.values())
        }
        return entries.write_tables(data.entries(), files)


def check_target(file: Path, sources: Iterable[Path], what: str) -> None:
    """Refuse a path at which the report or page would replace a folder, or what it is made from."""
    if resolved(file) in map(resolved, sources):
        raise InputError(f"{file}: is what the {what} is made from; name another file")
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file in it")


@contextmanager
def replacing(data: ReportData, file: Path, mark: str = "") -> Iterator[IO[str]]:
    """Write a file as a whole, or leave the old one."""
    check_target(file, [data.watch.path, *(data.manifest.files if data.manifest else ())], "report")
    with (
        file_errors(file, "name another place", InputError),
        atomic_write_text(file, errors="replace") as out,
    ):
        out.write(mark)
        yield out
