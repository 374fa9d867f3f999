"""`discover`: searches carried out, and what they found written down."""

from __future__ import annotations

import re
import textwrap
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batch_snapshot import manifest
from batch_snapshot.aws import profiles
from batch_snapshot.config import accounts
from batch_snapshot.discovery import output as listing
from batch_snapshot.discovery import readers, revision
from batch_snapshot.discovery.output import BY_LINE
from batch_snapshot.discovery.search import BLIND_SPOTS, Search
from batch_snapshot.errors import InputError
from batch_snapshot.manifest.service_model import DEFAULT_TEMPLATE
from batch_snapshot.models import Account, Row
from batch_snapshot.text import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from batch_snapshot.config.accounts import Targets
    from batch_snapshot.config.options import Options
    from batch_snapshot.discovery.readers import Environment
    from batch_snapshot.discovery.search import FoundPair, SearchCounts
    from batch_snapshot.engine.reader import Reader
    from batch_snapshot.manifest import Manifest
    from batch_snapshot.manifest.filters import Filters

#: Columns of a text that goes on for more than a line.
WIDTH = 79

#: The account of a search that no manifest names one for.
AMBIENT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What a search came to."""

    output: str
    counts: SearchCounts
    #: Exchanges by operation, and how many of them were throttled.
    calls: Mapping[str, int]
    throttled: int
    elapsed_s: float
    #: It went on where an earlier one had stopped.
    resumed: bool
    #: Of an update: pairs that are new, and pairs that are marked.
    added: int = 0
    gone: int = 0
    warnings: Sequence[str] = field(default_factory=list)


async def discover(
    output: Path,
    search: Filters,
    options: Options,
    around: Environment,
    *,
    name: str | None = None,
    jobs: bool = True,
    skip_active: bool = False,
) -> Discovery:
    """Write the pairs that the service's lists name to a new file: a manifest, or pairs by line.

    Args:
        output: `.yaml` for a manifest; `.ndjson` for pairs that a manifest includes.
        search: which pairs.
        options: for whom, and where.
        around: clock and chance.
        name: of the manifest; None: the file's.
        jobs: whether to find out which pairs have a running snapshot job.
        skip_active: leave those out.

    Raises:
        InputError: the file is there already, or the options make no sense.
        ServiceError: a list cannot be read; what was found is kept for the same command.
        StorageError: the file cannot be written.
    """
    _check_output(output)
    called = accounts.resolve_targets({AMBIENT: Account(AMBIENT)}, options, profiles.endpoints)
    search = replace(search, account=AMBIENT, template=search.template or DEFAULT_TEMPLATE)
    partial = output.with_name(f"{output.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with Search(partial, [search], called.endpoint, around.now()) as found:
        readers, elapsed = await ask(found, called, options, around, jobs=jobs or skip_active)
        counts = found.counts()
        with listing.replaced(output) as file:
            file.writelines(
                _lines(output, _wanted(found, skip_active=skip_active), search, name, around.now())
            )
        found.forget()
        return _discovery(str(output), counts, readers, elapsed, found)


def _check_output(output: Path) -> None:
    if output.exists():
        raise InputError(f"{output}: is there already; name another --output, or use --update {output}")
    if output.suffix.lower() not in BY_LINE | {".yaml", ".yml"}:
        raise InputError(f"{output}: unknown ending; write a manifest (.yaml) or pairs by line (.ndjson)")


def _lines(
    output: Path, founds: Iterator[FoundPair], search: Filters, name: str | None, now: datetime
) -> Iterator[str]:
    if output.suffix.lower() in BY_LINE:
        return listing.by_line(founds, full=False)
    about = f"Found in the service's lists, {timestamp(now)}. Bring it up to date: discover --update"
    return listing.as_manifest(founds, name or manifest_name(output), _defaults_of(search), about)


def manifest_name(output: Path) -> str:
    """A name for the manifest in a file, made of the file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", output.stem)[:64].strip(".") or "discovered"


def _defaults_of(search: Filters) -> dict[str, str]:
    return {
        "catalog": search.catalog,
        "resource_type": search.resource_type,
        "template": search.template,
        "account": search.account,
    }


def _wanted(found: Search, *, skip_active: bool) -> Iterator[FoundPair]:
    return (one for one in found.found() if not (skip_active and one.active_job))


async def update(
    path: Path, search: Filters, options: Options, around: Environment, *, skip_active: bool = False
) -> Discovery:
    """Add what is new to the manifest at `path`, and mark what no list names any more.

    Raises:
        InputError: it is not valid, or its pairs stand where no line can be added.
        ServiceError: a list cannot be read; what was found is kept for the same command.
        StorageError: the file cannot be written.
    """
    if path.suffix.lower() not in {".yaml", ".yml"}:
        raise InputError(f"--update {path}: only a YAML manifest can be brought up to date")
    listed = manifest.load(path)
    text = _text(path)
    where = revision.layout(text, str(path))
    called = accounts.resolve_targets(listed.accounts, options, profiles.endpoints)
    template = search.template or where.defaults.get("template") or DEFAULT_TEMPLATE
    search = replace(search, template=template)
    defaults = {**_defaults_of(search), **where.defaults}
    searches = [replace(search, account=name) for name in called.accounts]
    partial = path.with_name(f"{path.name}.partial")
    with Search(partial, searches, called.endpoint, around.now()) as found:
        readers, elapsed = await ask(found, called, options, around, jobs=True)
        counts = found.counts()
        if len(listed.accounts) == 1:
            defaults["account"] = next(iter(listed.accounts))
        new = [one for one in _wanted(found, skip_active=skip_active) if one.row.key not in listed.keys]
        there = {one.row.key for one in found.found()}

        def gone(fields: Mapping[str, Any], resource: str) -> bool:
            row = _row({**defaults, **fields}, resource)
            searched = row.account in called.accounts and row.catalog == search.catalog
            return searched and row.template == search.template and row.key not in there

        entries = [listing.entry(one, defaults) for one in new]
        after, marked = revision.revised(text, where, entries, gone, f"{around.now():%Y-%m-%d}")
        _check(path, after, listed, new)
        with listing.replaced(path) as file:
            file.write(after)
        found.forget()
        result = _discovery(str(path), counts, readers, elapsed, found)
        return replace(result, added=len(new), gone=marked)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8: save it in that encoding") from None


def _row(fields: Mapping[str, Any], resource: str) -> Row:
    return Row(
        fields.get("account", ""),
        fields.get("catalog", ""),
        fields.get("engagement", ""),
        fields["resource_type"],
        resource,
        fields["template"],
    )


def _check(path: Path, text: str, before: Manifest, new: Sequence[FoundPair]) -> None:
    """See that the new text lists what it should, before the old one is replaced."""
    trial = path.with_name(f".{path.stem}.check{path.suffix}")
    try:
        trial.write_text(text, "utf-8", newline="")
        after = manifest.load(trial)
    finally:
        trial.unlink(missing_ok=True)
    if after.keys != before.keys | {one.row.key for one in new}:
        raise InputError(
            f"{path}: cannot be brought up to date line by line: write each pair on a line of its own"
        )


async def ask(
    found: Search, called: Targets, options: Options, around: Environment, *, jobs: bool
) -> tuple[Mapping[str, Reader], float]:
    """Carry a search out; returns the readers that did, and the seconds it took."""
    began = around.clock()
    async with readers.open_readers(called, options, around.now, around.rng) as opened:
        await found.ask(opened, jobs=jobs, told=around.told)
    return opened, around.clock() - began


def _discovery(
    output: str, counts: SearchCounts, readers: Mapping[str, Reader], elapsed: float, found: Search
) -> Discovery:
    calls: dict[str, int] = {}
    for reader in readers.values():
        for operation, number in reader.calls.items():
            calls[operation] = calls.get(operation, 0) + number
    throttled = sum(reader.throttled for reader in readers.values())
    return Discovery(
        output=output,
        counts=counts,
        calls=dict(sorted(calls.items())),
        throttled=throttled,
        elapsed_s=elapsed,
        resumed=found.resumed,
    )


def as_json(found: Discovery) -> dict[str, Any]:
    """The one object that `--format json` prints."""
    counts = asdict(found.counts)
    sources = {
        name: {"listed": counts["listed"][name], "taken": counts["taken"][name]} for name in counts["listed"]
    }
    return {
        "outcome": "completed",
        "output": found.output,
        "pairs": counts["pairs"],
        "engagements": counts["engagements"],
        "sources": sources,
        "active_jobs": counts["active_jobs"],
        "added": found.added,
        "gone": found.gone,
        "resumed": found.resumed,
        "calls": sum(found.calls.values()),
        "calls_by_operation": dict(found.calls),
        "throttled_calls": found.throttled,
        "elapsed_s": round(found.elapsed_s, 3),
        "cannot_see": [BLIND_SPOTS],
    }


def as_text(found: Discovery, *, updated: bool) -> str:
    """The same for people."""
    counts = found.counts
    lines = [f"{found.output}: {counts.pairs:,} pairs of {counts.engagements:,} engagements"]
    if updated:
        lines[0] += f": {found.added:,} added, {found.gone:,} marked as gone"
    about = {"tasks": "pairs, never snapshotted ones too", "associations": "pairs with a snapshot"}
    for name, listed in counts.listed.items():
        taken = counts.taken[name]
        rest = f", {listed - taken:,} filtered out" if taken != listed else ""
        lines.append(f"  {name:<13} {taken:>9,} {about[name]}{rest}")
    if counts.active_jobs:
        lines.append(f"  {'active jobs':<13} {counts.active_jobs:>9,} pairs that AWS's own jobs take care of")
    lines += textwrap.wrap(
        BLIND_SPOTS,
        WIDTH,
        initial_indent="cannot see    ",
        subsequent_indent=" " * 14,
        break_on_hyphens=False,
    )
    lines.append(calls_line(found.calls, found.throttled, found.elapsed_s))
    return "\n".join(lines)


def calls_line(calls: Mapping[str, int], throttled: int, elapsed: float) -> str:
    """How many calls it took, by operation."""
    each = ", ".join(f"{name} {number:,}" for name, number in calls.items())
    more = f", {throttled:,} throttled" if throttled else ""
    first = f"calls         {sum(calls.values()):,} in {elapsed:,.1f} s{more}"
    if not each:
        return first
    indent = " " * 14
    return "\n".join([first, *textwrap.wrap(each, WIDTH, initial_indent=indent, subsequent_indent=indent)])
