"""The groups of flags that commands share."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import click

from batch_snapshot.cli import params
from batch_snapshot.cli.command import OptionalValueOption, option, section
from batch_snapshot.cli.params import FILE, FOLDER, duration, duration_text
from batch_snapshot.cli.terminal import Reporter
from batch_snapshot.config.options import BUDGET, DEFAULT_SETTINGS, Options
from batch_snapshot.errors import InputError
from batch_snapshot.models import LARGEST_CONCURRENCY

# -- kinds of flags ----------------------------------------------------------------------------------

switch = partial(option, is_flag=True)
with_default = partial(option, show_default=True)
path = partial(option, type=FILE, metavar="FILE")
folder = partial(option, type=FOLDER, metavar="FOLDER")
count = partial(option, type=click.IntRange(1), metavar="N")
time = partial(option, type=duration, metavar="TIME")


def _choice(flag: str, *values: str, name: str | None = None, help: str) -> Callable[..., Any]:  # noqa: A002 - click's
    """A flag with one of a few values; the first is the default."""
    names = [flag, name] if name else [flag]
    return with_default(*names, type=click.Choice(values), default=values[0], help=help)


#: What a CSV or NDJSON file needs to be run as a manifest.
FILE_AS_MANIFEST = [
    option(
        "--name",
        metavar="NAME",
        help="With a CSV or NDJSON file: the name of the run. Default: the file's name without its ending.",
    ),
    option(
        "--catalog",
        type=click.Choice(["Sandbox", "AWS"]),
        help="With a CSV or NDJSON file: the catalog of rows that name none.",
    ),
]
ALL_PROBLEMS = switch("--all-problems", help="Show all problems of the manifest instead of the first 50.")

# -- the flags ---------------------------------------------------------------------------------------


def options_of(given: dict[str, Any], **more: Any) -> Options:
    """The options that flags mean: each has the value of the flag of its name."""
    if given["accounts"] == ():
        raise InputError("--accounts: name at least one account or tag:NAME, or leave it out for all")
    named = {field.name: given.get(field.name) for field in fields(Options)}
    same = {name: value for name, value in named.items() if value is not None}
    simulator = given["simulate"]
    same |= {"simulate": simulator is not None, "simulator_settings": simulator or {}}
    return Options(**{**same, **more})


DRY_RUN = switch("--dry-run", help="Show what would be sent without calling AWS.")
YES = switch("--yes", help="Don't ask before the first call to catalog AWS.")


def _set_log_format(context: click.Context, _: click.Parameter, value: str) -> None:
    context.ensure_object(Reporter).log_format = value


LOG_FORMAT = option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    # Parsed before the other flags, so that errors about those have this format too.
    is_eager=True,
    expose_value=False,
    callback=_set_log_format,
    help="How progress, warnings, outcomes and errors are written to stderr. json: one object on each line.",
)

FORMAT = _choice("--format", "text", "json", name="form", help="How the result is printed on stdout.")

_READ_RATE = option(
    "--read-rate",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Reads a second for each account. Default: 10, which AWS allows.",
)

_ACCOUNTS = option(
    "--accounts",
    type=params.words,
    shell_complete=params.complete_accounts,
    metavar="NAME,…",
    help="Only these accounts of the manifest. tag:NAME selects all that have this tag.",
)

_RATE = option(
    "--rate",
    type=params.rate,
    metavar="N|auto",
    help="Calls a second for each account, instead of the manifest's rate. auto: measure what is allowed.",
)
_DAILY_QUOTA = count(
    "--daily-quota", help="Calls of each account in any 24 hours, instead of the manifest's per_day."
)

_MAX_DURATION = time("--max-duration", help="Stop gracefully after this time (6h, 90m), with exit code 4.")
_LIMIT = count("--limit", help="Send at most N rows now, as a trial. If rows are left, the exit code is 4.")

_LIMITS = [
    _DAILY_QUOTA,
    _READ_RATE,
    with_default(
        "--concurrency",
        type=click.IntRange(1, LARGEST_CONCURRENCY),
        metavar="N",
        default=DEFAULT_SETTINGS.concurrency,
        help="Most calls in flight, shared among the accounts.",
    ),
    switch("--wait", help="Wait for a spent quota window to open, instead of ending with exit code 4."),
    option(
        "--max-failures",
        metavar="N|P%",
        help="Stop when more rows than this failed or are in doubt. A share (P%) is checked once 100 rows "
        "have a result.",
    ),
    time(
        "--drain-timeout",
        show_default=True,
        default=duration_text(DEFAULT_SETTINGS.drain_timeout),
        help="How long a stopped run waits for calls in flight.",
    ),
]

_ATTEMPTS = [
    with_default(
        "--max-attempts",
        type=click.IntRange(1, 100),
        metavar="N",
        default=DEFAULT_SETTINGS.max_attempts,
        help="Tries for each row. Throttled tries do not count.",
    ),
    time(
        "--token-ttl",
        show_default=True,
        default=duration_text(DEFAULT_SETTINGS.token_ttl),
        help="How long the service is trusted to remember a token. "
        "After that a row in doubt is looked up before it is sent again.",
    ),
    switch(
        "--resend-in-doubt",
        help="Send a row in doubt again even if it cannot be looked up. This may make a second snapshot.",
    ),
]

_CLUSTER = [
    _choice(
        "--engine",
        "local",
        "dask",
        help="Who makes the calls: this process, or the workers of a Dask cluster.",
    ),
    option(
        "--scheduler",
        metavar="ADDRESS",
        help="With --engine dask: the scheduler's address, such as tcp://10.0.0.5:8786. Default: start a "
        "cluster on this machine for this run.",
    ),
    option(
        "--workers",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="With --engine dask on this machine: worker processes. Default: one for each core.",
    ),
    time(
        "--budget",
        "--lease",
        "budget",
        show_default=True,
        default=duration_text(BUDGET),
        help="With --engine dask: how long a worker sends an account's rows before it reports. The rows of a "
        "lost worker are sent again after about this time plus --drain-timeout.",
    ),
]

_SIMULATE = option(
    "--simulate",
    cls=OptionalValueOption,
    type=params.simulator_settings,
    metavar="[=SETTINGS]",
    help="Call a simulator instead of AWS. It runs only as long as this command. SETTINGS are options of the "
    "command simulate, such as --simulate=rate=500,latency=80ms.",
)

_STATE = path(
    "--state",
    "simulator_state",
    help="With --simulate: keep the simulated world in this file, from one command to the next.",
)

_AWS = [
    option("--endpoint-url", type=params.endpoint_url, metavar="URL", help="Call this URL instead of AWS."),
    option(
        "--region",
        type=params.region,
        metavar="NAME",
        help="Region for accounts that name none. Default: us-east-1, the only one that serves the API.",
    ),
    option("--profile", metavar="NAME", help="AWS profile for accounts that name none."),
]

STATE_DIR = folder(
    "--state-dir",
    help="Folder for locks and the log of calls. Default: $BATCH_SNAPSHOT_STATE_DIR, or batch-snapshot in "
    "$XDG_STATE_HOME. Simulated runs use one of their own.",
)

_PROGRESS = _choice(
    "--progress",
    "auto",
    "bar",
    "lines",
    "none",
    help="On stderr: a display kept up to date (bar), or a line every few seconds (lines). "
    "auto: a display on a terminal, else lines.",
)

_SERVE = option(
    "--serve",
    cls=OptionalValueOption,
    type=params.address,
    metavar="[=HOST:PORT]",
    help=f"Show the run live in a browser, as the command watch does. Default: {params.SERVED_AT}.",
)

CONTROL = switch(
    "--control",
    help="Give the live page buttons to pause, resume, slow down or end the run, as the command control "
    "does. Only on loopback, and only with the token of its address.",
)

PROGRESS_INTERVAL = option(
    "--progress-interval",
    type=params.interval,
    metavar="TIME",
    help="Time between two lines of progress. Default: 5s at first, up to 60s in a long run.",
)

_OUTPUT = [
    _PROGRESS,
    PROGRESS_INTERVAL,
    _SERVE,
    CONTROL,
    switch("-v", "--verbose", help="Log every row's outcome on stderr."),
    LOG_FORMAT,
]

_NOTIFICATIONS = [
    path(
        "--metrics-file",
        help="Write metrics there at the end, for the node exporter's textfile collector (*.prom).",
    ),
    option(
        "--notify-webhook",
        envvar="BATCH_SNAPSHOT_NOTIFY_WEBHOOK",
        metavar="URL",
        help="Post the outcome there at the end, as JSON that Slack understands. The URL is a secret, so "
        "better set $BATCH_SNAPSHOT_NOTIFY_WEBHOOK.",
    ),
    option("--notify-sns", metavar="ARN", help="Publish the outcome to this SNS topic at the end."),
    time("--notify-every", help="Send the progress there too, each time so much has passed (6h)."),
]

_WAIT_TO_READ = switch("--wait", help="Wait for a spent quota of reads to open.")


def _group(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def give(command: Callable[..., Any]) -> Callable[..., Any]:
        for give_more in reversed(options):
            command = give_more(command)
        return command

    return give


#: The flags that `run` and `retry` share.
sending = _group(
    section("Common", _LIMIT, _SIMULATE, _ACCOUNTS, _RATE, _MAX_DURATION, DRY_RUN, YES, FORMAT),
    section("Ledger", STATE_DIR),
    section("Limits", *_LIMITS),
    section("Retry", *_ATTEMPTS),
    section("Output", *_OUTPUT),
    section("Notifications", *_NOTIFICATIONS),
    section("AWS", *_AWS),
    section("Cluster", *_CLUSTER),
    section("Simulator", _STATE),
)
#: The flags of commands that only plan.
planning = _group(
    section("Common", _LIMIT, _SIMULATE, _ACCOUNTS, _RATE, FORMAT),
    section("Ledger", STATE_DIR),
    section("Limits", _DAILY_QUOTA, _READ_RATE),
    section("AWS", *_AWS),
    section("Simulator", _STATE),
)
#: The flags of commands that only read from the service, and write the result to files.
reading_files = _group(
    section("Common", _SIMULATE, _ACCOUNTS),
    section("Ledger", STATE_DIR),
    section("Limits", _READ_RATE, _WAIT_TO_READ),
    section("Output", _PROGRESS),
    section("AWS", *_AWS),
    section("Simulator", _STATE),
)
#: Of those that print it.
reading = _group(section("Common", FORMAT), reading_files)
