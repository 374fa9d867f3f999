"""One pass over a manifest and its includes: sections first, then rows, whatever their order."""

from __future__ import annotations

import os
from contextlib import contextmanager
from hashlib import sha256
from typing import IO, TYPE_CHECKING

from batch_snapshot.files import open_regular
from batch_snapshot.manifest import header, includes, live, values
from batch_snapshot.manifest.duplicates import Place
from batch_snapshot.manifest.header import AMBIENT, Defaults
from batch_snapshot.manifest.nodes import PAIRS, Broken, ByteError, Document, Items, Scalar
from batch_snapshot.manifest.pairs import Expander, unknown_account
from batch_snapshot.manifest.problems import ProblemLog, UnreadableError, printable
from batch_snapshot.manifest.stretches import Ahead, Parted, Stretch, Taking, UnusualTextError
from batch_snapshot.models import Account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from batch_snapshot.manifest.columns import Names
    from batch_snapshot.manifest.filters import Filters
    from batch_snapshot.manifest.nodes import Node
    from batch_snapshot.manifest.problems import Complain, ProblemCount
    from batch_snapshot.models import Row

TOP = ("version", "name", "defaults", "accounts", PAIRS, "include", live.SECTION)
_INCLUDED = ("version", "defaults", PAIRS)
#: Sections that rows depend on: they must be known before the first row.
_NEEDED = ("defaults", "accounts")
_ENDINGS = includes.YAML_ENDINGS | includes.BY_LINES.keys()
_CHUNK = 1 << 20


class Sections:
    """What stands beside the pairs of one file, as far as it was read."""

    def __init__(self, known: tuple[str, ...]) -> None:
        """Take the keys that the file may have."""
        self.known = known
        self.seen: set[str] = set()
        self.name: str | None = None
        self.defaults = Defaults()
        self.accounts: dict[str, Account] = {}
        self.include: list[Node] = []
        self.live: Node | None = None

    def read(self, key: Scalar, node: Node, complain: Complain, warn: Complain) -> None:
        """Take one section."""
        self.seen.add(key.text)
        if key.text not in self.known:
            self._refuse(key, complain)
        elif key.text == "version":
            header.read_version(node, complain)
        elif key.text == "name":
            self.name = header.read_name(node, complain)
        elif key.text == "defaults":
            self.defaults = header.read_defaults(node, complain, warn)
        elif key.text == "accounts":
            self.accounts = header.read_accounts(node, complain, warn)
        elif key.text == live.SECTION:
            self.live = node
        elif isinstance(node, Items):
            self.include = node.nodes
        elif not isinstance(node, Broken) and not (isinstance(node, Scalar) and node.absent):
            complain(node.line, "include must be a list of files, e.g. include: [pairs.csv]")

    def _refuse(self, key: Scalar, complain: Complain) -> None:
        if key.text == "include":
            complain(key.line, "an included file cannot include others: list them in the manifest itself")
        elif key.text in TOP:
            complain(key.line, f"{key.text} belongs in the manifest itself, not in a file that it includes")
        else:
            values.unknown_key(key.text, key.line, self.known, "a manifest", complain)


class ManifestPass:
    """The state of one pass. Problems and warnings are noted under the file being read."""

    def __init__(self, path: Path, found: Path | None = None, *, stretches: bool = False) -> None:
        """Take what is to be read; nothing is yet.

        Args:
            path: the manifest.
            found: the file of what its `discover` has found.
            stretches: take long stretches of entries that are all alike as they stand; anything to be
                complained about behind one is then an `UnusualTextError`.
        """
        self.problems = ProblemLog()
        self.warnings = ProblemLog()
        self.digest = sha256()
        #: The manifest and its includes, in the order of reading.
        self.files: list[Path] = [path]
        self.accounts: dict[str, Account] = {}
        self.discover: tuple[Filters, ...] = ()
        self._taking = Taking(wanted=stretches)
        #: Lines of the file being read that its parser has not got to read so far.
        self._left_out = 0
        self.found = found
        self._main = Sections(TOP)
        self._defaults = Defaults()
        self._display = includes.display(path)
        self._entries = 0

    @property
    def name(self) -> str:
        """The manifest's name, once it was read."""
        return self._main.name or ""

    def place(self, line: int) -> Place:
        """A line of the file being read."""
        return Place(len(self.files), self._display, line)

    def complain(self, line: int, text: str | ProblemCount) -> None:
        """Note a problem in a line of the file being read; line 0 is the file as a whole.

        Raises:
            OddError: a stretch was taken.
        """
        self._taking.on = False
        if self._taking.begun:
            raise UnusualTextError
        self.problems.add(len(self.files), line, self._display, text)

    def warn(self, line: int, text: str) -> None:
        """Note a warning about a line of the file being read."""
        self.warnings.add(len(self.files), line, self._display, text)

    def _warn(self, line: int, text: str) -> None:
        """Note a warning about a line as its parser counts."""
        self.warn(line + self._left_out, text)

    def rows(self) -> Iterator[tuple[Row, int]]:
        """Every row with its line, repeated ones too: worth something while `problems` is empty.

        Raises:
            OddError: stretches are taken, and something is not as they have it.
        """
        path = self.files[0]
        wrong = includes.trouble(path, "the manifest")
        if wrong:
            self.complain(0, wrong)
            return
        try:
            yield from self._yaml(path, self._main)
        except UnreadableError as error:
            # What is absent, and what the includes lack, cannot be judged by a part of the file
            self.complain(error.line, error.text)
            return
        for key, example in (("version", "version: 1"), ("name", "name: nightly")):
            if key not in self._main.seen:
                self.complain(1, f"{key} is missing: add the line {example}")
        if self._main.live is not None:
            self.discover = live.read_live(self._main.live, self._defaults, self.accounts, self.complain)
        found: list[tuple[Path, Names | None]] = [(self.found, None)] if self.found else []
        for include, names in [*self._located(path.parent), *found]:
            self.files.append(include)
            self._display = includes.display(include)
            self._left_out = 0
            try:
                yield from self._included(include, names)
            except UnreadableError as error:
                self.complain(error.line, error.text)
        if not self._entries and not self.problems.total and not self.discover:
            self.problems.add(1, 0, includes.display(path), "lists no pairs: add some under pairs or include")

    def _included(self, path: Path, names: Names | None) -> Iterator[tuple[Row, int]]:
        entries = includes.BY_LINES.get(path.suffix.lower())
        if entries is None:
            yield from self._yaml(path, Sections(_INCLUDED))
            return
        expander = self._expander(self._defaults)
        with _opened(path) as stream:
            source = _Source(stream, self.digest.update)
            lines = Ahead(source, self._taking) if self._taking.on else source
            for entry in entries(lines, self.complain, self.warn, names):
                yield from self._expanded(expander, entry)

    def _yaml(self, path: Path, sections: Sections) -> Iterator[tuple[Row, int]]:
        expander: Expander | None = None
        settled: set[str] = set()
        taking = self._taking
        with _opened(path) as stream, _located_bytes(path, parted=taking.on):
            source = _Source(stream, self.digest.update)
            parted = Parted(source, taking) if taking.on else None
            document = Document(parted or source, self.complain, parted)
            for key, node in document.sections(bare=sections is not self._main):
                if key.text == PAIRS:
                    if expander is None:
                        expander, settled = self._settle(path, sections)
                    yield from self._expanded(expander, node)
                    continue
                if expander is not None and key.text in _NEEDED and key.text not in settled:
                    self.complain(key.line, f"{key.text} must stand above pairs in this file: move it up")
                sections.read(key, node, self.complain, self._warn)
        if expander is None:
            self._settle(path, sections)

    def _settle(self, path: Path, sections: Sections) -> tuple[Expander, set[str]]:
        """Fix defaults and accounts before a file's first row, and say which sections were counted in.

        Where a section may still follow the pairs, the file is first read through for its sections alone.
        """
        open_ = [key for key in _NEEDED if key in sections.known and key not in sections.seen]
        if open_ and _mentions(path, open_):
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
                self.complain(sections.defaults.account_line, wrong)
        return self._expander(defaults), sections.seen

    def _expander(self, defaults: Defaults) -> Expander:
        return Expander(defaults, self.accounts, self.complain, self._warn)

    def _expanded(self, expander: Expander, entry: Node) -> Iterable[tuple[Row, int]]:
        self._entries += 1
        if type(entry) is Stretch:
            return self._all_expanded(expander, entry)
        if self._left_out:
            return [(row, line + self._left_out) for row, line in expander.rows(entry)]
        return expander.rows(entry)

    def _all_expanded(self, expander: Expander, stretch: Stretch) -> Iterator[tuple[Row, int]]:
        """The rows of a stretch, which may have been taken out of what the parser reads."""
        yield from expander.all_rows(stretch, self._left_out)
        if stretch.taken_out:
            self._left_out += stretch.lines

    def _located(self, folder: Path) -> list[tuple[Path, Names | None]]:
        """The included files that can be read; the others are complained about where they are named."""
        taken = {os.path.realpath(self.files[0])}
        found: list[tuple[Path, Names | None]] = []
        for node in self._main.include:
            text, names = includes.read_include(node, self.complain)
            if text is None:
                continue
            wrong, target = includes.locate(text.text, folder, _ENDINGS)
            if wrong is None and target in taken:
                wrong = f"include {printable(text.text, 60)} was read before: name each file once"
            if wrong is None:
                taken.add(target)
                found.append((folder / text.text, names))
            else:
                self.complain(text.line, wrong)
        return found


class _Source:
    """A file as it is read: every byte passes through the digest."""

    def __init__(self, stream: IO[bytes], update: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._update = update

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._update(data)
        return data

    def readline(self, size: int, /) -> bytes:
        data = self._stream.readline(size)
        self._update(data)
        return data


def _sections_of(path: Path, known: tuple[str, ...]) -> Sections:
    """All sections of a YAML file. Its problems are left to the pass that asks."""
    sections = Sections(known)
    try:
        with open_regular(path) as stream:
            for key, node in Document(stream, _ignore).sections(entries=False, bare=True):
                sections.read(key, node, _ignore, _ignore)
    except (UnreadableError, ByteError, OSError):
        # The rows cannot be blamed for what a broken file did not get to say
        sections.defaults = Defaults(broken=frozenset(values.CONTEXT)).over(sections.defaults)
    return sections


def _ignore(line: int, text: str) -> None:
    """Complain to nobody."""


def _mentions(path: Path, words: list[str]) -> bool:
    """Whether one of the words stands anywhere in the file, in UTF-8 or UTF-16: cheap, and never too few."""
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
def _located_bytes(path: Path, *, parted: bool) -> Iterator[None]:
    """An offset that is complained about as a line.

    Raises:
        OddError: the file is parted, and the offset not that of the file.
    """
    try:
        yield
    except ByteError as error:
        if parted:
            raise UnusualTextError from error
        line, left = 1, error.position
        with _opened(path) as stream:
            while left > 0 and (chunk := stream.read(min(left, _CHUNK))):
                line += chunk.count(b"\n")
                left -= len(chunk)
        raise UnreadableError(line, error.text) from error
