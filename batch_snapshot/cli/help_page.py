"""Help pages. Only they need cloup, which doubles the time that the command line takes to start."""

import os
from collections.abc import Sequence
from dataclasses import replace

import click
from cloup.formatting import HelpFormatter, HelpSection
from cloup.styling import HelpTheme, IStyle, Style

from batch_snapshot.cli.command import HELP_ALL, SECTIONS, SectionedCommand, SectionedGroup
from batch_snapshot.text import plural

#: Columns at most: longer lines are hard to read.
WIDEST = 100

#: A command with so few options shows all of them on its short page.
FEW = 10

#: Stands for a hyphen while text is wrapped, so that no line ends within an option or a name.
_HYPHEN = "\N{NON-BREAKING HYPHEN}"

EXAMPLES = ("batch-snapshot init demo.yaml", "batch-snapshot run demo.yaml --simulate")
EXIT_CODES = {
    "0": "every row succeeded, or was left out as asked",
    "1": "the run went through; some rows failed or are in doubt",
    "2": "command line, manifest or ledger not valid; nothing was called",
    "3": "stopped early: too many failures, or credentials that do not work",
    "4": "deferred: the same command continues",
    "5": "another run holds the lock, or the ledger cannot be written",
    "130, 143": "interrupted: calls in flight were recorded, the same command continues",
}

_THEME = HelpTheme(heading=Style(bold=True), col1=Style(fg="cyan"), invoked_command=Style(fg="cyan"))


class _Page(HelpFormatter):
    """A page whose lines end only between words."""

    def write_text(self, text: str, style: IStyle = str) -> None:
        super().write_text(text.replace("-", _HYPHEN), style)

    def write_section(self, s: HelpSection, col1_width: int | None = None) -> None:
        rows = [(str(term), str(text).replace("-", _HYPHEN)) for term, text in s.definitions]
        super().write_section(replace(s, definitions=rows), col1_width)

    def getvalue(self) -> str:
        return super().getvalue().replace(_HYPHEN, "-")


def page(command: click.Command, ctx: click.Context, *, everything: bool) -> str:
    """The page of a command, or of the group: with `everything` the pages of all commands follow."""
    if isinstance(command, SectionedCommand):
        return _of_command(command, ctx, everything=everything)
    assert isinstance(command, SectionedGroup)  # noqa: S101 - there are no others
    pages = [_of_group(command, ctx)]
    for name, one in command.commands.items() if everything else ():
        with click.Context(one, info_name=name, parent=ctx) as inner:
            pages.append(page(one, inner, everything=True))
    return "\n\n\n".join(pages)


def _of_command(command: SectionedCommand, ctx: click.Context, *, everything: bool) -> str:
    options = [one for one in command.options if not one.hidden]
    everything = everything or len(options) <= FEW
    shown = [one for one in options if everything or one.section == SECTIONS[0]]
    page = _begin(command, ctx)
    sections: dict[str, list[click.Option]] = {}
    for one in sorted(shown, key=lambda one: SECTIONS.index(one.section)):
        sections.setdefault(one.section, []).append(one)
    helps = [one for one in (HELP_ALL, command.get_help_option(ctx)) if one]
    if len(shown) == len(options):
        helps.remove(HELP_ALL)
    if len(sections) < 2:
        sections = {"Options": [*shown, *helps]}
    else:
        sections["Help"] = helps
    page.write_many_sections([_section(title, params, ctx) for title, params in sections.items()])
    _write_lines(page, "Examples", command.examples)
    if hidden := len(options) - len(shown):
        page.write("\n")
        page.write_text(f"{plural(hidden, 'more option')}: {ctx.command_path} --help-all")
    elif options:
        sample = next((one for one in options if not one.is_flag), options[0])
        page.write("\n")
        page.write_text(f"From the environment: {sample.variable(ctx)} is {sample.opts[0]}, and so on.")
    return page.getvalue().rstrip("\n")


def _of_group(group: SectionedGroup, ctx: click.Context) -> str:
    page = _begin(group, ctx)
    sections = [
        HelpSection(title, [(name, group.commands[name].get_short_help_str(80)) for name in names])
        for title, names in group.sections.items()
    ]
    page.write_many_sections([*sections, _section("Options", group.get_params(ctx), ctx)])
    _write_lines(page, "Without an AWS account", EXAMPLES)
    page.write_section(HelpSection("Exit codes", list(EXIT_CODES.items())))
    return page.getvalue().rstrip("\n")


def _begin(command: click.Command, ctx: click.Context) -> _Page:
    theme = HelpTheme() if os.environ.get("NO_COLOR") else _THEME
    page = _Page(width=ctx.terminal_width, max_width=WIDEST, col1_max_width=28, theme=theme)
    page.write_usage(ctx.command_path, " ".join(command.collect_usage_pieces(ctx)))
    page.write_command_help_text(command)
    return page


def _section(title: str, params: Sequence[click.Parameter], ctx: click.Context) -> HelpSection:
    return HelpSection(title, [record for one in params if (record := one.get_help_record(ctx))])


def _write_lines(page: _Page, title: str, lines: Sequence[str]) -> None:
    """Lines that people copy: they are never wrapped."""
    if lines:
        page.write("\n")
        page.write_heading(title)
        page.write(*(f"  {line}\n" for line in lines))
