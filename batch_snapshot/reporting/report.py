"""Reports: a ledger and its manifest → an HTML page, or CSV files."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import IO

from batch_snapshot import manifest
from batch_snapshot.errors import InputError, ManifestError, way_out
from batch_snapshot.files import atomic_write_text, make_folder, resolved
from batch_snapshot.ledger import reader
from batch_snapshot.ledger.records import Header
from batch_snapshot.manifest import Manifest
from batch_snapshot.reporting import csv, html
from batch_snapshot.reporting.entries import ReportEntry, settled, unattempted
from batch_snapshot.reporting.html_table import PageRows
from batch_snapshot.reporting.stats import LedgerStats
from batch_snapshot.reporting.status import LedgerWatch
from batch_snapshot.reporting.summary import Summary


@dataclass(slots=True)
class ReportData:
    path: Path
    stats: LedgerStats
    header: Header
    running: bool
    manifest: Manifest | None = None
    #: What is missing, and why: shown in every report.
    notes: list[str] = field(default_factory=list)

    def entries(self) -> Iterator[ReportEntry]:
        """Every row that is known, once; those of the ledger first."""
        past = self.stats.history
        # What a run has written since would name rows a second time: `settled` takes known lines only.
        named = settled(reader.lines(self.path, whole=True), past, self.stats.repeated)
        if self.manifest is None:
            return named
        known = set().union(past.succeeded, past.unfinished, *past.skipped.values())
        return chain(named, unattempted(manifest.rows(self.manifest), known))


def load(path: Path, manifest_path: Path | None = None) -> ReportData:
    """Read the ledger at `path`, and its manifest: as named, or where the ledger says."""
    watch = LedgerWatch(path)
    watch.refresh()
    data = ReportData(path, watch.stats, watch.header, watch.running)
    if data.running:
        data.notes.append("A run was writing the ledger when this was made: the last rows may be missing.")
        data.stats.invocations[-1].outcome = "running"
    data.manifest = _load_manifest(data, manifest_path)
    return data


def _load_manifest(data: ReportData, named: Path | None) -> Manifest | None:
    """Load the manifest; if one that was not named cannot be read, a note says so."""
    past = data.stats.history
    named_only = sum(row.status is None for row in past.unfinished.values())
    unknown = data.stats.counts.unattempted - named_only
    path = named or Path(data.header.manifest or "")
    try:
        settings = data.header.settings
        options = manifest.LoadOptions(settings.get("name"), settings.get("catalog"))
        found = manifest.load(path, options=options)
    except ManifestError as error:
        if named is not None:
            raise
        if unknown > 0:
            why = str(error).splitlines()[0]
            data.notes.append(
                f"{unknown:,} unprocessed rows are counted but cannot be listed, for only the manifest names "
                f"them ({why}): give it with --manifest."
            )
        return None
    if found.name != data.header.name:
        raise InputError(
            f"{path}: is manifest {found.name!r}, but the ledger belongs to {data.header.name!r}"
        )
    if found.sha256 != data.header.manifest_sha256:
        data.notes.append(
            "The manifest has changed since the last run: unprocessed rows are those that it lists now."
        )
    return found


def summary(data: ReportData) -> Summary:
    seconds = sum((each.ended - each.began).total_seconds() for each in data.stats.invocations)
    return data.stats.summary(data.header, str(data.path), running=data.running, elapsed_s=seconds)


def write_html(data: ReportData, file: Path, now: datetime) -> None:
    """Write the page to `file`."""
    rows = PageRows()
    for entry in data.entries():
        rows.add(entry)
    with _replacing(data, file) as out:
        out.write(html.render(summary(data), data.stats, rows, notes=data.notes, made_at=now))


def write_csv(data: ReportData, folder: Path) -> dict[str, int]:
    """Write the tables into `folder`, which is made; returns the number of rows of each."""
    try:
        make_folder(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made ({error.strerror}); name another folder with --csv"
        ) from None
    with ExitStack() as stack:
        # Spreadsheets take a file for UTF-8 by its mark; a manifest that includes it skips that.
        files = {
            name: stack.enter_context(_replacing(data, folder / f"{name}.csv", mark="\ufeff"))
            for name in csv.COLUMNS
            if name != "left_out" or any(data.stats.history.skipped.values())
        }
        return csv.write(data.entries(), files)


@contextmanager
def _replacing(data: ReportData, file: Path, mark: str = "") -> Iterator[IO[str]]:
    """Write a file as a whole, or leave what stood there."""
    ours = [data.path, *(data.manifest.files if data.manifest else ())]
    if resolved(file) in map(resolved, ours):
        raise InputError(f"{file}: is what the report is made from; name another file")
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file in it")
    try:
        with atomic_write_text(file, errors="replace") as out:
            out.write(mark)
            yield out
    except OSError as error:
        raise InputError(
            f"{file}: cannot be written ({error.strerror or error}); {way_out(error, 'name another place')}"
        ) from None
