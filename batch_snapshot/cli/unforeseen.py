"""What nobody foresaw: one line that asks for a report, and a file that holds the traceback."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from batch_snapshot import text
from batch_snapshot.errors import BatchSnapshotError
from batch_snapshot.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Set it to anything to see tracebacks and warnings on standard error.
DEBUG = "BATCH_SNAPSHOT_DEBUG"

#: Commands that call the service: when one of them breaks, something may have been sent.
CALLING = frozenset({"run", "retry", "discover", "verify"})


def quiet() -> None:
    """Keep Python's own warnings, and errors of things that are thrown away, off a person's screen."""
    if os.environ.get(DEBUG) or sys.warnoptions:
        return
    import warnings

    warnings.showwarning = _nothing
    sys.unraisablehook = _nothing
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _nothing(*_: object, **__: object) -> None:
    """Print nothing."""


def unwrapped(error: BaseException) -> BaseException:
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


def exit_code(arguments: Sequence[str]) -> int:
    """3 (stopped early) for a command that calls the service, else 2: nothing was called."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    return 3 if command in CALLING else 2


def described(error: BaseException, arguments: Sequence[str]) -> str:
    """The line that asks for a report; keeps the traceback in a file that it names."""
    words = redacted("".join(traceback.format_exception(error)))
    what = text.line(redacted(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__))
    if os.environ.get(DEBUG) or any(word == "-vv" for word in arguments):
        where = f"its traceback:\n{words}"
    else:
        where = _kept(words)
    again = (
        "; what was sent stands in the ledger, and the same command goes on with it"
        if exit_code(arguments) == 3
        else ""
    )
    return f"an error that should not happen ({what}){again}: please report it with {where}"


def _kept(words: str) -> str:
    """Write the traceback to a new file of its owner alone (mode 0600)."""
    try:
        number, name = tempfile.mkstemp(prefix="batch-snapshot-traceback-", suffix=".txt")
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(words)
    except (OSError, MemoryError):
        return f"its traceback, which {DEBUG}=1 shows"
    return f"the traceback in {name}"
