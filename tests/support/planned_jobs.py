"""The job of a run as `batch.run` makes it, for tests that look at it before anything is called."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from batch_snapshot.jobs import job

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def run_job(listed, options, now, **more) -> Iterator[job.Job]:
    """Hold the locks of a run of the manifest `listed` for as long as the block lasts."""
    with job.lock_ledger(listed, options, now, **more) as held:
        yield job.open_run(held, listed)
