"""The two passes: `load` validates and keeps a key for each row, `rows` streams them."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from batch_snapshot.errors import ManifestError
from batch_snapshot.files import open_regular
from batch_snapshot.manifest import includes
from batch_snapshot.manifest.duplicates import DuplicateRows, by_roles
from batch_snapshot.manifest.reader import ManifestReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from batch_snapshot.manifest.duplicates import Place
    from batch_snapshot.manifest.filters import Filters
    from batch_snapshot.models import Account, Row

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was found valid, as the validating pass saw it; it holds no row."""

    #: As the user gave it.
    path: Path
    name: str
    #: By name; without an `accounts` section there is one, `default`.
    accounts: dict[str, Account]
    #: Distinct rows.
    rows: int
    #: Distinct rows of each account that has any.
    rows_by_account: dict[str, int]
    catalogs: frozenset[str]
    #: `Row.key` of every distinct row.
    keys: set[bytes] = field(repr=False)
    #: Over the bytes of the manifest, followed by those of its includes in the order of reading.
    sha256: str
    #: The first 50, as `file:line: what`.
    warnings: list[str]
    warning_count: int
    #: The manifest and its includes, in the order of reading.
    files: tuple[Path, ...]
    #: Which of all rows, counted from 0, repeat an earlier one; in rising order.
    repeated: array[int] = field(repr=False)
    #: What a run is to look for at the service when it starts.
    discover: tuple[Filters, ...] = ()
    #: The file of what was found, whose rows are among these, and the digest of its bytes.
    found: Path | None = None
    found_sha256: str | None = None


def load(path: Path, found: Path | None = None) -> Manifest:
    """Validate the manifest and its includes; nothing is called.

    Args:
        path: the manifest.
        found: an NDJSON file of further pairs: what its section `discover` has found at the service.

    Raises:
        ManifestError: with the first 50 problems, each `file:line: what, and the fix`, and their number.
    """
    return _Loading(ManifestReader(Path(path), found)).manifest()


class _Loading:
    """What a validating pass comes to."""

    def __init__(self, reading: ManifestReader) -> None:
        self._reading = reading
        self._keys: set[bytes] = set()
        self._repeated = array("q")
        self._by_account: Counter[str] = Counter()
        self._catalogs: set[str] = set()
        self._doubles = DuplicateRows({})

    def manifest(self) -> Manifest:
        """Make the pass.

        Raises:
            ManifestError: something is wrong.
        """
        self._read()
        reading, found = self._reading, self._reading.found
        _refuse(reading, self._doubles, found)
        return Manifest(
            path=reading.files[0],
            name=reading.name,
            accounts=reading.accounts,
            rows=len(self._keys),
            rows_by_account=dict(self._by_account),
            catalogs=frozenset(self._catalogs),
            keys=self._keys,
            sha256=reading.digest.hexdigest(),
            warnings=reading.warnings.lines(),
            warning_count=reading.warnings.total,
            files=tuple(reading.files),
            repeated=self._repeated,
            discover=reading.discover,
            found=found,
            found_sha256=_digest([found]) if found else None,
        )

    def _read(self) -> None:
        keys, by_account, catalogs = self._keys, self._by_account, self._catalogs
        same: Mapping[str, str] = {}
        for number, (row, line) in enumerate(self._reading.rows()):
            if number == 0:
                # The accounts are known by the first row.
                self._doubles = DuplicateRows(by_roles(self._reading.accounts))
                same = self._doubles.same
            key = row.key
            if key in keys:
                self._repeat(number, row, line)
                continue
            if row.account in same:
                self._doubles.look(row, self._reading.place(line))
            by_account[row.account] += 1
            catalogs.add(row.catalog)
            keys.add(key)

    def _repeat(self, number: int, row: Row, line: int) -> None:
        self._repeated.append(number)
        reading = self._reading
        if reading.files[-1] is not reading.found:
            reading.warn(line, f"{row.engagement} {row.resource} is listed before: it stays one row")


def _refuse(reading: ManifestReader, doubles: DuplicateRows, found: Path | None) -> None:
    """Tell what is wrong after a pass, if anything is.

    Raises:
        ManifestError: something is.
    """
    told = 0
    for place, text in doubles.told(_placed(reading.files[0], found)):
        reading.problems.add(place.file, place.line, place.name, text)
        told += 1
    reading.problems.total += doubles.total - told
    if reading.problems.total:
        raise ManifestError(reading.problems.lines(), reading.problems.total)


def doubled(manifest: Manifest, same: Mapping[str, str]) -> list[str]:
    """Tell which rows are listed twice where names stand for the `same` AWS accounts, by what is known now.

    Args:
        manifest: a valid one.
        same: the AWS accounts that several names stand for, by those names.
    """
    doubles = DuplicateRows(same)
    keys = set()
    for row, place in _placed(manifest.path, manifest.found):
        if row.account in same and (key := row.key) not in keys:
            keys.add(key)
            doubles.look(row, place)
    again = _placed(manifest.path, manifest.found)
    return [f"{place}: {text}" for place, text in doubles.told(again)]


def _placed(path: Path, found: Path | None) -> Iterator[tuple[Row, Place]]:
    reading = ManifestReader(path, found)
    for row, line in reading.rows():
        yield row, reading.place(line)


def rows(manifest: Manifest) -> Iterator[Row]:
    """The distinct rows in the order of the files, read anew.

    The files are compared with the validated ones before the first row and, as they were really read,
    after the last.

    Raises:
        ManifestError: in one line, where they changed since the manifest was validated.
    """
    if _digest(manifest.files) != manifest.sha256:
        raise _changed(manifest)
    reading = ManifestReader(manifest.path, manifest.found)
    repeated = chain(manifest.repeated, [-1])
    skip = next(repeated)
    for number, (row, _) in enumerate(reading.rows()):
        if reading.problems.total:
            raise _changed(manifest)
        if number == skip:
            skip = next(repeated)
        else:
            yield row
    if reading.problems.total or reading.digest.hexdigest() != manifest.sha256:
        raise _changed(manifest)


def _digest(files: Iterable[Path]) -> str | None:
    """The digest of the files as they are now; None where one cannot be read."""
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
    name = includes.display(manifest.path)
    return ManifestError([f"{name}: it, or a file it includes, changed since it was validated: start again"])
