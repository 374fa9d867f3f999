"""Results go to stdout, everything else to stderr; neither ever ends a run.

The only place that prints.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batch_snapshot import interrupts, redaction
from batch_snapshot.clock import utc_now
from batch_snapshot.text import lines, timestamp

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from batch_snapshot.reporting.display import Frame
    from batch_snapshot.reporting.screen import Screen

T = TypeVar("T")

PROG = "batch-snapshot"


def unprinted(error: OSError, code: int) -> int:
    """Standard output takes no more: say so if anybody reads, and keep the exit code of the work."""
    if not isinstance(error, BrokenPipeError):
        say(f"standard output cannot be written ({error.strerror or error})")
    silence(1)
    return code


@dataclass(slots=True)
class Reporter:
    """How this invocation tells what is no result; the context of its command holds it."""

    #: text, or json: an object a line.
    form: str = "text"
    #: The display that a line must not run into.
    screen: Screen | None = None
    #: Whether the one object of `--format json` stands on stdout already.
    printed: bool = False
    #: What a signal leaves unfinished, as the end of a sentence.
    unfinished: str = ""
    #: What waits until a prompt was answered; None: there is no prompt.
    held: list[str] | None = None


def telling() -> Reporter:
    """That of the command that runs; outside of any, plain text."""
    context = click.get_current_context(silent=True)
    return (context.find_object(Reporter) if context else None) or Reporter()


def _choose(context: click.Context, _: click.Parameter, form: str) -> None:
    context.ensure_object(Reporter).form = form


#: Heard before the other flags, so that what is wrong with those is told so too.
LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    is_eager=True,
    expose_value=False,
    callback=_choose,
    help="How progress, warnings, outcomes and errors are told on stderr; json: an object a line.",
)


def asked_for_json(arguments: Sequence[str], flag: str = "--log-format") -> bool:
    """Whether `--log-format json` stands on a command line that could not be understood."""
    words = [*arguments]
    words = words[: words.index("--")] if "--" in words else words
    pairs = zip(words, [*words[1:], ""], strict=True)
    return any(pair == (flag, "json") or pair[0] == f"{flag}=json" for pair in pairs)


def say(
    text: str, *, event: str = "message", level: str = "info", how: Reporter | None = None, **fields: Any
) -> None:
    """Write a line to standard error.

    Args:
        text: for people.
        event: what it is about, for programs; with `--log-format json` alone.
        level: info, warning or error; likewise.
        how: where no command runs any more.
        fields: for programs; likewise.
    """
    how = how or telling()
    if how.form == "json":
        at = timestamp(utc_now())
        told = {"at": at, "level": level, "event": event, "message": text, **fields}
        write(json.dumps(redaction.redacted_all(told)) + "\n")
    elif how.screen is not None:
        how.screen.say(shown(text))
    else:
        write(shown(text) + "\n")


def write(text: str) -> None:
    """Write to standard error; where nobody can read it, the work goes on all the same."""
    if sys.stderr is None:
        return
    held = telling().held
    if held is not None:
        held.append(text)
        return
    try:
        click.echo(redaction.redacted(text), err=True, nl=False)
    except OSError:
        silence(2)


def run(work: Coroutine[Any, Any, T], **backend_options: Any) -> T:
    """Run `work` in an event loop: a prompt for an MFA code gets the terminal for itself.

    Raises:
        KeyboardInterrupt: a signal ended it.
    """
    from batch_snapshot.aws import mfa

    mfa.asking.set(_ask)
    return interrupts.run(work, **backend_options)


async def _ask(prompt: str) -> str:
    from batch_snapshot.aws import mfa

    with paused():
        return await mfa.ask(prompt)


@contextmanager
def paused() -> Iterator[None]:
    """Leave the terminal to a prompt: the display is wiped, and lines are written after the prompt."""
    how = telling()
    if how.screen is not None:
        how.screen.pause()
    how.held = []
    try:
        yield
    finally:
        held, how.held = how.held, None
        if how.screen is not None:
            how.screen.resume()
        write("".join(held))


def can_draw() -> bool:
    """Whether standard error is a terminal on which things can be drawn in place."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def screen() -> Iterator[Screen]:
    """A display on standard error; meanwhile lines are told above it."""
    from batch_snapshot.reporting.screen import Screen

    how = telling()
    with Screen(write, encoding=getattr(sys.stderr, "encoding", None) or "ascii") as drawn:
        how.screen = drawn
        try:
            yield drawn
        finally:
            how.screen = None


def tell_frame(frame: Frame) -> None:
    """Tell how far a run is, in a line."""
    from batch_snapshot.reporting import display

    say(display.line(frame), event="progress", **(display.as_json(frame) if telling().form == "json" else {}))


def silence(stream: int) -> None:
    """Let a stream that takes no more take all: Python writes what is left of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def shown(text: str) -> str:
    """The text with no secret, and nothing that drives a terminal: ledgers and answers can hold anything."""
    return lines(redaction.redacted(text))


def warn(warnings: Sequence[str], total: int) -> None:
    """Write the warnings that are at hand, and how many more there are."""
    head = "" if telling().form == "json" else "warning: "
    for warning in warnings:
        say(f"{head}{warning}", event="warning", level="warning")
    if total > len(warnings):
        say(f"{head}… and {total - len(warnings):,} more", event="warning", level="warning")


def print_json(value: dict[str, Any]) -> None:
    """Write one object to standard output."""
    telling().printed = True
    click.echo(json.dumps(redaction.redacted_all(value), indent=2))


#: What `outcome` says of an error, by exit code.
_OUTCOMES = {2: "refused", 3: "stopped", 4: "deferred", 5: "failed", 130: "interrupted"}


def print_error(kind: str, message: str, code: int) -> None:
    """Write the object that `--format json` prints where a command ends with an error."""
    outcome = _OUTCOMES.get(code, "stopped")
    try:
        print_json({"outcome": outcome, "exit_code": code, "error": {"kind": kind, "message": message}})
    except OSError as error:
        unprinted(error, code)
