"""`run` and `retry` for programs that are not asynchronous: they return when the run is over.

Where an event loop is running already, as in a notebook, they run in a thread of their own, and the
callbacks of `Hooks` are called from there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.from_thread import start_blocking_portal

from batch_snapshot.errors import InputError
from batch_snapshot.jobs import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from batch_snapshot.config.options import Options
    from batch_snapshot.jobs.plan import Selection
    from batch_snapshot.jobs.run import Hooks
    from batch_snapshot.ledger.history import History
    from batch_snapshot.reporting.summary import Summary

T = TypeVar("T")


def run_sync(path: Path | str, options: Options | None = None, hooks: Hooks | None = None) -> Summary:
    """Do what `run` does, and return when it is over.

    Inside a running loop it works too, but blocks that loop; `await run(…)` does not.

    Raises:
        InputError: as `run`; or `Hooks(signals=True)` inside a running loop.
        StorageError: as `run`.
    """
    return _run_to_end(partial(run.run, path, options, hooks), hooks)


def retry_sync(
    path: Path | str,
    selection: Callable[[History], Selection] | Selection | None = None,
    options: Options | None = None,
    hooks: Hooks | None = None,
) -> Summary:
    """Do what `retry` does, and return when it is over; see `run_sync`."""
    return _run_to_end(partial(run.retry, path, selection, options, hooks), hooks)


def _run_to_end(work: Callable[[], Awaitable[T]], hooks: Hooks | None) -> T:
    if not _loop_is_running():
        return anyio.run(work)
    if hooks and hooks.signals:
        raise InputError(
            "Hooks(signals=True): a loop is running here, and only the main thread's own run can handle "
            "signals; leave signals out, or await batch_snapshot.run"
        )
    # An exception in the block, such as an interrupt, ends the work before it is raised further.
    with start_blocking_portal() as portal:
        return portal.call(work)


def _loop_is_running() -> bool:
    try:
        anyio.get_current_task()
    except RuntimeError:
        return False
    return True
