"""The flags that `run` and `retry` share, and the values that flags take."""

from __future__ import annotations

import math
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import endpoints, files, text
from batch_snapshot.errors import InputError
from batch_snapshot.manifest import filters
from batch_snapshot.text import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from click.shell_completion import CompletionItem

#: Of a worker's lease, in seconds.
from batch_snapshot.config.options import LONGEST_LEASE, SHORTEST_LEASE

#: The longest time that a flag takes, in seconds: 100 years.
LONGEST_TIME = 36_525 * 86400.0


class DurationParam(click.ParamType[float]):
    """A time such as 90s, 15m, 6h, 1d or 1h30m, or 0; in seconds."""

    name = "duration"

    def __init__(self, *, bare: bool = False) -> None:
        """Take a number without a unit for seconds if `bare`: the simulator's settings are small numbers."""
        self._bare = bare

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text as seconds."""
        if isinstance(value, float | int):
            return float(value)
        if self._bare and re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", value):
            value = f"{value}s"
        seconds = parse_duration(value)
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


class PathParam(click.ParamType[Path]):
    """A path on this machine; `~` is the home folder, and URLs are refused."""

    name = "path"

    def __init__(self, kind: str) -> None:
        """Take what shells complete it with: file or dir."""
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read the text as a path."""
        path = value if isinstance(value, Path) else Path(files.named(value, _called(param)))
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


def _called(param: click.Parameter | None) -> str:
    if param is None:
        return "path"
    return param.opts[0] if param.param_type_name == "option" else (param.name or "path").upper()


FILE, FOLDER = PathParam("file"), PathParam("dir")


class RateParam(click.ParamType[float | str]):
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


class WindowParam(click.ParamType[tuple[int, float]]):
    """A rolling window: N/TIME, so many calls in any stretch of that time."""

    name = "window"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        """Read the text as (calls, seconds)."""
        if isinstance(value, tuple):
            return value
        number, slash, duration = value.partition("/")
        if not (slash and re.fullmatch("0*[1-9][0-9]{0,11}", number)):
            self.fail(f"{value!r} is no window; write calls/time, such as 100/1m", param, ctx)
        return int(number), DurationParam(bare=True).convert(duration, param, ctx)


def account_names(text: str | None) -> tuple[str, ...]:
    """Read the names and tags of `--accounts`; none: all accounts.

    Raises:
        InputError: it is there, and names nobody.
    """
    if text is None:
        return ()
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    if not names:
        raise InputError("--accounts: name at least one account or tag:NAME, or leave it out for all")
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
    return None if url is None else endpoints.check_endpoint(url, "--endpoint-url")


def webhook_url(url: str | None) -> str | None:
    """Check `--notify-webhook`; it is a secret, and so not quoted.

    Raises:
        InputError: it is no URL of a webhook.
    """
    if not url:
        return None
    if not (endpoints.is_url(url) and url.isascii()):
        raise InputError("--notify-webhook: give a URL that begins with https://")
    return url


def topic_arn(arn: str | None) -> str | None:
    """Check `--notify-sns`.

    Raises:
        InputError: no topic can have that name.
    """
    if arn is not None and not re.fullmatch(
        r"arn:aws(-[a-z]+)*:sns:[a-z]+(-[a-z]+)+-[0-9]{1,2}:[0-9]{12}:(?=.{1,256}$)[A-Za-z0-9_-]+(\.fifo)?",
        arn,
    ):
        raise InputError(
            f"--notify-sns {arn}: give a topic's ARN, such as arn:aws:sns:us-east-1:123456789012:nightly"
        )
    return arn


def lease(seconds: float) -> float:
    """Check `--lease`.

    Raises:
        InputError: it is too short for the messages that renew it, or pointless.
    """
    if not SHORTEST_LEASE <= seconds <= LONGEST_LEASE:
        raise InputError(f"--lease: give {SHORTEST_LEASE:g} to {LONGEST_LEASE:g} seconds")
    return seconds


def scheduler(engine: str, address: str | None, workers: int | None) -> str | None:
    """Check `--scheduler` and `--workers`.

    Raises:
        InputError: they don't fit each other, or the address is none.
    """
    if engine != "dask" and (address or workers):
        flag = "--scheduler" if address else "--workers"
        raise InputError(f"{flag} is Dask's: use it with --engine dask")
    if address and workers:
        raise InputError("--workers is for a cluster on this machine: leave it out, or --scheduler")
    if address is not None and not re.fullmatch(r"(tcp|tls|ws|wss)://[\w.\-\[\]:]+:\d{1,5}", address):
        raise InputError(f"--scheduler {address}: give its address, such as tcp://10.0.0.5:8786")
    return address


def metrics_file(path: Path | None) -> Path | None:
    """Check `--metrics-file`, as far as that can be done before there are metrics.

    Raises:
        InputError: no file can be written there.
    """
    if path is None:
        return None
    flag = f"--metrics-file {path}"
    if not path.parent.is_dir():
        raise InputError(f"{flag}: there is no folder {path.parent}: make it first")
    if path.exists() and not path.is_file():
        raise InputError(f"{flag}: is a folder or a device: name a file")
    try:
        if path.exists() and _beginning(path) not in {b"", b"# HELP ", b"# TYPE "}:
            # A manifest or a ledger, say: it would be replaced.
            raise InputError(f"{flag}: the file exists and holds no metrics: name another")
        # As `metrics` does it: the file is written under a longer name, and then renamed.
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent):
            pass
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{flag}: cannot be written ({why}): name a file in a folder of yours") from None
    return path


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(7)


def changed_since(text: str | None) -> str | None:
    """Check `--changed-since`.

    Raises:
        InputError: it is neither last nor a time.
    """
    if text not in {None, "last"}:
        try:
            filters.since(text or "", datetime(2026, 1, 1, tzinfo=UTC))
        except ValueError as error:
            raise InputError(f"--changed-since: {error}; or last") from None
    return text


def words(text: str | None) -> tuple[str, ...]:
    """Read a list of words, separated by commas."""
    return tuple(filter(None, (word.strip() for word in (text or "").split(","))))


FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the result is printed on stdout.",
)

READ_RATE = click.option(
    "--read-rate",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Reads a second and account. Default: 10, which AWS allows.",
)

_ACCOUNTS = click.option(
    "--accounts",
    metavar="NAME,…",
    help="Only these accounts of the manifest; tag:NAME: all that have this tag.",
)

_QUOTAS = [
    _ACCOUNTS,
    click.option(
        "--rate",
        type=RateParam(),
        metavar="N|auto",
        help="Calls a second and account, over the manifest's; auto: find out what is allowed.",
    ),
    click.option(
        "--daily-quota",
        type=click.IntRange(1),
        metavar="N",
        help="Calls in any 24 hours and account, over the manifest's per_day.",
    ),
    READ_RATE,
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
        type=DurationParam(),
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
        type=DurationParam(),
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
        type=DurationParam(),
        default="30s",
        show_default=True,
        metavar="TIME",
        help="For calls in flight when the run is stopped.",
    ),
]

_ENGINE = [
    click.option(
        "--engine",
        type=click.Choice(["local", "dask"]),
        default="local",
        show_default=True,
        help="Who makes the calls: this process, or the workers of a Dask cluster.",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="With --engine dask: of the cluster, such as tcp://10.0.0.5:8786. Default: a cluster on this "
        "machine, for as long as the run.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="With --engine dask on this machine: worker processes. Default: one a core.",
    ),
    click.option(
        "--lease",
        type=DurationParam(),
        default="15s",
        show_default=True,
        metavar="TIME",
        help="With --engine dask: a worker that hears nothing for so long stops calling, and its accounts "
        "go to another one.",
    ),
]

_WHERE = [
    click.option(
        "--simulate",
        is_flag=True,
        help="Against a simulator that lives as long as the run: no AWS account needed.",
    ),
    click.option(
        "--state",
        type=FILE,
        metavar="FILE",
        help="With --simulate: keep the simulated world in this file, from one command to the next.",
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
        type=FOLDER,
        metavar="FOLDER",
        help="For locks and the log of calls. Default: $BATCH_SNAPSHOT_STATE_DIR, or batch-snapshot in "
        "$XDG_STATE_HOME. Simulated runs use one of their own.",
    ),
]

_PROGRESS = click.option(
    "--progress",
    type=click.Choice(["auto", "bar", "lines", "none"]),
    default="auto",
    show_default=True,
    help="On stderr: a display kept up to date (bar), or a line every few seconds (lines). "
    "auto: a display on a terminal, else lines.",
)

_TELLING = [
    click.option(
        "--metrics-file",
        type=FILE,
        metavar="FILE",
        help="Write metrics there at the end, for the node exporter's textfile collector (*.prom).",
    ),
    click.option(
        "--notify-webhook",
        envvar="BATCH_SNAPSHOT_NOTIFY_WEBHOOK",
        metavar="URL",
        help="Post the outcome there at the end, as JSON that Slack understands. As a secret it is better "
        "given as $BATCH_SNAPSHOT_NOTIFY_WEBHOOK.",
    ),
    click.option("--notify-sns", metavar="ARN", help="Publish the outcome to this SNS topic at the end."),
    _PROGRESS,
    FORMAT,
    click.option("-v", "--verbose", is_flag=True, help="Tell every row's outcome on stderr."),
]


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that `run` and `retry` share."""
    return _with(command, [*_QUOTAS, *_SENDING, *_ENGINE, *_WHERE, *_TELLING])


def planning(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags of those that only foretell."""
    return _with(command, [*_QUOTAS, *_WHERE, FORMAT])


def asking(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags of those that only read from the service."""
    wait = click.option("--wait", is_flag=True, help="Wait for a spent quota of reads to open.")
    return _with(command, [_ACCOUNTS, READ_RATE, wait, *_WHERE, _PROGRESS, FORMAT])


def _with(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
