"""The header of a CSV file: how its cells are separated, and which column holds which key of a pair.

Spreadsheets and CRMs write other separators, names and invisible characters. What has only one meaning is
accepted; anything else is one message that shows what the file holds and what is needed.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from itertools import zip_longest
from unicodedata import category

from batch_snapshot.manifest import keys
from batch_snapshot.manifest.problems import Report, UnreadableError, quoted_ascii
from batch_snapshot.manifest.sections import Names
from batch_snapshot.manifest.service_model import row_input
from batch_snapshot.manifest.yaml_events import Fields, Items, Node, Scalar
from batch_snapshot.text import plural

_KEYS = keys.names(keys.PAIR)

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

#: Lines of one header: a spreadsheet's names may hold line ends.
_LINES = 100
_LISTED = 20
#: How similar a column and a key must be (0 to 1) for the column to count as a misspelt key.
_ALIKE = 0.85

#: Excel's first line that names the separator.
_SEP = re.compile(r"""\ufeff*"?sep=([^\w\s"]|\t)"?[,;|\t ]*[\r\n]*""", re.IGNORECASE)
#: How spreadsheets force a text, and quotes that follow an invisible character.
_QUOTED = re.compile(r'=?"([^"]*)"')
_BETWEEN = re.compile(r"[\s,;|]+")
_EMPTY = re.compile(r'[\s,;|"]+')
#: Invisible, though Unicode does not count them among format characters.
_ALSO_INVISIBLE = {"\u034f", *map(chr, range(0xFE00, 0xFE10))}


def parser(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)


def cleaned(cell: str) -> str:
    """The cell without blanks around it and without invisible characters in it."""
    if not cell.isascii():
        cell = "".join(c for c in cell if category(c) != "Cf" and c not in _ALSO_INVISIBLE)
    cell = cell.strip()
    if cell.endswith('"') and (quoted := _QUOTED.fullmatch(cell)):
        return quoted[1].strip()
    return cell


def comparable(name: str) -> str:
    return " ".join(cleaned(name).casefold().split())


def _as_key(name: str) -> str:
    return re.sub(r"[ -]+", "_", comparable(name))


@dataclass(frozen=True, slots=True)
class Columns:
    separator: str
    #: All of them, as the header has them.
    names: list[str]
    #: Position → key.
    keys: dict[int, str]

    def entry(self, cells: list[str], line: int, report: Report) -> Fields | None:
        """A row as an entry; None: it is blank, or a problem was reported."""
        texts = {key: cleaned(cells[at]) for at, key in self.keys.items() if at < len(cells)}
        if not any(texts.values()) and not any(map(cleaned, cells)):
            return None
        whole = len(cells) == len(self.names) and all(self.names)
        if wrong := None if whole else self._misplaced(cells):
            report(line, wrong)
            return None
        nodes: dict[str, Node] = {key: Scalar(text, line) for key, text in texts.items() if text}
        if "resources" in nodes:
            ids = filter(None, _BETWEEN.split(texts["resources"]))
            nodes["resources"] = Items([Scalar(one, line) for one in ids], line)
        return Fields(nodes, line)

    def _misplaced(self, cells: list[str]) -> str | None:
        count = f"{plural(len(cells), 'cell')} under a header of {len(self.names)}"
        lacking = [key for position, key in self.keys.items() if position >= len(cells)]
        if lacking:
            return (
                f"{count}: none for {', '.join(lacking)}; the row holds {_listed(cells)} "
                f"(separated by {self.by}): give each column a cell, empty ones too"
            )
        for position, (name, cell) in enumerate(zip_longest(self.names[: len(cells)], cells)):
            if not name and cleaned(cell):
                where = f"cell {position + 1}, {quoted_ascii(cell)}, is under a column without a name"
                ids = (
                    " (several ids of a row need quotes around them)"
                    if "resources" in self.keys.values()
                    else ""
                )
                return f"{count}: {where}: remove it, or name its column in the header{ids}"
        return None

    @property
    def by(self) -> str:
        return SEPARATORS.get(self.separator, quoted_ascii(self.separator))

    def wrong(self, columns: Names) -> str | None:
        held = [*self.keys.values()]
        for key, name in columns.items():
            if name is not None and key not in held:
                return f"column {quoted_ascii(name)}, which columns names for {key}, is {self._missing(name)}"
        for key, other in (("engagement", ""), ("resource", "resources")):
            if not {key, other}.intersection(held):
                or_ = f" (or {other})" if other else ""
                wanted = ", ".join(f'{one}: "…"' for one in ("engagement", "resource") if one not in columns)
                return (
                    f"column {key}{or_} is {self._missing(key)}; a header needs engagement, and resource or "
                    "resources; for other names run `batch-snapshot init --from`, or write under include: "
                    f"{{file: …, columns: {{{wanted}}}}}"
                )
        if misspelt := self._misspelt(columns):
            return misspelt
        for key in sorted(key for key in _KEYS if held.count(key) > 1):
            name = columns.get(key) or key
            column = name if name in _KEYS else quoted_ascii(name)
            return f"column {column} is in the header twice: remove one"
        return None

    def _missing(self, name: str) -> str:
        known = {comparable(one): one for one in reversed(self.names) if one}
        near = get_close_matches(comparable(name), known, n=1)
        hint = f": did you mean {quoted_ascii(known[near[0]])}?" if near else ""
        return f"missing in the header{hint}; found {_listed(self.names)} (separated by {self.by})"

    def _misspelt(self, columns: Names) -> str | None:
        """A column that is most likely a misspelt key: ignoring it would give its rows other values."""
        for name in self._extra() if not columns else ():
            for key in keys.names(keys.CONTEXT).difference(self.keys.values()):
                if SequenceMatcher(None, _as_key(name), key).ratio() >= _ALIKE:
                    return (
                        f"column {quoted_ascii(name)} is unknown: did you mean {key}? Rename it, or write "
                        f"{key}: null under columns of this file's include to ignore it"
                    )
        return None

    def _extra(self) -> list[str]:
        return [name for position, name in enumerate(self.names) if name and position not in self.keys]

    def ignored(self) -> str | None:
        extra = self._extra()
        return f"columns that are not keys of a pair are ignored: {_listed(extra)}" if extra else None


def _listed(names: Sequence[str]) -> str:
    named = [name for name in names if name]
    more = f", … ({len(named)} in all)" if len(named) > _LISTED else ""
    return ", ".join(quoted_ascii(name) for name in named[:_LISTED]) + more


def _columns(cells: list[str], separator: str, columns: Names) -> Columns:
    wanted = {comparable(name): key for key, name in columns.items() if name is not None}
    # Where the column of one of these two is named, there is no other.
    named = columns.keys() | (
        {"resource", "resources"} if columns.keys() & {"resource", "resources"} else set()
    )
    keys = {}
    for position, cell in enumerate(cells):
        key = wanted.get(comparable(cell)) or _as_key(cell)
        if key in _KEYS and (comparable(cell) in wanted or key not in named):
            keys[position] = key
    names = [cell.strip(" \t\r\n") if cleaned(cell) else "" for cell in cells]
    return Columns(separator, names, keys)


def read_header(texts: Iterator[str], columns: Names, at: Callable[[], int]) -> tuple[Columns, int] | None:
    """The columns and the header's line, where `at` counts lines; None: the file is empty."""
    separators: Sequence[str] = tuple(SEPARATORS)
    text, line = "", 0
    for one in texts:
        if not text:
            line = at()
            if (declared := _SEP.fullmatch(one)) and len(separators) > 1:
                separators = [declared[1]]
                continue
            if not _EMPTY.sub("", cleaned(one)):
                continue
        text += one
        found, unfinished = _candidates(text, separators, columns)
        good = [each for each in found if each.wrong(columns) is None]
        if len(good) == 1:
            return good[0], line
        if len(good) > 1:
            both = " or by ".join(each.by for each in good)
            raise UnreadableError(
                line,
                f"header {quoted_ascii(text)} can be separated by {both}: rename the columns that hold one",
            )
        if not unfinished or at() - line >= _LINES:
            break
    if not text:
        return None
    if not found:
        raise UnreadableError(line, f"header {quoted_ascii(text)} is not valid CSV: close the quotes")
    best = max(found, key=lambda one: (len(one.keys), len(one.names)))
    raise UnreadableError(line, best.wrong(columns) or "")


def _candidates(text: str, separators: Sequence[str], columns: Names) -> tuple[list[Columns], bool]:
    """The header by each separator that it is valid for, and whether by some a quote is still open."""
    found, unfinished = [], False
    for separator in separators:
        try:
            cells = next(parser(io.StringIO(text, newline=""), separator))
        except csv.Error as error:
            unfinished = unfinished or "unexpected end" in str(error)
        else:
            found.append(_columns(cells, separator, columns))
    return found, unfinished


def swallowed(cells: Sequence[str], separator: str) -> int | None:
    """In which line below its first a cell holds what looks like another row: its quote was not closed."""
    shapes = row_input()
    ids = [shapes[name].regex for name in ("engagement", "resource")]
    below = 0
    for cell in cells:
        for text in cell.splitlines()[1:]:
            below += 1
            parts = [cleaned(part).strip('"') for part in text.split(separator)]
            if all(any(regex.fullmatch(part) for part in parts) for regex in ids):
                return below
    return None
