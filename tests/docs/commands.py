"""Writes docs/reference/commands.md from the help of all commands: `python -m tests.docs.commands`."""

import re
from collections.abc import Iterator
from inspect import cleandoc

import click

from batch_snapshot.cli import cli
from batch_snapshot.cli.command import SECTIONS, Option, SectionedCommand, SectionedGroup
from batch_snapshot.cli.help_page import EXIT_CODES
from batch_snapshot.cli.terminal import PROG
from tests import ROOT

PAGE = ROOT / "docs" / "reference" / "commands.md"

_HEAD = f"""\
# Commands

This page is made from the help texts. `{PROG} COMMAND --help` shows the common options of a command in the
terminal, `{PROG} COMMAND --help-all` shows all of them.

Each option can also come from an environment variable: `BATCH_SNAPSHOT_RUN_RATE=5` stands for
`run --rate 5`, and `BATCH_SNAPSHOT_RUN_WAIT=1` for `run --wait`. The command line wins over the environment.
"""


def page() -> str:
    assert isinstance(cli, SectionedGroup)
    parts = [_HEAD]
    for title, names in cli.sections.items():
        parts.append(f"## {title}\n")
        parts += [_command(name, cli.commands[name]) for name in names]
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    parts.append(f"## Exit codes\n\n| code | meaning |\n|---|---|\n{codes}")
    return "\n".join(parts)


def _command(name: str, command: click.Command) -> str:
    assert isinstance(command, SectionedCommand)
    with click.Context(cli, info_name=PROG) as root, click.Context(command, root, name) as ctx:
        usage = f"{PROG} {name} {' '.join(command.collect_usage_pieces(ctx))}"
        examples = "\n".join(command.examples)
        return "\n".join(
            [
                f"### {name}\n",
                f"`{usage}`\n",
                f"{_markdown(cleandoc(command.help or ''))}\n",
                f"<!-- not run: examples of the help -->\n```sh\n{examples}\n```\n",
                *_tables(command, ctx),
            ]
        )


def _tables(command: SectionedCommand, ctx: click.Context) -> Iterator[str]:
    for title in SECTIONS:
        options = [one for one in command.options if one.section == title and not one.hidden]
        if options:
            yield f"| {title} | |\n|---|---|"
            yield from (_row(one, ctx) for one in options)
            yield ""


def _row(option: Option, ctx: click.Context) -> str:
    flags, text = option.get_help_record(ctx) or ("", "")
    cells = [
        f"`{flags}`",
        _markdown(
            re.sub(r"  \[default: ([^\]]*)\]", r" Default: \1.", text).replace("  [required]", " Required.")
        ),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _markdown(text: str) -> str:
    """Help as Markdown: flags and what braces hold are code, placeholders are not tags."""
    text = re.sub(r"\n(?=\S)", " ", text.replace("\n\n", "\0")).replace("\0", "\n\n")
    return re.sub(
        r"(?<![`\w'./=-])(--?[a-z][a-z-]*(?:=\S+(?<![.,:]))?|[\w/]*\{\w+\}(?:[\w.]*\w)?|\$[A-Z_]+)",
        r"`\1`",
        text,
    )


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
