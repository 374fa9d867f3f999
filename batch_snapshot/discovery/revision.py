"""Brings the pairs of a manifest up to date, line by line: comments and hand-made edits stay.

Pure: text in, text out. New pairs follow the last entry of `pairs`; entries whose pairs no list names
any more get a mark behind them, and lose it when they are named again. Nothing is removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from batch_snapshot.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

#: Begins every mark, so that it is known again.
MARK = "# gone:"

_MARKED = re.compile(r"[ \t]*# gone: no list names (?:it|O[0-9, O]*) any more \([0-9-]+\)")


@dataclass(slots=True)
class PairEntry:
    """An entry of `pairs`: what it names, and the last line of it (from 0)."""

    last_line: int
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def resources(self) -> list[str]:
        """The opportunities it names."""
        one, many = self.fields.get("resource"), self.fields.get("resources")
        return [one] if isinstance(one, str) else list(many or [])


@dataclass(slots=True)
class Layout:
    """Where the pairs of a manifest stand."""

    entries: list[PairEntry]
    #: The line behind which new entries go (-1: at the end of the file), and how they are indented.
    after: int
    indent: str
    #: Whether a line `pairs:` must be written first.
    headless: bool
    #: What the manifest's pairs need not say.
    defaults: dict[str, str] = field(default_factory=dict)


def layout(text: str, where: str) -> Layout:
    """Find the entries of `pairs`.

    Args:
        text: of a manifest that was found valid.
        where: its name, for messages.

    Raises:
        InputError: its pairs stand in brackets, so that there is no line to add one behind.
    """
    root: Any = yaml.compose(text, Loader=yaml.CSafeLoader)
    sections = {key.value: (key, value) for key, value in root.value}
    defaults = _defaults(sections.get("defaults", (None, None))[1])
    if "pairs" not in sections:
        return Layout([], -1, "  ", headless=True, defaults=defaults)
    key, value = sections["pairs"]
    if isinstance(value, yaml.ScalarNode):
        return Layout([], key.end_mark.line, "  ", headless=False, defaults=defaults)
    if value.flow_style:
        way_out = (
            "write them as lines that begin with -" if value.value else "write pairs: alone, or remove it"
        )
        raise InputError(f"{where}:{key.start_mark.line + 1}: its pairs stand in [brackets]: {way_out}")
    entries = [_entry(node) for node in value.value]
    indent = " " * value.start_mark.column
    return Layout(entries, entries[-1].last_line, indent, headless=False, defaults=defaults)


def _defaults(node: Any) -> dict[str, str]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value.value for key, value in node.value if isinstance(value, yaml.ScalarNode)}


def _entry(node: Any) -> PairEntry:
    last = max(mark.line for mark in _ends(node))
    fields = {key.value: _value(value) for key, value in node.value} if hasattr(node, "value") else {}
    return PairEntry(last, fields)


def _value(node: Any) -> Any:
    return [one.value for one in node.value] if isinstance(node, yaml.SequenceNode) else node.value


def _ends(node: Any) -> Iterator[Any]:
    """Where the node and what it holds end; the end of a block is only where the next token begins."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        yield node.end_mark
        return
    for one in node.value:
        for part in one if isinstance(one, tuple) else (one,):
            yield from _ends(part)


def revised(
    text: str,
    found: Layout,
    added: Collection[str],
    gone: Callable[[Mapping[str, Any], str], bool],
    day: str,
) -> tuple[str, int]:
    """The text with new entries added and old ones marked, and how many pairs are marked.

    Args:
        text: as it was.
        found: its layout.
        added: the new entries, without their dash.
        gone: whether the pair of an entry's fields and a resource is named by no list any more.
        day: of the marks.
    """
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    marked = 0
    for entry in found.entries:
        missing = [name for name in entry.resources if gone(entry.fields, name)]
        marked += len(missing)
        lines[entry.last_line] = _marked(lines[entry.last_line], entry, missing, day, end)
    if added and found.headless:
        found = Layout([], len(lines) - 1, found.indent, headless=True)
        added = ["pairs:", *(f"{found.indent}- {one}" for one in added)]
    else:
        added = [f"{found.indent}- {one}" for one in added]
    if added and lines and not lines[found.after].endswith("\n"):
        lines[found.after] += end
    lines[found.after + 1 : found.after + 1] = [line + end for line in added]
    return "".join(lines), marked


def _marked(line: str, entry: PairEntry, missing: list[str], day: str, end: str) -> str:
    """The line with the mark that it should have."""
    tail = line[len(line.rstrip("\r\n")) :]
    bare = line.rstrip("\r\n")
    if not missing:
        return _MARKED.sub("", bare) + tail
    what = "it" if len(missing) == len(entry.resources) else ", ".join(missing)
    if old := _MARKED.search(bare):
        if f"names {what} any" in old[0]:
            return line
        bare = _MARKED.sub("", bare)
    return f"{bare}  {MARK} no list names {what} any more ({day}){tail or end}"
