"""What reads have found: by `discover`, as files, text and JSON; and about the snapshots of ledgers."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from batch_snapshot import files
from batch_snapshot.discovery.readers import Reads
from batch_snapshot.discovery.search import Discovery, FoundPair
from batch_snapshot.errors import StorageError, file_errors
from batch_snapshot.models import Row
from batch_snapshot.operations import NOT_FOUND
from batch_snapshot.text import plural

#: Endings that mean pairs by line, and a manifest.
BY_LINE = frozenset({".ndjson", ".jsonl"})
YAML = frozenset({".yaml", ".yml"})

UNLISTED = (
    "pairs without a snapshot whose engagement no task of this account made or joined: take those from your "
    "CRM, as CSV under include:"
)

#: About a list that only newer SDKs know.
UNKNOWN = (
    "opportunities that were made from engagements: the SDK's service model does not know {}; copy a newer "
    "model to ~/.aws/models, or take those from your CRM too"
)

#: Findings that a text shows.
SHOWN = 20

#: The comment after a pair that a snapshot job of AWS's own covers.
JOB_MARK = "# a snapshot job of AWS's takes care of it"


@contextmanager
def replaced(path: Path, mode: int | None = None) -> Iterator[TextIO]:
    with file_errors(path, "write elsewhere", StorageError):
        files.make_folder(path.parent)
        with files.atomic_write_text(path, mode) as file:
            yield file


def as_manifest(
    pairs: Iterable[FoundPair], name: str, defaults: Mapping[str, str], about: str
) -> Iterator[str]:
    yield f"# {about}\nversion: 1\nname: {name}\ndefaults:\n"
    yield f"  catalog: {defaults['catalog']}\n  template: {defaults['template']}\npairs:\n"
    entries = (f"  - {entry(pair, defaults)}\n" for pair in pairs)
    yield next(entries, "  []\n")
    yield from entries


def entry(pair: FoundPair, defaults: Mapping[str, str]) -> str:
    row = pair.row
    own = {
        key: value
        for key in ("account", "catalog", "resource_type", "template")
        if (value := getattr(row, key)) != defaults.get(key)
    }
    fields = {"engagement": row.engagement, "resource": row.resource, **own}
    text = ", ".join(f"{key}: {value}" for key, value in fields.items())
    return f"{{{text}}}  {JOB_MARK}" if pair.active_job else f"{{{text}}}"


def by_line(pairs: Iterable[FoundPair], *, full: bool) -> Iterator[str]:
    """The pairs as NDJSON; `full` names the account too, else it is left to the manifest that includes it."""
    for pair in pairs:
        fields = pair.row._asdict()
        if not full:
            del fields["account"]
        yield json.dumps(fields, separators=(", ", ": ")) + "\n"


def as_json(found: Discovery) -> dict[str, Any]:
    counts = found.counts
    sources = {
        name: {"listed": listed, "taken": counts.taken[name]} for name, listed in counts.listed.items()
    }
    return {
        "outcome": "completed",
        "output": found.output,
        "pairs": counts.pairs,
        "engagements": counts.engagements,
        "sources": sources,
        "active_jobs": counts.active_jobs,
        "added": found.added,
        "gone": found.gone,
        "resumed": found.resumed,
        **found.calls_as_json(),
        "cannot_see": _not_covered(found),
        "warnings": list(found.warnings),
    }


def as_text(found: Discovery, *, updated: bool) -> str:
    counts = found.counts
    lines = [f"{found.output}: {plural(counts.pairs, 'pair')} of {plural(counts.engagements, 'engagement')}"]
    if updated:
        gone = (
            "nothing marked, because a list was refused"
            if found.warnings
            else f"{found.gone:,} marked as gone"
        )
        lines[0] += f": {found.added:,} added, {gone}"
    about = {
        "tasks": ", never snapshotted ones too",
        "associations": " with a snapshot",
        "invitations": " of accepted invitations",
    }
    for name, listed in counts.listed.items():
        taken = counts.taken[name]
        rest = f", {listed - taken:,} filtered out" if taken != listed else ""
        lines.append(f"  {name:<13} {plural(taken, 'pair'):>15}{about[name]}{rest}")
    if counts.active_jobs:
        pairs = plural(counts.active_jobs, "pair")
        lines.append(f"  {'active jobs':<13} {pairs:>15} that AWS's own jobs take care of")
    lines += [f"not covered   {text}" for text in _not_covered(found)]
    return "\n".join([*lines, found.calls_as_text()])


def _not_covered(found: Discovery) -> list[str]:
    return [UNLISTED, *map(UNKNOWN.format, sorted(found.unknown))]


#: Errors of a read that concern one snapshot, or one engagement, only.
ROW_ERRORS = frozenset({NOT_FOUND, "AccessDeniedException", "ValidationException"})


class Finding(NamedTuple):
    """What is wrong with a snapshot of a ledger."""

    #: missing, mismatched, extra, or unreadable to these credentials
    what: str
    row: Row
    revision: int | None
    #: What the service has instead, or says.
    found: str
    arn: str | None = None
    created_at: str | None = None
    #: Set if the command reads several ledgers.
    ledger: str = ""


@dataclass(kw_only=True)
class Findings(Reads):
    """What came of reading the snapshots of ledgers, and the calls that it took."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 1 if self.findings else 0

    @property
    def kinds(self) -> Counter[str]:
        return Counter(finding.what for finding in self.findings)

    def as_lines(self, whole: str) -> list[str]:
        """The first findings, and the calls; `whole` says where all findings are."""
        alike: dict[Finding, list[str]] = {}
        for one in self.findings:
            alike.setdefault(one._replace(ledger=""), []).append(one.ledger)
        lines = []
        for one, ledgers in islice(alike.items(), SHOWN):
            revision = f" revision {one.revision}" if one.revision else ""
            where = f" ({' and '.join(ledgers)})" if any(ledgers) else ""
            lines.append(
                f"  {one.what:<10} {one.row.engagement}/{one.row.resource}{revision}{where}: {one.found}"
            )
        if len(alike) > SHOWN:
            lines.append(f"  … and {len(alike) - SHOWN:,} more: {whole}")
        return [*lines, self.calls_as_text()]
