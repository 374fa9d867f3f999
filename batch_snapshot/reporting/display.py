"""A running run as people see it: a frame of plain values → a line, JSON, or a block for terminals. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, isfinite, isinf
from typing import TYPE_CHECKING, Any, NamedTuple

from batch_snapshot.reporting.summary import Counts
from batch_snapshot.text import duration, plural

if TYPE_CHECKING:
    # These take long to import, and most commands draw nothing.
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from batch_snapshot.engine.limits import AccountForecast

#: Accounts that have a line of their own; one line sums up the rest.
SHOWN_ACCOUNTS = 9
#: Blanks between two columns of a table.
GAP = 2
#: The block uses at most so many columns of a terminal.
WIDEST = 120


class WindowUse(NamedTuple):
    name: str
    used: int
    limit: int


def window_uses(forecast: "AccountForecast", more: int = 0) -> list[WindowUse]:
    """How much of an account's quota windows is used: as forecast, and by so many more calls."""
    return [
        WindowUse(window.name, min(used + more, window.limit), window.limit)
        for window, used in zip(forecast.windows, forecast.used, strict=True)
        if window.limit
    ]


def fullest(windows: Iterable[WindowUse]) -> WindowUse | None:
    return max(windows, key=lambda window: window.used / window.limit, default=None)


class Waiting(NamedTuple):
    """A spent window that an account waits for."""

    window: str
    seconds: float


class ShownFailure(NamedTuple):
    """What keeps an account's rows from being sent, or makes all of them fail."""

    what: str
    rows_waiting: int
    #: Until the next try; None: there is no pause.
    next_try_s: float | None = None

    @property
    def waiting(self) -> str:
        rows = f"{plural(self.rows_waiting, 'row')} waiting"
        return rows if self.next_try_s is None else f"{rows}, next try in {self.next_try_s:.0f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayPart:
    """One account in a frame."""

    name: str
    #: Of this run: rows that are settled, and all rows; None: not known.
    done: int
    rows: int | None
    #: Calls a second now.
    rate: float = 0.0
    #: Calls a second that are allowed; inf: the limit is being searched; None: not known.
    allowed: float | None = None
    #: Where that comes from: declared, measured, from the last run; None: not known.
    source: str | None = None
    throttled: int = 0
    #: The fullest window.
    window: WindowUse | None = None
    waiting: Waiting | None = None
    failure: ShownFailure | None = None
    #: Why it stopped early.
    stopped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A run at one moment. Times are in seconds."""

    name: str
    counts: Counts
    elapsed: float
    #: Until the end, with the waits for quota windows; None: too early to say.
    left: float | None = None
    #: That time of day, for people.
    ends: str | None = None
    calls: int = 0
    throttled: int = 0
    parts: Sequence[DisplayPart] = ()
    #: What a run that is stopping waits for.
    stopping: str | None = None

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
        """Calls a second that are allowed, over those accounts that can call."""
        rates = [part.allowed for part in self.parts if part.stopped is None and not part.waiting]
        return None if not rates or None in rates else sum(rate for rate in rates if rate is not None)

    @property
    def source(self) -> str | None:
        """Where the allowed rates come from, if it is the same for all of them."""
        sources = {part.source for part in self.parts if part.stopped is None and not part.waiting}
        return sources.pop() if len(sources) == 1 else None


def line(frame: Frame) -> str:
    counts = frame.counts
    parts = [
        duration(frame.elapsed),
        f"{frame.done:,}/{counts.total:,} rows ({_percent(frame.share)})",
    ]
    if counts.failed:
        parts.append(f"{counts.failed:,} failed")
    if counts.in_doubt:
        parts.append(f"{counts.in_doubt:,} in doubt")
    if counts.skipped:
        parts.append(f"{sum(counts.skipped.values()):,} left out")
    parts.append(f"{_speed(frame.rate)}{_of_allowed(frame.allowed, frame.source)}")
    if frame.throttled:
        parts.append(f"{frame.throttled:,} throttled")
    many = len(frame.parts) > 1
    waiting = [part for part in frame.parts if part.waiting or (part.failure and part.stopped is None)]
    parts += [f"{part.name}: {_status(part)}" if many else _status(part) for part in waiting[:SHOWN_ACCOUNTS]]
    if stopped := sum(part.stopped is not None for part in frame.parts):
        parts.append(f"{stopped} of {len(frame.parts)} accounts stopped" if many else "stopped")
    if frame.stopping:
        parts.append(frame.stopping)
    elif frame.left is not None and isfinite(frame.left):
        parts.append(f"{duration(frame.left)} left")
    return "  ".join(parts)


def as_json(frame: Frame) -> dict[str, Any]:
    return {
        "elapsed_s": round(frame.elapsed, 3),
        "left_s": _finite(frame.left),
        "rows": frame.counts.total,
        **frame.counts.as_dict(),
        "rate": round(frame.rate, 3),
        "allowed_rate": _finite(frame.allowed),
        "calls": frame.calls,
        "throttled_calls": frame.throttled,
        "stopping": frame.stopping,
        "accounts": {
            part.name: {
                "done": part.done,
                "rows": part.rows,
                "rate": round(part.rate, 3),
                "allowed_rate": _finite(part.allowed),
                "rate_source": part.source,
                "throttled_calls": part.throttled,
                "window": part.window._asdict() if part.window else None,
                "waiting": part.waiting._asdict() if part.waiting else None,
                "trouble": part.failure._asdict() if part.failure else None,
                "stopped": part.stopped,
            }
            for part in frame.parts
        },
    }


def block(frame: Frame, width: int, *, ascii_only: bool = False) -> "RenderableType":
    """The frame for a terminal of that width; readable without colour."""
    from rich.console import Group  # noqa: PLC0415 - most commands draw nothing

    width = max(20, min(width - 1, WIDEST))
    rows: list[RenderableType] = [
        _head(frame, width, ascii_only=ascii_only),
        _states(frame),
        _traffic(frame),
        _times(frame),
    ]
    if len(frame.parts) > 1:
        rows.append(_accounts(_sorted(frame.parts), width))
    else:
        for part in frame.parts:
            rows += [_text((f"  {words}", "yellow")) for words in _status_lines(part)]
    return Group(*rows)


def _text(*pieces: tuple[str, str]) -> "Text":
    """One line of styled words, cut where the terminal ends."""
    from rich.text import Text  # noqa: PLC0415

    text = Text(no_wrap=True, overflow="ellipsis")
    for words, style in pieces:
        text.append(words, style)
    return text


def _head(frame: Frame, width: int, *, ascii_only: bool) -> "Text":
    name = frame.name if len(frame.name) <= width // 3 else f"{frame.name[: width // 3 - 1]}…"
    tail = f" {_percent(frame.share):>4}  {frame.done:,} of {frame.counts.total:,} rows"
    columns = width - len(name) - len(tail) - 2
    full, empty = ("#", "-") if ascii_only else ("━", "─")
    if columns < 5:
        return _text((name, "bold"), (f" {tail}", ""))
    filled = int(columns * frame.share)
    return _text(
        (f"{name}  ", "bold"), (full * filled, "green"), (empty * (columns - filled), "dim"), (tail, "bold")
    )


def _states(frame: Frame) -> "Text":
    counts, left_out = frame.counts, sum(frame.counts.skipped.values())
    return _text(
        (f"  {counts.succeeded:,} succeeded", "green" if counts.succeeded else ""),
        (f"   {counts.failed:,} failed", "bold red" if counts.failed else "dim"),
        (f"   {counts.in_doubt:,} in doubt", "yellow" if counts.in_doubt else "dim"),
        (f"   {left_out:,} left out" if left_out else "", "dim"),
        (f"   {counts.unattempted:,} to do", "" if counts.unattempted else "dim"),
    )


def _traffic(frame: Frame) -> "Text":
    share = f" ({frame.throttled / frame.calls:.1%})" if frame.throttled and frame.calls else ""
    pieces = [
        (f"  {_speed(frame.rate)}{_of_allowed(frame.allowed, frame.source)}", "cyan"),
        (f"   {frame.throttled:,} of {frame.calls:,} calls throttled{share}", ""),
    ]
    if len(frame.parts) == 1 and (window := frame.parts[0].window):
        pieces.append((f"   {_used(window)}", ""))
    return _text(*pieces)


def _times(frame: Frame) -> "Text":
    elapsed = (f"  {duration(frame.elapsed)} elapsed", "")
    if frame.stopping:
        return _text(elapsed, (f"   {frame.stopping}", "bold yellow"))
    if frame.left is None:
        left = "measuring: the time left is not known yet"
    elif isinf(frame.left):
        left = "no end in sight under these quotas"
    else:
        left = f"{duration(frame.left)} left" + (f", until {frame.ends}" if frame.ends else "")
    return _text(elapsed, (f"   {left}", ""))


def _accounts(parts: Sequence[DisplayPart], width: int) -> "Table":
    from rich.table import Table  # noqa: PLC0415

    lines = [("  account", "rows", "calls/s", "throttled", "quota"), *map(_account, parts[:SHOWN_ACCOUNTS])]
    if more := parts[SHOWN_ACCOUNTS:]:
        lines.append(_account_sums(more))
    longest = [max(len(line[column]) for line in lines) for column in range(4)]
    longest[0] = min(longest[0], 36 if width >= 100 else 20)
    table = Table.grid(padding=(0, GAP, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=longest[0])
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(5, width - sum(longest) - 4 * GAP))
    styles = ["dim", *("yellow" if _status(part) else "" for part in parts[:SHOWN_ACCOUNTS]), "dim"]
    for line, style in zip(lines, styles, strict=False):
        table.add_row(*line, style=style)
    return table


def _account(part: DisplayPart) -> tuple[str, str, str, str, str]:
    rows = f"/{part.rows:,}" if part.rows is not None else ""
    allowed = f" of {part.allowed:,.3g}" if part.allowed is not None and isfinite(part.allowed) else ""
    return (
        f"  {part.name}",
        f"{part.done:,}{rows}",
        f"{part.rate:,.3g}{allowed}",
        f"{part.throttled:,}",
        _status(part) or (_used(part.window) if part.window else ""),
    )


def _account_sums(parts: Sequence[DisplayPart]) -> tuple[str, str, str, str, str]:
    """The accounts that have no line of their own."""
    known = [part.rows for part in parts if part.rows is not None]
    rows = f"/{sum(known):,}" if len(known) == len(parts) else ""
    return (
        f"  {len(parts):,} more",
        f"{sum(part.done for part in parts):,}{rows}",
        f"{sum(part.rate for part in parts):,.3g}",
        f"{sum(part.throttled for part in parts):,}",
        "",
    )


def _sorted(parts: Sequence[DisplayPart]) -> Sequence[DisplayPart]:
    """If not all have a line: first those that stopped, then those that wait, then those with rows left."""
    if len(parts) <= SHOWN_ACCOUNTS:
        return parts
    return sorted(
        parts,
        key=lambda part: (
            part.stopped is None,
            part.waiting is None and part.failure is None,
            part.done == part.rows,
        ),
    )


def _status_lines(part: DisplayPart) -> list[str]:
    """What the account waits for, in lines that fit a narrow terminal."""
    if part.failure is not None and part.stopped is None:
        return [part.failure.what, part.failure.waiting]
    return [words] if (words := _status(part)) else []


def _status(part: DisplayPart) -> str:
    """Why the account stopped, or what it waits for; empty: neither."""
    if part.stopped is not None:
        return f"stopped: {part.stopped.removeprefix(f'account {part.name}: ')}"
    if part.failure is not None:
        return f"{part.failure.what}, {part.failure.waiting}"
    if part.waiting is not None:
        return f"{part.waiting.window} spent, opens in {duration(part.waiting.seconds)}"
    return ""


def _used(window: WindowUse) -> str:
    return f"{window.name} {window.used:,} of {window.limit:,} used"


def _speed(rate: float) -> str:
    return f"{rate:,.1f}/s" if rate >= 10 or not rate else f"{rate:.2f}/s"


def _of_allowed(allowed: float | None, source: str | None) -> str:
    if allowed is None or allowed == 0:
        return ""
    return " (measuring the limit)" if isinf(allowed) else f" of {_speed(allowed)} {source or 'allowed'}"


def _percent(share: float) -> str:
    """Never 100 % before the last row."""
    return f"{floor(share * 100 + 1e-9)}%"


def _finite(value: float | None) -> float | None:
    return round(value, 3) if value is not None and isfinite(value) else None
