"""Unfinished ledgers of the same manifest at other paths: a new ledger would send their rows again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from batch_snapshot import paths
from batch_snapshot.errors import BatchSnapshotError, InputError
from batch_snapshot.ledger import open_runs, reader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_snapshot.config.options import Options
    from batch_snapshot.ledger.records import Header

#: Ledgers that a message names; the rest are counted.
NAMED = 5


class OtherLedger(NamedTuple):
    path: Path
    run_id: str
    #: It has vanished, or another run's ledger is in its place.
    gone: bool


def check_other_ledgers(
    files: Iterable[Path], path: Path, name: str, options: Options, began: Header | None
) -> frozenset[str]:
    """Refuse to begin a ledger while an unfinished one of the same manifest and account is elsewhere.

    Returns:
        The paths of the ledgers that are given up for this one, as they are recorded.
    """
    others = _other_ledgers(files, path, name, options)
    if not others or (began and reader.names_rows(path)):
        return frozenset()
    if options.new_ledger or (began and began.settings.get("new_ledger")):
        return frozenset(str(other.path) for other in others)
    raise InputError(_refusal(path, name, others))


def _refusal(path: Path, name: str, others: list[OtherLedger]) -> str:
    first = others[0]
    shown = [f"{other.path} (run {other.run_id}{', gone' if other.gone else ''})" for other in others[:NAMED]]
    more = f" and {len(others) - NAMED:,} more" if len(others) > NAMED else ""
    put_back = "put it back, and " if first.gone else ""
    return (
        f"{path}: would be a new ledger, but manifest {name!r} has a run that is not finished: "
        f"{', '.join(shown)}{more}; only its ledger knows what was made. To resume it, {put_back}give "
        f"--ledger {shlex.quote(str(first.path))}; to begin anew, which makes all its snapshots again, give "
        "--new-ledger"
    )


def _other_ledgers(files: Iterable[Path], path: Path, name: str, options: Options) -> list[OtherLedger]:
    """Those recorded, the latest first; not those of other days by a pattern with {date}."""
    runs: dict[str, str] = {}
    for file in files:
        runs |= open_runs.unfinished_runs(file)
    here, pattern = path.resolve(), options.ledger or ""
    others = []
    for text, run_id in reversed(runs.items()):
        other = Path(text)
        if other != here and not paths.is_dated_ledger(pattern, name, other):
            others += _if_unfinished(other, run_id)
    return others


def _if_unfinished(path: Path, run_id: str) -> list[OtherLedger]:
    """The ledger, unless its run has nothing left to send, or has sent nothing."""
    try:
        past = reader.history_of(path)
    except (BatchSnapshotError, OSError):
        return [OtherLedger(path, run_id, gone=False)]
    if past.first is None or past.first.run_id != run_id:
        return [OtherLedger(path, run_id, gone=True)]
    sent = past.succeeded or past.unfinished
    return [OtherLedger(path, run_id, gone=False)] if sent and not past.finished else []
