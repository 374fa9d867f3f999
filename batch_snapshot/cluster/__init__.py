"""Calls made by the workers of a Dask cluster, driven by one coordinator.

Exports `coordinator` (the engine's counterpart in the run's process), `dask_client` (the cluster) and `batch`
(what they hand each other). Dask is imported only where a cluster is used. It never reads or writes a ledger.
"""

__all__ = ["batch", "coordinator", "dask_client"]
