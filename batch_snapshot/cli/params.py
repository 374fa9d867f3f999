"""The types of values that flags take: times, paths, rates, windows, and names that shells complete."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import files, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click.shell_completion import CompletionItem

#: The longest time that a flag takes, in seconds: 100 years.
LONGEST_TIME = 36_525 * 86400.0

#: Bytes of a file beyond which a shell that completes a word does not wait for it to be read.
LARGEST_TO_COMPLETE = 5_000_000


def duration_text(seconds: float) -> str:
    """A time as `DurationParam` reads it, in its largest whole unit, such as 10m."""
    unit = max((unit for unit in text.UNITS if seconds % text.UNITS[unit] == 0), key=text.UNITS.__getitem__)
    return f"{seconds / text.UNITS[unit]:g}{unit}"


class DurationParam(click.ParamType[float]):
    """A time such as 90s, 15m, 6h, 1d or 1h30m, or 0; in seconds."""

    name = "duration"

    def __init__(self, *, bare: bool = False) -> None:
        """With `bare`, a number without a unit is in seconds, as for the simulator's small settings."""
        self._bare = bare

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float | int):
            return float(value)
        if self._bare and re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", value):
            value = f"{value}s"
        seconds = text.parse_duration(value)
        if seconds is None:
            self.fail(
                f"{value!r} is no time: write a number with its unit (s, m, h or d), such as 90s, 15m, 6h, "
                "1d or 1h30m",
                param,
                ctx,
            )
        if seconds > LONGEST_TIME:
            self.fail(f"{value!r} is longer than 100 years; write a shorter time", param, ctx)
        return seconds


class TimeOfDayParam(click.ParamType[tuple[int, int]]):
    """A time of day, HH:MM, as (hour, minute)."""

    name = "time of day"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", value)
        if not match:
            self.fail(f"{value!r} is no time of day; write HH:MM, such as 02:17", param, ctx)
        return int(match[1]), int(match[2])


class PathParam(click.ParamType[Path]):
    """A path on this machine; `~` is the home folder, and URLs are refused."""

    name = "path"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = value if isinstance(value, Path) else Path(files.user_path(value, _shown_name(param)))
        if self._kind == "dir" and files.is_file(path):
            self.fail(f"{text.shortened(str(path))!r} is a file; name a folder", param, ctx)
        return path

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's own
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Leave it to the shell, which knows the files."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type=self._kind)]


def _shown_name(param: click.Parameter | None) -> str:
    if param is None:
        return "path"
    return param.opts[0] if param.param_type_name == "option" else (param.name or "path").upper()


FILE, FOLDER = PathParam("file"), PathParam("dir")


class RateParam(click.ParamType[float | str]):
    """Calls a second, or auto."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "auto":
            return "auto"
        try:
            rate = float(value)
        except ValueError:
            rate = math.nan
        if not 1e-6 <= rate <= 999_999:
            self.fail(
                f"{value!r} is no rate; write calls a second from 0.000001 to 999999, such as 2.5, or auto",
                param,
                ctx,
            )
        return rate


class WindowParam(click.ParamType[tuple[int, float]]):
    """A rolling window N/TIME, as (calls, seconds)."""

    name = "window"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        if isinstance(value, tuple):
            return value
        number, slash, time = value.partition("/")
        if not (slash and re.fullmatch("0*[1-9][0-9]{0,11}", number)):
            self.fail(f"{value!r} is no window; write calls/time, such as 100/1m", param, ctx)
        return int(number), DurationParam(bare=True).convert(time, param, ctx)


class WordsParam(click.ParamType[str]):
    """Words separated by commas, of which a shell completes the last."""

    name = "words"

    def known(self, context: click.Context) -> Iterable[str]:
        raise NotImplementedError

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's own
        incomplete: str,
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        before, comma, begun = incomplete.rpartition(",")
        given = before.split(",")
        return [
            CompletionItem(f"{before}{comma}{word}")
            for word in self.known(ctx)
            if word.startswith(begun) and word not in given
        ]


class AccountsParam(WordsParam):
    """Accounts of the manifest or ledger on the command line, and their tags."""

    def known(self, context: click.Context) -> Iterable[str]:
        from batch_snapshot import manifest
        from batch_snapshot.config.accounts import TAG, recorded_accounts
        from batch_snapshot.errors import BatchSnapshotError
        from batch_snapshot.ledger import reader

        path = _file_on_command_line(context)
        if path is None:
            return ()
        try:
            if context.info_name != "retry":
                accounts = manifest.load(path).accounts
            else:
                head = reader.head(path)
                accounts = recorded_accounts(path, head) if head else {}
        except BatchSnapshotError:
            return ()
        tags = {f"{TAG}{tag}" for account in accounts.values() for tag in account.tags}
        return [*accounts, *sorted(tags)]


class FailuresParam(WordsParam):
    """Error kinds, the error codes of the ledger on the command line, and in_doubt."""

    def known(self, context: click.Context) -> Iterable[str]:
        from batch_snapshot.errors import BatchSnapshotError
        from batch_snapshot.ledger import reader
        from batch_snapshot.models import ErrorKind, Status

        codes: set[str] = set()
        if path := _file_on_command_line(context):
            with suppress(BatchSnapshotError):
                codes = {group.code for group in reader.history_of(path).failures() if group.code}
        return [*(kind.value for kind in ErrorKind), Status.IN_DOUBT.value, *sorted(codes)]


def _file_on_command_line(context: click.Context) -> Path | None:
    # A flag that lacks its value, as it does now, ends click's parsing before the arguments.
    given = next(filter(None, map(context.params.get, ("manifest", "ledger"))), None)
    path = given or next(map(Path, context.args), None)
    try:
        return path if path and path.stat().st_size < LARGEST_TO_COMPLETE else None
    except OSError:
        return None
