"""The pages of the documentation, and their fenced blocks.

A comment on the line before a block is its mark:

- `<!-- not run: reason -->`: its commands are parsed by the command line, but not run
- `<!-- exit: 1 -->`: it ends with this exit code
- `<!-- file: pairs.csv -->`: it is written to the page's folder, for the blocks behind it
- any other mark names the block for a test (`block`)
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests import ROOT


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str
    marks: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def mark(self, name: str) -> str | None:
        """The value of a mark such as `exit: 1`."""
        return next(
            (mark.partition(":")[2].strip() for mark in self.marks if mark.startswith(f"{name}:")), None
        )

    @property
    def named(self) -> str | None:
        """The mark by which a test finds it."""
        return next((mark for mark in self.marks if ":" not in mark), None)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    marks: list[str] = []
    #: Of the block that is open: language, line, indentation, lines.
    fence: tuple[str, int, int, list[str]] | None = None
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        text = line.strip()
        if fence is not None:
            if text == "```":
                language, begin, indent, lines = fence
                body = "".join(f"{line[indent:]}\n" for line in lines)
                found.append(Block(page, begin, language, body, tuple(marks)))
                fence, marks = None, []
            else:
                fence[3].append(line)
        elif text.startswith("```"):
            fence = (text[3:], number, len(line) - len(line.lstrip()), [])
        elif match := re.fullmatch(r"<!-- (.+) -->", text):
            marks.append(match[1])
        else:
            marks = []
    assert fence is None, f"{page}:{fence[1]}: a block without an end" if fence else ""
    return tuple(found)


def all_blocks(*languages: str) -> list[Block]:
    return [
        block for page in pages() for block in blocks(page) if not languages or block.language in languages
    ]


def block(name: str) -> str:
    """The text of the block with this mark, on whatever page; copies of it are the same."""
    found = {one.text for one in all_blocks() if name in one.marks}
    assert len(found) == 1, f"{len(found)} texts are marked {name!r}"
    return found.pop()
