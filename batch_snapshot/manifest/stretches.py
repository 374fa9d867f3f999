"""Long stretches of entries that are all alike, taken as they stand, not through a parser.

Nearly all of a long manifest is lines like `- {engagement: …, resource: …}`, of which a parser makes
ten objects each. Here a stretch of them is found by one pattern, so narrow that a match can mean
nothing else, and taken out of what the parser gets to read.

A line means that only where the parser stands between two entries of `pairs`: not within a quoted text,
say. So the first two entries of a stretch are left to the parser. When it has told of the first one, as
an entry of `pairs` in the line and the column where it stands, and asks for more behind the second, it
stands just there. Whatever is not so is read by the parser alone; and as soon as anything is to be
complained about, the whole manifest is: from there on, or where a stretch was taken, from the beginning
(see `loading`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from batch_snapshot.manifest.nodes import Scalar
from batch_snapshot.manifest.values import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batch_snapshot.manifest.nodes import Node

#: Entries that are worth it.
LEAST = 16

#: Bytes that are read, and held, at a time; and of the rest of the last line among them.
BLOCK = 256 * 1024
_LINE = 64 * 1024


class UnusualTextError(Exception):
    """Something is not as a stretch has it: the parser has to read everything."""


class Taking:
    """Whether stretches are taken in a pass over the files of a manifest, and whether one was."""

    def __init__(self, *, wanted: bool = True) -> None:
        """Take them, if they are `wanted`."""
        #: From here on.
        self.on = wanted
        #: The parser has not read everything.
        self.begun = False


class StretchSource(Protocol):
    """A file."""

    def read(self, size: int = ..., /) -> bytes:
        """At most `size` bytes; none at the end."""

    def readline(self, size: int, /) -> bytes:
        """The next line, or its first `size` bytes; nothing at the end."""


class StretchEntry(NamedTuple):
    """An entry of a stretch, by the groups of its pattern: what stands around the ids is text."""

    before: str
    engagement_quote: str
    engagement: str
    between: str
    resource_quote: str
    #: One of the two is empty.
    resource: str
    resources: str
    after: str


class Form(NamedTuple):
    """How the entries of a stretch are written."""

    #: Of one entry; its groups are those of `StretchEntry`.
    entry: re.Pattern[str]
    #: What stands before, between and after the ids → key, quote and text of each thing said there.
    beside: Callable[[str, str, str], Sequence[Sequence[tuple[str, str, str]]]]
    #: Lines of an entry, and those that each thing said beside the ids takes.
    lines: int = 1
    lines_beside: int = 0


class Stretch(NamedTuple):
    """Entries that are all alike."""

    text: str
    form: Form
    #: Of the first entry, as the parser counts.
    line: int
    #: Whether the parser does not get to count these lines.
    taken_out: bool = False

    @property
    def entries(self) -> Sequence[StretchEntry]:
        """The groups of each entry: mere tuples."""
        return self.form.entry.findall(self.text)

    @property
    def lines(self) -> int:
        """How many there are."""
        return self.text.count("\n")

    def beside(self, texts: tuple[str, str, str], line: int) -> list[tuple[str, Scalar]]:
        """What the entry in this line says before, between and behind its ids."""
        found = []
        for part in self.form.beside(*texts):
            for key, quote, text in part:
                found.append((key, Scalar(text, line, plain=not quote)))
                line += self.form.lines_beside
            # That of the id which follows.
            line += self.form.lines_beside
        return found

    def lines_of(self, texts: tuple[str, str, str], said: int) -> tuple[int, int]:
        """How far below its first line such an entry has its resource, and its lines; `said`: how much."""
        before, between, _ = texts
        down = self.form.lines - 1 + before.count("\n") + between.count("\n")
        return down, self.form.lines + self.form.lines_beside * said


def _bare(pattern: str) -> str:
    """The pattern with no groups; quotes that a group is held to are written out."""
    pattern = re.sub(r"""\(\["'\]\?\)\(([^()]*)\)\\\d""", r"""(?:\1|"\1"|'\1')""", pattern)
    return re.sub(r"(?<!\\)\((?!\?)", "(?:", pattern)


def _many(pattern: str) -> str:
    return f"(?:{_bare(pattern)}){{{LEAST},}}+"


_KEY = f"(?:{'|'.join(CONTEXT)})"

# -- YAML --------------------------------------------------------------------------------------------

_WORD = r"[A-Za-z0-9][\w.-]*+"
_BESIDE = f"""{_KEY}: (?:{_WORD}|"{_WORD}"|'{_WORD}')"""
_BESIDE_PARTS = re.compile(rf"""({_KEY}): (["']?)({_WORD})\2""", re.ASCII)


def _yaml_entry(indent: str, begin: str, comma: str, end: str) -> str:
    return (
        rf"{indent}- {begin}((?:{_BESIDE}{comma})*+)"
        rf"""engagement: (["']?)(\w[\w-]*+)\2{comma}((?:{_BESIDE}{comma})*+)"""
        rf"""(?:resource: (["']?)(\w++)\5|resources: \[(\w++(?:, \w++)*+)\])"""
        rf"((?:{comma}{_BESIDE})*+){end}\r?\n"
    )


def _flow(indent: str) -> str:
    return _yaml_entry(indent, r"\{ ?", ", ", r" ?\}")


def _block(indent: str) -> str:
    return _yaml_entry(indent, "", rf"\r?\n{indent}  ", "")


def _run(entry: str) -> re.Pattern[str]:
    """So many entries behind the end of a line, the first of which sets how far they are indented.

    Behind each of them another begins: else the next line might go on with it.
    """
    return re.compile(rf"\n(?=(?P<indent> *+)- ){_many(f'{entry}(?=(?P=indent)- )')}", re.ASCII)


def _said(*texts: str) -> list[list[tuple[str, str, str]]]:
    return [_BESIDE_PARTS.findall(text) for text in texts]


class _Style(NamedTuple):
    """One of the two ways of YAML to write a mapping."""

    entry: Callable[[str], str]
    run: re.Pattern[str]
    lines: int
    lines_beside: int


_FLOW = _Style(_flow, _run(_flow("(?P=indent)")), 1, 0)
_BLOCK = _Style(_block, _run(_block("(?P=indent)")), 2, 1)


@lru_cache(maxsize=64)
def _yaml_form(style: _Style, indent: str) -> Form:
    entry = re.compile(style.entry(indent), re.ASCII)
    return Form(entry, _said, style.lines, style.lines_beside)


#: What libyaml takes for the end of a line and we don't.
_OTHER_ENDS = re.compile("\r(?!\n)|\xc2\x85|\xe2\x80[\xa8\xa9]")
_UTF_16 = ("\xff\xfe", "\xfe\xff")


class _Probe(NamedTuple):
    """The first two entries of a stretch, which the parser has got to read."""

    #: Where the first one must be told of: its line from 1 and column from 0, by the parser's count.
    line: int
    column: int
    engagement: str
    #: The line of the second one likewise.
    second: int
    #: Where the rest of the stretch ends in the text that is held then.
    end: int
    form: Form


class Parted:
    """A YAML file as the parser reads it: without the long stretches that it can do without."""

    def __init__(self, source: StretchSource, taking: Taking | None = None) -> None:
        """Read from `source`, as it is from where on `taking` is off."""
        self._source = source
        self._taking = taking or Taking()
        self._part = True
        # Bytes are characters here. It begins with the end of the line before, for patterns to see.
        self._text = "\n"
        #: The parser's count of lines before the text.
        self._line = 0
        self._probe: _Probe | None = None
        self._confirmed = False
        self._taken: Stretch | None = None
        self._after = 0
        self._styles: tuple[_Style, ...] = (_FLOW, _BLOCK)

    #: The line in which an entry is to be told of, by the parser's count; 0: none is.
    awaited: int = 0

    def told(self, node: Node, column: int) -> None:
        """The parser has told of an entry of `pairs` in the line that was awaited."""
        probe, self.awaited = self._probe, 0
        engagement = getattr(node, "nodes", {}).get("engagement") if probe else None
        if probe and column == probe.column and getattr(engagement, "text", None) == probe.engagement:
            self._confirmed = True

    def before(self, line: int | None) -> Stretch | None:
        """The stretch that was taken out before an entry in this line, or before the end, if one was."""
        if self._taken is None or (line is not None and line <= self._after):
            return None
        taken, self._taken = self._taken, None
        return taken

    def read(self, size: int = -1, /) -> bytes:
        """What the parser reads next."""
        if not self._part:
            return self._source.read(size)
        if not self._taking.on:
            return self._rest() or self._source.read(size)
        self._take()
        if len(self._text) <= BLOCK:
            self._fill()
        cut = (self._probed() if self._part else 0) or self._text.rfind("\n") + 1
        if not self._part or _OTHER_ENDS.search(self._text, 0, cut):
            # Lines cannot be counted from here on.
            return self._rest()
        portion, self._text = self._text[1:cut], self._text[cut - 1 :]
        self._line += portion.count("\n")
        return portion.encode("latin-1")

    def _rest(self) -> bytes:
        """What is held; from there on the file is read as it is."""
        self._part, self._probe, self.awaited = False, None, 0
        portion, self._text = self._text[1:], ""
        return portion.encode("latin-1")

    def _fill(self) -> None:
        raw = self._source.read(BLOCK)
        if raw and not raw.endswith(b"\n"):
            raw += self._source.readline(_LINE)
        self._text += raw.decode("latin-1")
        if not self._text.endswith("\n") or self._text[1:3] in _UTF_16:
            self._part = False

    def _probed(self) -> int:
        """Where the second entry of the next stretch ends; 0: there is none in the text."""
        for style in self._styles:
            found = style.run.search(self._text)
            if found is None:
                continue
            form = _yaml_form(style, found["indent"])
            first = form.entry.match(self._text, found.start() + 1)
            second = form.entry.match(self._text, first.end()) if first else None
            if first is None or second is None:
                continue
            # The next stretch is most likely of the same style.
            self._styles = (style, *(other for other in self._styles if other is not style))
            line = self._line + self._text.count("\n", 0, first.start())
            self._probe = _Probe(
                line,
                len(found["indent"]) + 2,
                first[3],
                line + first[0].count("\n"),
                found.end() - second.end() + 1,
                form,
            )
            self.awaited = line
            return second.end()
        return 0

    def _take(self) -> None:
        """Take out the stretch that the parser stands before, if it has told of its first entry."""
        probe, confirmed = self._probe, self._confirmed
        self._probe, self._confirmed, self.awaited = None, False, 0
        if probe is None or not confirmed or self._taken is not None:
            return
        self._taken = Stretch(self._text[1 : probe.end], probe.form, self._line + 1, taken_out=True)
        self._taking.begun = True
        self._after = probe.second
        self._text = self._text[probe.end - 1 :]


# -- by lines ----------------------------------------------------------------------------------------


class StretchLines(NamedTuple):
    """Entries of a line each, and as many of them as are worth it."""

    form: Form
    run: re.Pattern[str]


def _lines(
    entry: str, beside: Callable[[str, str, str], Sequence[Sequence[tuple[str, str, str]]]]
) -> StretchLines:
    return StretchLines(Form(re.compile(entry, re.ASCII), beside), re.compile(_many(entry), re.ASCII))


_MEMBER = rf'"{_KEY}": ?"[\w.-]++"'
_MEMBER_PARTS = re.compile(rf'"({_KEY})": ?(")([\w.-]++)"', re.ASCII)

#: Objects of the two ids, and of texts beside them.
NDJSON = _lines(
    rf'\{{ ?((?:{_MEMBER}, ?)*+)"engagement": ?(")([\w-]++)", ?((?:{_MEMBER}, ?)*+)'
    rf'"resource": ?(")(\w++)"()((?:, ?{_MEMBER})*+) ?\}}\r?\n',
    lambda *texts: [_MEMBER_PARTS.findall(text) for text in texts],
)


def csv_lines(header: Sequence[str]) -> StretchLines | None:
    """Rows under a header, none of whose cells is quoted; None: the header is of another kind."""
    if not {"engagement", "resource"} <= {*header} <= {"engagement", "resource", *CONTEXT}:
        return None
    one, other = header.index("engagement"), header.index("resource")
    if one > other:
        return None
    cell, names = r"[\w.-]*+", [name for name in header if name in CONTEXT]

    def beside(before: str, between: str, after: str) -> list[list[tuple[str, str, str]]]:
        cells = [*before.split(",")[:-1], *between.split(",")[:-1], *after.split(",")[1:]]
        return [[(name, '"', text) for name, text in zip(names, cells, strict=True) if text]]

    return _lines(
        rf"((?:{cell},){{{one}}})()([\w-]++),((?:{cell},){{{other - one - 1}}})"
        rf"()(\w++)()((?:,{cell}){{{len(header) - other - 1}}})\r?\n",
        beside,
    )


class Ahead:
    """A file that is read by lines, and by stretches where the next lines are one."""

    def __init__(self, source: StretchSource, taking: Taking | None = None) -> None:
        """Read from `source`, by lines alone from where on `taking` is off."""
        self._source = source
        self._taking = taking or Taking()
        # Bytes are characters here.
        self._text = ""
        self._next = 0

    def readline(self, size: int, /) -> bytes:
        """The next line, or its first `size` bytes (more than are held); nothing at the end."""
        self._fill()
        end = self._text.find("\n", self._next) + 1
        line = self._text[self._next : end or None]
        self._next += len(line)
        return line.encode("latin-1") + (b"" if end else self._source.readline(size - len(line)))

    def stretch(self, lines: StretchLines, line: int) -> Stretch | None:
        """The next lines, the first of which is the one of this number, if they are a stretch."""
        if not self._taking.on:
            return None
        self._fill()
        found = lines.run.match(self._text, self._next)
        if found is None:
            return None
        self._taking.begun = True
        self._next = found.end()
        return Stretch(found[0], lines.form, line)

    def _fill(self) -> None:
        if self._next < len(self._text):
            return
        raw = self._source.read(BLOCK)
        if raw and not raw.endswith(b"\n"):
            raw += self._source.readline(_LINE)
        self._text, self._next = raw.decode("latin-1"), 0
