"""The one place that turns an error into a line, the object of `--format json`, and an exit code."""

import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import click

from batch_snapshot import interrupts, text
from batch_snapshot.cli import terminal
from batch_snapshot.cli.command import plain
from batch_snapshot.errors import BatchSnapshotError, ManifestError
from batch_snapshot.redaction import redacted

#: Set it to anything to see tracebacks and Python's warnings on standard error.
DEBUG = "BATCH_SNAPSHOT_DEBUG"

#: Commands that call the service: when one of them breaks, something may have been sent.
CALLING = frozenset({"run", "retry", "discover", "verify"})


def report(error: BaseException, arguments: Sequence[str], reporter: terminal.Reporter) -> int:
    error = _unwrapped(error)
    if isinstance(error, SystemExit | GeneratorExit):
        raise error
    if terminal.wants_json(arguments, "--log-format"):
        reporter.log_format = "json"
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _report_interrupt(error, arguments, reporter)
    if isinstance(error, OSError) and error.filename is None:  # a stream, not a path
        return terminal.stdout_failed(error, 1)
    kind, message, code = _described(error, arguments)
    if isinstance(error, click.UsageError) and error.ctx is not None and reporter.log_format == "text":
        terminal.write(f"{error.ctx.get_usage()} (see {error.ctx.command_path} --help)\n")
    return _write(kind, message, code, arguments, reporter, error=error)


def _report_interrupt(error: BaseException, arguments: Sequence[str], reporter: terminal.Reporter) -> int:
    causes = (error, error.__cause__, error.__context__)
    signalled = next((one for one in causes if isinstance(one, KeyboardInterrupt)), None)
    what = f"interrupted ({interrupts.name(signalled)})" if signalled else "the input ended at a prompt"
    code = interrupts.exit_code(signalled or error)
    # This line is the last thing that is done: further signals change nothing.
    with interrupts.listen(lambda _: True):
        return _write("interrupted", f"{what}{reporter.interrupt_note}", code, arguments, reporter)


def _write(
    kind: str,
    message: str,
    code: int,
    arguments: Sequence[str],
    reporter: terminal.Reporter,
    *,
    error: BaseException | None = None,
) -> int:
    word = "" if kind == "interrupted" else "error"
    terminal.log(message, event="error", level="error", word=word, reporter=reporter, exit_code=code)
    if not reporter.printed and terminal.wants_json(arguments, "--format", "--summary"):
        more: dict[str, Any] = {}
        if isinstance(error, ManifestError):
            from batch_snapshot.manifest.problems import problems_as_fields

            shown = [one._asdict() for one in problems_as_fields(error.problems)]
            more = {"valid": False, "problems": shown, "problem_count": error.total}
        terminal.print_error(kind, message, code, more)
    return code


def _described(error: BaseException, arguments: Sequence[str]) -> tuple[str, str, int]:
    if isinstance(error, click.ClickException):
        group = error.ctx.command if isinstance(error, click.NoSuchCommand) and error.ctx else None
        known = f" There are: {', '.join(group.commands)}" if isinstance(group, click.Group) else ""
        return "usage", text.line(plain(error.format_message()) + known), 2
    if isinstance(error, ManifestError):
        return "manifest", text.lines(str(error)), error.exit_code
    if isinstance(error, BatchSnapshotError):
        # LedgerWriteError is ledger_write.
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()
        return kind, text.lines(str(error)), error.exit_code
    if isinstance(error, OSError):
        why = error.strerror or error
        return "input", text.line(f"{error.filename}: cannot be used ({why}); name another path"), 2
    return _unforeseen(error, arguments)


def _unwrapped(error: BaseException) -> BaseException:
    """The error that a group of errors is about, if one of them was meant for people."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = list(_leaves(error))
    for kind in (KeyboardInterrupt, BatchSnapshotError):
        found = next((leaf for leaf in leaves if isinstance(leaf, kind)), None)
        if found is not None:
            return found
    return leaves[0] if len(leaves) == 1 else error


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _unforeseen(error: BaseException, arguments: Sequence[str]) -> tuple[str, str, int]:
    """One line that asks for a report; the traceback goes to a file that the line names."""
    words = redacted("".join(traceback.format_exception(error)))
    what = text.line(redacted(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__))
    if os.environ.get(DEBUG) or "-vv" in arguments:
        where = f"its traceback:\n{words}"
    else:
        where = _traceback_file(words)
    command = next((word for word in arguments if not word.startswith("-")), "")
    called = command in CALLING
    resume = "; what was sent is in the ledger, and the same command resumes it" if called else ""
    message = f"an error that should not happen ({what}){resume}: please report it with {where}"
    return "internal", message, 3 if called else 2


def _traceback_file(words: str) -> str:
    try:
        # mkstemp makes it readable by its owner alone.
        number, name = tempfile.mkstemp(prefix="batch-snapshot-traceback-", suffix=".txt")
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(words)
    except (OSError, MemoryError):
        return f"its traceback, which {DEBUG}=1 shows"
    return f"the traceback in {name}"


def hide_python_warnings() -> None:
    """Keep Python's own warnings, and errors in finalizers, off a person's screen."""
    if os.environ.get(DEBUG) or sys.warnoptions:
        return
    import warnings

    warnings.showwarning = _ignore
    sys.unraisablehook = _ignore
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _ignore(*_: object, **__: object) -> None:
    pass
