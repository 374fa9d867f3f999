"""Calls made by the workers of a Dask cluster, driven by one coordinator.

Exports `coordinator` (the engine's counterpart in the run's process), `posts` and `lease`. It imports
Dask only when a cluster is used, and never reads or writes a ledger.
"""

__all__ = [
    "coordinator",
    "lease",
    "posts",
]
