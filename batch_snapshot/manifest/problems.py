"""What is wrong with a manifest: collected in the order of the files, in bounded memory."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from batch_snapshot.text import escaped, escaped_non_ascii, plural, truncated

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

#: How many notes are kept; all are counted.
KEPT = 50
#: The longest value shown in a message.
SHOWN = 60
#: Among more words than these the nearest one is not looked for: that takes long, for every row anew.
COMPARED = 1_000

#: Takes the line and what is wrong there, with the fix.
Report: TypeAlias = "Callable[[int, str], None]"


class UnreadableError(Exception):
    """The rest of a file makes no sense: what is wrong, and in which line."""

    def __init__(self, line: int, text: str) -> None:
        """Take the 1-based line (0 for the file as a whole) and the problem."""
        super().__init__(text)
        self.line = line
        self.text = text


@dataclass(slots=True)
class ProblemCount:
    """One note that stands for many rows, at the line of the first."""

    text: str
    rows: int = 0

    def __str__(self) -> str:
        """Tell how many rows are concerned, and the rest."""
        return f"{plural(self.rows, 'row')} {self.text}"


class ProblemLog:
    """Problems or warnings: the first `KEPT` in the order of the files, and how many in all."""

    def __init__(self) -> None:
        """Start without a note."""
        self.total = 0
        # (file, line, serial number) first: the note itself is never compared
        self._kept: list[tuple[int, int, int, str, str | ProblemCount]] = []

    def add(self, file: int, line: int, name: str, note: str | ProblemCount) -> None:
        """Note what is wrong in line `line` of the file `name`, the `file`th to be read."""
        self.total += 1
        insort(self._kept, (file, line, self.total, name, note))
        del self._kept[KEPT:]

    def lines(self) -> list[str]:
        """One line a note: `file:line: what, and the fix`."""
        return [
            f"{name}:{line}: {note}" if line else f"{name}: {note}" for _, line, _, name, note in self._kept
        ]


def shown(text: str) -> str:
    """`text` as a message may hold it: quoted, shortened, and unable to drive a terminal."""
    return f'"{escaped(truncated(text, SHOWN))}"'


def spelled(text: str) -> str:
    """`text` as `shown`, but with each character that is not ASCII as an escape: others may look the same."""
    return f'"{escaped_non_ascii(truncated(text, SHOWN))}"'


def meant(word: str, known: Collection[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or all of them."""
    if len(known) > COMPARED:
        return f"known: {', '.join(islice(known, 10))}, …"
    return _meant(word[:SHOWN], tuple(sorted(known)))


@lru_cache(maxsize=256)  # a slip is often made in every row
def _meant(word: str, names: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - a valid manifest never needs it

    near = get_close_matches(word, names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    more = ", …" if len(names) > 10 else ""
    return f"known: {', '.join(names[:10])}{more}"
