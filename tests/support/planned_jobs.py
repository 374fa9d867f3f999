"""The job of a run as `jobs.run` makes it, for tests that look at it before anything is called."""

from collections.abc import Iterator
from contextlib import contextmanager

from batch_snapshot.jobs.job import Job, open_retry, open_run
from batch_snapshot.jobs.locked import lock_ledger, lock_retried_ledger


@contextmanager
def run_job(manifest, options, now, **more) -> Iterator[Job]:
    """Hold the locks of a run of the manifest for as long as the block lasts."""
    with lock_ledger(manifest, options, now, **more) as locked:
        yield open_run(locked, manifest)


@contextmanager
def retry_job(ledger, options, now, selection=None) -> Iterator[Job]:
    """Hold the locks of a retry of the ledger for as long as the block lasts."""
    with lock_retried_ledger(ledger, options, now) as locked:
        yield open_retry(*locked, selection)
