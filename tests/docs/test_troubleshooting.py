"""Each message that the page explains is one that the program can print."""

import ast
import re
from functools import cache

import pytest

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


@cache
def printed():
    """All texts of the source but docstrings."""
    found = []
    for path in (ROOT / "batch_snapshot").rglob("*.py"):
        if "simulator" not in path.parts:
            nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
            docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            found += [text for node in nodes if id(node) not in docstrings and (text := text_of(node))]
    return found


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_one_of_the_program(message):
    """The parts between `…` stand in one text of the source, in this order."""
    pattern = re.compile(".*".join(map(re.escape, map(str.strip, message.split("…")))), re.DOTALL)
    assert any(map(pattern.search, printed()))
