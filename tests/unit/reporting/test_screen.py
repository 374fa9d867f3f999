"""A block on a terminal that is redrawn in place."""

import re
from contextlib import closing
from dataclasses import replace

from batch_snapshot.reporting.screen import Screen
from tests.support.reports import FRAME


class Terminal:
    """What stands on a terminal that heeds returns, moves upwards and wipes."""

    def __init__(self) -> None:
        self.lines, self.row, self.column = [""], 0, 0
        self.writes: list[str] = []

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
            elif piece.endswith("A"):
                self.row -= int(piece[2:-1] or 1)
            elif not piece.startswith("\x1b"):
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + piece + line[self.column + 1 :]
                self.column += 1


def test_block_is_redrawn_in_place_under_lines_and_erased_at_the_end():
    terminal = Terminal()
    with closing(Screen(terminal.write, width=80)) as screen:
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


def test_frame_is_drawn_with_one_write():
    """Nothing is seen half drawn."""
    terminal = Terminal()
    with closing(Screen(terminal.write, width=80)) as screen:
        screen.show(FRAME)
        before = len(terminal.writes)
        screen.show(FRAME)
        assert len([text for text in terminal.writes[before:] if text.strip()]) == 1


def test_no_color_variable_turns_colours_off(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    with closing(Screen(terminal.write, width=80)) as screen:
        screen.show(FRAME)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][;0-9]*m", "".join(terminal.writes))
