"""Results go to stdout, everything else to stderr. A stream that cannot be written never ends a run.

The only module that prints.
"""

import errno
import json
import os
import re
import select
import stat
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from batch_snapshot import interrupts, redaction
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import StorageError, way_out
from batch_snapshot.text import lines, timestamp, wrapped

if TYPE_CHECKING:
    from batch_snapshot.reporting.display import Frame
    from batch_snapshot.reporting.screen import Screen

T = TypeVar("T")

PROG = "batch-snapshot"


def variable(command: str, flag: str = "") -> str:
    """The environment variable for an option of a command; without a flag, the beginning of all of them."""
    return "_".join(word.lstrip("-").replace("-", "_").upper() for word in (PROG, command, flag))


SIGNAL_CHECK = 0.5

ANSWERS = {"y": True, "yes": True, "n": False, "no": False, "": False}


@dataclass(slots=True)
class Reporter:
    """State of this invocation's output. The context of its command owns it."""

    #: Lines on stderr, and the result on stdout: text, or json (an object a line, or one object).
    log_format: str = "text"
    form: str = "text"
    #: The live display; lines are written above it.
    screen: "Screen | None" = None
    #: Whether the one object of `--format json` was printed.
    printed: bool = False
    #: What an interrupt leaves unfinished, appended to "interrupted (SIGINT)".
    interrupt_note: str = ""
    #: Text that waits until a prompt is answered; None: there is no prompt.
    pending: list[str] | None = None


def current_reporter() -> Reporter:
    """The reporter of the running command; outside of any, one for plain text."""
    context = click.get_current_context(silent=True)
    return (context.find_object(Reporter) if context else None) or Reporter()


def wants_json(arguments: Sequence[str], *flags: str) -> bool:
    """Whether one of `flags` is json on a command line that click could not parse, or in the environment."""
    words = [*takewhile(lambda word: word != "--", arguments)]
    command = next((word for word in words if not word.startswith("-")), "")
    given = {*words, *map("=".join, pairwise(words))}
    return any(f"{f}=json" in given or os.environ.get(variable(command, f)) == "json" for f in flags)


# -- standard error ----------------------------------------------------------------------------------


def log(
    text: str,
    *,
    event: str = "message",
    level: str = "info",
    word: str = "",
    reporter: Reporter | None = None,
    **fields: Any,
) -> None:
    """Write to standard error; as text each line begins with the `word`, error or warning."""
    reporter = reporter or current_reporter()
    if reporter.log_format == "json":
        record = {"at": timestamp(utc_now()), "level": level, "event": event, "message": text, **fields}
        write(json.dumps(redaction.redacted_all(record)) + "\n")
        return
    begin = f"{word}: " if word else ""
    written = _fitted(text, sys.stderr, begin)
    if word and reporter.screen is None and not os.environ.get("NO_COLOR"):
        styled = click.style(begin, fg=_COLOURS[word], bold=True)
        written = re.sub(f"^{begin}", lambda _: styled, written, flags=re.MULTILINE)
    if reporter.screen is not None:
        reporter.screen.print_above(written)
    else:
        write(f"{written}\n")


_COLOURS = {"error": "red", "warning": "yellow"}


def write(text: str) -> None:
    """Write to standard error; if that fails, carry on without it."""
    if sys.stderr is None:
        return
    pending = current_reporter().pending
    if pending is not None:
        pending.append(text)
        return
    try:
        click.echo(redaction.redacted(text), err=True, nl=False)
    except OSError:
        _discard(2)


def warn(warnings: Sequence[str], total: int | None = None) -> None:
    more = [f"… and {total - len(warnings):,} more"] if total and total > len(warnings) else []
    for warning in [*warnings, *more]:
        log(warning, event="warning", level="warning", word="warning")


def log_frame(frame: "Frame") -> None:
    from batch_snapshot.reporting import display

    fields = display.as_json(frame) if current_reporter().log_format == "json" else {}
    log(display.line(frame), event="progress", **fields)


def can_draw() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def screen() -> "Iterator[Screen]":
    """A display on standard error; lines that are logged meanwhile are written above it."""
    from batch_snapshot.reporting.screen import Screen

    current = current_reporter()
    with closing(Screen(write, getattr(sys.stderr, "encoding", None) or "ascii")) as drawn:
        current.screen = drawn
        try:
            yield drawn
        finally:
            current.screen = None


def run(work: Coroutine[Any, Any, T], **backend_options: Any) -> T:
    """Run `work` in an event loop; a prompt for an MFA code pauses the display."""
    from batch_snapshot.aws import mfa, sdk

    mfa.asking.set(_ask)
    sdk.warn.set(lambda text: warn([text]))
    return interrupts.run(work, **backend_options)


async def _ask(prompt: str) -> str:
    """Leave the terminal to a prompt: the display is wiped, and lines are written after the prompt."""
    from batch_snapshot.aws import mfa

    current = current_reporter()
    if current.screen is not None:
        current.screen.pause()
    current.pending = []
    try:
        return await mfa.ask(prompt)
    finally:
        pending, current.pending = current.pending, None
        if current.screen is not None:
            current.screen.resume()
        write("".join(pending))


def confirm(question: str) -> bool:
    """Ask until "y" or "n" is typed; an empty answer means no. Raises `click.Abort` if the input ends.

    A plain `input` would miss a signal that comes just before it reads, and wait on for an answer.
    """
    while True:
        click.echo(f"{question} [y/N]: ", err=True, nl=False)
        try:
            if os.name == "posix":
                while not select.select([sys.stdin], [], [], SIGNAL_CHECK)[0]:
                    pass
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            click.echo(err=True)  # what follows is a line of its own
            raise
        except OSError:  # the terminal is gone
            answer = ""
        if not answer:
            click.echo(err=True)
            raise click.Abort
        if answer.strip().lower() in ANSWERS:
            return ANSWERS[answer.strip().lower()]


# -- standard output ---------------------------------------------------------------------------------


def print_result(
    as_json: Callable[..., dict[str, Any]], as_text: Callable[..., str], *about: Any, exit_code: int = 0
) -> int:
    """Print what came of work that is done; returns its exit code, also if the reader has gone."""
    try:
        if current_reporter().form == "json":
            print_json(as_json(*about))
        else:
            say(as_text(*about))
    except OSError as error:
        if not _reader_has_gone(error):
            raise
        _discard(1)
    return exit_code


def say(text: str) -> None:
    click.echo(_fitted(text, sys.stdout))


def print_json(value: dict[str, Any]) -> None:
    current_reporter().printed = True
    click.echo(json.dumps(redaction.redacted_all(value), indent=2))


def stdout_failed(error: OSError, reporter: Reporter) -> int:
    """Say that standard output cannot be written, unless its reader has gone; returns the exit code."""
    gone = _reader_has_gone(error)
    _discard(1)
    if gone:
        return 0
    what = f"standard output cannot be written ({error.strerror or error})"
    what, code = f"{what}; {way_out(error, 'write it elsewhere')}", StorageError.exit_code
    log(what, event="error", level="error", word="error", reporter=reporter, exit_code=code)
    return code


def _reader_has_gone(error: OSError) -> bool:
    """Whether standard output is a pipe that nobody reads, or a terminal that was closed."""
    closed = error.errno == errno.EIO and stat.S_ISCHR(os.fstat(1).st_mode)
    return closed or isinstance(error, BrokenPipeError)


def _discard(stream: int) -> None:
    """Point a broken stream to the null device: Python flushes it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _fitted(text: str, stream: IO[str] | None, begin: str = "") -> str:
    """The text as `shown`, with `begin` before each line; its lines fit the terminal if the stream is one."""
    width = 0
    with suppress(OSError, ValueError):
        width = os.get_terminal_size(stream.fileno()).columns if stream else 0
    return wrapped(shown(text), width or sys.maxsize, begin)


def shown(text: str) -> str:
    """The text without secrets and control characters: ledgers and answers can hold anything."""
    return lines(redaction.redacted(text))
