"""The further files of a manifest: where they may lie, and CSV and NDJSON as entries."""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from batch_snapshot.files import open_regular
from batch_snapshot.manifest.nodes import Broken, Fields, Items, Node, Scalar
from batch_snapshot.manifest.pairs import KEYS
from batch_snapshot.manifest.problems import UnreadableError, printable, shown, spelled
from batch_snapshot.manifest.stretches import NDJSON, Ahead, csv_lines
from batch_snapshot.manifest.values import as_text, check_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from batch_snapshot.manifest import columns, stretches
    from batch_snapshot.manifest.problems import Complain

    Entries = Callable[["Lines", Complain, Complain, columns.Names | None], Iterator[Node]]

#: The longest line of a CSV or NDJSON file, in bytes.
LONGEST = 1 << 20

#: The marks that a file in UTF-16 begins with.
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

YAML_ENDINGS = frozenset({".yaml", ".yml"})


def _ignored(line: int, text: str) -> None:
    """Warn nobody."""


class Lines(Protocol):
    """A file that is read by lines."""

    def readline(self, size: int, /) -> bytes:
        """The next line, or its first `size` bytes; nothing at the end."""


def locate(text: str, folder: Path, endings: Collection[str]) -> tuple[str | None, str]:
    """What is wrong with an included file, if anything, and where it really lies.

    Symbolic links are followed first: what counts is where the bytes are.
    """
    name = shown(text)
    if not text.isprintable():
        return f"include {name} holds characters that no file's name should", ""
    if Path(text).is_absolute():
        return f"include {name} is absolute: name it relative to the manifest", ""
    home = os.path.realpath(folder)
    target = os.path.realpath(folder / text)
    if not Path(target).is_relative_to(home):
        return f"include {name} leaves the manifest's folder: move the file beside the manifest", ""
    if Path(text).suffix.lower() not in endings:
        return f"include {name} has an unknown ending: known are {', '.join(sorted(endings))}", ""
    return trouble(Path(target), f"include {name}"), target


def read_include(node: Node, complain: Complain) -> tuple[Scalar | None, columns.Names | None]:
    """An entry of `include`: the file's name, and the names of its columns if they are given.

    The file is None where the entry was complained about.
    """
    if not isinstance(node, Fields):
        text = as_text(node, "include", complain)
        if text is None and isinstance(node, Scalar) and node.absent:
            complain(node.line, "include is empty: name a file or remove it")
        return text, None
    check_keys(node, ("file", "columns"), "an include", complain)
    file, names = node.nodes.get("file"), node.nodes.get("columns")
    text = None if file is None else as_text(file, "file", complain)
    if text is None:
        if file is None or (isinstance(file, Scalar) and file.absent):
            complain(node.line, "file is missing in an include: name one, e.g. {file: pairs.csv}")
        return None, None
    if names is None or isinstance(names, Broken) or (isinstance(names, Scalar) and names.absent):
        return text, None
    if Path(text.text).suffix.lower() != ".csv":
        complain(
            node.lines["columns"],
            f"columns of {shown(text.text)}: only CSV has columns; YAML and NDJSON name the keys of a pair",
        )
        return None, None
    return text, _read_columns(names, complain)


def _read_columns(node: Node, complain: Complain) -> columns.Names:
    """Which column holds which key of a pair."""
    from batch_snapshot.manifest.columns import same  # noqa: PLC0415 - most manifests have none

    example = 'e.g. columns: {engagement: "Engagement Id", resource: "Opportunity Id"}'
    if not isinstance(node, Fields):
        complain(node.line, f"columns must be a mapping of keys to columns, {example}")
        return {}
    check_keys(node, KEYS, "columns", complain)
    names: dict[str, str | None] = {}
    taken: dict[str, str] = {}
    for key, value in node.nodes.items():
        if key not in KEYS:
            continue
        text = as_text(value, f"the column of {key}", complain)
        if text is None:
            if key == "engagement" and isinstance(value, Scalar) and value.absent:
                complain(value.line, f"the column of {key} is empty: name it, {example}")
            names[key] = None
            continue
        names[key] = text.text
        if (other := taken.setdefault(same(text.text), key)) != key:
            complain(text.line, f"column {spelled(text.text)} is named for {other} and for {key}: name two")
    return names


def trouble(path: Path, what: str) -> str | None:
    """Why `path` cannot be read twice as a file, or None."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            open_regular(path).close()
            return None
    except FileNotFoundError:
        return f"{what} does not exist: check the path"
    except (OSError, ValueError) as error:
        return f"{what} cannot be read: {getattr(error, 'strerror', None) or error}"
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
    return f"{what} is {kind}: it must be a regular file, for it is read more than once"


def csv_entries(
    lines: Lines, complain: Complain, warn: Complain = _ignored, names: columns.Names | None = None
) -> Iterator[Node]:
    """The rows of a CSV file.

    Args:
        lines: of the file.
        complain: gets what is wrong.
        warn: gets what is taken all the same.
        names: of the columns, where they are not those of a pair's keys.
    """
    from csv import Error  # noqa: PLC0415 - most manifests have none

    from batch_snapshot.manifest import columns  # noqa: PLC0415

    texts = _Texts(lines, warn)
    header = columns.read_header(texts, names or {}, lambda: texts.number)
    if header is None:
        raise UnreadableError(0, "is empty: it needs a header, e.g. engagement,resource")
    found, line = header
    if ignored := found.ignored():
        warn(line, ignored)
    alike = csv_lines([found.keys.get(position, "") for position in range(len(found.names))])
    if found.separator != ",":
        alike = None
    reader = columns.parser(texts, found.separator)
    while True:
        if alike and (stretch := texts.stretch(alike)):
            yield stretch
        texts.begun, line = "", texts.number + 1
        try:
            cells = next(reader, None)
        except Error as error:
            told = f"not valid CSV: {error}: close the quotes, or split the cell; it begins "
            raise UnreadableError(line, told + spelled(texts.begun)) from error
        if cells is None:
            return
        if texts.number > line and (below := columns.swallowed(cells, found.separator)):
            told = f"the row in line {line + below} stands within the quotes of a cell that begins here: "
            complain(line, f"{told}close them; it begins {spelled(texts.begun)}")
        elif entry := found.entry(cells, line, complain):
            yield entry


def ndjson_entries(lines: Lines, complain: Complain) -> Iterator[Node]:
    """The objects of an NDJSON file, one a line; blank lines are skipped."""
    texts = _Texts(lines)
    while True:
        if stretch := texts.stretch(NDJSON):
            yield stretch
        text = next(texts, None)
        if text is None:
            break
        if not text.strip():
            continue
        line = texts.number
        try:
            parsed = json.loads(text, object_pairs_hook=_Pairs)
        except RecursionError:
            complain(line, "nested deeper than any entry needs")
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "a number is too long"
            complain(line, f"not valid JSON: {reason}: one object a line, keys and texts in double quotes")
        else:
            yield _json_node(parsed, line, complain, deepest=3)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, which may hold a key twice."""


def _json_node(value: object, line: int, complain: Complain, deepest: int) -> Node:
    if isinstance(value, str):
        return Scalar(value, line)
    if value is None:
        return Scalar("", line, plain=True)
    if deepest == 0:
        complain(line, "nested deeper than any entry needs")
    elif isinstance(value, _Pairs):
        nodes: dict[str, Node] = {}
        for key, one in value:
            if key in nodes:
                complain(line, f"key {shown(key)} stands here a second time: remove one")
            nodes[key] = _json_node(one, line, complain, deepest - 1)
        return Fields(nodes, dict.fromkeys(nodes, line), line)
    elif isinstance(value, list):
        return Items([_json_node(one, line, complain, deepest - 1) for one in value], line)
    else:
        complain(line, f"{shown(json.dumps(value))} must be a text: put it in double quotes")
    return Broken(line)


class _Recoded:
    """A file in UTF-16, such as Excel's "Unicode text", by lines in UTF-8."""

    def __init__(self, begun: bytes, lines: Lines) -> None:
        self._begun = begun
        self._lines = lines
        self._decoder = codecs.getincrementaldecoder("utf-16")()
        self._text = b""

    def readline(self, size: int, /) -> bytes:
        while b"\n" not in self._text and len(self._text) < size:
            raw, self._begun = self._begun or self._lines.readline(size), b""
            self._text += self._decoder.decode(raw, final=not raw).encode()
            if not raw:
                break
        end = self._text.find(b"\n", 0, size) + 1 or size
        line, self._text = self._text[:end], self._text[end:]
        return line


class _Texts:
    """Each line's text, whatever ends the lines; byte order marks are dropped."""

    def __init__(self, lines: Lines, warn: Complain | None = None) -> None:
        """Read lines; those that are not UTF-8 are taken for Windows-1252 if there is somebody to warn."""
        self._lines = lines
        self._warn = warn
        self._warned = False
        #: Lines that were read from the file, the first of them the next; and part of one.
        self._pieces: deque[bytes] = deque()
        self._part = b""
        #: Lines that were given out.
        self.number = 0
        #: The first one since this was emptied.
        self.begun = ""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        raw = self._pieces.popleft() if self._pieces else self._line()
        if not raw:
            raise StopIteration
        self.number += 1
        if len(raw) >= LONGEST and not raw.endswith((b"\n", b"\r")):
            raise UnreadableError(self.number, f"a line of more than {LONGEST:,} bytes: split it up")
        try:
            text = raw.decode().lstrip("\ufeff")
        except UnicodeDecodeError as error:
            text = self._legacy(raw, raw[error.start])
        if "\0" in text:
            raise UnreadableError(self.number, "a NUL byte: the file is damaged, or not in UTF-8")
        self.begun = self.begun or text
        return text

    def _line(self) -> bytes:
        """The next line in bytes; nothing at the end."""
        try:
            raw = self._part + self._lines.readline(LONGEST)
            if not self.number and raw[:2] in _UTF_16:
                self._lines = _Recoded(raw, self._lines)
                raw = self._lines.readline(LONGEST)
        except UnicodeDecodeError:
            raise UnreadableError(
                self.number + 1, "not UTF-16, as its first bytes say: save it as UTF-8"
            ) from None
        self._part = b""
        end = raw.find(b"\r")
        if end < 0 or (end == len(raw) - 2 and raw.endswith(b"\n")):
            return raw
        # Old spreadsheets of the Macintosh end lines by this alone.
        self._pieces.extend(raw.splitlines(keepends=True))
        if len(raw) >= LONGEST and len(self._pieces) > 1 and not raw.endswith(b"\n"):
            self._part = self._pieces.pop()
        return self._pieces.popleft()

    def _legacy(self, raw: bytes, byte: int) -> str:
        if self._warn is None:
            raise UnreadableError(self.number, "not UTF-8: save the file in that encoding")
        if not self._warned:
            self._warned = True
            told = f"not UTF-8 (byte \\x{byte:02x}): read as Windows-1252"
            self._warn(self.number, f"{told}; save the file as UTF-8 to be sure")
        try:
            return raw.decode("cp1252")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def stretch(self, alike: stretches.StretchLines) -> stretches.Stretch | None:
        """The next lines, where they are a stretch and are looked at for one; never the first line."""
        if not self.number or self._pieces or self._part or not isinstance(self._lines, Ahead):
            return None
        found = self._lines.stretch(alike, self.number + 1)
        if found is not None:
            self.number += found.lines
        return found


def _ndjson(
    lines: Lines, complain: Complain, _warn: Complain, _names: columns.Names | None
) -> Iterator[Node]:
    return ndjson_entries(lines, complain)


#: What reads which ending.
BY_LINES: dict[str, Entries] = {
    ".csv": csv_entries,
    ".ndjson": _ndjson,
    ".jsonl": _ndjson,
}


def display(path: Path) -> str:
    """A path as messages show it."""
    return printable(str(path))
