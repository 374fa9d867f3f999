"""The beginning of a run that leaves rows out: what it takes to know them, in good order whatever happens."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import anyio

from batch_snapshot import paths
from batch_snapshot.config.options import state_folder_of
from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.errors import DeferredError, InputError, ManifestError
from batch_snapshot.jobs import skip_filter
from batch_snapshot.jobs.skip_filter import SkippedRows
from batch_snapshot.ledger import codec
from batch_snapshot.ledger.snapshot_index import SnapshotIndex, world_of
from batch_snapshot.manifest import filters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from batch_snapshot.config.options import Options
    from batch_snapshot.engine.reader import Reader
    from batch_snapshot.engine.run_state import RunState
    from batch_snapshot.jobs.job import Job
    from batch_snapshot.ledger.history import Header
    from batch_snapshot.models import Row, Skip, Status

#: Seconds between two looks whether to give way to a stop.
LOOK_AGAIN = 0.1


@dataclass(frozen=True, slots=True)
class _Recorder:
    """Records rows that are left out, wherever their state is kept."""

    doing: Job
    append: Callable[[bytes], None]
    statuses: Counter[Status | Skip]
    now: Callable[[], datetime]

    async def record(self, reason: Skip, rows: Sequence[Row]) -> None:
        self.append(codec.encode_skip(self.doing.run_id, self.now(), reason, rows))
        for row in rows:
            self.doing.past.skip(reason, row.key)
        self.statuses[reason] += len(rows)
        await anyio.lowlevel.checkpoint()


class SkipStep(NamedTuple):
    """How rows will be left out."""

    choose: Callable[[], Awaitable[SkippedRows]]
    readers: Mapping[str, Reader]
    warnings: Sequence[str]

    @property
    def reads(self) -> dict[str, int]:
        """The reads that it took, by operation."""
        return dict(sorted(sum((reader.calls for reader in self.readers.values()), Counter()).items()))


def skipping_requested(doing: Job, options: Options) -> bool:
    """Whether rows are to be left out."""
    return doing.candidates is not None and bool(options.changed_since or options.skip_active_jobs)


def changed_since(options: Options, now: datetime) -> float | str | None:
    """From when on changes count: a time in seconds since the epoch, or "last"; None: nobody asks.

    Raises:
        InputError: that is no time.
    """
    if options.changed_since in {None, "last"}:
        return options.changed_since
    try:
        return filters.since(options.changed_since or "", now).timestamp()
    except ValueError as error:
        raise InputError(f"--changed-since: {error}; or last") from None


@contextmanager
def prepare_skipping(
    doing: Job,
    options: Options,
    header: Header,
    readers: Mapping[str, Reader],
    *,
    skew: Callable[[str], timedelta],
    now: Callable[[], datetime],
    append: Callable[[bytes], None],
    statuses: Counter[Status | Skip],
) -> Iterator[SkipStep | None]:
    """Get ready to leave out rows; None: nobody asks for that.

    Args:
        doing: what is to be done.
        options: what is to be left out.
        header: of the ledger, which tells whose snapshots count.
        readers: by account.
        skew: the service's clock less ours, by account.
        now: the wall clock.
        append: writes a line to the ledger.
        statuses: the states of all rows by now.

    Raises:
        InputError: the options make no sense.
        StorageError: the index cannot be used.
    """
    if doing.candidates is None or not skipping_requested(doing, options):
        yield None
        return
    with SnapshotIndex(paths.index_file(state_folder_of(options))) as known:
        choice = skip_filter.SkipRules(
            since=changed_since(options, now()),
            active_jobs=options.skip_active_jobs,
            readers=readers,
            index=known,
            world=world_of(header),
            skew=skew,
            now=now().timestamp(),
            skip=_Recorder(doing, append, statuses, now).record,
        )
        warnings = known.refresh(doing.path.parent)
        yield SkipStep(partial(skip_filter.choose_skipped_rows, doing.candidates, choice), readers, warnings)


async def skip_rows(engine: RunState, leaving: SkipStep) -> Counter[str]:
    """Leave out rows before the first is sent; what can't be found out stops an account in good order.

    Returns:
        How many of each account.
    """
    chosen = SkippedRows()

    async def give_way(scope: anyio.CancelScope) -> None:
        while engine.stop is None:
            await anyio.sleep(LOOK_AGAIN)
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(give_way, group.cancel_scope)
        try:
            chosen = await leaving.choose()
        except ManifestError as error:
            engine.request_stop(Stop(StopKind.STOPPED, str(error)))
        group.cancel_scope.cancel()
    for account, trouble in chosen.troubles.items():
        kind = StopKind.DEFERRED if isinstance(trouble, DeferredError) else StopKind.STOPPED
        engine.stop_account(account, Stop(kind, str(trouble)))
    return chosen.left_out
