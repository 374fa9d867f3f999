"""What a person sees while a run goes on: a plain line, every few seconds or in place."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from batch_snapshot import forecast

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_snapshot.batch import View
    from batch_snapshot.lane import Lane
    from batch_snapshot.model import Outcome

#: Seconds between two lines in a log, and between two looks of a line that is redrawn.
LINES_EVERY = 5.0
REDRAW_EVERY = 0.5


async def lines(view: View, write: Callable[[str], None]) -> None:
    """Write a line every few seconds: for logs and pipes."""
    while True:
        await anyio.sleep(LINES_EVERY)
        write(line(view) + "\n")


async def redrawn(view: View, write: Callable[[str], None], width: int) -> None:
    """Keep one line up to date: for terminals."""
    try:
        while True:
            write("\r" + line(view)[: width - 1].ljust(width - 1))
            await anyio.sleep(REDRAW_EVERY)
    finally:
        write("\r" + " " * (width - 1) + "\r")


def line(view: View) -> str:
    """Say how far the run is."""
    counts = view.counts
    done = counts.total - counts.unattempted
    share = done / counts.total if counts.total else 1.0
    traffic = [lane.traffic for lane in view.lanes.values()]
    calls, throttled = sum(t.calls for t in traffic), sum(t.throttled for t in traffic)
    speed = calls / view.elapsed if view.elapsed > 0 else 0.0
    parts = [f"{timedelta(seconds=int(view.elapsed))}", f"{done:,}/{counts.total:,} rows ({share:.0%})"]
    if counts.failed:
        parts.append(f"{counts.failed:,} failed")
    if counts.in_doubt:
        parts.append(f"{counts.in_doubt:,} in doubt")
    parts.append(f"{speed:,.1f}/s")
    if throttled:
        parts.append(f"{throttled:,} throttled")
    parts += [
        _waiting(name, lane, many=len(view.lanes) > 1)
        for name, lane in view.lanes.items()
        if lane.pacer.waiting
    ]
    if (left := view.left) is not None and left < float("inf"):
        parts.append(f"{forecast.span(left)} left")
    return "  ".join(parts)


def _waiting(name: str, lane: Lane, *, many: bool) -> str:
    """Say which spent window is waited for."""
    if lane.pacer.waiting is None:
        return ""
    spent, until = lane.pacer.waiting
    wait = forecast.span(max(0.0, until - lane.pacer.now()))
    return f"{f'{name}: ' if many else ''}{spent.window.name} spent, opens in {wait}"


def outcome_line(outcome: Outcome) -> str:
    """Say what became of one row."""
    row = outcome.request.row
    what = f"{row.engagement}/{row.resource} {outcome.status.replace('_', ' ')}"
    if outcome.error:
        return f"{what}: {outcome.error.code}: {outcome.error.message}"
    return f"{what}: revision {outcome.revision}"
