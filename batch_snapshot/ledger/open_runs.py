"""Which ledgers are not finished, so that one which vanishes is missed and its rows are not made again.

A file for each manifest name and account, beside their lock: whoever reads or writes it holds that.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from batch_snapshot import files
from batch_snapshot.errors import (
    SAME_COMMAND,
    InputError,
    LedgerError,
    StateFolderError,
    StorageError,
    is_of_the_place,
    way_out,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

#: Ledgers that are kept in mind, the latest of them.
KEPT = 1_000

#: Bytes that such a file holds at most: paths of 4 KiB.
LONGEST = 16 * 1024 * 1024


def run_id(file: Path, ledger: Path) -> str | None:
    """The run of the ledger at this path if it was not finished when it was last seen; None: it was.

    Raises:
        StorageError: the file cannot be read.
    """
    return known(file).get(str(files.resolved(ledger)))


def note(file: Path, ledger: Path, run_id: str, instead_of: Collection[str] = ()) -> None:
    """Record that a run is about to send rows, or sends more, of the ledger at this path.

    Args:
        file: of the account.
        ledger: its path.
        run_id: of its run; it may have been recorded under a path where the ledger was before.
        instead_of: resolved paths of ledgers that are given up for this one.

    Raises:
        StorageError: the file cannot be read or written.
    """
    before, path = known(file), str(files.resolved(ledger))
    kept = {other: run for other, run in before.items() if other not in instead_of and run != run_id}
    if before.get(path) != run_id or len(kept) + 1 != len(before):
        kept.pop(path, None)
        _write(file, dict([*kept.items(), (path, run_id)][-KEPT:]))


def forget(file: Path, ledger: Path, run_id: str | None = None) -> None:
    """The ledger at this path is finished: it may go; so may what was recorded of its run elsewhere.

    Raises:
        StorageError: the file cannot be read or written.
    """
    before, path = known(file), str(files.resolved(ledger))
    kept = {other: run for other, run in before.items() if other != path and run != run_id}
    if len(kept) != len(before):
        _write(file, kept)


def check(files: Iterable[Path], ledger: Path, *, begun: bool, anew: bool) -> None:
    """Refuse to begin a ledger where an unfinished one was, which knows what has been made.

    Args:
        files: of the accounts that the run calls for.
        ledger: its path.
        begun: a ledger is there.
        anew: that is wanted, whatever was there.

    Raises:
        InputError: it would take the place of one that has vanished, or is to and none has.
        StorageError: a file cannot be read.
    """
    if begun and anew:
        raise InputError(f"--new-ledger: {ledger} is there; drop the flag to go on, or name another --ledger")
    missed = next(filter(None, (run_id(file, ledger) for file in files)), None)
    if missed and not (begun or anew):
        raise LedgerError(
            f"{ledger}: is gone, or empty; run {missed} in it was not finished, and only it knows what was "
            "made; put it back, or begin anew with --new-ledger, which makes all its snapshots again"
        )


def known(file: Path) -> dict[str, str]:
    """The runs of the ledgers that were not finished when they were last seen, by resolved path.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        found = json.loads(files.read_regular(file, LONGEST))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(file, error) from None
    if not isinstance(found, dict):
        raise _unusable(file, ValueError("it is no object"))
    return found


def _write(file: Path, runs: dict[str, str]) -> None:
    try:
        with files.atomic_write(file, 0o600) as opened:
            opened.write(json.dumps(runs).encode())
    except OSError as error:
        raise _unusable(file, error) from None


def _unusable(file: Path, error: Exception) -> StorageError:
    what = f"{file}: cannot record which ledgers are unfinished"
    if not isinstance(error, OSError):
        return StorageError(f"{what} ({error}); remove it if it is broken, {SAME_COMMAND}")
    kind = StateFolderError if is_of_the_place(error) else StorageError
    elsewhere = "name another folder with --state-dir"
    return kind(f"{what} ({error.strerror or error}); {way_out(error, elsewhere)}, {SAME_COMMAND}")
