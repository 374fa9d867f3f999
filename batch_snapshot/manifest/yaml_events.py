"""YAML events → the sections of a document, and the entries of its `pairs`, one at a time.

A manifest needs little of YAML. What it does not need (aliases, tags, merge keys, several documents) is
refused here, so that no document can mean more than it shows. Scalars stay the text that was written:
`name: 2024` is a name, not a number.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import IO, Any, NamedTuple, TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.reader import ReaderError

from batch_snapshot.manifest.keys import TOP, names
from batch_snapshot.manifest.problems import Report, UnreadableError, quoted

#: Levels of nesting; a valid manifest has four.
DEEPEST = 16
TOO_DEEP = f"nested deeper than {DEEPEST} levels: no manifest needs that"
#: Values, and bytes, of one entry or section: what is held in memory at a time.
LARGEST = 100_000
LONGEST = 16 * 1024 * 1024

PAIRS = "pairs"

_ABSENT = frozenset({"", "~", "null", "Null", "NULL"})


class Scalar(NamedTuple):
    text: str
    line: int
    #: Written without quotes: `null` and its like mean no value.
    plain: bool = False

    @property
    def absent(self) -> bool:
        return self.plain and self.text in _ABSENT


class Items(NamedTuple):
    nodes: "list[Node]"
    line: int


class Fields(NamedTuple):
    nodes: "dict[str, Node]"
    line: int
    #: Lines of its keys, where they can differ from that of the mapping.
    lines: Mapping[str, int] = MappingProxyType({})

    def get(self, key: str) -> "Node | None":
        """The node under a key; None if there is no value, so that none is invalid."""
        node = self.nodes.get(key)
        return None if type(node) is Scalar and node.absent else node

    def line_of(self, key: str) -> int:
        return self.lines.get(key, self.line)


class Reported(NamedTuple):
    line: int


Node: TypeAlias = Scalar | Items | Fields | Reported

#: A section that a file does not have.
NOTHING = Scalar("", 0, plain=True)


def is_unwritten(node: Node | None) -> bool:
    """Whether there is nothing to read: no value, an empty one, or one whose problem was reported."""
    return node is None or isinstance(node, Reported) or (isinstance(node, Scalar) and node.absent)


class Document:
    """One YAML file, read strictly: at most one document, nothing that refers elsewhere.

    Problems go to `report` and reading continues; `UnreadableError` is raised where it cannot.
    """

    def __init__(self, stream: IO[bytes], report: Report) -> None:
        self._stream, self._report = stream, report
        self._next: Callable[[], Any]
        #: The last two pieces: libyaml may find at the end of one that the next is not UTF-8.
        self._pieces = (b"", b"")
        self._position = 0
        #: Line ends before those two, and before the present entry or section.
        self._lines = self._began = 0
        #: Bytes, and values, since an entry or a section ended.
        self._taken = self._size = 0

    def sections(self, *, bare: bool) -> Iterator[tuple[Scalar, Node]]:
        """Each top-level key with its value; `pairs` once for each of its entries.

        `bare`: the document may be a list of entries alone.
        """
        try:
            # The reader scans the first bytes at once
            self._next = yaml.CSafeLoader(self).get_event
            yield from self._document(bare=bare)
        except (ReaderError, yaml.MarkedYAMLError) as error:
            raise self._unreadable(error) from error

    def read(self, size: int = -1, /) -> bytes:
        """For libyaml, which would read a text without end before it returns an event."""
        before, last = self._pieces
        if not self._taken:
            self._began = self._lines + before.count(b"\n") + last.count(b"\n")
        elif self._taken > LONGEST:
            wrong = f"more than {LONGEST:,} bytes in one entry: split it up, or end its quotes"
            raise UnreadableError(self._began + 1, wrong)
        self._lines += before.count(b"\n")
        piece = self._stream.read(size)
        self._pieces = last, piece
        self._taken += len(piece)
        self._position += len(piece)
        return piece

    def _unreadable(self, error: ReaderError | yaml.MarkedYAMLError) -> UnreadableError:
        if isinstance(error, ReaderError):
            fix = "save the file as UTF-8, without control characters"
            read = b"".join(self._pieces)
            before = read.count(b"\n", 0, max(0, len(read) - (self._position - error.position)))
            return UnreadableError(self._lines + 1 + before, f"not readable: {error.reason}: {fix}")
        began: Any = error.context_mark
        mark, problem = error.problem_mark or began, error.problem or ""
        line = mark.line + 1 if mark else 0
        if "nesting depth" in problem:  # newer libyaml has a limit of its own
            return UnreadableError(line, TOO_DEEP)
        form = "YAML"
        hint = "check the indentation, brackets and quotes there; keys of one level begin in one column"
        if self._report.place(line).name.lower().endswith(".json"):
            form, hint = "JSON", "check the brackets, commas and quotes there"
        elif "cannot start any token" in problem:
            hint = "a tab? indent with spaces; quote text that begins with @ or `"
        where = f", {error.context}" if error.context else ""
        if began and began.line + 1 != line:
            where += f" that begins in line {began.line + 1}"
        at = f" from column {mark.column + 1} on" if mark else ""
        return UnreadableError(line, f"not valid {form}{at} ({error.problem}{where}): {hint}")

    def _document(self, *, bare: bool) -> Iterator[tuple[Scalar, Node]]:
        self._next()
        if type(self._next()) is StreamEndEvent:
            raise UnreadableError(0, "is empty: `batch-snapshot init` writes a manifest to start from")
        root = self._next()
        line = _line(root)
        if type(root) is MappingStartEvent:
            self._decorated(root)
            yield from self._top()
        elif type(root) is SequenceStartEvent and bare:
            yield from self._entries(Scalar(PAIRS, line), root)
        else:
            what = "is not a manifest: its top level must be keys, such as `version: 1`"
            raise UnreadableError(line, f"{what}; a list of pairs is for a manifest to include")
        self._next()
        end = self._next()
        if type(end) is not StreamEndEvent:
            raise UnreadableError(_line(end), "a second document begins: one file holds one manifest")

    def _top(self) -> Iterator[tuple[Scalar, Node]]:
        seen: set[str] = set()
        event = self._next()
        while type(event) is not MappingEndEvent:
            self._size = self._taken = 0
            key, value = self._key(event, 1), self._next()
            if key and key.text == PAIRS and PAIRS not in seen:
                yield from self._entries(key, value)
                event = self._next()
            else:
                node = self._node(value, 1)
                # A value takes in a line that is indented too far: the error comes with what is behind it.
                event = self._next()
                if key and key.text != "accounts" and isinstance(node, Fields):
                    _refuse_keys_of_the_top(key.text, node)
                if key and key.text in seen:
                    self._report(key.line, twice(key.text))
                elif key:
                    yield key, node
            seen.update([key.text] if key else [])

    def _entries(self, key: Scalar, event: Any) -> Iterator[tuple[Scalar, Node]]:
        if type(event) is not SequenceStartEvent:
            node = self._node(event, 1)
            if not is_unwritten(node):
                self._report(node.line, "pairs must be a list of {engagement: …, resource: …}")
            return
        self._decorated(event)
        get = self._next
        while type(event := get()) is not SequenceEndEvent:
            self._size = self._taken = 0
            yield key, self._node(event, 2)

    def _node(self, event: Any, depth: int) -> Node:
        kind = type(event)
        line: int = event.start_mark.line + 1
        if kind is AliasEvent:
            self._report(line, "YAML aliases are not supported: write the value out")
            return Reported(line)
        decorated = event.tag is not None or event.anchor is not None
        if decorated:
            self._decorated(event)
        if kind is ScalarEvent:
            return Reported(line) if decorated else Scalar(event.value, line, event.style == "")
        if depth >= DEEPEST:
            raise UnreadableError(line, TOO_DEEP)
        return self._fields(line, depth + 1) if kind is MappingStartEvent else self._items(line, depth + 1)

    def _fields(self, line: int, depth: int) -> Fields:
        nodes: dict[str, Node] = {}
        lines: dict[str, int] = {}
        get = self._next
        while type(event := get()) is not MappingEndEvent and len(nodes) <= LARGEST:
            key, value = self._key(event, depth), self._node(get(), depth)
            if key is None:
                continue
            if key.text in nodes:
                self._report(key.line, twice(key.text))
            else:
                nodes[key.text], lines[key.text] = value, key.line
        self._count(len(nodes), line)
        return Fields(nodes, line, lines)

    def _items(self, line: int, depth: int) -> Items:
        nodes: list[Node] = []
        while type(event := self._next()) is not SequenceEndEvent and len(nodes) <= LARGEST:
            nodes.append(self._node(event, depth))
        self._count(len(nodes), line)
        return Items(nodes, line)

    def _key(self, event: Any, depth: int) -> Scalar | None:
        if type(event) is not ScalarEvent:
            self._report(_line(event), "a key must be plain text")
        node = self._node(event, depth)
        if type(node) is not Scalar or (node.text == "<<" and node.plain):
            if type(node) is Scalar:
                self._report(node.line, "YAML merge keys are not supported: write the values out")
            return None
        return node

    def _count(self, values: int, line: int) -> None:
        self._size += values
        if self._size > LARGEST:
            raise UnreadableError(line, f"more than {LARGEST:,} values in one entry: split it up")

    def _decorated(self, event: Any) -> None:
        if event.anchor is not None:
            self._report(_line(event), "YAML anchors are not supported: write the value out")
        if event.tag is not None:
            self._report(_line(event), f"YAML tags are not supported: remove {quoted(event.tag)}")


def twice(key: str) -> str:
    return f"key {quoted(key)} appears here a second time: remove one"


def _refuse_keys_of_the_top(section: str, found: Fields) -> None:
    for name in found.nodes:
        if name in names(TOP):
            what = f"{name} is indented below {section}"
            raise UnreadableError(found.line_of(name), f"{what}: begin its line as far left as {section}:")


def _line(event: Any) -> int:
    line: int = event.start_mark.line + 1
    return line
