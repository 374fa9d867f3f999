"""Each message that the page explains is one that the program can print."""

import ast
import re

from tests import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
#: Headings of the third level hold messages between backticks.
MESSAGES = re.findall(
    r"`([^`]+)`", "\n".join(re.findall(r"^### (.*)$", PAGE.read_text("utf-8"), re.MULTILINE))
)


def text_of(node):
    """A literal with `…` for what is filled in; None: it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def printed():
    """All texts of the source but docstrings, and but those of the simulator."""
    for path in (ROOT / "batch_snapshot").rglob("*.py"):
        if "simulator" not in path.parts:
            nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
            docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            yield from (text for node in nodes if id(node) not in docstrings and (text := text_of(node)))


def test_every_message_is_one_of_the_program():
    """The parts between `…` stand in one text of the source, in this order."""
    unknown = {
        message: re.compile(".*".join(map(re.escape, map(str.strip, message.split("…")))), re.DOTALL)
        for message in MESSAGES
    }
    assert len(unknown) > 60
    for text in printed():
        for message in [one for one, pattern in unknown.items() if pattern.search(text)]:
            del unknown[message]
    assert [*unknown] == []
