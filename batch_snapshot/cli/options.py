"""How commands and options are declared, and the options that commands share."""

import re
from collections.abc import Callable, Iterator, Mapping
from inspect import cleandoc
from typing import Any

import click

from batch_snapshot import endpoints
from batch_snapshot.cli import params
from batch_snapshot.cli.command import SECTIONS, Option, SectionedCommand
from batch_snapshot.cli.params import duration_text
from batch_snapshot.cli.terminal import Reporter
from batch_snapshot.config.options import BUDGET, DEFAULT_SETTINGS
from batch_snapshot.errors import InputError
from batch_snapshot.models import LARGEST_CONCURRENCY

#: Options in a text, and further arguments for click by parameter.
Table = tuple[str, Mapping[str, Mapping[str, Any]]]

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

#: After "interrupted (SIGINT)", before the first row is sent.
NOTHING_SENT = ": nothing was sent; the same command starts again"

LEDGER = click.argument("ledger", type=params.LEDGER)
MANIFEST = click.argument("manifest", type=params.MANIFEST)


def command(
    text: str, *tables: Table, interrupt_note: str = "", **more: Mapping[str, Any]
) -> Callable[[Callable[..., Any]], SectionedCommand]:
    """Make a command of a function NAME_command.

    The first line of `text` says what it does, $ begins an example, and the rest are its options, which
    those of `tables` follow (see `table`). `interrupt_note` follows "interrupted (SIGINT)".
    """
    short, *lines = cleandoc(text).split("\n")
    examples = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    own = table("\n".join(line for line in lines if not line.startswith("$ ")), **more)
    return click.command(
        cls=SectionedCommand,
        short_help=short,
        examples=examples,
        interrupt_note=interrupt_note,
        params=[option for one in (own, *tables) for option in _options(*one)],
    )


def table(text: str, **more: Mapping[str, Any]) -> Table:
    """Options as their help shows them: a flag, and after two blanks its help, on as many lines as it takes.

    "-v --verbose" is a switch, "--limit=N" takes a value of a type in `_TYPES`, "--format=[text|json]" one of
    these, and "--serve[=HOST:PORT]" can be given without its value. A word behind it names the function's
    parameter; `more` has further arguments for click by this name. A line without help has flags that are
    shared, and [Title] begins a section of the help page.
    """
    return text, more


def _options(text: str, more: Mapping[str, Mapping[str, Any]]) -> Iterator[Option]:
    title = SECTIONS[0]
    for shown, words in _entries(text):
        if words:
            yield _option(title, shown, words, more)
        for word in () if words else shown.split():
            if word.startswith("["):
                title = word.strip("[]")
            else:
                yield _option(title, *_SHARED[word], _SHARED_MORE)


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for entry in re.split(r"\n(?=\S)", cleandoc(text)):
        shown, *words = re.split(r"\s{2,}", entry)
        yield shown, " ".join(words)


def _option(title: str, shown: str, text: str, more: Mapping[str, Mapping[str, Any]]) -> Option:
    flags, _, value = shown.partition("=")
    value, *name = value.split(" ")
    metavar, words = value.rstrip("]"), [*flags.rstrip("[").split(), *name]
    given: dict[str, Any] = {"is_flag": True}
    if value.startswith("["):
        given = {"type": click.Choice(metavar[1:].split("|"))}
    elif value:
        given = {"type": params.words if value.endswith(",…") else _TYPES.get(metavar), "metavar": value}
    if bare := flags.endswith("["):
        given["metavar"] = f"[={value}"
    given |= more.get(words[-1].lstrip("-").replace("-", "_"), {})
    made = Option(words, help=text, **{"show_default": "default" in given, **given})
    made.section, made.bare = title, bare
    return made


def _named(fields: tuple[str, ...] | None) -> tuple[str, ...]:
    if fields == ():
        raise InputError("--fields: name at least one field, or leave it out for all")
    return fields or ()


# -- the options -------------------------------------------------------------------------------------

_OF_REPORTER: dict[str, Any] = {
    "default": "text",
    "expose_value": False,
    "callback": lambda context, param, value: setattr(context.ensure_object(Reporter), param.name, value),
}
_SHARED_MORE: dict[str, dict[str, Any]] = {
    "form": _OF_REPORTER,
    # Parsed before the other flags, so that errors about those have this format too.
    "log_format": {**_OF_REPORTER, "is_eager": True},
    "progress": {"default": "auto"},
    "progress_interval": {"type": params.interval},
    "fields": {"callback": lambda _, __, given: _named(given)},
    "accounts": {"shell_complete": params.complete_accounts},
    "read_rate": {"type": click.FloatRange(0, min_open=True)},
    "endpoint_url": {"type": lambda url: endpoints.check_endpoint(url, "--endpoint-url")},
    "region": {"type": params.region},
}
#: The options that several tables name, by their flag.
_SHARED = {
    entry[0].partition("=")[0].rstrip("["): entry
    for entry in _entries("""
    --limit=N               Send at most N rows now, as a trial. If rows are left, the exit code is 4.
    --accounts=NAME,…       Only these accounts. tag:NAME selects all that have this tag.
    --rate=N|auto           Calls a second for each account, instead of the manifest's rate. auto: measure
                            what is allowed.
    --daily-quota=N         Calls of each account in any 24 hours, instead of the manifest's per_day.
    --read-rate=N           Reads a second for each account. Default: 10, which AWS allows.
    --simulate[=SETTINGS]   Call a simulator instead of AWS. It runs only as long as this command. SETTINGS
                            are options of the command simulate, such as --simulate=rate=500,latency=80ms.
    --name=NAME             With a CSV or NDJSON file: the name of the run. Default: the file's name without
                            its ending.
    --catalog=[Sandbox|AWS]  With a CSV or NDJSON file: the catalog of rows that name none.
    --all-problems          Show all problems of the manifest instead of the first 50.
    --skip-active-jobs      Leave out pairs that a running snapshot job takes care of.
    --fields=NAME,…         Only these fields of the payload, such as Lifecycle.Stage, or parts of it, such
                            as Customer.Account; others are never written.
    --state-dir=FOLDER      Folder for locks and the log of calls. Default: $BATCH_SNAPSHOT_STATE_DIR, or
                            batch-snapshot in $XDG_STATE_HOME. Simulated runs use one of their own.
    --format=[text|json] form  How the result is printed on stdout.
    --log-format=[text|json]  How progress, warnings, outcomes and errors are written to stderr. json: one
                            object on each line.
    --progress=[auto|bar|lines|none]  On stderr: a live display (bar), or a line every few seconds (lines).
                            auto: a live display on a terminal, else lines.
    --progress-interval=TIME  Time between two lines of progress. Default: 5s at first, up to 60s in a long
                            run.
    --control               Give the live page buttons to pause, resume, slow down or end the run, as the
                            command control does. Only on loopback, and only with the token of its address.
    --endpoint-url=URL      Call this URL instead of AWS.
    --region=NAME           Region for accounts that name none. Default: us-east-1, the only one that serves
                            the API.
    --profile=NAME          AWS profile for accounts that name none.
    --state=FILE simulator_state  With --simulate: keep the simulated world in this file from one command to
                            the next.
    --summary=[text|json] form  How the result is printed on stdout, as with --format of other commands.
    """)
}

#: The options that `run` and `retry` share.
sending = table(
    f"""
    --limit --simulate --accounts --rate
    --max-duration=TIME     Stop gracefully after this time (6h, 90m), with exit code 4.
    --dry-run               Show what would be sent without calling AWS.
    --yes                   Don't ask before the first call to catalog AWS.
    --format
    [Ledger] --state-dir
    [Limits] --daily-quota --read-rate
    --concurrency=N         Calls in flight at most, shared among the accounts.
    --wait                  Wait until a spent quota window opens, instead of ending with exit code 4.
    --max-failures=N|P%     Stop when more rows than this failed or are in doubt. A share (P%) is checked
                            once 100 rows have a result.
    --drain-timeout=TIME    How long a stopped run waits for calls in flight.
    [Retry]
    --max-attempts=N        Tries for each row. Throttled tries do not count.
    --token-ttl=TIME        How long the service is trusted to remember a token. After that a row in doubt is
                            looked up before it is sent again.
    --resend-in-doubt       Send a row in doubt again even if it cannot be looked up. This may make a second
                            snapshot.
    [Output] --progress --progress-interval
    --serve[=HOST:PORT]     Show the run live in a browser, as the command watch does. Default:
                            {params.SERVED_AT}.
    --control
    -v --verbose            Log every row's outcome on stderr.
    --log-format
    [Notifications]
    --metrics-file=FILE     Write metrics there at the end, for the node exporter's textfile collector
                            (*.prom).
    --notify-webhook=URL    Post the outcome there at the end, as JSON that Slack understands. The URL is a
                            secret, so better set $BATCH_SNAPSHOT_NOTIFY_WEBHOOK.
    --notify-sns=ARN        Publish the outcome to this SNS topic at the end.
    --notify-every=TIME     Also send the progress there, at this interval (6h).
    [AWS] --endpoint-url --region --profile
    [Cluster]
    --engine=[local|dask]   Who makes the calls: this process, or the workers of a Dask cluster.
    --scheduler=ADDRESS     With --engine=dask: the scheduler's address, such as tcp://10.0.0.5:8786.
                            Default: start a cluster on this machine for this run.
    --workers=N             With --engine=dask on this machine: worker processes. Default: one for each core.
    --budget --lease=TIME budget  With --engine=dask: how long a worker sends an account's rows before it
                            reports. The rows of a lost worker are sent again after about this time plus
                            --drain-timeout.
    [Simulator] --state
    """,
    concurrency={"type": click.IntRange(1, LARGEST_CONCURRENCY), "default": DEFAULT_SETTINGS.concurrency},
    drain_timeout={"default": duration_text(DEFAULT_SETTINGS.drain_timeout)},
    max_attempts={"type": click.IntRange(1, 100), "default": DEFAULT_SETTINGS.max_attempts},
    token_ttl={"default": duration_text(DEFAULT_SETTINGS.token_ttl)},
    notify_webhook={"envvar": "BATCH_SNAPSHOT_NOTIFY_WEBHOOK"},
    engine={"default": "local"},
    workers={"type": click.IntRange(1, 1024)},
    budget={"default": duration_text(BUDGET)},
)
#: The options of commands that only plan.
planning = table("""
    --limit --simulate --accounts --rate --format
    [Ledger] --state-dir
    [Limits] --daily-quota --read-rate
    --wait  Plan a run with --wait, which waits until a spent quota window opens.
    [AWS] --endpoint-url --region --profile
    [Simulator] --state
""")
#: The options of commands that only read from the service.
reading = table("""
    --simulate --accounts
    [Ledger] --state-dir
    [Limits] --read-rate
    --wait  Wait until a spent quota of reads opens.
    [Output] --progress
    [AWS] --endpoint-url --region --profile
    [Simulator] --state
""")
