"""Files in, files out: what is read for a report, and where it is written."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING

from batch_snapshot import __version__, manifest, paths
from batch_snapshot.errors import InputError, LedgerError, ManifestError, way_out
from batch_snapshot.files import atomic_write_text, make_folder, resolved
from batch_snapshot.ledger import locks, reader
from batch_snapshot.reporting import csv, html, html_table, next_steps
from batch_snapshot.reporting import summary as report
from batch_snapshot.reporting.entries import settled, unattempted
from batch_snapshot.reporting.facts import Facts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from batch_snapshot.ledger.records import Header
    from batch_snapshot.manifest import Manifest
    from batch_snapshot.reporting.entries import ReportEntry


@dataclass(slots=True)
class ReportData:
    """What a report is made from."""

    path: Path
    facts: Facts
    header: Header
    running: bool
    listed: Manifest | None
    #: What is missing, and why: to be told in every report.
    notes: list[str] = field(default_factory=list)

    def entries(self) -> Iterator[ReportEntry]:
        """Every row that is known, once; those of the ledger first.

        Raises:
            LedgerError: the ledger changed and makes no sense any more.
            ManifestError: the manifest changed meanwhile.
        """
        facts = self.facts
        # A run may go on writing: what it has written since would tell of rows a second time.
        lines = reader.lines(self.path, whole=True)
        named = settled(lines, facts.history, facts.again)
        if self.listed is None:
            return named
        past = facts.history
        known = set().union(past.succeeded, past.unfinished, *past.skipped.values())
        return chain(named, unattempted(manifest.rows(self.listed), known))


def gather(path: Path, manifest_path: Path | None = None) -> ReportData:
    """Read the ledger at `path`, and find the manifest: as named, or where the ledger says.

    Raises:
        LedgerError: it is no ledger, or has a line that makes no sense.
        ManifestError: the manifest that was named is not valid.
        InputError: it is another ledger's.
    """
    running = locks.holder_lives(paths.ledger_lock(path))
    facts = Facts()
    for line in reader.lines(path, whole=True):
        try:
            facts.add(line)
        except LedgerError as error:
            raise LedgerError(f"{path}:{line.number}: {error}") from None
    if not running:
        facts.history.mark_crashed()
    header = facts.history.last
    if header is None:
        raise LedgerError(f"{path}: no run has begun in it; name a ledger that a run has written")
    material = ReportData(path, facts, header, running, None)
    if running:
        material.notes.append(
            "A run was writing the ledger when this was made: the last rows may be missing."
        )
        facts.invocations[-1].outcome = "running"
    material.listed = _listed(material, manifest_path)
    return material


def _listed(material: ReportData, named: Path | None) -> Manifest | None:
    """The manifest; one that was not named may be missing, and then it is said so."""
    header, counts = material.header, _counts(material)
    unknown = counts.unattempted - _named_only(material)
    path = named or Path(header.manifest or "")
    try:
        listed = manifest.load(path)
    except ManifestError as error:
        if named is not None:
            raise
        if unknown > 0:
            why = str(error).splitlines()[0]
            material.notes.append(
                f"{unknown:,} unprocessed rows are counted but cannot be listed, for only the manifest names "
                f"them ({why}): give it with --manifest."
            )
        return None
    if listed.name != header.name:
        raise InputError(f"{path}: is manifest {listed.name!r}, but the ledger belongs to {header.name!r}")
    if listed.sha256 != header.manifest_sha256:
        material.notes.append(
            "The manifest has changed since the last run: unprocessed rows are those that it lists now."
        )
    return listed


def _named_only(material: ReportData) -> int:
    """Rows without a status that the ledger names all the same."""
    return sum(past.status is None for past in material.facts.history.unfinished.values())


def _counts(material: ReportData) -> report.Counts:
    return report.count(material.facts.history.counts(), material.header.rows)


def summary(material: ReportData) -> report.Summary:
    """The sums that stand at the top of the page."""
    header, past = material.header, material.facts.history
    counts, failures = _counts(material), past.failures()
    run = (
        next_steps.run_command(header.manifest, str(material.path), header.endpoint, header.settings)
        if header.manifest
        else None
    )
    return report.Summary(
        outcome=past.end.outcome if past.end else "running" if material.running else "crashed",
        exit_code=0,
        counts=counts,
        failures=failures,
        ledger=str(material.path),
        run_id=header.run_id,
        elapsed_s=sum(
            (invocation.ended - invocation.began).total_seconds() for invocation in material.facts.invocations
        ),
        next_steps=()
        if material.running
        else next_steps.next_steps(
            counts, failures, run=run, ledger=str(material.path), settings=header.settings
        ),
        settings=header.settings,
    )


def write_html(material: ReportData, file: Path, now: datetime) -> None:
    """Write the page to `file`.

    Raises:
        InputError: it cannot be written, or is the ledger or manifest itself.
    """

    def counted() -> Iterator[ReportEntry]:
        for entry in material.entries():
            material.facts.row(entry)
            yield entry

    chosen, listed = html_table.chosen(counted())
    contents = html.Contents(
        summary=summary(material),
        facts=material.facts,
        table=html_table.columns(chosen),
        listed=listed,
        notes=material.notes,
        made_at=now,
        version=__version__,
    )
    with _replacing(material, file) as out:
        out.write(html.render(contents))


def write_csv(material: ReportData, folder: Path) -> dict[str, int]:
    """Write the tables into `folder`, which is made; returns the number of rows of each.

    Raises:
        InputError: they cannot be written.
    """
    try:
        make_folder(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made ({error.strerror}); name another folder with --csv"
        ) from None
    with ExitStack() as stack:
        # Spreadsheets take a file for UTF-8 by its mark; a manifest that includes it skips that.
        files = {
            name: stack.enter_context(_replacing(material, folder / f"{name}.csv", mark="\ufeff"))
            for name in csv.COLUMNS
            if name != "left_out" or any(material.facts.history.skipped.values())
        }
        return csv.write(material.entries(), files)


@contextmanager
def _replacing(material: ReportData, file: Path, mark: str = "") -> Iterator[IO[str]]:
    """Write a file as a whole, or leave what stood there."""
    ours = {
        resolved(material.path),
        *((resolved(each) for each in material.listed.files) if material.listed else ()),
    }
    if resolved(file) in ours:
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
