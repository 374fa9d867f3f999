"""The flags that `run` and `retry` share, and the values that flags take."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import endpoint
from batch_snapshot.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(click.ParamType[float]):
    """A time such as 90, 90s, 15m, 6h, 1d, or 1h30m; in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text as seconds."""
        if isinstance(value, float | int):
            return float(value)
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", value)
        if not parts or "".join(number + unit for number, unit in parts) != value:
            self.fail(f"{value!r} is no time; write 90s, 15m, 6h or 1d", param, ctx)
        return sum(float(number) * _UNITS[unit] for number, unit in parts)


class Rate(click.ParamType[float | str]):
    """Calls a second, or auto."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Read the text as a number above 0, or auto."""
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


class Window(click.ParamType[tuple[int, float]]):
    """A rolling window: N/TIME, so many calls in any stretch of that time."""

    name = "window"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        """Read the text as (calls, seconds)."""
        if isinstance(value, tuple):
            return value
        number, slash, duration = value.partition("/")
        if not (slash and number.isdigit() and int(number) > 0):
            self.fail(f"{value!r} is no window; write calls/time, such as 100/1m", param, ctx)
        return int(number), Duration().convert(duration, param, ctx)


def account_names(text: str | None) -> tuple[str, ...]:
    """Read the names of `--accounts`; none: all of them.

    Raises:
        InputError: it is there, and names nobody.
    """
    if text is None:
        return ()
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    if not names:
        raise InputError("--accounts: name at least one account, or leave it out for all")
    return names


def region(name: str | None) -> str | None:
    """Check `--region`.

    Raises:
        InputError: no region is called so.
    """
    if name is not None and not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", name):
        raise InputError(f"--region {name!r}: is no region; leave it out for us-east-1")
    return name


def run_id(text: str | None) -> str | None:
    """Check `--run-id`.

    Raises:
        InputError: it is empty, long, or not to be printed.
    """
    if text is not None and not (0 < len(text) <= 128 and text.isascii() and text.isprintable()):
        raise InputError(f"--run-id {text!r}: give 1 to 128 printable ASCII characters")
    return text


def endpoint_url(url: str | None) -> str | None:
    """Check `--endpoint-url`.

    Raises:
        InputError: it is no URL, or bears credentials.
    """
    return None if url is None else endpoint.checked(url, "--endpoint-url")


FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the result is printed on stdout.",
)

_QUOTAS = [
    click.option("--accounts", metavar="NAME,…", help="Only these accounts of the manifest."),
    click.option(
        "--rate",
        type=Rate(),
        metavar="N|auto",
        help="Calls a second and account, over the manifest's; auto: find out what is allowed.",
    ),
    click.option(
        "--daily-quota",
        type=click.IntRange(1),
        metavar="N",
        help="Calls in any 24 hours and account, over the manifest's per_day.",
    ),
]

_SENDING = [
    click.option(
        "--concurrency",
        type=click.IntRange(1, 1024),
        default=32,
        show_default=True,
        help="Calls in flight at most, shared out among the accounts.",
    ),
    click.option(
        "--wait",
        is_flag=True,
        help="Wait for a spent quota window to open, instead of ending with exit code 4.",
    ),
    click.option(
        "--max-attempts",
        type=click.IntRange(1, 100),
        default=8,
        show_default=True,
        help="Tries a row; throttled ones are free.",
    ),
    click.option(
        "--max-duration",
        type=Duration(),
        metavar="TIME",
        help="Stop in good order after so long (6h, 90m), with exit code 4.",
    ),
    click.option(
        "--max-failures",
        metavar="N|P%",
        help="Stop when more rows than this did not succeed; a share counts from 100 rows on.",
    ),
    click.option(
        "--token-ttl",
        type=Duration(),
        default="10m",
        show_default=True,
        metavar="TIME",
        help="For so long the service is trusted to remember a token; "
        "later a doubtful row is looked up before it is sent again.",
    ),
    click.option(
        "--resend-in-doubt",
        is_flag=True,
        help="Send a doubtful row again even where it cannot be looked up: may make a second snapshot.",
    ),
    click.option(
        "--drain-timeout",
        type=Duration(),
        default="30s",
        show_default=True,
        metavar="TIME",
        help="For calls in flight when the run is stopped.",
    ),
]

_WHERE = [
    click.option(
        "--simulate",
        is_flag=True,
        help="Against a simulator that lives as long as the run: no AWS account needed.",
    ),
    click.option("--endpoint-url", metavar="URL", help="Call this endpoint instead of AWS's."),
    click.option(
        "--region",
        metavar="NAME",
        help="For accounts that name none. Default: us-east-1, the only one that serves the API.",
    ),
    click.option("--profile", metavar="NAME", help="AWS profile, for accounts that name none."),
    click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="For locks and the log of calls. Default: $BATCH_SNAPSHOT_STATE_DIR, or batch-snapshot in "
        "$XDG_STATE_HOME.",
    ),
]

_TELLING = [
    click.option(
        "--progress",
        type=click.Choice(["auto", "bar", "lines", "none"]),
        default="auto",
        show_default=True,
        help="On stderr: a line kept up to date (bar), or a new one every few seconds (lines).",
    ),
    FORMAT,
    click.option("-v", "--verbose", is_flag=True, help="Tell every row's outcome on stderr."),
]


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that `run` and `retry` share."""
    return _with(command, [*_QUOTAS, *_SENDING, *_WHERE, *_TELLING])


def planning(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags of those that only foretell."""
    return _with(command, [*_QUOTAS, *_WHERE, FORMAT])


def _with(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
