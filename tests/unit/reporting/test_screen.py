"""A block on a terminal that is redrawn in place."""

import re
from contextlib import closing
from dataclasses import replace

import pytest

from batch_snapshot.reporting import display
from batch_snapshot.reporting.screen import Screen
from tests.support.reports import FRAME


class Terminal:
    """What stands on a terminal that knows returns, moves upwards and erased lines, and wraps long lines."""

    def __init__(self, width: int = 80) -> None:
        self.lines, self.row, self.column = [""], 0, 0
        self.width = width
        self.writes: list[str] = []

    def size(self) -> tuple[int, int]:
        return self.width, 25

    def resize(self, width: int) -> None:
        """As tmux does: lines that are too long are wrapped, and the cursor stays at the end of its line."""
        assert not any(self.lines[self.row + 1 :])
        self.width = width
        self.lines = [piece for line in self.lines[: self.row + 1] for piece in textwrap(line, width)]
        self.row, self.column = len(self.lines) - 1, len(self.lines[-1])

    def write(self, text: str) -> None:
        self.writes.append(text)
        for piece in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|.|\n", text):
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif piece == "\x1b[2K":
                self.lines[self.row] = ""
            elif piece.startswith("\x1b") and piece.endswith("A"):
                self.row = max(0, self.row - int(piece[2:-1] or 1))
            elif not piece.startswith("\x1b"):
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + piece + line[self.column + 1 :]
                self.column += 1


def textwrap(line: str, width: int) -> list[str]:
    return [line[start : start + width] for start in range(0, len(line), width)] or [""]


def test_block_is_redrawn_in_place_under_lines_and_erased_at_the_end():
    terminal = Terminal()
    with closing(Screen(terminal.write, size=terminal.size)) as screen:
        screen.print_above("before the first frame")
        for second in range(3):
            screen.show(replace(FRAME, elapsed=second))
        screen.print_above("eng-1/O1 failed: [red]it said[/red] :smile:")
        screen.show(replace(FRAME, elapsed=9))
        assert terminal.lines[:2] == ["before the first frame", "eng-1/O1 failed: [red]it said[/red] :smile:"]
        assert terminal.lines[2].startswith("nightly  ━")
        assert terminal.lines[5].startswith("  0:00:09 elapsed")
        assert sum("elapsed" in line for line in terminal.lines) == 1
    assert [line for line in terminal.lines if line] == terminal.lines[:2]
    assert terminal.writes[-1].endswith("\x1b[?25h") or any("\x1b[?25h" in text for text in terminal.writes)


@pytest.mark.parametrize("width", [60, 40, 25])
def test_terminal_that_becomes_narrower_keeps_no_part_of_an_earlier_frame(width):
    terminal = Terminal(200)
    with closing(Screen(terminal.write, size=terminal.size)) as screen:
        screen.print_above("a line before")
        screen.show(FRAME)
        terminal.resize(width)
        screen.show(FRAME)
        drawn = [line for line in terminal.lines if line]
        assert drawn[0] == "a line before"
        assert sum("nightly" in line for line in drawn) == 1
        assert len(drawn) == 1 + len(display.block(FRAME, width))
        terminal.resize(width - 5)
    assert [line for line in terminal.lines if line] == ["a line before"]


def test_frame_is_drawn_with_one_write():
    """Nothing is seen half drawn."""
    terminal = Terminal()
    with closing(Screen(terminal.write, size=terminal.size)) as screen:
        screen.show(FRAME)
        before = len(terminal.writes)
        screen.show(FRAME)
        assert len([text for text in terminal.writes[before:] if text.strip()]) == 1


def test_no_color_variable_turns_colours_off(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    with closing(Screen(terminal.write, size=terminal.size)) as screen:
        screen.show(FRAME)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][;0-9]*m", "".join(terminal.writes))
