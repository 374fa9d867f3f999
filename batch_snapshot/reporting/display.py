"""A running run as people see it: a frame of plain values → a line, JSON, or a block for terminals. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import floor, isfinite, isinf
from typing import TYPE_CHECKING, Any, NamedTuple

from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.reporting.summary import Counts, as_group, largest_first
from batch_snapshot.text import duration, escaped, plural, truncated

if TYPE_CHECKING:
    # Rich takes long to import, and most commands draw nothing.
    from rich.text import Text

    from batch_snapshot.engine.limits import AccountForecast

#: Accounts that have a line of their own; a block shows more where the terminal is high enough.
SHOWN_ACCOUNTS = 9
SHOWN_GROUPS = 3
#: Lines of a block that are not accounts: the progress, failures, and the head of the table.
OTHER_LINES = 12
#: From this many columns on, the lines of accounts have all columns.
WIDE = 100

Piece = tuple[str, str]
#: Words with their styles that belong together.
Pieces = list[Piece]


class WindowUse(NamedTuple):
    name: str
    used: int
    limit: int

    def __str__(self) -> str:
        return f"{self.name} {self.used:,} of {self.limit:,} used"


def window_uses(forecast: "AccountForecast", more: int = 0) -> list[WindowUse]:
    """How much of an account's quota windows is used: as forecast, and by so many more calls."""
    return [
        WindowUse(window.name, min(used + more, window.limit), window.limit)
        for window, used in zip(forecast.windows, forecast.used, strict=True)
        if window.limit
    ]


class Waiting(NamedTuple):
    window: str
    seconds: float


class ShownFailure(NamedTuple):
    """Why an account's rows are not sent, or why all of them fail."""

    what: str
    rows_waiting: int
    #: Until the next try; None: there is no pause.
    next_try_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayPart:
    name: str
    #: Of this run: rows that are settled, and all rows; None: not known.
    done: int
    rows: int | None
    #: Of the settled rows, those that failed or are in doubt.
    failed: int = 0
    rate: float = 0.0
    #: Calls a second that are allowed; inf: the limit is being searched; None: not known.
    allowed: float | None = None
    #: Where that comes from: declared, measured, from the last run; None: not known.
    source: str | None = None
    throttled: int = 0
    windows: Sequence[WindowUse] = ()
    waiting: Waiting | None = None
    failure: ShownFailure | None = None
    stopped: str | None = None

    @property
    def fullest(self) -> WindowUse | None:
        return max(self.windows, key=lambda window: window.used / window.limit, default=None)

    @property
    def counted(self) -> bool:
        """Whether its allowed rate counts: it can call now, or did in the last seconds."""
        return bool(self.rate) or (self.stopped is None and not self.waiting)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A run at one moment. Times are in seconds."""

    name: str
    counts: Counts
    elapsed: float
    at: datetime | None = None
    #: Until the end, with the waits for quota windows; None: too early to say.
    left: float | None = None
    #: That time of day, for people.
    ends: str | None = None
    #: Rows that are left to another run then, because a quota window will be spent.
    deferred: int = 0
    calls: int = 0
    throttled: int = 0
    parts: Sequence[DisplayPart] = ()
    #: What a run that is stopping waits for.
    stopping: str | None = None
    #: The command that resumes a paused run; None: it is not paused.
    resume: str | None = None
    #: Rows that failed or are in doubt.
    failures: Mapping[FailureGroup, int] = field(default_factory=dict)
    last_error: str | None = None

    @property
    def notice(self) -> list[str]:
        """Why no further call begins, and the command that changes this; instead of the time that is left."""
        if self.stopping or not self.resume:
            return [self.stopping] if self.stopping else []
        return ["paused; this continues it:", escaped(self.resume)]

    @property
    def deferral(self) -> str:
        return f"; {plural(self.deferred, 'row')} will be deferred" if self.deferred else ""

    @property
    def done(self) -> int:
        return self.counts.total - self.counts.unattempted

    @property
    def share(self) -> float:
        return self.done / self.counts.total if self.counts.total else 1.0

    @property
    def rate(self) -> float:
        return sum(part.rate for part in self.parts)

    @property
    def allowed(self) -> float | None:
        """Allowed calls a second of all accounts that can call now, or did in the last seconds."""
        rates = [part.allowed for part in self.parts if part.counted]
        return None if not rates or None in rates else sum(rate for rate in rates if rate is not None)

    @property
    def source(self) -> str | None:
        """Where the allowed rates come from, if it is the same for all of them."""
        sources = {part.source for part in self.parts if part.counted}
        return sources.pop() if len(sources) == 1 else None


def line(frame: Frame) -> str:
    counts = frame.counts
    parts = [f"{frame.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"] if frame.at else []
    parts += [
        duration(frame.elapsed),
        f"{frame.done:,}/{plural(counts.total, 'row')} ({_percent(frame.share)})",
    ]
    kinds = ", ".join(dict.fromkeys(group.kind for group, _ in largest_first(frame.failures)))
    if counts.failed:
        parts.append(f"{counts.failed:,} failed{f' ({kinds})' if kinds else ''}")
    if counts.in_doubt:
        parts.append(f"{counts.in_doubt:,} in doubt")
    if counts.skipped:
        parts.append(f"{sum(counts.skipped.values()):,} left out")
    parts.append(_speed_of(frame))
    if frame.throttled:
        parts.append(f"{frame.throttled:,} throttled")
    many = len(frame.parts) > 1
    waiting = [part for part in frame.parts if part.waiting or (part.failure and part.stopped is None)]
    parts += [f"{part.name}: {_status(part)}" if many else _status(part) for part in waiting[:SHOWN_ACCOUNTS]]
    if stopped := sum(part.stopped is not None for part in frame.parts):
        parts.append(f"{stopped} of {len(frame.parts)} accounts stopped" if many else "stopped")
    if frame.notice:
        parts += frame.notice
    elif frame.left is not None and isfinite(frame.left):
        parts.append(f"{duration(frame.left)} left{frame.deferral}")
    return "  ".join(parts)


def as_json(frame: Frame) -> dict[str, Any]:
    return {
        "elapsed_s": round(frame.elapsed, 3),
        "left_s": _finite(frame.left),
        "deferred_rows": frame.deferred,
        "rows": frame.counts.total,
        **frame.counts.as_dict(),
        "rate": round(frame.rate, 3),
        "allowed_rate": _finite(frame.allowed),
        "calls": frame.calls,
        "throttled_calls": frame.throttled,
        "stopping": frame.stopping,
        "paused": frame.resume is not None,
        "failures": [as_group(*each) for each in largest_first(frame.failures)],
        "last_error": frame.last_error,
        "accounts": {
            part.name: {
                "done": part.done,
                "rows": part.rows,
                "failed": part.failed,
                "rate": round(part.rate, 3),
                "allowed_rate": _finite(part.allowed),
                "rate_source": part.source,
                "throttled_calls": part.throttled,
                "window": part.fullest._asdict() if part.fullest else None,
                "waiting": part.waiting._asdict() if part.waiting else None,
                "trouble": part.failure._asdict() if part.failure else None,
                "stopped": part.stopped,
            }
            for part in frame.parts
        },
    }


def block(frame: Frame, width: int, height: int = 25, *, ascii_only: bool = False) -> "list[Text]":
    """The lines of the frame for a terminal of that size; readable without colour."""
    from rich.text import Text

    width = max(20, width - 1)
    alone = frame.parts[0] if len(frame.parts) == 1 else None
    share = f" ({frame.throttled / frame.calls:.1%})" if frame.throttled and frame.calls else ""
    throttled = f"{frame.throttled:,} of {plural(frame.calls, 'call')} throttled{share}"
    traffic = [(_speed_of(frame), "cyan"), (throttled, "")]
    command: Pieces = [(words, "bold") for words in frame.notice[1:]]
    quota: Pieces = [(str(window), "") for window in alone.windows] if alone else []
    lines = [
        _head(frame, width, ascii_only=ascii_only),
        *_flow([_states(frame), traffic, _times(frame), command, quota], width),
        *_failures(frame, width),
    ]
    if alone:
        lines += _flow([[(words, "yellow")] for words in [_status(alone)] if words], width)
    elif frame.parts:
        lines += _accounts(frame.parts, width, max(SHOWN_ACCOUNTS, height - OTHER_LINES))
    room = max(1, height - 1 - sum(len(words) // width for words, _ in command))
    shown = [Text.assemble(*pieces, no_wrap=True, end="") for pieces in lines[:room]]
    for text in shown:
        if text.plain.strip() not in frame.notice[1:]:  # a command is never cut: the terminal wraps it
            text.truncate(width, overflow="crop" if ascii_only else "ellipsis")
    return shown


def _flow(groups: Iterable[Pieces], width: int) -> list[Pieces]:
    """The groups one after the other; one that would be cut begins a new line."""
    lines: list[Pieces] = []
    used = width
    for group in filter(None, groups):
        length = sum(len(words) + 2 for words, _ in group)
        if used + length > width:
            lines.append([])
            used = 0
        used += length
        lines[-1] += [(f"  {words}", style) for words, style in group]
    return lines


def _head(frame: Frame, width: int, *, ascii_only: bool) -> Pieces:
    name = truncated(frame.name, width // 3)
    tail = f" {_percent(frame.share):>4}  {frame.done:,} of {plural(frame.counts.total, 'row')}"
    columns = width - len(name) - len(tail) - 2
    full, empty = ("#", "-") if ascii_only else ("━", "─")
    if columns < 5:
        return [(name, "bold"), (f" {tail}", "")]
    filled = int(columns * frame.share)
    bar = [(full * filled, "green"), (empty * (columns - filled), "dim")]
    return [(f"{name}  ", "bold"), *bar, (tail, "bold")]


def _states(frame: Frame) -> Pieces:
    counts, left_out = frame.counts, sum(frame.counts.skipped.values())
    return [
        (f"{counts.succeeded:,} succeeded", "green" if counts.succeeded else ""),
        (f"{counts.failed:,} failed", "bold red" if counts.failed else "dim"),
        (f"{counts.in_doubt:,} in doubt", "yellow" if counts.in_doubt else "dim"),
        *([(f"{left_out:,} left out", "dim")] if left_out else []),
        (f"{counts.unattempted:,} to do", "" if counts.unattempted else "dim"),
    ]


def _times(frame: Frame) -> Pieces:
    elapsed = (f"{duration(frame.elapsed)} elapsed", "")
    if frame.notice:
        return [elapsed, (frame.notice[0], "bold yellow")]
    if frame.left is None:
        left = "the time left is not known yet"
    elif isinf(frame.left):
        left = "never ends under these quotas"
    else:
        until = f", until {frame.ends}" if frame.ends else ""
        left = f"{duration(frame.left)} left{until}{frame.deferral}"
    return [elapsed, (left, "")]


def _failures(frame: Frame, width: int) -> list[Pieces]:
    groups = [
        f"{number:,} {'in doubt' if group.status == 'in_doubt' else 'failed'}: {group.kind} {group.code}"
        for group, number in largest_first(frame.failures)
    ]
    more = [f"… and {plural(len(groups) - SHOWN_GROUPS, 'other kind')}"] if len(groups) > SHOWN_GROUPS else []
    pieces = [[(words.rstrip(), "red")] for words in groups[:SHOWN_GROUPS] + more]
    last = [[(f"last error: {escaped(frame.last_error)}", "red")]] if frame.last_error else []
    return _flow(pieces, width) + _flow(last, width)


def _accounts(parts: Sequence[DisplayPart], width: int, most: int) -> list[Pieces]:
    """A table of the accounts: those that stopped, wait or have rows left first, if not all have a line."""
    wide = width >= WIDE
    if len(parts) > most:
        done = {part.name: part.rows is not None and part.done >= part.rows for part in parts}
        parts = sorted(parts, key=lambda part: (part.stopped is None, not _status(part), done[part.name]))
        parts = [*parts[:most], _sum(parts[most:])]
    details = ["problems", "throttled"] if wide else []
    lines = [
        ["account", "rows", "calls/s", *details, "quota"],
        *(_columns(part, wide=wide) for part in parts),
    ]
    sizes = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    sizes[0] = min(sizes[0], 36 if wide else 20)
    styles = ["dim", *("yellow" if _status(part) else "" for part in parts)]
    table: list[Pieces] = []
    for (name, *numbers, quota), style in zip(lines, styles, strict=True):
        cells = [truncated(name, sizes[0]).ljust(sizes[0])]
        cells += [number.rjust(size) for number, size in zip(numbers, sizes[1:], strict=True)]
        table.append([("".join(f"  {cell}" for cell in [*cells, quota]).rstrip(), style)])
    return table


def _columns(part: DisplayPart, *, wide: bool) -> list[str]:
    rows = f"/{part.rows:,}" if part.rows is not None else ""
    known = part.allowed is not None and isfinite(part.allowed)
    allowed = f" of {_rate(part.allowed or 0)}" if known else ""
    details = [f"{part.failed:,}", f"{part.throttled:,}"] if wide else []
    windows = part.windows if wide else filter(None, [part.fullest])
    quota = _status(part) or ", ".join(map(str, windows))
    return [part.name, f"{part.done:,}{rows}", f"{_rate(part.rate)}{allowed}", *details, quota]


def _sum(parts: Sequence[DisplayPart]) -> DisplayPart:
    """The accounts that have no line of their own."""
    known = [part.rows for part in parts if part.rows is not None]
    return DisplayPart(
        name=f"{len(parts):,} more",
        done=sum(part.done for part in parts),
        rows=sum(known) if len(known) == len(parts) else None,
        failed=sum(part.failed for part in parts),
        rate=sum(part.rate for part in parts),
        throttled=sum(part.throttled for part in parts),
    )


def _status(part: DisplayPart) -> str:
    """Why the account stopped, or what it waits for, with the time first; empty: neither."""
    if part.stopped is not None:
        return f"stopped: {part.stopped.removeprefix(f'account {part.name}: ')}"
    if part.failure is not None:
        what, _, seconds = part.failure
        return what if seconds is None else f"next try in {seconds:.0f} s: {what}"
    if part.waiting is not None:
        return f"{duration(part.waiting.seconds)} until {part.waiting.window} opens"
    return ""


def _rate(rate: float) -> str:
    return f"{rate:,.1f}" if rate >= 10 or not rate else f"{rate:.2f}"


def _speed_of(frame: Frame) -> str:
    allowed = frame.allowed
    now = f"{_rate(frame.rate)}/s"
    if not allowed:
        return now
    if isinf(allowed):
        return f"{now} (measuring the limit)"
    return f"{now} of {_rate(allowed)}/s {frame.source or 'allowed'}"


def _percent(share: float) -> str:
    """Never 100 % before the last row."""
    return f"{floor(share * 100 + 1e-9)}%"


def _finite(value: float | None) -> float | None:
    return round(value, 3) if value is not None and isfinite(value) else None
