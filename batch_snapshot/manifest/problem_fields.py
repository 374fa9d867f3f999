"""A manifest's problems as programs read them: file, line, column, message and hint."""

import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from batch_snapshot.files import open_regular

_PLACE = re.compile(r"(?:(.*?):(\d+)|(.*?)): (.*)", re.DOTALL)
#: Quotes and brackets, and what separates a message from the fix, or from an example.
_SEPARATOR = re.compile(r'"[^"]*"|\([^()]*\)|(?P<separator>[:;] |, (?=e\.g\. ))')
_BRACKETS = re.compile(r"(?P<message>[^()]+) \((?P<hint>[^()]+)\)", re.DOTALL)
#: Bytes of a line that are searched.
_LONGEST = 1 << 20


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
        if problem.line:
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
    """Where the value stands that the message quotes, or else its first word, if it stands there once."""
    quoted = re.search(r'"([^"]+)"', message)
    word = quoted[1] if quoted else message.split(" ", 1)[0]
    text = line[:_LONGEST].decode("utf-8", "replace")
    found = [*re.finditer(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)]
    return found[0].start() + 1 if len(found) == 1 else None
