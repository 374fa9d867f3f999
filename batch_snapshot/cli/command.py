"""Commands and options as this program has them: help in sections, examples, values from the environment."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import click
from click.core import ParameterSource

from batch_snapshot.cli import terminal
from batch_snapshot.errors import InputError

#: The sections of a help page, in order. The short page shows the first.
SECTIONS = (
    *("Common", "Filters", "Ledger", "Limits", "Retry", "Output", "Notifications", "AWS", "Cluster"),
    "Simulator",
)

#: What click says of a value, and what people read.
_PLAIN = {
    r"is not a valid integer(?: range)?": "is not a whole number",
    r"is not a valid float(?: range)?": "is not a number",
    r"is not in the range x>=(\S+?)\.?$": r"is too small: the minimum is \1",
    r"is not in the range (\S+)<=x<=(\S+?)\.?$": r"is not between \1 and \2",
    r"is not a valid boolean.*$": "is not yes or no",
    r"(?<=[:,])\n\t": " ",
}


def plain(message: str) -> str:
    for pattern, words in _PLAIN.items():
        message = re.sub(pattern, words, message)
    return message


class Option(click.Option):
    """An option of a section; its value may come from $BATCH_SNAPSHOT_{COMMAND}_{OPTION}."""

    section = SECTIONS[0]
    #: Whether its value may be left out. A value follows an equals sign: the next word is never taken for it.
    bare = False

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Leave out ranges such as x>=1: the error about a wrong number shows the range."""
        return {name: text for name, text in super().get_help_extra(ctx).items() if name != "range"}

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        flags, words = super().get_help_record(ctx) or ("", "")
        return flags.replace(" [=", "[="), words  # no blank before a value that may be left out

    def variable(self, ctx: click.Context) -> str:
        flag = next(name for name in self.opts if name.startswith("--"))
        return terminal.variable(ctx.info_name or "", flag)

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        return super().resolve_envvar_value(ctx) or os.environ.get(self.variable(ctx)) or None

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        try:
            return super().process_value(ctx, value)
        except (click.BadParameter, InputError) as error:
            if ctx.get_parameter_source(self.name) is not ParameterSource.ENVIRONMENT:
                raise
            text = plain(error.message if isinstance(error, click.BadParameter) else str(error))
            given = self.envvar if isinstance(self.envvar, str) and os.environ.get(self.envvar) else None
            raise InputError(f"${given or self.variable(ctx)}: {text}") from None


def page_option(*flags: str, page: Callable[[click.Context], str]) -> click.Option:
    """An option that prints a page instead of carrying out the command; `page` has its help as docstring."""

    def show(ctx: click.Context, _: click.Parameter, wanted: object) -> None:
        if wanted and not ctx.resilient_parsing:
            click.echo(page(ctx), color=ctx.color)
            ctx.exit()

    more: dict[str, Any] = {"callback": show, "help": page.__doc__}
    return click.Option(flags, is_flag=True, is_eager=True, expose_value=False, **more)


def _help(ctx: click.Context, *, everything: bool = True) -> str:
    """Show every option."""
    from batch_snapshot.cli import help_page

    return help_page.page(ctx.command, ctx, everything=everything)


HELP_ALL = page_option("--help-all", page=_help)


class SectionedCommand(click.Command):
    """A command whose short help shows the common options, and `--help-all` every one."""

    def __init__(
        self, *args: Any, examples: Sequence[str] = (), interrupt_note: str = "", **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.examples = examples
        self.interrupt_note = interrupt_note
        self.params.append(HELP_ALL)

    @property
    def options(self) -> list[Option]:
        return [param for param in self.params if isinstance(param, Option)]

    @property
    def bare_flags(self) -> set[str]:
        return {flag for one in self.options if one.bare for flag in one.opts}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.ensure_object(terminal.Reporter).interrupt_note = self.interrupt_note
        end = args.index("--") if "--" in args else len(args)
        # Else click takes the next word for its value.
        words = [f"{word}=" if word in self.bare_flags else word for word in args[:end]]
        return super().parse_args(ctx, [*words, *args[end:]])

    def invoke(self, ctx: click.Context) -> Any:
        known = {one.variable(ctx) for one in self.options}
        begin = terminal.variable(ctx.info_name or "")
        unknown = [name for name in os.environ if name.startswith(begin) and name not in known]
        terminal.warn([f"${name}: {ctx.command_path} has no such option" for name in unknown])
        return super().invoke(ctx)

    def get_help(self, ctx: click.Context) -> str:
        return _help(ctx, everything=False)


class SectionedGroup(click.Group):
    """The commands by section, in the order in which they are named there; each has a module of its name."""

    def __init__(self, *args: Any, sections: Mapping[str, str], **more: Any) -> None:
        super().__init__(*args, **more)
        self.sections = {title: names.split() for title, names in sections.items()}
        self.params.append(HELP_ALL)
        for name in " ".join(sections.values()).split():
            self.add_command(getattr(import_module(f"batch_snapshot.cli.{name}"), f"{name}_command"))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself would write an empty line, and not name the signal."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.Abort from error

    def list_commands(self, _: click.Context) -> list[str]:
        return list(self.commands)

    def get_help(self, ctx: click.Context) -> str:
        return _help(ctx, everything=False)
