"""The job of a run as `jobs.run` makes it, for tests that look at it before anything is called."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from batch_snapshot.jobs.job import Job, open_run
from batch_snapshot.jobs.locked import lock_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def run_job(manifest, options, now, **more) -> Iterator[Job]:
    """Hold the locks of a run of the manifest for as long as the block lasts."""
    with lock_ledger(manifest, options, now, **more) as locked:
        yield open_run(locked, manifest)
