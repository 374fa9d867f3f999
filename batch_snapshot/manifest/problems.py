"""What is wrong with a manifest: collected in the order of the files, in bounded memory; also as fields."""

import re
from bisect import insort
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from batch_snapshot.files import open_regular
from batch_snapshot.text import escaped, escaped_non_ascii, plural, truncated

#: Problems that are kept; all are counted.
KEPT = 50
#: Characters of a value that a message shows.
SHOWN = 60
#: No similar word is looked for among more words than this: it would take too long in each row.
COMPARED = 1_000

_PLACE = re.compile(r"(?:(.*?):(\d+)|(.*?)): (.*)", re.DOTALL)
#: Quotes and brackets, and what separates a message from the fix, or from an example.
_SEPARATOR = re.compile(r'"[^"]*"|\([^()]*\)|(?P<separator>[:;] |, (?=e\.g\. ))')
_BRACKETS = re.compile(r"(?P<message>[^()]+) \((?P<hint>[^()]+)\)", re.DOTALL)
#: Where the parser stopped, in the message of a syntax error.
_POSITION = re.compile(r"not valid \w+ from column (\d+) on ")
#: Bytes of a line that are searched.
_LONGEST = 1 << 20


@dataclass(eq=False)
class UnreadableError(Exception):
    #: From 1; 0: the file as a whole.
    line: int
    text: str


@dataclass(slots=True)
class ProblemCount:
    text: str
    rows: int = 0

    def __str__(self) -> str:
        return f"{plural(self.rows, 'row')} {self.text}"


class Place(NamedTuple):
    #: The number of its file, in the order of reading.
    file: int
    name: str
    #: 0: the file as a whole.
    line: int

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name


class ProblemLog:
    """Problems or warnings: the first of them in the order of the files, and how many in all."""

    def __init__(self, keep: int = KEPT) -> None:
        self.total = 0
        self.keep = keep
        # With a serial number: the text itself is never compared.
        self._kept: list[tuple[Place, int, str | ProblemCount]] = []

    def add(self, place: Place, text: str | ProblemCount) -> None:
        self.total += 1
        insort(self._kept, (place, self.total, text))
        del self._kept[self.keep :]

    def lines(self) -> list[str]:
        return [f"{place}: {text}" for place, _, text in self._kept]


class Report:
    """Takes problems, each with its line and the fix, and warnings of the file that is being read."""

    def __init__(self, keep: int = KEPT) -> None:
        self.problems, self.warnings = ProblemLog(keep), ProblemLog(keep)
        self._file = Place(0, "", 0)

    def begin(self, file: Path) -> None:
        """What follows concerns this file."""
        self._file = Place(self._file.file + 1, escaped(str(file)), 0)

    def place(self, line: int) -> Place:
        return self._file._replace(line=line)

    def __call__(self, line: int, text: str | ProblemCount) -> None:
        self.problems.add(self.place(line), text)

    def warn(self, line: int, text: str) -> None:
        self.warnings.add(self.place(line), text)


def quoted(text: str) -> str:
    return f'"{escaped(truncated(text, SHOWN))}"'


def quoted_ascii(text: str) -> str:
    """As `quoted`, with other characters than ASCII as escapes: they may look like those that are needed."""
    return f'"{escaped_non_ascii(truncated(text, SHOWN))}"'


def suggestion(word: str, known: Collection[str]) -> str:
    if len(known) > COMPARED:
        return f"known: {', '.join(islice(known, 10))}, …"
    return _suggestion(word[:SHOWN], tuple(sorted(known)))


@lru_cache(maxsize=256)  # a mistake is often repeated in every row
def _suggestion(word: str, names: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # a valid manifest never needs it

    by_case, word = {name.casefold(): name for name in names}, word.casefold()
    # A part of one name alone, such as role of role_arn, means that name: profile is spelled more alike.
    near = [name for name in by_case if word in name.replace(" ", "_").split("_")]
    if len(near) == 1 or (near := get_close_matches(word, by_case, n=1)):
        return f"did you mean {by_case[near[0]]}?"
    more = ", …" if len(names) > 10 else ""
    return f"known: {', '.join(names[:10])}{more}"


class ProblemFields(NamedTuple):
    file: str
    #: None: the problem concerns the file as a whole.
    line: int | None
    #: Characters from the start of the line, from 1; None: not known.
    column: int | None
    message: str
    hint: str | None


def problems_as_fields(problems: Iterable[str]) -> list[ProblemFields]:
    """The problems of a `ManifestError`; the files are read for the columns."""
    found = [_split(problem) for problem in problems]
    by_file: defaultdict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, problem in enumerate(found):
        if parsed := _POSITION.match(problem.message):
            found[number] = problem._replace(column=int(parsed[1]))
        elif problem.line:
            by_file[problem.file][problem.line].append(number)
    for name, numbers in by_file.items():
        with suppress(OSError), open_regular(Path(name)) as file:
            for line, text in enumerate(islice(file, max(numbers)), 1):
                for number in numbers.get(line, ()):
                    found[number] = found[number]._replace(column=_column(text, found[number].message))
    return found


def _split(problem: str) -> ProblemFields:
    place = _PLACE.fullmatch(problem)
    if place is None:
        return ProblemFields("", None, None, problem, None)
    named, line, whole, text = place.groups()
    file, number = named or whole, int(line) if line else None
    for found in _SEPARATOR.finditer(text):
        # A name before the first colon is no message.
        if found["separator"] and " " in text[: found.start()]:
            return ProblemFields(file, number, None, text[: found.start()], text[found.end() :])
    brackets = _BRACKETS.fullmatch(text)
    message, hint = brackets.group("message", "hint") if brackets else (text, None)
    return ProblemFields(file, number, None, message, hint)


def _column(line: bytes, message: str) -> int | None:
    """Where the value is that the message quotes, or else its first word, if it is there once."""
    quoted = re.search(r'"([^"]+)"', message)
    word = quoted[1] if quoted else message.split(" ", 1)[0]
    text = line[:_LONGEST].decode("utf-8", "replace")
    found = [*re.finditer(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)]
    return found[0].start() + 1 if len(found) == 1 else None
