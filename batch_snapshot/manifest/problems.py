"""What is wrong with a manifest: collected in the order of the files, in bounded memory."""

from bisect import insort
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TypeAlias

from batch_snapshot.text import escaped, escaped_non_ascii, plural, truncated

#: Problems that are kept; all are counted.
KEPT = 50
#: Characters of a value that a message shows.
SHOWN = 60
#: Among more words than these no similar one is looked for: it would take long in each row.
COMPARED = 1_000

#: Takes the line and what is wrong there, with the fix.
Report: TypeAlias = Callable[[int, str], None]


class UnreadableError(Exception):
    def __init__(self, line: int, text: str) -> None:
        """Take the 1-based line (0 for the file as a whole) and the problem."""
        super().__init__(text)
        self.line = line
        self.text = text


@dataclass(slots=True)
class ProblemCount:
    text: str
    rows: int = 0

    def __str__(self) -> str:
        return f"{plural(self.rows, 'row')} {self.text}"


class ProblemLog:
    """Problems or warnings: the first of them in the order of the files, and how many in all."""

    def __init__(self, keep: int = KEPT) -> None:
        self.total = 0
        self._keep = keep
        # (file, line, serial number) first: the text itself is never compared
        self._kept: list[tuple[int, int, int, str, str | ProblemCount]] = []

    def add(self, file: int, line: int, name: str, text: str | ProblemCount) -> None:
        self.total += 1
        insort(self._kept, (file, line, self.total, name, text))
        del self._kept[self._keep :]

    def lines(self) -> list[str]:
        return [
            f"{name}:{line}: {text}" if line else f"{name}: {text}" for _, line, _, name, text in self._kept
        ]


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
    from difflib import get_close_matches  # noqa: PLC0415 - a valid manifest never needs it

    near = get_close_matches(word, names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    more = ", …" if len(names) > 10 else ""
    return f"known: {', '.join(names[:10])}{more}"
