"""Text that people see or programs exchange: sanitised, shortened, with units. Pure."""

import re
import shlex
import textwrap
from datetime import UTC, datetime, timedelta

#: Characters of a word (a path, a name) and of a line that a message shows whole.
LONGEST_WORD, LONGEST_LINE = 400, 3_000

#: Characters of a word in a line that holds a command to run next: longer than any path can be.
LONGEST_IN_COMMAND = 4_200

#: A line that holds this holds a command to run next.
COMMAND = "batch-snapshot "

#: What stays in one piece on a terminal: commands, what is in quotes, and the path that a line is about.
_UNBROKEN = ("`[^`]*`", rf"(?<!Usage: ){COMMAND}.*", r"(?<!\S)'[^']*'", "^(ledger  .*|[^:;]*/[^:;]*:)")

#: Seconds of each unit of time.
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

# -- what a terminal may show ---------------------------------------------------------------------------


def escaped(text: str, keep: str = "") -> str:
    """The text with everything that cannot be printed, but for `keep`, as an escape; line ends too."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else repr(char)[1:-1] for char in text)


def escaped_non_ascii(text: str) -> str:
    """The text with all but printable ASCII and "…" as an escape: other characters may look the same."""
    return "".join(c if " " <= c <= "~" or c == "…" else c.encode("unicode_escape").decode() for c in text)


def without_control_characters(text: str, longest: int) -> str:
    """The text as valid Unicode with a blank for what cannot be printed; cut after `longest` characters."""
    text = text[: longest + 1].encode("utf-8", "replace").decode()
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= longest else text[:longest] + "…"


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs, which JSON and paths can hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


# -- its length -----------------------------------------------------------------------------------------


def truncated(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def shortened(text: str, longest: int = LONGEST_WORD) -> str:
    if len(text) <= longest:
        return text
    return f"{text[: longest * 2 // 3]}…{text[-(longest // 3) :]}"


def line(text: str) -> str:
    """The text as one printable line of bounded length: paths and names are shortened, commands are not."""
    shown = escaped(text)
    if len(shown) <= LONGEST_WORD:
        return shown
    if COMMAND in shown:
        return " ".join(shortened(word, LONGEST_IN_COMMAND) for word in shown.split(" "))
    words = " ".join(shortened(word) for word in shown.split(" "))
    return shortened(words, LONGEST_LINE)


def lines(text: str) -> str:
    """`line` for text of several lines."""
    return "\n".join(map(line, text.split("\n")))


def wrapped(text: str, width: int, begin: str = "") -> str:
    """The text with `begin` before each line, broken between words; a long path and a command stay whole."""

    def wrap(line: str) -> str:
        if len(begin + line) <= width:
            return begin + line
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        kept = line
        for pattern in _UNBROKEN:
            kept = re.sub(pattern, lambda found: found[0].replace(" ", "\0"), kept)
        fill = textwrap.TextWrapper(width, begin, indent, break_long_words=False, break_on_hyphens=False).fill
        first, *others = fill(kept).split("\n")
        # What stays in one piece and is too long with its indent may fit without it.
        others = [one.lstrip() if len(one.lstrip()) <= width < len(one) else one for one in others]
        return "\n".join([first, *others]).replace("\0", " ")

    return "\n".join(map(wrap, text.split("\n")))


# -- numbers, durations and times -----------------------------------------------------------------------


def shell_argument(path: object) -> str:
    """A path as a word of a command line that is not mistaken for a flag."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def plural(number: int, noun: str) -> str:
    """Such as "1 row" or "1,200 rows"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """Such as "0:02:05" or "1 day, 1:01:01"."""
    try:
        return str(timedelta(seconds=round(max(0.0, seconds))))
    except OverflowError:
        return "more than a million years"


def parse_duration(text: str) -> float | None:
    """Seconds of a time such as 90s, 15m, 1.5h, 1d, 1h30m or 0; None: it is not one."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)
    if text != "0" and (not parts or "".join(map("".join, parts)) != text):
        return None
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
