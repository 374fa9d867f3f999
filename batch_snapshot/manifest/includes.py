"""The further files of a manifest: where they may lie, and CSV and NDJSON as entries."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from batch_snapshot.files import open_regular
from batch_snapshot.manifest.nodes import Broken, Fields, Items, Node, Scalar
from batch_snapshot.manifest.pairs import KEYS
from batch_snapshot.manifest.problems import UnreadableError, printable, shown
from batch_snapshot.manifest.stretches import NDJSON, Ahead, csv_lines
from batch_snapshot.manifest.values import unknown_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from batch_snapshot.manifest import stretches
    from batch_snapshot.manifest.problems import Complain

    Entries = Callable[["Lines", Complain], Iterator[Node]]

#: The longest line of a CSV or NDJSON file, in bytes.
LONGEST = 1 << 20

YAML_ENDINGS = frozenset({".yaml", ".yml"})


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


def csv_entries(lines: Lines, complain: Complain) -> Iterator[Node]:
    """The rows of a CSV file whose header names the keys of a pair."""
    import csv  # noqa: PLC0415 - most manifests have none

    texts = _Texts(lines)
    reader = csv.reader(texts, strict=True)
    header: list[str] | None = None
    alike: stretches.Lines | None = None
    first = 1
    try:
        while True:
            if alike and (stretch := texts.stretch(alike)):
                yield stretch
                first = texts.number + 1
            cells = next(reader, None)
            if cells is None:
                break
            line, first = first, texts.number + 1
            if not cells:
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_header(header, line, complain)
                alike = csv_lines(header)
            elif len(cells) == len(header):
                yield _csv_entry(header, cells, line)
            else:
                complain(line, f"{len(cells)} cells under a header of {len(header)}: one cell a column")
    except csv.Error as error:
        raise UnreadableError(first, f"not valid CSV: {error}: mend the quotes, or split the cell") from error
    if header is None:
        raise UnreadableError(0, "is empty: it needs a header, e.g. engagement,resource")


def _check_header(header: list[str], line: int, complain: Complain) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise UnreadableError(line, f"header {shown(header[0])}: columns must be separated by commas")
    if "engagement" not in header:
        raise UnreadableError(line, "column engagement is missing in the header, e.g. engagement,resource")
    if not {"resource", "resources"} & set(header):
        raise UnreadableError(line, "column resource (or resources) is missing in the header")
    for number, column in enumerate(header):
        if column not in KEYS:
            unknown_key(column, line, KEYS, "the header", complain)
        elif column in header[:number]:
            raise UnreadableError(line, f"column {column} stands in the header twice: remove one")


def _csv_entry(header: list[str], cells: list[str], line: int) -> Fields:
    """A row as an entry; empty cells and unknown columns, complained about in the header, are left out."""
    nodes: dict[str, Node] = {}
    for column, cell in zip(header, cells, strict=True):
        text = cell.strip()
        if not text or column not in KEYS:
            continue
        if column == "resources":
            nodes[column] = Items([Scalar(one, line) for one in text.replace(";", " ").split()], line)
        else:
            nodes[column] = Scalar(text, line)
    return Fields(nodes, dict.fromkeys(nodes, line), line)


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


class _Texts:
    """Each line's text; a byte order mark is dropped."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        #: Lines that were read.
        self.number = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        raw = self._lines.readline(LONGEST)
        if not raw:
            raise StopIteration
        self.number += 1
        if len(raw) == LONGEST and not raw.endswith(b"\n"):
            raise UnreadableError(self.number, f"a line of more than {LONGEST:,} bytes: split it up")
        try:
            text = raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise UnreadableError(self.number, "not UTF-8: save the file in that encoding") from None
        if "\0" in text:
            raise UnreadableError(self.number, "a NUL byte: the file is damaged, or not in UTF-8")
        return text

    def stretch(self, alike: stretches.Lines) -> stretches.Stretch | None:
        """The next lines, where they are a stretch and are looked at for one; never the first line."""
        if not self.number or not isinstance(self._lines, Ahead):
            return None
        found = self._lines.stretch(alike, self.number + 1)
        if found is not None:
            self.number += found.lines
        return found


#: What reads which ending.
BY_LINES: dict[str, Entries] = {
    ".csv": csv_entries,
    ".ndjson": ndjson_entries,
    ".jsonl": ndjson_entries,
}


def display(path: Path) -> str:
    """A path as messages show it."""
    return printable(str(path))
