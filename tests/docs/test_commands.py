"""The page of commands is what the help texts say, and every example of the help is understood."""

import os
import re
from typing import Any

import click
import pytest

from batch_snapshot.cli import cli
from batch_snapshot.cli.command import SECTIONS
from tests.docs import commands, shell

COMMANDS: dict[str, Any] = dict(cli.commands)
EXAMPLES = [(name, line) for name, command in COMMANDS.items() for line in command.examples]


def test_page_of_commands_is_up_to_date():
    written = commands.PAGE.read_text("utf-8")
    assert written == commands.page(), "write it again: python -m tests.docs.commands"


def test_every_command_has_an_example_and_a_section():
    assert {name for name, _ in EXAMPLES} == COMMANDS.keys()
    assert [name for names in cli.sections.values() for name in names] == list(cli.commands)


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_example_of_the_help_is_understood(name, line):
    """All flags exist and take such values."""
    ours = [words for words in shell.commands(line) if words[0] == shell.PROGRAM]
    assert [words[1] for words in ours] == [name]
    with click.Context(cli, info_name=shell.PROGRAM) as root:
        COMMANDS[name].make_context(name, ours[0][2:], parent=root)


def test_every_option_stands_in_a_known_section():
    for name, command in COMMANDS.items():
        for option in command.options:
            assert option.section in SECTIONS, f"{name} {option.opts}"


def test_variables_of_the_page_are_those_of_the_options():
    for name in re.findall(r"`BATCH_SNAPSHOT_([A-Z_]+)=", commands.page()):
        command, flag = name.lower().split("_", 1)
        assert f"--{flag}" in {flag for one in COMMANDS[command].options for flag in one.opts}
    assert "BATCH_SNAPSHOT_RUN_RATE" not in os.environ
