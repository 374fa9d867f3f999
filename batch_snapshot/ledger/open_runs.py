"""Records which ledgers are unfinished: one that vanishes is noticed, and its snapshots are not made again.

There is one file for each manifest name and account, next to their lock. Hold the lock to read or write it.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from batch_snapshot import files
from batch_snapshot.errors import (
    SAME_COMMAND,
    InputError,
    LedgerError,
    StateFolderError,
    StorageError,
    is_path_error,
    way_out,
)

#: Ledgers that a file records at most, the latest.
KEPT = 1_000

#: Bytes of a file at most: paths of 4 KiB each.
LONGEST = 16 * 1024 * 1024


def record(file: Path, ledger: Path, run_id: str, instead_of: Collection[str] = ()) -> None:
    """Record that a run sends rows of the ledger at this path, in place of those at `instead_of`.

    An entry of the same run under another path is replaced: the ledger was moved.
    """
    before, path = unfinished_runs(file), str(files.resolved(ledger))
    kept = {other: run for other, run in before.items() if other not in instead_of and run != run_id}
    if before.get(path) != run_id or len(kept) + 1 != len(before):
        kept.pop(path, None)
        _write(file, dict([*kept.items(), (path, run_id)][-KEPT:]))


def remove(file: Path, ledger: Path, run_id: str | None = None) -> None:
    before, path = unfinished_runs(file), str(files.resolved(ledger))
    kept = {other: run for other, run in before.items() if other != path and run != run_id}
    if len(kept) != len(before):
        _write(file, kept)


def check_not_lost(recorded: Iterable[Path], ledger: Path, *, exists: bool, new_ledger: bool) -> None:
    """Refuse to begin a ledger where an unfinished one has vanished: only that one says what was made."""
    if exists and new_ledger:
        raise InputError(
            f"--new-ledger: {ledger} already exists; drop the flag to resume it, or name another --ledger"
        )
    path = str(files.resolved(ledger))
    missed = next(filter(None, (unfinished_runs(file).get(path) for file in recorded)), None)
    if missed and not (exists or new_ledger):
        raise LedgerError(
            f"{ledger}: is gone, or empty; run {missed} in it was not finished, and only it knows what was "
            "made; put it back, or begin anew with --new-ledger, which makes all its snapshots again"
        )


def unfinished_runs(file: Path) -> dict[str, str]:
    """Run ids by resolved path of the ledger."""
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
    kind = StateFolderError if is_path_error(error) else StorageError
    elsewhere = "name another folder with --state-dir"
    return kind(f"{what} ({error.strerror or error}); {way_out(error, elsewhere)}, {SAME_COMMAND}")
