"""Records which ledgers are unfinished: one that vanishes is noticed, and its snapshots are not made again.

There is one file for each manifest name and account, next to their lock. Hold the lock to read or write it.
It also keeps how long each ledger was, by its run: an older copy in its place is noticed, too.
"""

import json
from collections.abc import Collection
from pathlib import Path

from batch_snapshot import files
from batch_snapshot.errors import SAME_COMMAND, StorageError, storage_error

#: Ledgers that a file records at most, the latest.
KEPT = 1_000

#: Bytes of a file at most: paths of 4 KiB each.
LONGEST = 16 * 1024 * 1024


def record(file: Path, ledger: Path, run_id: str, instead_of: Collection[str] = ()) -> None:
    """Record that a run sends rows of the ledger at this path, in place of those at `instead_of`.

    An entry of the same run under another path is replaced: the ledger was moved.
    """
    kept = {path: run for path, run in _others(file, ledger, run_id).items() if path not in instead_of}
    kept[str(files.resolved(ledger))] = run_id
    _write(file, dict([*kept.items()][-KEPT:]), ledger, run_id)


def remove(file: Path, ledger: Path, run_id: str) -> None:
    _write(file, _others(file, ledger, run_id), ledger, run_id)


def _others(file: Path, ledger: Path, run_id: str) -> dict[str, str]:
    ours = str(files.resolved(ledger))
    return {path: run for path, run in unfinished_runs(file).items() if path != ours and run != run_id}


def unfinished_runs(file: Path) -> dict[str, str]:
    """Run ids by resolved path of the ledger."""
    return {path: run for path, run in _read(file).items() if isinstance(run, str)}


def length(file: Path, run_id: str) -> int:
    """How many bytes the ledger of a run had at most when it was recorded."""
    found = _read(file).get(run_id)
    return found if isinstance(found, int) else 0


def _read(file: Path) -> dict[str, str | int]:
    try:
        found = json.loads(files.read_regular(file, LONGEST))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(file, error) from None
    if not isinstance(found, dict):
        raise _unusable(file, ValueError("it is no object"))
    return found


def _write(file: Path, runs: dict[str, str], ledger: Path, run_id: str) -> None:
    known = _read(file)
    lengths = {run: length for run, length in known.items() if isinstance(length, int)}
    try:
        if ledger.exists():
            lengths[run_id] = max(lengths.get(run_id, 0), ledger.stat().st_size)
        if (written := {**dict([*lengths.items()][-KEPT:]), **runs}) == known:
            return
        with files.atomic_write(file, 0o600) as opened:
            opened.write(json.dumps(written).encode())
    except OSError as error:
        raise _unusable(file, error) from None


def _unusable(file: Path, error: Exception) -> StorageError:
    what = "cannot record which ledgers are unfinished"
    if isinstance(error, OSError):
        return storage_error(file, what, error, "name another folder with --state-dir")
    return StorageError(f"{file}: {what} ({error}); remove it if it is broken, {SAME_COMMAND}")
