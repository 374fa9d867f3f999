"""A run that a `coordinator` drives, and whose calls the `worker`s of a Dask cluster make (`dask_client`).

Dask is imported only where a cluster is used.
"""

__all__ = ["coordinator", "dask_client", "worker"]
