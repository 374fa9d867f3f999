"""Searches the service's lists for pairs, and writes them to a new file or into a manifest.

A manifest is brought up to date line by line: comments and hand-made edits stay. New pairs follow the last
entry of `pairs`; entries whose pairs no list names any more get a mark behind them, and lose it when they are
named again. Nothing is removed. `layout` and `revised` are pure.
"""

import re
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from batch_snapshot import manifest as manifests
from batch_snapshot.aws import profiles
from batch_snapshot.config import accounts
from batch_snapshot.config.accounts import Targets
from batch_snapshot.config.options import Options
from batch_snapshot.discovery import output
from batch_snapshot.discovery.readers import Environment, open_readers
from batch_snapshot.discovery.search import Discovery, FoundPair, Search, SearchReport
from batch_snapshot.errors import InputError
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.manifest.keys import AMBIENT
from batch_snapshot.manifest.service_model import DEFAULT_TEMPLATE
from batch_snapshot.models import Account, Row
from batch_snapshot.text import timestamp

#: The beginning of every mark, by which it is found again.
MARK = "# gone:"

_MARKED = re.compile(r"[ \t]*# gone: no list names (?:it|O[0-9, O]*) any more \([0-9-]+\)")


async def discover(
    path: Path,
    filters: Filters,
    options: Options,
    environment: Environment,
    *,
    name: str | None = None,
    skip_active: bool = False,
) -> Discovery:
    """Write the pairs that the service's lists name to a new file.

    A manifest with `name` (by default the file's) is written to a `.yaml`, pairs that a manifest includes to
    an `.ndjson`. Pairs that a running snapshot job covers are left out with `skip_active`.

    Raises:
        ServiceError: a list cannot be read; what was found is kept for the same command.
    """
    _check_new(path)
    targets = accounts.resolve_targets({AMBIENT: Account(AMBIENT)}, options, profiles.endpoints)
    filters = replace(filters, account=AMBIENT, template=filters.template or DEFAULT_TEMPLATE)
    path.parent.mkdir(parents=True, exist_ok=True)
    async with _searched(path, [filters], targets, options, environment) as (search, report):
        pairs = search.pairs(skip_active=skip_active)
        with output.replaced(path) as file:
            file.writelines(_lines(path, pairs, filters, name, environment.now()))
        return Discovery(output=str(path), counts=search.counts(), **vars(report))


def _check_new(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path}: already exists; name another --output, or use --update {path}")
    if path.suffix.lower() not in output.BY_LINE | output.YAML:
        raise InputError(f"{path}: unknown ending; write a manifest (.yaml) or pairs by line (.ndjson)")


def _lines(
    path: Path, pairs: Iterator[FoundPair], filters: Filters, name: str | None, now: datetime
) -> Iterator[str]:
    if path.suffix.lower() in output.BY_LINE:
        return output.by_line(pairs, full=False)
    about = f"Found in the service's lists, {timestamp(now)}. Bring it up to date: discover --update"
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem)[:64].strip(".") or "discovered"
    return output.as_manifest(pairs, name, _defaults_of(filters), about)


def _defaults_of(filters: Filters) -> dict[str, str]:
    return {key: getattr(filters, key) for key in ("catalog", "resource_type", "template", "account")}


@asynccontextmanager
async def _searched(
    path: Path, searches: Sequence[Filters], targets: Targets, options: Options, environment: Environment
) -> AsyncIterator[tuple[Search, SearchReport]]:
    """What is found for the file at `path`; it is kept beside it unless the block ends without an error."""
    partial = path.with_name(f"{path.name}.partial")
    with Search(partial, searches, targets.endpoint, environment.now()) as search:
        yield search, await run_search(search, targets, options, environment, jobs=True)
        search.remove()


async def run_search(
    search: Search, targets: Targets, options: Options, environment: Environment, *, jobs: bool
) -> SearchReport:
    began = environment.clock()
    report = SearchReport(resumed=search.resumed, warnings=search.left_out, unknown=search.unknown)
    async with open_readers(targets, options, environment, report) as readers:
        await search.read(readers, jobs=jobs, on_progress=environment.on_progress)
    report.elapsed_s = environment.clock() - began
    return report


@dataclass(slots=True)
class PairEntry:
    """An entry of `pairs`: what it names, and the last line of it (from 0)."""

    last_line: int
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def resources(self) -> list[str]:
        one, many = self.fields.get("resource"), self.fields.get("resources")
        return [one] if isinstance(one, str) else list(many or [])


@dataclass(slots=True)
class Layout:
    entries: list[PairEntry]
    #: The line behind which new entries go (-1: at the end of the file), and how they are indented.
    after: int
    indent: str
    #: Whether a line `pairs:` must be written first.
    headless: bool
    #: The manifest's defaults, which its pairs need not repeat.
    defaults: dict[str, str] = field(default_factory=dict)


async def update(
    path: Path, filters: Filters, options: Options, environment: Environment, *, skip_active: bool = False
) -> Discovery:
    """Add new pairs to the manifest at `path`, and mark those that no list names any more."""
    if path.suffix.lower() not in output.YAML:
        raise InputError(f"--update {path}: only a YAML manifest can be brought up to date")
    manifest = manifests.load(path)
    text = _text(path)
    found = layout(text, str(path))
    targets = accounts.resolve_targets(manifest.accounts, options, profiles.endpoints)
    template = filters.template or found.defaults.get("template") or DEFAULT_TEMPLATE
    filters = replace(filters, template=template)
    defaults = {**_defaults_of(filters), **found.defaults}
    if len(manifest.accounts) == 1:
        [defaults["account"]] = manifest.accounts
    searches = [replace(filters, account=name) for name in targets.accounts]
    async with _searched(path, searches, targets, options, environment) as (search, report):
        new = [pair for pair in search.pairs(skip_active=skip_active) if pair.row.key not in manifest.keys]
        listed = {pair.row.key for pair in search.pairs()}

        def is_gone(fields: Mapping[str, Any], resource: str) -> bool:
            named = {**defaults, **fields, "resource": resource}
            row = Row(*(named.get(name, "") for name in Row._fields))
            searched = row.account in targets.accounts and row.catalog == filters.catalog
            return searched and row.template == filters.template and row.key not in listed

        entries = [output.entry(pair, defaults) for pair in new]
        # A refused list may name what the others do not.
        day = None if report.warnings else f"{environment.now():%Y-%m-%d}"
        after, marked = revised(text, found, entries, is_gone, day)
        _check(path, after, manifest.keys.keys() | {pair.row.key for pair in new})
        with output.replaced(path) as file:
            file.write(after)
        counts = search.counts()
        return Discovery(output=str(path), counts=counts, added=len(new), gone=marked, **vars(report))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8: save it in that encoding") from None


def _check(path: Path, text: str, expected: set[bytes]) -> None:
    """Load the new text and compare its rows with the expected ones, before it replaces the old one."""
    trial = path.with_name(f".{path.stem}.check{path.suffix}")
    try:
        trial.write_text(text, "utf-8", newline="")
        after = manifests.load(trial)
    finally:
        trial.unlink(missing_ok=True)
    if after.keys.keys() != expected:
        raise InputError(
            f"{path}: cannot be brought up to date line by line: write each pair on a line of its own"
        )


def layout(text: str, where: str) -> Layout:
    root: Any = yaml.compose(text, Loader=yaml.CSafeLoader)
    sections = {key.value: (key, value) for key, value in root.value}
    # A loader that leaves every scalar the text that it is.
    values: dict[str, Any] = yaml.load(text, Loader=yaml.CBaseLoader)  # noqa: S506 - it makes only texts
    found = Layout([], -1, "  ", headless="pairs" not in values, defaults=values.get("defaults") or {})
    if found.headless:
        return found
    key, value = sections["pairs"]
    if isinstance(value, yaml.ScalarNode):
        found.after = key.end_mark.line
        return found
    if value.flow_style:
        way_out = (
            "write them as lines that begin with -" if value.value else "write pairs: alone, or remove it"
        )
        raise InputError(f"{where}:{key.start_mark.line + 1}: its pairs are in [brackets]: {way_out}")
    for node, fields in zip(value.value, values["pairs"], strict=True):
        found.entries.append(PairEntry(max(mark.line for mark in _ends(node)), fields))
    found.after, found.indent = found.entries[-1].last_line, " " * value.start_mark.column
    return found


def _ends(node: Any) -> Iterator[Any]:
    """Where the node and what it holds end; the end of a block is only where the next token begins."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        yield node.end_mark
        return
    for one in node.value:
        for part in one if isinstance(one, tuple) else (one,):
            yield from _ends(part)


def revised(
    text: str,
    found: Layout,
    added: Collection[str],
    is_gone: Callable[[Mapping[str, Any], str], bool],
    day: str | None,
) -> tuple[str, int]:
    """The text with new entries added and old ones marked, and how many pairs are marked.

    `day` is written into new marks; None: no pair is marked, and a mark of one that is still gone stays.
    """
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    marked = 0
    for entry in found.entries:
        missing = [name for name in entry.resources if is_gone(entry.fields, name)]
        if missing and day is None:
            continue
        marked += len(missing)
        lines[entry.last_line] = _marked(lines[entry.last_line], entry, missing, day or "", end)
    after, new = found.after, [f"{found.indent}- {one}" for one in added]
    if new and found.headless:
        after, new = len(lines) - 1, ["pairs:", *new]
    if new and lines and not lines[after].endswith("\n"):
        lines[after] += end
    lines[after + 1 : after + 1] = [line + end for line in new]
    return "".join(lines), marked


def _marked(line: str, entry: PairEntry, missing: list[str], day: str, end: str) -> str:
    bare = line.rstrip("\r\n")
    tail = line[len(bare) :]
    if not missing:
        return _MARKED.sub("", bare) + tail
    what = "it" if len(missing) == len(entry.resources) else ", ".join(missing)
    if old := _MARKED.search(bare):
        if f"names {what} any" in old[0]:
            return line
        bare = _MARKED.sub("", bare)
    return f"{bare}  {MARK} no list names {what} any more ({day}){tail or end}"
