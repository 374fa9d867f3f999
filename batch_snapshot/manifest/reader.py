"""One pass over a manifest and its includes: sections first, then rows, whatever their order."""

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Any, NamedTuple

from batch_snapshot.files import open_regular
from batch_snapshot.manifest import checks, includes, keys, line_files
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.manifest.header import (
    Defaults,
    general_defaults,
    read_accounts,
    read_defaults,
    read_discover,
    read_name,
    read_version,
    unknown_key,
)
from batch_snapshot.manifest.includes import Names
from batch_snapshot.manifest.pairs import CATALOG_HINT, Expander
from batch_snapshot.manifest.problems import KEPT, Place, ProblemCount, ProblemLog, UnreadableError, ignore
from batch_snapshot.manifest.yaml_events import (
    NOTHING,
    PAIRS,
    Document,
    Items,
    Node,
    Reported,
    Scalar,
    is_unwritten,
)
from batch_snapshot.models import Account, Row

#: Sections that must be known before the first row.
_NEEDED = frozenset({"defaults", "accounts"})
_ENDINGS = includes.YAML_ENDINGS | line_files.ENTRIES.keys()
_CHUNK = 1 << 20
#: Bytes that are read ahead of the row being used.
_BLOCK = 1 << 16


class LoadOptions(NamedTuple):
    #: Of a CSV or NDJSON file that is read as a manifest; None: that of the file.
    name: str | None = None
    #: Of such a file, for rows that name none.
    catalog: str | None = None
    #: Keep all of them, not only the first; they are counted in any case.
    all_problems: bool = False


DEFAULT_LOAD = LoadOptions()


class ManifestReader:
    """One pass over a manifest and its includes; problems and warnings are kept with file and line."""

    discover: tuple[Filters, ...] = ()

    def __init__(self, path: Path, found: Path | None = None, options: LoadOptions = DEFAULT_LOAD) -> None:
        keep = sys.maxsize if options.all_problems else KEPT
        self.problems, self.warnings = ProblemLog(keep), ProblemLog(keep)
        self.digest = sha256()
        #: The manifest and its includes, in the order of reading.
        self.files: list[Path] = [path]
        self.name = ""
        self.accounts = {keys.AMBIENT: Account(keys.AMBIENT)}
        self.found = found
        self._options = options
        #: Of the manifest itself; an included file may have its own over them.
        self._defaults = Defaults({})
        self._display = includes.display(path)
        self._entries = 0

    def place(self, line: int) -> Place:
        return Place(len(self.files), self._display, line)

    def report(self, line: int, text: str | ProblemCount) -> None:
        self.problems.add(self.place(line), text)

    def warn(self, line: int, text: str) -> None:
        self.warnings.add(self.place(line), text)

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
            bare = path.suffix.lower() in line_files.ENTRIES
            nothing = f"lists no pairs: add {'one a line' if bare else 'some under pairs or include'}"
            self.problems.add(Place(1, includes.display(path), 0), nothing)

    def _full(self, path: Path) -> Iterator[tuple[Row, int]]:
        for flag, value in (("--name", self._options.name), ("--catalog", self._options.catalog)):
            if value:
                self.report(0, f"{flag} is for CSV and NDJSON files: write it in the manifest instead")
        sections: dict[str, Node] = {}
        try:
            yield from self._yaml(path, sections, main=True)
        except UnreadableError as error:
            # Missing keys, and the includes, cannot be checked by a part of the file
            self.report(error.line, error.text)
            return
        for key, example in (("version", "version: 1"), ("name", "name: nightly")):
            if key not in sections:
                self.report(1, f"{key} is missing: add the line {example}")
        defaults = self._defaults.over(general_defaults(self.accounts))
        self.discover = read_discover(sections.get("discover", NOTHING), defaults, self.accounts, self.report)
        include = self._include_files(sections.get("include", NOTHING), path.parent)
        for file, names in [*include, *([(self.found, None)] if self.found else [])]:
            self.files.append(file)
            self._display = includes.display(file)
            yield from self._included(file, names)

    def _bare(self, path: Path) -> Iterator[tuple[Row, int]]:
        """The rows of a CSV or NDJSON file that is the whole manifest."""
        self.name = self._options.name or path.stem
        if wrong := checks.check_name(self.name):
            self.report(0, f"{wrong}: give the manifest a name with --name")
        if self._options.catalog:
            self._defaults = Defaults({"catalog": self._options.catalog})
        yield from self._included(path, None, "give --catalog Sandbox (or AWS), or a column catalog")

    def _included(
        self, path: Path, names: Names | None, catalog_hint: str = CATALOG_HINT
    ) -> Iterator[tuple[Row, int]]:
        entries = line_files.ENTRIES.get(path.suffix.lower())
        try:
            if entries is None:
                yield from self._yaml(path, {}, main=False)
                return
            expander = Expander(self._defaults, self.accounts, self.report, self.warn, catalog_hint)
            with self._opened(path) as lines:
                for entry in entries(lines, self.report, self.warn, names):
                    self._entries += 1
                    yield from expander.rows(entry)
        except UnreadableError as error:
            self.report(error.line, error.text)

    def _yaml(self, path: Path, sections: dict[str, Node], *, main: bool) -> Iterator[tuple[Row, int]]:
        """The rows of a YAML file; its sections are added to `sections`."""
        known = keys.names(keys.TOP if main else keys.INCLUDED_FILE)
        expander: Expander | None = None
        below: dict[str, Node] = {}
        with self._opened(path) as source:
            try:
                for key, node in Document(source, self.report).sections(bare=not main):
                    if key.text == PAIRS:
                        if expander is None:
                            below = _sections_below(path, known & _NEEDED - sections.keys())
                            expander = self._expander({**below, **sections}, main=main)
                        self._entries += 1
                        yield from expander.rows(node)
                        continue
                    if expander and key.text in known & _NEEDED - below.keys():
                        self.report(key.line, f"{key.text} must stand above pairs in this file: move it up")
                    self._read(key, node, known)
                    sections[key.text] = node
            except UnreadableError:
                if expander is None:
                    self._expander({"accounts": Reported(0), **sections}, main=main)
                raise
        if expander is None:
            self._expander(sections, main=main)

    def _read(self, key: Scalar, node: Node, known: Collection[str]) -> None:
        if key.text == "version":
            read_version(node, self.report)
        elif key.text == "name" in known:
            self.name = read_name(node, self.report) or ""
        elif key.text == "include" not in known:
            self.report(key.line, "an included file cannot include others: list them in the manifest itself")
        elif key.text not in known and key.text in keys.names(keys.TOP):
            wrong = "belongs in the manifest itself, not in a file that it includes"
            self.report(key.line, f"{key.text} {wrong}")
        elif key.text not in known:
            unknown_key(key.text, key.line, known, "a manifest", self.report)

    def _expander(self, sections: Mapping[str, Node], *, main: bool) -> Expander:
        if main and "accounts" in sections:
            declared = read_accounts(sections["accounts"], self.report, self.warn)
            unread = isinstance(sections["accounts"], Reported)
            self.accounts = declared if declared or unread else self.accounts
        own = read_defaults(sections.get("defaults", NOTHING), self.accounts, self.report, self.warn)
        defaults = own.over(self._defaults)
        if main:
            self._defaults = defaults
        return Expander(defaults, self.accounts, self.report, self.warn)

    @contextmanager
    def _opened(self, path: Path) -> Iterator[BufferedReader]:
        """The file, whose bytes are added to the digest as they are read."""
        try:
            with open_regular(path) as stream:
                yield BufferedReader(_HashedFile(stream, self.digest.update), _BLOCK)
        except OSError as error:
            raise UnreadableError(0, f"cannot be read: {error.strerror or error}") from error

    def _include_files(self, section: Node, folder: Path) -> list[tuple[Path, Names | None]]:
        if not isinstance(section, Items):
            if not is_unwritten(section):
                self.report(section.line, "include must be a list of files, e.g. include: [pairs.csv]")
            return []
        taken = {os.path.realpath(self.files[0])}
        found: list[tuple[Path, Names | None]] = []
        for node in section.nodes:
            text, names = includes.read_include(node, self.report)
            if text is None:
                continue
            if wrong := includes.problem(text.text, folder, _ENDINGS, taken):
                self.report(text.line, wrong)
            else:
                taken.add(os.path.realpath(folder / text.text))
                found.append((folder / text.text, names))
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


def _sections_below(path: Path, wanted: Collection[str]) -> dict[str, Node]:
    """Those of the sections that the file has; its problems are reported by the pass itself."""
    found: dict[str, Node] = {}
    try:
        with open_regular(path) as stream:
            if wanted and _mentions(stream, wanted):
                stream.seek(0)
                for key, node in Document(stream, ignore).sections(bare=True):
                    if key.text in wanted:
                        found[key.text] = node
    except (UnreadableError, OSError):
        # Rows must not be reported for what could not be read
        return dict.fromkeys(wanted, Reported(0))
    return found


def _mentions(stream: IO[bytes], words: Collection[str]) -> bool:
    """Whether the file holds one of the words anywhere, in UTF-8 or UTF-16; cheaper than parsing it."""
    needles = [needle for word in words for needle in (word.encode(), "\0".join(word).encode())]
    tail = b""
    while chunk := stream.read(_CHUNK):
        window = tail + chunk
        if any(needle in window for needle in needles):
            return True
        tail = window[-64:]
    return False
