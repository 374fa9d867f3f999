"""Calls made by the workers of a Dask cluster, driven by one coordinator.

Exports `coordinator` (the run's engine), `worker` (what runs at workers) and `dask_client` (the cluster).
Dask is imported only where a cluster is used. It never reads or writes a ledger.
"""

__all__ = ["coordinator", "dask_client", "worker"]
