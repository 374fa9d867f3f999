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
from batch_snapshot.manifest import keys, line_files, sections
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.manifest.pairs import CATALOG_HINT, Expander
from batch_snapshot.manifest.problems import KEPT, Report, UnreadableError
from batch_snapshot.manifest.sections import Defaults, Names
from batch_snapshot.manifest.yaml_events import NOTHING, PAIRS, Document, Items, Node, Reported, is_unwritten
from batch_snapshot.models import Account, Row

#: Sections that must be known before the first row.
_NEEDED = frozenset({"defaults", "accounts"})
_ENDINGS = sections.YAML_ENDINGS | line_files.ENTRIES.keys()
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
    """One pass over a manifest and its includes."""

    discover: tuple[Filters, ...] = ()

    def __init__(self, path: Path, found: Path | None = None, options: LoadOptions = DEFAULT_LOAD) -> None:
        self.report = Report(sys.maxsize if options.all_problems else KEPT)
        self.digest = sha256()
        #: The manifest and its includes, in the order of reading.
        self.files: list[Path] = []
        self.name = ""
        self.accounts = {keys.AMBIENT: Account(keys.AMBIENT)}
        self._path, self._found, self._options = path, found, options
        #: Of the manifest itself; an included file may have its own over them.
        self._defaults: Defaults = {}
        self._entries = 0

    def rows(self) -> Iterator[tuple[Row, int]]:
        self._begin(self._path)
        whole = self.report.place(0)
        if wrong := sections.read_problem(self._path, "the manifest"):
            self.report(0, wrong)
            return
        bare = self._path.suffix.lower() in line_files.ENTRIES
        yield from self._bare() if bare else self._full()
        if not self._entries and not self.report.problems.total and not self.discover:
            nothing = f"lists no pairs: add {'one a line' if bare else 'some under pairs or include'}"
            self.report.problems.add(whole, nothing)

    def _begin(self, file: Path) -> None:
        self.files.append(file)
        self.report.begin(file)

    def _full(self) -> Iterator[tuple[Row, int]]:
        for flag, value in (("--name", self._options.name), ("--catalog", self._options.catalog)):
            if value:
                self.report(0, f"{flag} is for CSV and NDJSON files: write it in the manifest instead")
        found: dict[str, Node] = {}
        try:
            yield from self._yaml(found, main=True)
        except UnreadableError as error:
            # Missing keys, and the includes, cannot be checked by a part of the file
            self.report(error.line, error.text)
            return
        for key, example in (("version", "version: 1"), ("name", "name: nightly")):
            if key not in found:
                self.report(1, f"{key} is missing: add the line {example}")
        defaults = sections.completed(self._defaults, sections.general_defaults(self.accounts))
        discover = found.get("discover", NOTHING)
        self.discover = sections.read_discover(discover, defaults, self.accounts, self.report)
        include = self._include_files(found.get("include", NOTHING))
        for file, names in [*include, *([(self._found, None)] if self._found else [])]:
            self._begin(file)
            yield from self._included(names)

    def _bare(self) -> Iterator[tuple[Row, int]]:
        """The rows of a CSV or NDJSON file that is the whole manifest."""
        self.name = self._options.name or self._path.stem
        if wrong := keys.check_name(self.name):
            self.report(0, f"{wrong}: give the manifest a name with --name")
        if self._options.catalog:
            self._defaults = {"catalog": self._options.catalog}
        where = "a column catalog" if self._path.suffix.lower() == ".csv" else "each line a key catalog"
        yield from self._included(None, f"give --catalog Sandbox (or AWS), or {where}")

    def _included(self, names: Names | None, catalog_hint: str = CATALOG_HINT) -> Iterator[tuple[Row, int]]:
        entries = line_files.ENTRIES.get(self.files[-1].suffix.lower())
        try:
            if entries is None:
                yield from self._yaml({}, main=False)
                return
            expander = Expander(self._defaults, self.accounts, self.report, catalog_hint)
            with self._opened() as lines:
                for entry in entries(lines, self.report, names):
                    self._entries += 1
                    yield from expander.rows(entry)
        except UnreadableError as error:
            self.report(error.line, error.text)

    def _yaml(self, found: dict[str, Node], *, main: bool) -> Iterator[tuple[Row, int]]:
        """The rows of a YAML file; its sections are added to `found`."""
        known = keys.names(keys.TOP if main else keys.INCLUDED_FILE)
        expander: Expander | None = None
        below: dict[str, Node] = {}
        with self._opened() as source:
            try:
                for key, node in Document(source, self.report).sections(bare=not main):
                    if key.text == PAIRS:
                        if expander is None:
                            below = _sections_below(self.files[-1], known & _NEEDED - found.keys())
                            expander = self._expander({**below, **found}, main=main)
                        self._entries += 1
                        yield from expander.rows(node)
                        continue
                    if expander and key.text in known & _NEEDED - below.keys():
                        self.report(key.line, f"{key.text} must come before pairs in this file: move it up")
                    self._read(key.text, key.line, node, known)
                    found[key.text] = node
            except UnreadableError:
                if expander is None:
                    self._expander({"accounts": Reported(0), **found}, main=main)
                raise
        if expander is None:
            self._expander(found, main=main)

    def _read(self, key: str, line: int, node: Node, known: Collection[str]) -> None:
        if key == "version":
            sections.read_version(node, self.report)
        elif key == "name" in known:
            self.name = sections.read_name(node, self.report)
        elif key == "include" not in known:
            self.report(line, "an included file cannot include others: list them in the manifest itself")
        elif key not in known and key in keys.names(keys.TOP):
            self.report(line, f"{key} belongs in the manifest itself, not in a file that it includes")
        elif key not in known:
            sections.unknown_key(key, line, known, "a manifest", self.report)

    def _expander(self, found: Mapping[str, Node], *, main: bool) -> Expander:
        if main and "accounts" in found:
            declared = sections.read_accounts(found["accounts"], self.report)
            unread = isinstance(found["accounts"], Reported)
            self.accounts = declared if declared or unread else self.accounts
        own = sections.read_defaults(found.get("defaults", NOTHING), self.accounts, self.report)
        defaults = sections.completed(own, self._defaults)
        if main:
            self._defaults = defaults
        return Expander(defaults, self.accounts, self.report)

    @contextmanager
    def _opened(self) -> Iterator[BufferedReader]:
        """The present file, whose bytes are added to the digest as they are read."""
        try:
            with open_regular(self.files[-1]) as stream:
                yield BufferedReader(_HashedFile(stream, self.digest.update), _BLOCK)
        except OSError as error:
            raise UnreadableError(0, f"cannot be read: {error.strerror or error}") from error

    def _include_files(self, section: Node) -> list[tuple[Path, Names | None]]:
        if not isinstance(section, Items):
            if not is_unwritten(section):
                self.report(section.line, "include must be a list of files, e.g. include: [pairs.csv]")
            return []
        folder, taken = self._path.parent, {os.path.realpath(self._path)}
        included: list[tuple[Path, Names | None]] = []
        for node in section.nodes:
            text, names = sections.read_include(node, self.report)
            if text is None:
                continue
            if wrong := sections.include_problem(text.text, folder, _ENDINGS, taken):
                self.report(text.line, wrong)
            else:
                taken.add(os.path.realpath(folder / text.text))
                included.append((folder / text.text, names))
        return included


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
    try:
        with open_regular(path) as stream:
            if not wanted or not _mentions(stream, wanted):
                return {}
            stream.seek(0)
            found = Document(stream, Report()).sections(bare=True)
            return {key.text: node for key, node in found if key.text in wanted}
    except (UnreadableError, OSError):
        # Rows must not be reported for what could not be read
        return dict.fromkeys(wanted, Reported(0))


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
