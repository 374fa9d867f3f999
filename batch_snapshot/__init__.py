"""Create AWS Partner Central resource snapshots in bulk: exactly one for each row, whatever breaks.

::

    summary = await batch_snapshot.run("backfill.yaml", batch_snapshot.Options(rate=1.0))
    summary = batch_snapshot.run_sync("backfill.yaml", batch_snapshot.Options(rate=1.0))

Names below `batch_snapshot` that this module does not list are not for others to build on.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batch_snapshot.config.options import Options, Settings
    from batch_snapshot.errors import (
        BatchSnapshotError,
        InputError,
        LedgerError,
        LedgerWriteError,
        LockedError,
        ManifestError,
        StorageError,
    )
    from batch_snapshot.jobs.plan import Selection
    from batch_snapshot.jobs.run import Hooks, retry, retry_sync, run, run_sync
    from batch_snapshot.models import Outcome
    from batch_snapshot.reporting.summary import Summary

__version__ = "0.1.0"

__all__ = [
    "BatchSnapshotError",
    "Hooks",
    "InputError",
    "LedgerError",
    "LedgerWriteError",
    "LockedError",
    "ManifestError",
    "Options",
    "Outcome",
    "Selection",
    "Settings",
    "StorageError",
    "Summary",
    "__version__",
    "retry",
    "retry_sync",
    "run",
    "run_sync",
]

#: The module of each name. It is imported at the first use of the name, because some import aioboto3.
_MODULES = {
    **dict.fromkeys(("Hooks", "retry", "retry_sync", "run", "run_sync"), "jobs.run"),
    **dict.fromkeys(("Options", "Settings"), "config.options"),
    "Outcome": "models",
    "Selection": "jobs.plan",
    "Summary": "reporting.summary",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
