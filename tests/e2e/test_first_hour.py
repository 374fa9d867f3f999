"""The script of the first hour says at which step it failed."""

import os

import pytest

from tests import ROOT
from tests.docs import shell
from tests.docs.pages import Block, blocks
from tests.e2e import first_hour

PATH_LINE = '`PATH="$PWD/bin:$PATH"` does it.'


def page(demo: str, *scripts: str) -> tuple[Block, ...]:
    readme = ROOT / "README.md"
    more = (Block(readme, 20 + number, "sh", script, ()) for number, script in enumerate(scripts))
    return Block(readme, 10, "sh", demo, ("demo",)), *more


def outcome(folder, steps, within=30.0):
    try:
        shell.judge(steps, shell.output(steps, folder, dict(os.environ), within=within))
    except AssertionError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("demo", "script", "within", "failure"),
    [
        ("touch a && \\\ntest -f a\n", "test -f a\ntrue\n", 30.0, None),
        ("touch a && \\\ntest -f b && \\\ntrue\n", "true\n", 30.0, "README.md:10: test -f b\nended with 1"),
        ("true\n", "test -f a\ntrue\n", 30.0, "README.md:20: test -f a\ntrue\nended with 1"),
        ("true\n", "test -f a && true\n", 30.0, "README.md:20: test -f a && true\nended with 1"),
        ("true\n", 'expr "$PATH" : "$PWD/bin:"\n', 30.0, None),
        ("true\n", "tail -f /dev/null\n", 0.2, "README.md:20: was not reached"),
    ],
)
def test_the_step_that_failed_is_named(tmp_path, demo, script, within, failure):
    found = outcome(tmp_path, first_hour.steps(page(demo, script), PATH_LINE), within)
    assert found is None if failure is None else (found or "").startswith(failure), found


def test_the_readme_s_install_comes_first_and_its_program_is_used_for_the_rest():
    readme = ROOT / "README.md"
    scripts = [one.script for one in first_hour.steps(blocks(readme), readme.read_text("utf-8"))]
    assert scripts[0] == "python3 -m venv .venv"
    path = next(number for number, script in enumerate(scripts) if script.startswith("PATH="))
    assert all(script.startswith(".venv/bin/") for script in scripts[1 : path - 1])
    assert any("report" in script for script in scripts[path:])
