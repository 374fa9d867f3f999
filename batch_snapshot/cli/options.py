"""The groups of flags that commands share, and the checks of their values, which raise `InputError`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import endpoints
from batch_snapshot.cli.params import FILE, FOLDER, AccountsParam, DurationParam, RateParam, duration_text
from batch_snapshot.cli.terminal import Reporter
from batch_snapshot.config.options import DEFAULT_SETTINGS, LEASE
from batch_snapshot.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def account_names(text: str | None) -> tuple[str, ...]:
    """The names and tags of `--accounts`; none: all accounts."""
    if text is None:
        return ()
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    if not names:
        raise InputError("--accounts: name at least one account or tag:NAME, or leave it out for all")
    return names


def region(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", name):
        raise InputError(f"--region {name!r}: is no region; leave it out for us-east-1")
    return name


def run_id(text: str | None) -> str | None:
    if text is not None and not (0 < len(text) <= 128 and text.isascii() and text.isprintable()):
        raise InputError(f"--run-id {text!r}: give 1 to 128 printable ASCII characters")
    return text


def endpoint_url(url: str | None) -> str | None:
    return None if url is None else endpoints.check_endpoint(url, "--endpoint-url")


def changed_since(text: str | None) -> str | None:
    if text not in {None, "last"}:
        from batch_snapshot.manifest import filters

        try:
            filters.since(text or "", datetime(2026, 1, 1, tzinfo=UTC))
        except ValueError as error:
            raise InputError(f"--changed-since: {error}; or last") from None
    return text


def words(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in (text or "").split(","))))


def target(given: dict[str, Any]) -> dict[str, Any]:
    """The options that say which accounts and endpoint are called, and under which quotas."""
    return {
        "accounts": account_names(given["accounts"]),
        "rate": given.get("rate"),
        "daily_quota": given.get("daily_quota"),
        "read_rate": given["read_rate"],
        "simulate": given["simulate"],
        "simulator_state": given["state"],
        "endpoint_url": endpoint_url(given["endpoint_url"]),
        "region": region(given["region"]),
        "profile": given["profile"],
        "state_dir": given["state_dir"],
    }


DRY_RUN = click.option("--dry-run", is_flag=True, help="Show what would be sent without calling AWS.")
YES = click.option("--yes", is_flag=True, help="Don't ask before the first call to catalog AWS.")


def _set_log_format(context: click.Context, _: click.Parameter, value: str) -> None:
    context.ensure_object(Reporter).log_format = value


#: Parsed before the other flags, so that errors about those have this format too.
LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    is_eager=True,
    expose_value=False,
    callback=_set_log_format,
    help="How progress, warnings, outcomes and errors are written to stderr; json: an object a line.",
)

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the result is printed on stdout.",
)

_READ_RATE = click.option(
    "--read-rate",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Reads a second and account. Default: 10, which AWS allows.",
)

_ACCOUNTS = click.option(
    "--accounts",
    type=AccountsParam(),
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
    _READ_RATE,
]

_SENDING = [
    click.option(
        "--concurrency",
        type=click.IntRange(1, 1024),
        default=DEFAULT_SETTINGS.concurrency,
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
        default=DEFAULT_SETTINGS.max_attempts,
        show_default=True,
        help="Tries a row; throttled ones are free.",
    ),
    click.option(
        "--max-duration",
        type=DurationParam(),
        metavar="TIME",
        help="Stop gracefully after this time (6h, 90m), with exit code 4.",
    ),
    click.option(
        "--max-failures",
        metavar="N|P%",
        help="Stop when more rows than this did not succeed; a share counts from 100 rows on.",
    ),
    click.option(
        "--token-ttl",
        type=DurationParam(),
        default=duration_text(DEFAULT_SETTINGS.token_ttl),
        show_default=True,
        metavar="TIME",
        help="How long the service is trusted to remember a token; "
        "after that a row in doubt is looked up before it is sent again.",
    ),
    click.option(
        "--resend-in-doubt",
        is_flag=True,
        help="Send a row in doubt again even where it cannot be looked up: may make a second snapshot.",
    ),
    click.option(
        "--drain-timeout",
        type=DurationParam(),
        default=duration_text(DEFAULT_SETTINGS.drain_timeout),
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
        default=duration_text(LEASE),
        show_default=True,
        metavar="TIME",
        help="With --engine dask: a worker that hears nothing for so long stops calling, and its accounts "
        "go to another one.",
    ),
]

_TARGET = [
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

_OUTPUT = [
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
    click.option("-v", "--verbose", is_flag=True, help="Log every row's outcome on stderr."),
]


def sending(command: Callable[..., Any]) -> Callable[..., Any]:
    return _with(command, [*_QUOTAS, *_SENDING, *_ENGINE, *_TARGET, *_OUTPUT])


def planning(command: Callable[..., Any]) -> Callable[..., Any]:
    return _with(command, [*_QUOTAS, *_TARGET, FORMAT])


def reading(command: Callable[..., Any]) -> Callable[..., Any]:
    wait = click.option("--wait", is_flag=True, help="Wait for a spent quota of reads to open.")
    return _with(command, [_ACCOUNTS, _READ_RATE, wait, *_TARGET, _PROGRESS, FORMAT])


def _with(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
