"""Searches the service's lists and writes the pairs that they name to a new file."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

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
from batch_snapshot.models import Account
from batch_snapshot.text import timestamp


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
    _check_path(path)
    targets = accounts.resolve_targets({AMBIENT: Account(AMBIENT)}, options, profiles.endpoints)
    filters = replace(filters, account=AMBIENT, template=filters.template or DEFAULT_TEMPLATE)
    partial = partial_file(path)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with Search(partial, [filters], targets.endpoint, environment.now()) as search:
        report = await run_search(search, targets, options, environment, jobs=True)
        counts = search.counts()
        pairs = search.pairs(skip_active=skip_active)
        with output.replaced(path) as file:
            file.writelines(_lines(path, pairs, filters, name, environment.now()))
        search.remove()
        return Discovery(output=str(path), counts=counts, **vars(report))


def _check_path(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path}: already exists; name another --output, or use --update {path}")
    if path.suffix.lower() not in output.BY_LINE | output.YAML:
        raise InputError(f"{path}: unknown ending; write a manifest (.yaml) or pairs by line (.ndjson)")


def partial_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _lines(
    path: Path, pairs: Iterator[FoundPair], filters: Filters, name: str | None, now: datetime
) -> Iterator[str]:
    if path.suffix.lower() in output.BY_LINE:
        return output.by_line(pairs, full=False)
    about = f"Found in the service's lists, {timestamp(now)}. Bring it up to date: discover --update"
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem)[:64].strip(".") or "discovered"
    return output.as_manifest(pairs, name, defaults_of(filters), about)


def defaults_of(filters: Filters) -> dict[str, str]:
    return {key: getattr(filters, key) for key in ("catalog", "resource_type", "template", "account")}


async def run_search(
    search: Search, targets: Targets, options: Options, environment: Environment, *, jobs: bool
) -> SearchReport:
    began = environment.clock()
    async with open_readers(targets, options, environment.now, environment.rng) as readers:
        await search.read(readers, jobs=jobs, on_progress=environment.on_progress)
    calls: Counter[str] = Counter()
    for reader in readers.values():
        calls.update(reader.calls)
    return SearchReport(
        calls=dict(sorted(calls.items())),
        throttled=sum(reader.throttled for reader in readers.values()),
        elapsed_s=environment.clock() - began,
        resumed=search.resumed,
        warnings=search.left_out,
        unknown=sorted(search.unknown),
    )
