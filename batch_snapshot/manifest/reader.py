"""One pass over a manifest and its includes: sections first, then rows, whatever their order."""

import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Any, NamedTuple

from batch_snapshot.files import open_regular
from batch_snapshot.manifest import checks, header, includes, keys, line_files
from batch_snapshot.manifest.duplicates import Place
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.manifest.header import AMBIENT, Defaults, unknown_account
from batch_snapshot.manifest.includes import Names
from batch_snapshot.manifest.pairs import CATALOG_HINT, Expander
from batch_snapshot.manifest.problems import KEPT, ProblemCount, ProblemLog, Report, UnreadableError
from batch_snapshot.manifest.yaml_events import PAIRS, ByteError, Document, Items, Node, Scalar, is_unwritten
from batch_snapshot.models import Account, Row
from batch_snapshot.text import escaped, truncated

#: Sections that must be known before the first row.
_NEEDED = ("defaults", "accounts")
_ENDINGS = includes.YAML_ENDINGS | line_files.ENTRIES.keys()
_CHUNK = 1 << 20
#: Bytes that are read ahead of the row being used.
_BLOCK = 1 << 16


class LoadOptions(NamedTuple):
    """How a manifest is read.

    Attributes:
        name: of a CSV or NDJSON file that is read as a manifest; None: that of the file.
        catalog: of such a file, for rows that name none.
        all_problems: keep all of them, not only the first; they are counted in any case.
    """

    name: str | None = None
    catalog: str | None = None
    all_problems: bool = False

    @property
    def keep(self) -> int:
        return sys.maxsize if self.all_problems else KEPT


DEFAULT_LOAD = LoadOptions()


class Sections:
    def __init__(self, known: Collection[str]) -> None:
        self.known = known
        self.seen: set[str] = set()
        self.name: str | None = None
        self.defaults = Defaults()
        self.accounts: dict[str, Account] = {}
        self.include: list[Node] = []
        self.discover: Node | None = None

    def read(self, key: Scalar, node: Node, report: Report, warn: Report) -> None:
        self.seen.add(key.text)
        if key.text not in self.known:
            self._refuse(key, report)
        elif key.text == "version":
            header.read_version(node, report)
        elif key.text == "name":
            self.name = header.read_name(node, report)
        elif key.text == "defaults":
            self.defaults = header.read_defaults(node, report, warn)
        elif key.text == "accounts":
            self.accounts = header.read_accounts(node, report, warn)
        elif key.text == "discover":
            self.discover = node
        elif isinstance(node, Items):
            self.include = node.nodes
        elif not is_unwritten(node):
            report(node.line, "include must be a list of files, e.g. include: [pairs.csv]")

    def _refuse(self, key: Scalar, report: Report) -> None:
        if key.text == "include":
            report(key.line, "an included file cannot include others: list them in the manifest itself")
        elif key.text in keys.names(keys.TOP):
            report(key.line, f"{key.text} belongs in the manifest itself, not in a file that it includes")
        else:
            checks.unknown_key(key.text, key.line, self.known, "a manifest", report)


class ManifestReader:
    """One pass over a manifest and its includes; problems and warnings are kept with file and line."""

    discover: tuple[Filters, ...] = ()

    def __init__(self, path: Path, found: Path | None = None, options: LoadOptions = DEFAULT_LOAD) -> None:
        self.problems = ProblemLog(options.keep)
        self.warnings = ProblemLog(options.keep)
        self.digest = sha256()
        #: The manifest and its includes, in the order of reading.
        self.files: list[Path] = [path]
        self.accounts: dict[str, Account] = {}
        self.found = found
        self._options = options
        self._main = Sections(keys.names(keys.TOP))
        self._defaults = Defaults()
        self._display = includes.display(path)
        self._entries = 0

    @property
    def name(self) -> str:
        return self._main.name or ""

    def place(self, line: int) -> Place:
        return Place(len(self.files), self._display, line)

    def report(self, line: int, text: str | ProblemCount) -> None:
        self.problems.add(len(self.files), line, self._display, text)

    def warn(self, line: int, text: str) -> None:
        self.warnings.add(len(self.files), line, self._display, text)

    def rows(self) -> Iterator[tuple[Row, int]]:
        path = self.files[0]
        wrong = includes.read_problem(path, "the manifest")
        if wrong:
            self.report(0, wrong)
            return
        if path.suffix.lower() in line_files.ENTRIES:
            yield from self._bare(path)
        else:
            yield from self._full(path)
        if not self._entries and not self.problems.total and not self.discover:
            self.problems.add(1, 0, includes.display(path), "lists no pairs: add some under pairs or include")

    def _full(self, path: Path) -> Iterator[tuple[Row, int]]:
        for flag, value in (("--name", self._options.name), ("--catalog", self._options.catalog)):
            if value:
                self.report(0, f"{flag} is for CSV and NDJSON files: write it in the manifest instead")
        try:
            yield from self._yaml(path, self._main)
        except UnreadableError as error:
            # Missing keys, and the includes, cannot be checked by a part of the file
            self.report(error.line, error.text)
            return
        for key, example in (("version", "version: 1"), ("name", "name: nightly")):
            if key not in self._main.seen:
                self.report(1, f"{key} is missing: add the line {example}")
        if self._main.discover is not None:
            self.discover = header.read_discover(
                self._main.discover, self._defaults, self.accounts, self.report
            )
        found: list[tuple[Path, Names | None]] = [(self.found, None)] if self.found else []
        for include, names in [*self._include_files(path.parent), *found]:
            self.files.append(include)
            self._display = includes.display(include)
            try:
                yield from self._included(include, names)
            except UnreadableError as error:
                self.report(error.line, error.text)

    def _bare(self, path: Path) -> Iterator[tuple[Row, int]]:
        """The rows of a CSV or NDJSON file that is the whole manifest."""
        self._main.name = self._options.name or path.stem
        if wrong := checks.check_name(self._main.name):
            self.report(0, f"{wrong}: give the manifest a name with --name")
        self.accounts = {AMBIENT: Account(AMBIENT)}
        self._defaults = Defaults(catalog=self._options.catalog)
        try:
            yield from self._included(path, None, "give --catalog Sandbox (or AWS), or a column catalog")
        except UnreadableError as error:
            self.report(error.line, error.text)

    def _included(
        self, path: Path, names: Names | None, catalog_hint: str = CATALOG_HINT
    ) -> Iterator[tuple[Row, int]]:
        entries = line_files.ENTRIES.get(path.suffix.lower())
        if entries is None:
            yield from self._yaml(path, Sections(keys.names(keys.INCLUDED_FILE)))
            return
        expand = self._expander(self._defaults, catalog_hint).rows
        with _opened(path) as stream, self._hashed(stream) as lines:
            for entry in entries(lines, self.report, self.warn, names):
                self._entries += 1
                yield from expand(entry)

    def _yaml(self, path: Path, sections: Sections) -> Iterator[tuple[Row, int]]:
        expander: Expander | None = None
        counted: set[str] = set()
        with _opened(path) as stream, self._hashed(stream) as source, _located_bytes(path):
            document = Document(source, self.report)
            for key, node in document.sections(bare=sections is not self._main):
                if key.text == PAIRS:
                    if expander is None:
                        expander, counted = self._prepare_rows(path, sections)
                    self._entries += 1
                    yield from expander.rows(node)
                    continue
                if expander is not None and key.text in _NEEDED and key.text not in counted:
                    self.report(key.line, f"{key.text} must stand above pairs in this file: move it up")
                sections.read(key, node, self.report, self.warn)
        if expander is None:
            self._prepare_rows(path, sections)

    def _hashed(self, stream: IO[bytes]) -> BufferedReader:
        return BufferedReader(_HashedFile(stream, self.digest.update), _BLOCK)

    def _prepare_rows(self, path: Path, sections: Sections) -> tuple[Expander, set[str]]:
        """Take over the defaults and accounts of a file before its first row.

        Where they may still follow the pairs, the file is first read through for its sections alone.
        """
        pending = [key for key in _NEEDED if key in sections.known and key not in sections.seen]
        if pending and _mentions(path, pending):
            sections = _sections_of(path, sections.known)
        defaults = sections.defaults
        if "accounts" in sections.known:
            self.accounts = sections.accounts or {AMBIENT: Account(AMBIENT)}
            self._defaults = defaults
        else:
            defaults = defaults.over(self._defaults)
        if sections.defaults.account:
            wrong = unknown_account(sections.defaults.account, self.accounts)
            if wrong:
                self.report(sections.defaults.account_line, wrong)
        return self._expander(defaults), sections.seen

    def _expander(self, defaults: Defaults, catalog_hint: str = CATALOG_HINT) -> Expander:
        return Expander(defaults, self.accounts, self.report, self.warn, catalog_hint)

    def _include_files(self, folder: Path) -> list[tuple[Path, Names | None]]:
        taken = {os.path.realpath(self.files[0])}
        found: list[tuple[Path, Names | None]] = []
        for node in self._main.include:
            text, names = includes.read_include(node, self.report)
            if text is None:
                continue
            wrong, target = includes.locate(text.text, folder, _ENDINGS)
            if wrong is None and target in taken:
                wrong = f"include {escaped(truncated(text.text, 60))} was read before: name each file once"
            if wrong is None:
                taken.add(target)
                found.append((folder / text.text, names))
            else:
                self.report(text.line, wrong)
        return found


class _HashedFile(RawIOBase):
    def __init__(self, stream: IO[bytes], update: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._update = update

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._stream.read(len(buffer))
        self._update(data)
        buffer[: len(data)] = data
        return len(data)


def _sections_of(path: Path, known: Collection[str]) -> Sections:
    """All sections of a YAML file; its problems are reported by the pass itself."""
    sections = Sections(known)
    try:
        with open_regular(path) as stream:
            for key, node in Document(stream, _ignore).sections(entries=False, bare=True):
                sections.read(key, node, _ignore, _ignore)
    except (UnreadableError, ByteError, OSError):
        # Rows must not be reported for defaults that could not be read
        sections.defaults = Defaults(invalid=keys.names(keys.CONTEXT)).over(sections.defaults)
    return sections


def _ignore(line: int, text: str) -> None:
    """Report nothing."""


def _mentions(path: Path, words: list[str]) -> bool:
    """Whether the file holds one of the words anywhere, in UTF-8 or UTF-16; cheaper than parsing it."""
    needles = [needle for word in words for needle in (word.encode(), "\0".join(word).encode())]
    tail = b""
    with _opened(path) as stream:
        while chunk := stream.read(_CHUNK):
            window = tail + chunk
            if any(needle in window for needle in needles):
                return True
            tail = window[-64:]
    return False


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with open_regular(path) as stream:
            yield stream
    except OSError as error:
        raise UnreadableError(0, f"cannot be read: {error.strerror or error}") from error


@contextmanager
def _located_bytes(path: Path) -> Iterator[None]:
    """Turn the byte offset of a problem into a line."""
    try:
        yield
    except ByteError as error:
        left, text = error.args
        line = 1
        with _opened(path) as stream:
            while left > 0 and (chunk := stream.read(min(left, _CHUNK))):
                line += chunk.count(b"\n")
                left -= len(chunk)
        raise UnreadableError(line, text) from error
