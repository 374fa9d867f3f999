"""How options are declared, and the groups of options that commands share."""

from collections.abc import Callable
from dataclasses import fields
from functools import reduce
from typing import Any

import click

from batch_snapshot.cli import params
from batch_snapshot.cli.command import Option, OptionalValueOption
from batch_snapshot.cli.params import duration_text
from batch_snapshot.cli.terminal import Reporter
from batch_snapshot.config.options import BUDGET, DEFAULT_SETTINGS, Options
from batch_snapshot.errors import InputError
from batch_snapshot.models import LARGEST_CONCURRENCY

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

#: The type of a value, by how the help shows it.
_TYPES: dict[str, Any] = {
    "FILE": params.FILE,
    "FILE|FOLDER": params.FILE,
    "FLOAT": float,
    "FOLDER": params.FOLDER,
    "HH:MM": params.time_of_day,
    "HOST:PORT": params.address,
    "INTEGER": int,
    "ID": params.run_id,
    "MANIFEST": params.FILE,
    "N": click.IntRange(1),
    "N/TIME": params.window,
    "N|auto": params.rate,
    "SETTINGS": params.simulator_settings,
    "TIME": params.duration,
    "last|TIME": params.changed_since,
}

LEDGER = click.argument("ledger", type=params.LEDGER)
MANIFEST = click.argument("manifest", type=params.MANIFEST)


def option(shown: str, help: str, **more: Any) -> Decorator:  # noqa: A002 - click's
    """An option as its help shows it.

    "-v --verbose" is a switch, "--limit=N" takes a value of a type in `_TYPES`, or else of the type that is
    given, "--format=[text|json]" one of these, and "--serve[=HOST:PORT]" may stand without its value. A word
    behind it names the function's parameter.
    """
    flags, _, value = shown.partition("=")
    value, *name = value.split(" ")
    metavar = value.rstrip("]")
    if not value:
        more = {"is_flag": True, **more}
    elif value.startswith("["):
        more = {"type": click.Choice(metavar[1:].split("|")), **more}
    else:
        of_value = params.words if value.endswith(",…") else _TYPES.get(metavar)
        more = {"type": of_value, "metavar": value, **more}
        if flags.endswith("["):
            more |= {"cls": OptionalValueOption, "metavar": f"[={value}"}
    more = {"cls": Option, "show_default": "default" in more, **more}
    return click.option(*flags.rstrip("[").split(), *name, help=help, **more)


def group(*options: Decorator) -> Decorator:
    """Several options as one decorator."""
    return lambda function: reduce(lambda made, one: one(made), reversed(options), function)


def section(title: str, *options: Decorator) -> Decorator:
    """Put options into a section of the help page."""

    def give(function: Callable[..., Any]) -> Callable[..., Any]:
        before = len(getattr(function, "__click_params__", ()))
        function = group(*options)(function)
        for param in function.__click_params__[before:]:  # type: ignore[attr-defined]
            param.section = title
        return function

    return give


def options_of(given: dict[str, Any], **more: Any) -> Options:
    """The options that flags mean: each has the value of the flag of its name."""
    if given["accounts"] == ():
        raise InputError("--accounts: name at least one account or tag:NAME, or leave it out for all")
    named = {field.name: given.get(field.name) for field in fields(Options)}
    same = {name: value for name, value in named.items() if value is not None}
    simulator = given["simulate"]
    same |= {"simulate": simulator is not None, "simulator_settings": simulator or {}}
    return Options(**{**same, **more})


def _set_in_reporter(context: click.Context, param: click.Parameter, value: str) -> None:
    setattr(context.ensure_object(Reporter), param.name, value)


def _named(fields: tuple[str, ...] | None) -> tuple[str, ...]:
    if fields == ():
        raise InputError("--fields: name at least one field, or leave it out for all")
    return fields or ()


# -- the options -------------------------------------------------------------------------------------

#: What a CSV or NDJSON file needs to be run as a manifest.
FILE_AS_MANIFEST = group(
    option(
        "--name=NAME",
        "With a CSV or NDJSON file: the name of the run. Default: the file's name without its ending.",
    ),
    option("--catalog=[Sandbox|AWS]", "With a CSV or NDJSON file: the catalog of rows that name none."),
)
ALL_PROBLEMS = option("--all-problems", "Show all problems of the manifest instead of the first 50.")
SKIP_ACTIVE_JOBS = option("--skip-active-jobs", "Leave out pairs that a running snapshot job takes care of.")

FORMAT = option(
    "--format=[text|json] form",
    "How the result is printed on stdout.",
    default="text",
    expose_value=False,
    callback=_set_in_reporter,
)
#: Where --format is about files.
SUMMARY = option(
    "--summary=[text|json] form",
    "How the result is printed on stdout, as with --format of other commands.",
    default="text",
    expose_value=False,
    callback=_set_in_reporter,
)
LOG_FORMAT = option(
    "--log-format=[text|json]",
    "How progress, warnings, outcomes and errors are written to stderr. json: one object on each line.",
    default="text",
    # Parsed before the other flags, so that errors about those have this format too.
    is_eager=True,
    expose_value=False,
    callback=_set_in_reporter,
)
STATE_DIR = option(
    "--state-dir=FOLDER",
    "Folder for locks and the log of calls. Default: $BATCH_SNAPSHOT_STATE_DIR, or batch-snapshot in "
    "$XDG_STATE_HOME. Simulated runs use one of their own.",
)
PROGRESS_INTERVAL = option(
    "--progress-interval=TIME",
    "Time between two lines of progress. Default: 5s at first, up to 60s in a long run.",
    type=params.interval,
)
FIELDS = option(
    "--fields=NAME,…",
    "Only these fields of the payload, such as Lifecycle.Stage, or parts of it, such as "
    "Customer.Account; others are never written.",
    callback=lambda _, __, given: _named(given),
)
CONTROL = option(
    "--control",
    "Give the live page buttons to pause, resume, slow down or end the run, as the command control "
    "does. Only on loopback, and only with the token of its address.",
)

_LIMIT = option("--limit=N", "Send at most N rows now, as a trial. If rows are left, the exit code is 4.")
_ACCOUNTS = option(
    "--accounts=NAME,…",
    "Only these accounts of the manifest. tag:NAME selects all that have this tag.",
    shell_complete=params.complete_accounts,
)
_RATE = option(
    "--rate=N|auto",
    "Calls a second for each account, instead of the manifest's rate. auto: measure what is allowed.",
)
_DAILY_QUOTA = option(
    "--daily-quota=N", "Calls of each account in any 24 hours, instead of the manifest's per_day."
)
_READ_RATE = option(
    "--read-rate=N",
    "Reads a second for each account. Default: 10, which AWS allows.",
    type=click.FloatRange(0, min_open=True),
)
_SIMULATE = option(
    "--simulate[=SETTINGS]",
    "Call a simulator instead of AWS. It runs only as long as this command. SETTINGS are options of the "
    "command simulate, such as --simulate=rate=500,latency=80ms.",
)
_PROGRESS = option(
    "--progress=[auto|bar|lines|none]",
    "On stderr: a display kept up to date (bar), or a line every few seconds (lines). "
    "auto: a display on a terminal, else lines.",
    default="auto",
)

_AWS = section(
    "AWS",
    option("--endpoint-url=URL", "Call this URL instead of AWS.", type=params.endpoint_url),
    option(
        "--region=NAME",
        "Region for accounts that name none. Default: us-east-1, the only one that serves the API.",
        type=params.region,
    ),
    option("--profile=NAME", "AWS profile for accounts that name none."),
)
_SIMULATOR = section(
    "Simulator",
    option(
        "--state=FILE simulator_state",
        "With --simulate: keep the simulated world in this file, from one command to the next.",
    ),
)

#: The options that `run` and `retry` share.
sending = group(
    section(
        "Common",
        *(_LIMIT, _SIMULATE, _ACCOUNTS, _RATE),
        option("--max-duration=TIME", "Stop gracefully after this time (6h, 90m), with exit code 4."),
        option("--dry-run", "Show what would be sent without calling AWS."),
        option("--yes", "Don't ask before the first call to catalog AWS."),
        FORMAT,
    ),
    section("Ledger", STATE_DIR),
    section(
        "Limits",
        _DAILY_QUOTA,
        _READ_RATE,
        option(
            "--concurrency=N",
            "Most calls in flight, shared among the accounts.",
            type=click.IntRange(1, LARGEST_CONCURRENCY),
            default=DEFAULT_SETTINGS.concurrency,
        ),
        option("--wait", "Wait for a spent quota window to open, instead of ending with exit code 4."),
        option(
            "--max-failures=N|P%",
            "Stop when more rows than this failed or are in doubt. A share (P%) is checked once 100 rows "
            "have a result.",
        ),
        option(
            "--drain-timeout=TIME",
            "How long a stopped run waits for calls in flight.",
            default=duration_text(DEFAULT_SETTINGS.drain_timeout),
        ),
    ),
    section(
        "Retry",
        option(
            "--max-attempts=N",
            "Tries for each row. Throttled tries do not count.",
            type=click.IntRange(1, 100),
            default=DEFAULT_SETTINGS.max_attempts,
        ),
        option(
            "--token-ttl=TIME",
            "How long the service is trusted to remember a token. "
            "After that a row in doubt is looked up before it is sent again.",
            default=duration_text(DEFAULT_SETTINGS.token_ttl),
        ),
        option(
            "--resend-in-doubt",
            "Send a row in doubt again even if it cannot be looked up. This may make a second snapshot.",
        ),
    ),
    section(
        "Output",
        _PROGRESS,
        PROGRESS_INTERVAL,
        option(
            "--serve[=HOST:PORT]",
            f"Show the run live in a browser, as the command watch does. Default: {params.SERVED_AT}.",
        ),
        CONTROL,
        option("-v --verbose", "Log every row's outcome on stderr."),
        LOG_FORMAT,
    ),
    section(
        "Notifications",
        option(
            "--metrics-file=FILE",
            "Write metrics there at the end, for the node exporter's textfile collector (*.prom).",
        ),
        option(
            "--notify-webhook=URL",
            "Post the outcome there at the end, as JSON that Slack understands. The URL is a secret, so "
            "better set $BATCH_SNAPSHOT_NOTIFY_WEBHOOK.",
            envvar="BATCH_SNAPSHOT_NOTIFY_WEBHOOK",
        ),
        option("--notify-sns=ARN", "Publish the outcome to this SNS topic at the end."),
        option("--notify-every=TIME", "Send the progress there too, each time so much has passed (6h)."),
    ),
    _AWS,
    section(
        "Cluster",
        option(
            "--engine=[local|dask]",
            "Who makes the calls: this process, or the workers of a Dask cluster.",
            default="local",
        ),
        option(
            "--scheduler=ADDRESS",
            "With --engine dask: the scheduler's address, such as tcp://10.0.0.5:8786. Default: start a "
            "cluster on this machine for this run.",
        ),
        option(
            "--workers=N",
            "With --engine dask on this machine: worker processes. Default: one for each core.",
            type=click.IntRange(1, 1024),
        ),
        option(
            "--budget --lease=TIME budget",
            "With --engine dask: how long a worker sends an account's rows before it reports. The rows of a "
            "lost worker are sent again after about this time plus --drain-timeout.",
            default=duration_text(BUDGET),
        ),
    ),
    _SIMULATOR,
)
#: The options of commands that only plan.
planning = group(
    section("Common", _LIMIT, _SIMULATE, _ACCOUNTS, _RATE, FORMAT),
    section("Ledger", STATE_DIR),
    section("Limits", _DAILY_QUOTA, _READ_RATE),
    *(_AWS, _SIMULATOR),
)
#: The options of commands that only read from the service, and write the result to files.
reading_files = group(
    section("Common", _SIMULATE, _ACCOUNTS),
    section("Ledger", STATE_DIR),
    section("Limits", _READ_RATE, option("--wait", "Wait for a spent quota of reads to open.")),
    section("Output", _PROGRESS),
    *(_AWS, _SIMULATOR),
)
#: Of those that print it.
reading = group(FORMAT, reading_files)
