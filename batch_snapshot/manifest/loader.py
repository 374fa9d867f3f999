"""The two passes: `load` validates and keeps a key for each row, `rows` streams them."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path

from batch_snapshot.errors import ManifestError
from batch_snapshot.files import open_regular
from batch_snapshot.manifest import duplicates
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.manifest.problems import Place, ProblemLog
from batch_snapshot.manifest.reader import DEFAULT_LOAD, LoadOptions, ManifestReader
from batch_snapshot.models import Account, Row
from batch_snapshot.text import escaped

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was found valid, as the validating pass saw it; it holds no row."""

    #: As the user gave it.
    path: Path
    name: str
    #: By name; without an `accounts` section there is one, `default`.
    accounts: dict[str, Account]
    rows: int
    #: Distinct rows of each account that has any.
    rows_by_account: dict[str, int]
    catalogs: frozenset[str]
    #: `Row.key` of every distinct row; each maps to itself, so that a history can share the bytes objects.
    keys: dict[bytes, bytes] = field(repr=False)
    #: Over the bytes of the manifest, followed by those of its includes in the order of reading.
    sha256: str
    #: The first 50, as `file:line: what`.
    warnings: list[str]
    warning_count: int
    #: The manifest and its includes, in the order of reading.
    files: tuple[Path, ...]
    #: Which of all rows, counted from 0, repeat an earlier one; in rising order.
    repeated: "array[int]" = field(repr=False)
    #: Which pairs a run takes from the service's lists when it starts.
    discover: tuple[Filters, ...] = ()
    #: The file of the pairs that `discover` has found, which are among the rows, and its digest.
    found: Path | None = None
    found_sha256: str | None = None
    options: LoadOptions = DEFAULT_LOAD


def load(path: Path, found: Path | None = None, options: LoadOptions = DEFAULT_LOAD) -> Manifest:
    """Validate the manifest and its includes; nothing is called.

    `found` is an NDJSON file of the pairs that its section `discover` has found at the service.

    Raises:
        ManifestError: the first 50 problems (or all), each `file:line: what, and the fix`, and their number.
    """
    reader = ManifestReader(Path(path), found, options)
    keys: dict[bytes, bytes] = {}
    repeated = array("q")
    by_account: Counter[str] = Counter()
    catalogs: set[str] = set()
    for number, (row, line) in enumerate(reader.rows()):
        key = row.key
        if key in keys:
            repeated.append(number)
            if reader.files[-1] is not found:
                reader.report.warn(
                    line, f"{row.engagement} {row.resource} is listed before: it stays one row"
                )
            continue
        keys[key] = key
        by_account[row.account] += 1
        catalogs.add(row.catalog)
    places = partial(_rows_with_places, reader.files[0], found, options)
    log = reader.report.problems
    problems = duplicates.find(places, duplicates.accounts_by_role(reader.accounts), log)
    if problems:
        raise ManifestError(problems, log.total)
    return Manifest(
        path=reader.files[0],
        name=reader.name,
        accounts=reader.accounts,
        rows=len(keys),
        rows_by_account={name: by_account[name] for name in reader.accounts if name in by_account},
        catalogs=frozenset(catalogs),
        keys=keys,
        sha256=reader.digest.hexdigest(),
        warnings=reader.report.warnings.lines(),
        warning_count=reader.report.warnings.total,
        files=tuple(reader.files),
        repeated=repeated,
        discover=reader.discover,
        found=found,
        found_sha256=_digest([found]) if found else None,
        options=options,
    )


def find_duplicates(manifest: Manifest, aws_accounts: Mapping[str, str]) -> list[str]:
    """Rows that are listed under two names of one AWS account; `aws_accounts` by those names."""
    places = partial(_rows_with_places, manifest.path, manifest.found, manifest.options)
    return duplicates.find(places, aws_accounts, ProblemLog())


def _rows_with_places(path: Path, found: Path | None, options: LoadOptions) -> Iterator[tuple[Row, Place]]:
    reader = ManifestReader(path, found, options)
    for row, line in reader.rows():
        yield row, reader.report.place(line)


def rows(manifest: Manifest) -> Iterator[Row]:
    """The distinct rows, read anew; `ManifestError` if the files changed since `load`."""
    if _digest(manifest.files) != manifest.sha256:
        raise _changed(manifest)
    reader = ManifestReader(manifest.path, manifest.found, manifest.options)
    repeated = chain(manifest.repeated, [-1])
    skip = next(repeated)
    for number, (row, _) in enumerate(reader.rows()):
        if reader.report.problems.total:
            raise _changed(manifest)
        if number == skip:
            skip = next(repeated)
        else:
            yield row
    if reader.report.problems.total or reader.digest.hexdigest() != manifest.sha256:
        raise _changed(manifest)


def _digest(files: Iterable[Path]) -> str | None:
    """None: a file cannot be read."""
    digest = sha256()
    try:
        for path in files:
            with open_regular(path) as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def _changed(manifest: Manifest) -> ManifestError:
    name = escaped(str(manifest.path))
    return ManifestError([f"{name}: it, or a file it includes, changed since it was validated: start again"])
