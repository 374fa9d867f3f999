"""The step of a run that leaves rows out, before the first row is sent."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import anyio

from batch_snapshot import paths
from batch_snapshot.config.options import Options, state_folder_of
from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.errors import DeferredError, InputError, ManifestError
from batch_snapshot.jobs.skip_filter import SkippedRows, SkipRules, choose_skipped_rows
from batch_snapshot.ledger.snapshot_index import SnapshotIndex, service_of
from batch_snapshot.manifest import filters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from batch_snapshot.engine.reader import Reader
    from batch_snapshot.engine.run_state import RunState
    from batch_snapshot.jobs.recorder import Recorder

#: Seconds between two checks whether the run is to stop.
STOP_CHECK_EVERY = 0.1


async def _skip_nothing() -> SkippedRows:
    return SkippedRows()


class SkipStep(NamedTuple):
    choose: Callable[[], Awaitable[SkippedRows]] = _skip_nothing
    readers: Mapping[str, Reader] = MappingProxyType({})
    warnings: Sequence[str] = ()

    @property
    def reads(self) -> dict[str, int]:
        return dict(sorted(sum((reader.calls for reader in self.readers.values()), Counter()).items()))


def changed_since(options: Options, now: datetime) -> float | str | None:
    """From when on changes count: seconds since the epoch, or "last"; None: all rows are sent."""
    if options.changed_since in {None, "last"}:
        return options.changed_since
    try:
        return filters.since(options.changed_since or "", now).timestamp()
    except ValueError as error:
        raise InputError(f"--changed-since: {error}; or last") from None


@contextmanager
def prepare_skipping(
    options: Options, recorder: Recorder, readers: Mapping[str, Reader], skew: Callable[[str], timedelta]
) -> Iterator[SkipStep]:
    job = recorder.job
    if job.candidates is None or not (options.changed_since or options.skip_active_jobs):
        yield SkipStep()
        return
    with SnapshotIndex(paths.snapshot_index_file(state_folder_of(options))) as index:
        now = recorder.now()
        rules = SkipRules(
            since=changed_since(options, now),
            active_jobs=options.skip_active_jobs,
            readers=readers,
            index=index,
            service=service_of(recorder.header),
            skew=skew,
            now=now.timestamp(),
            skip=recorder.skip,
        )
        warnings = index.refresh(job.path.parent)
        yield SkipStep(partial(choose_skipped_rows, job.candidates, rules), readers, warnings)


async def skip_rows(engine: RunState, step: SkipStep) -> Counter[str]:
    """Leave out rows, and stop accounts whose state cannot be read; returns how many of each account."""
    skipped = SkippedRows()

    async def cancel_when_stopped(scope: anyio.CancelScope) -> None:
        while engine.stop is None:
            await anyio.sleep(STOP_CHECK_EVERY)
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_when_stopped, tasks.cancel_scope)
        try:
            skipped = await step.choose()
        except ManifestError as error:
            engine.request_stop(Stop(StopKind.STOPPED, str(error)))
        tasks.cancel_scope.cancel()
    for account, reason in skipped.errors.items():
        kind = StopKind.DEFERRED if isinstance(reason, DeferredError) else StopKind.STOPPED
        engine.stop_account(account, Stop(kind, str(reason)))
    return skipped.by_account
