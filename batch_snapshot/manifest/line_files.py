"""Files of one entry a line: CSV and NDJSON."""

import codecs
import json
from collections.abc import Callable, Iterator
from io import BufferedReader, TextIOWrapper
from typing import Self

from batch_snapshot.manifest.problems import Report, UnreadableError, quoted, quoted_ascii
from batch_snapshot.manifest.sections import Names
from batch_snapshot.manifest.yaml_events import Fields, Items, Node, Reported, Scalar, twice

Entries = Callable[[BufferedReader, Report, Names | None], Iterator[Node]]

#: Characters of the longest line.
LONGEST = 1 << 20

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def csv_entries(lines: BufferedReader, report: Report, names: Names | None) -> Iterator[Node]:
    """The rows of a CSV file; `names` are those of its columns where they are not the keys of a pair."""
    from csv import Error  # most manifests have none

    from batch_snapshot.manifest import csv_columns

    texts = _TextLines(lines, report)
    header = csv_columns.read_header(texts, names or {}, lambda: texts.number)
    if header is None:
        raise UnreadableError(0, "is empty: it needs a header, e.g. engagement,resource")
    found, line = header
    if ignored := found.ignored():
        report.warn(line, ignored)
    reader = csv_columns.parser(texts, found.separator)
    while True:
        texts.first, line = "", texts.number + 1
        try:
            cells = next(reader, None)
        except Error as error:
            problem = f"not valid CSV: {error}: close the quotes, or split the cell; it begins "
            raise UnreadableError(line, problem + quoted_ascii(texts.first)) from error
        if cells is None:
            return
        if texts.number > line and (below := csv_columns.swallowed(cells, found.separator)):
            problem = f"the row in line {line + below} stands within the quotes of a cell that begins here: "
            report(line, f"{problem}close them; it begins {quoted_ascii(texts.first)}")
        elif entry := found.entry(cells, line, report):
            yield entry


def ndjson_entries(lines: BufferedReader, report: Report, _names: Names | None) -> Iterator[Node]:
    texts = _TextLines(lines)
    for text in texts:
        if text.strip():
            yield _json_entry(text, texts.number, report)


def _json_entry(text: str, line: int, report: Report) -> Node:
    try:
        return _json_node(_decode(text), line, report, deepest=3)
    except RecursionError:
        report(line, "nested deeper than any entry needs")
    except ValueError as error:
        what = "(a number is too long)"
        if isinstance(error, json.JSONDecodeError):
            what = f"from column {error.pos + 1} on ({error.msg})"
        report(line, f"not valid JSON {what}: one object a line, keys and texts in double quotes")
    return Reported(line)


#: Objects become tuples of their keys and values: they may hold a key twice.
_decode = json.JSONDecoder(object_pairs_hook=tuple).decode


def _json_node(value: object, line: int, report: Report, deepest: int, name: str = "") -> Node:
    if isinstance(value, str):
        return Scalar(value, line)
    if value is None:
        return Scalar("", line, plain=True)
    if deepest == 0:
        report(line, "nested deeper than any entry needs")
    elif isinstance(value, tuple):
        nodes: dict[str, Node] = {}
        for key, one in value:
            if key in nodes:
                report(line, twice(key))
            nodes[key] = _json_node(one, line, report, deepest - 1, key)
        return Fields(nodes, line)
    elif isinstance(value, list):
        return Items([_json_node(one, line, report, deepest - 1, name) for one in value], line)
    else:
        what = f"key {quoted(name)}" if name else "a value"
        report(line, f"{what} must be a text: write {quoted(json.dumps(value))}, with the double quotes")
    return Reported(line)


class _TextLines:
    """Each line's text, whatever ends the lines; byte order marks are dropped."""

    def __init__(self, lines: BufferedReader, report: Report | None = None) -> None:
        """Read lines; with `report`, those that are not UTF-8 are read as Windows-1252."""
        # Excel's "Unicode text" is UTF-16.
        form = ("utf-16", "strict") if lines.peek(2)[:2] in _UTF_16 else ("utf-8", "surrogateescape")
        self._lines = TextIOWrapper(lines, *form, newline="")
        self._report = report
        self._warned = False
        self.number = 0
        #: The first one since this was emptied.
        self.first = ""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        try:
            text = self._lines.readline(LONGEST)
        except UnicodeDecodeError:
            wrong = "not UTF-16, as its first bytes say: save it as UTF-8"
            raise UnreadableError(self.number + 1, wrong) from None
        if not text:
            raise StopIteration
        self.number += 1
        if len(text) >= LONGEST and not text.endswith(("\n", "\r")):
            raise UnreadableError(self.number, f"a line of more than {LONGEST:,} characters: split it up")
        if not text.isascii():
            text = self._legacy(text).lstrip("\ufeff")
        if "\0" in text:
            raise UnreadableError(self.number, "a NUL byte: the file is damaged, or not in UTF-8")
        self.first = self.first or text
        return text

    def _legacy(self, text: str) -> str:
        """The text, read as Windows-1252 if its bytes are not UTF-8."""
        raw = text.encode(errors="surrogateescape")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            byte = raw[error.start]
        if self._report is None:
            raise UnreadableError(self.number, "not UTF-8: save the file in that encoding")
        if not self._warned:
            self._warned = True
            problem = f"not UTF-8 (byte \\x{byte:02x}): read as Windows-1252"
            self._report.warn(self.number, f"{problem}; save the file as UTF-8 to be sure")
        try:
            return raw.decode("cp1252")
        except UnicodeDecodeError:
            return raw.decode("latin-1")


ENTRIES: dict[str, Entries] = {".csv": csv_entries, ".ndjson": ndjson_entries, ".jsonl": ndjson_entries}
