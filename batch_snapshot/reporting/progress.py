"""What a person sees while a run goes on: a block in place on a terminal, else a line every few seconds."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self, cast

import anyio

from batch_snapshot.clock import utc_now
from batch_snapshot.ratelimit import forecast
from batch_snapshot.reporting import display
from batch_snapshot.reporting.display import DisplayPart, Frame, ShownFailure, Waiting
from batch_snapshot.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from types import TracebackType

    from batch_snapshot.engine.account import AccountState
    from batch_snapshot.models import Outcome
    from batch_snapshot.reporting.view import RunView

#: Seconds between two lines in a log, and between two frames of a display.
LINES_EVERY = 5.0
REDRAW_EVERY = 0.25
#: So many rows that failed in one way, one after the other, are worth a word.
TELLING = 10
#: Seconds over which the present rate is measured.
RECENT = 10.0


async def watch(
    view: RunView,
    show: Callable[[Frame], None],
    *,
    every: float,
    first: float | None = None,
    now: Callable[[], datetime] = utc_now,
) -> None:
    """Show a frame of the run every few seconds.

    Args:
        view: the run.
        show: takes the frames.
        every: seconds from one to the next.
        first: seconds until the first; None: as many.
        now: the wall clock, for the time of the end.
    """
    gauge = ProgressMeter(view)
    await anyio.sleep(every if first is None else first)
    while True:
        show(gauge.frame(now()))
        await anyio.sleep(every)


class ProgressMeter:
    """Reads a run; remembers enough to tell how fast it is now."""

    def __init__(self, view: RunView) -> None:
        """Begin to look at `view`."""
        self._view = view
        self._seen: deque[tuple[float, Counter[str]]] = deque([(view.elapsed, self._calls())])

    def frame(self, now: datetime) -> Frame:
        """The run as it is `now`."""
        view = self._view
        traffic = [lane.traffic for lane in view.lanes.values()]
        rates = self._rates()
        return Frame(
            name=view.name,
            counts=view.counts,
            elapsed=view.elapsed,
            left=view.left,
            ends=_moment(view.left, now),
            calls=sum(each.calls for each in traffic),
            throttled=sum(each.throttled for each in traffic),
            parts=[self._part(name, lane, rates[name]) for name, lane in view.lanes.items()],
            stopping=self._stopping(),
        )

    def _stopping(self) -> str | None:
        course = self._view.course
        if course is None or course.stop is None:
            return None
        calls, left = course.in_flight, course.drain_left
        waiting = f"waiting for {plural(calls, 'call')} in flight"
        return f"stopping: {waiting}" + ("" if left is None else f", {left:.0f} s at most")

    def _part(self, name: str, lane: AccountState, rate: float) -> DisplayPart:
        view, now = self._view, lane.pacer.now()
        waiting = None
        if lane.pacer.waiting is not None:
            spent, until = lane.pacer.waiting
            waiting = Waiting(spent.window.name, max(0.0, until - now))
        return DisplayPart(
            name=name,
            done=view.settled[name],
            rows=view.todo.get(name, 0),
            rate=rate,
            allowed=lane.pacer.pace.rate(now),
            throttled=lane.traffic.throttled,
            window=max(view.windows(name), key=lambda window: window.used / window.limit, default=None),
            waiting=waiting,
            trouble=_trouble(lane, view.todo.get(name, 0) - view.settled[name], now),
            stopped=lane.stop.reason if lane.stop else None,
        )

    def _calls(self) -> Counter[str]:
        return Counter({name: lane.traffic.calls for name, lane in self._view.lanes.items()})

    def _rates(self) -> Counter[str] | dict[str, float]:
        """Calls a second of each account over the last seconds."""
        now, calls = self._view.elapsed, self._calls()
        self._seen.append((now, calls))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RECENT:
            self._seen.popleft()
        since, before = self._seen[0]
        seconds = now - since
        return {name: (calls[name] - before[name]) / seconds if seconds > 0 else 0.0 for name in calls}


def _trouble(lane: AccountState, rows: int, now: float) -> ShownFailure | None:
    """What an account pauses for, or how all of its rows fail; None: nothing of the kind."""
    if lane.pause is not None:
        return ShownFailure(lane.pause.shown, rows, max(0.0, lane.pause.next_at - now))
    if lane.breaker.count >= TELLING:
        return ShownFailure(f"{lane.breaker.count} {lane.breaker.trouble.what}", rows)
    return None


def _moment(left: float | None, now: datetime) -> str | None:
    """When so many seconds are over, in words for people; None: nobody knows."""
    if left is None or left == float("inf"):
        return None
    with suppress(OverflowError, ValueError):
        return forecast.moment(left, now.astimezone())
    return None


class Screen:
    """A block on a terminal that is kept up to date in place, and has room above it for lines.

    Leaving it wipes the block. Where nobody can read, `write` is to take all the same.
    """

    def __init__(
        self, write: Callable[[str], None], *, width: int | None = None, encoding: str = "utf-8"
    ) -> None:
        """Draw with `write`.

        Args:
            write: takes text with control sequences.
            width: of the terminal, in columns; None: as it is, and changes.
            encoding: of the terminal: without UTF-8 the bar is of plain characters.
        """
        from rich.console import Console  # noqa: PLC0415 - a run in a pipe draws nothing
        from rich.live import Live  # noqa: PLC0415

        self._paused = False
        self._ascii = encoding.replace("-", "").lower() != "utf8"
        self._console = Console(
            file=cast("IO[str]", _TerminalStream(write)),
            force_terminal=True,
            width=width,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        """Begin; nothing is drawn before the first frame."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wipe the block."""
        self.close()

    def close(self) -> None:
        """Wipe the block; a later frame draws it again."""
        self._live.stop()

    def pause(self) -> None:
        """Wipe the block, and draw none until `resume`."""
        self._paused = True
        self.close()

    def resume(self) -> None:
        """Let the next frame be drawn again."""
        self._paused = False

    def show(self, frame: Frame) -> None:
        """Draw a frame over the one before."""
        if self._paused:
            return
        self._live.start()
        drawn = display.block(frame, self._console.width, ascii_only=self._ascii)
        self._live.update(drawn, refresh=True)

    def say(self, text: str) -> None:
        """Write a line above the block."""
        from rich.text import Text  # noqa: PLC0415

        self._console.print(Text(text), soft_wrap=True)


class _TerminalStream:
    """What rich takes for a file."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def write(self, text: str) -> int:
        self._write(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def outcome_line(outcome: Outcome) -> str:
    """Say what became of one row."""
    row = outcome.request.row
    what = f"{row.engagement}/{row.resource} {outcome.status.replace('_', ' ')}"
    if outcome.error:
        return f"{what}: {outcome.error.code}: {outcome.error.message}"
    return f"{what}: revision {outcome.revision}"
