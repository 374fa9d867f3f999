"""The one place that turns an error into a line, the object of `--format json`, and an exit code."""

import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from itertools import pairwise
from typing import Any

import click

from batch_snapshot import interrupts, text
from batch_snapshot.cli import terminal
from batch_snapshot.cli.command import SectionedCommand, plain
from batch_snapshot.errors import BatchSnapshotError, ManifestError
from batch_snapshot.redaction import redacted

#: Set it to anything to see tracebacks and Python's warnings on standard error.
DEBUG = "BATCH_SNAPSHOT_DEBUG"

#: Commands that send rows, and those that may call the service.
SENDING = frozenset({"run", "retry"})
CALLING = SENDING | {"discover", "verify", "export", "diff"}

#: `outcome` of the JSON object of an error, by exit code.
_OUTCOMES = {2: "refused", 3: "stopped", 4: "deferred", 5: "failed", 130: "interrupted", 143: "interrupted"}
_AWS_LIBRARIES = ("aioboto3", "aiobotocore", "aiohttp", "botocore")


def report(error: BaseException, arguments: Sequence[str], reporter: terminal.Reporter) -> int:
    error = _unwrapped(error)
    if isinstance(error, SystemExit) and error.code == 1:
        return 0  # click's own: the reader of standard output has gone
    if isinstance(error, SystemExit | GeneratorExit):
        raise error
    if terminal.wants_json(arguments, "--log-format"):
        reporter.log_format = "json"
    # Without a path it is a stream, or the current folder, which alone is not found.
    if isinstance(error, OSError) and error.filename is None and not isinstance(error, FileNotFoundError):
        return terminal.stdout_failed(error, reporter)
    if isinstance(error, click.UsageError) and (ctx := error.ctx) and reporter.log_format == "text":
        while ctx.parent and not isinstance(ctx.parent.command, click.Group):
            ctx = ctx.parent  # of `schedule`, whose words after -- are those of another command
        words = " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])
        terminal.log(f"Usage: {words} (see {ctx.command_path} --help)", reporter=reporter)
    interrupted = isinstance(error, KeyboardInterrupt | click.Abort)
    kind, message, code = _interrupt(error, reporter) if interrupted else _described(error, arguments)
    word = "" if interrupted else "error"
    # The line of an interrupt is the last thing that is done: further signals change nothing.
    with interrupts.listen(lambda _: interrupted):
        terminal.log(message, event="error", level="error", word=word, reporter=reporter, exit_code=code)
        if not reporter.printed and terminal.wants_json(arguments, "--format", "--summary"):
            _print_json(error, kind, message, code, reporter)
    return code


def _interrupt(error: BaseException, reporter: terminal.Reporter) -> tuple[str, str, int]:
    causes = (error, error.__cause__, error.__context__)
    signalled = next((one for one in causes if isinstance(one, KeyboardInterrupt)), None)
    what = f"interrupted ({interrupts.name(signalled)})" if signalled else "the input ended at a question"
    return "interrupted", f"{what}{reporter.interrupt_note}", interrupts.exit_code(signalled or error)


def _print_json(
    error: BaseException, kind: str, message: str, code: int, reporter: terminal.Reporter
) -> None:
    more: dict[str, Any] = {}
    if isinstance(error, ManifestError):
        from batch_snapshot.manifest.problems import problems_as_fields

        shown = [one._asdict() for one in problems_as_fields(error.problems)]
        more = {"valid": False, "problems": shown, "problem_count": error.total}
    outcome = _OUTCOMES.get(code, "stopped")
    result = {**more, "outcome": outcome, "exit_code": code, "error": {"kind": kind, "message": message}}
    try:
        terminal.print_json(result)
    except OSError as failed:
        terminal.stdout_failed(failed, reporter)


def _described(error: BaseException, arguments: Sequence[str]) -> tuple[str, str, int]:
    if isinstance(error, click.ClickException):
        return "usage", text.line(_usage(error, arguments)), 2
    if isinstance(error, BatchSnapshotError):
        # ManifestError is manifest, LedgerWriteError is ledger_write.
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()
        return kind, text.lines(str(error)), error.exit_code
    if isinstance(error, OSError) and error.filename is None:
        return "input", "the current folder was removed: change into one that exists", 2
    if isinstance(error, OSError):
        why = error.strerror or error
        return "input", text.line(f"{error.filename}: cannot be used ({why}); name another path"), 2
    if isinstance(error, ImportError) and (error.name or "").startswith(_AWS_LIBRARIES):
        what = f"the installed AWS libraries are not supported ({error})"
        return "input", text.line(f"{what}; install the versions in requirements.lock"), 2
    return _unforeseen(error, arguments)


def _usage(error: click.ClickException, arguments: Sequence[str]) -> str:
    message = plain(error.format_message())
    command = error.ctx.command if isinstance(error, click.UsageError) and error.ctx else None
    if isinstance(error, click.NoSuchOption) and command:
        return error.message + _meant(error, command.params)
    if isinstance(error, click.NoSuchCommand) and isinstance(command, click.Group):
        return f"{message} There are: {', '.join(command.commands)}"
    if isinstance(command, SectionedCommand):
        if isinstance(error, click.MissingParameter):
            return f"{message.rstrip('.')}; for example: {command.examples[0]}"
        for flag, word in pairwise(arguments):
            if message.endswith(f"extra argument ({word})") and flag in command.bare_flags:
                return f"{message}: write {flag}={word}"
    return message


def _meant(error: click.NoSuchOption, params: Sequence[click.Parameter]) -> str:
    """Options that begin with the word, else an argument or value of that name, else what looks like it."""
    from difflib import get_close_matches

    flags = [flag for one in params for flag in one.opts]
    begin = [flag for flag in flags if flag.startswith(error.option_name)]
    values = {one.opts[0]: one.metavar or one.opts[0].upper() for one in params}
    value = error.option_name.strip("-").upper()
    takes = [
        f"{name}={metavar}" if name.startswith("-") else metavar
        for name, metavar in values.items()
        # Many options take a NAME or a FILE, which says nothing; only one takes HOST:PORT.
        if value in metavar.split(":") and (":" in metavar or not name.startswith("-"))
    ]
    meant = begin[:3] or takes or get_close_matches(error.option_name, flags, 1, 0.75)
    return f" Did you mean {' or '.join(map(repr, meant))}?" if meant else ""


def _unwrapped(error: BaseException) -> BaseException:
    """The error that a group of errors is about, if one of them was meant for people."""
    found = error
    while isinstance(found, BaseExceptionGroup):
        meant = found.subgroup(KeyboardInterrupt) or found.subgroup(BatchSnapshotError)
        if meant is None and len(found.exceptions) > 1:
            return error
        found = (meant or found).exceptions[0]
    return found


def _unforeseen(error: BaseException, arguments: Sequence[str]) -> tuple[str, str, int]:
    """One line that asks for a report; the traceback goes to a file that the line names."""
    words = redacted("".join(traceback.format_exception(error)))
    what = text.line(redacted(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__))
    where = f"its traceback, which {DEBUG}=1 shows"
    if os.environ.get(DEBUG) or "-vv" in arguments:
        where = f"its traceback:\n{words}"
    else:
        with suppress(OSError, MemoryError):
            # mkstemp makes it readable by its owner alone.
            number, name = tempfile.mkstemp(prefix="batch-snapshot-traceback-", suffix=".txt")
            with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(words)
            where = f"the traceback in {name}"
    command = next((word for word in arguments if not word.startswith("-")), "")
    resume = "; what was sent is in the ledger, and the same command resumes it" if command in SENDING else ""
    message = f"an error that should not happen ({what}){resume}: please report it with {where}"
    return "internal", message, 3 if command in CALLING else 2


def hide_python_warnings() -> None:
    if os.environ.get(DEBUG) or sys.warnoptions:
        return
    import warnings

    warnings.showwarning = lambda *_, **__: None
    sys.unraisablehook = lambda _: None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            with suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")
