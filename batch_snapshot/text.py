"""Text for people: nothing in it drives a terminal, and nothing in it is endless. Pure."""

from __future__ import annotations

#: Characters of a word (a path, a name) and of a line that a message shows whole.
LONGEST_WORD, LONGEST_LINE = 400, 3_000

#: Characters of a word in a line that holds a command to run next: longer than any path can be.
LONGEST_IN_COMMAND = 4_200

#: A line that holds this holds a command to run next.
COMMAND = "batch-snapshot "


def shortened(text: str, longest: int = LONGEST_WORD) -> str:
    """The text, or its beginning and end where it is longer."""
    if len(text) <= longest:
        return text
    return f"{text[: longest * 2 // 3]}…{text[-(longest // 3) :]}"


def escaped(text: str) -> str:
    """The text with everything that cannot be printed as an escape, line ends too."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def line(text: str) -> str:
    """The text as one line of bounded length; paths and names in it are shortened, commands are not."""
    shown = escaped(text)
    if len(shown) <= LONGEST_WORD:
        return shown
    if COMMAND in shown:
        return " ".join(shortened(word, LONGEST_IN_COMMAND) for word in shown.split(" "))
    words = " ".join(shortened(word) for word in shown.split(" "))
    return shortened(words, LONGEST_LINE)


def lines(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(map(line, text.split("\n")))
