"""`discover`, `verify` and `diff`: what compares manifests and ledgers with the service's own lists."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from batch_snapshot.cli import options as flags
from batch_snapshot.cli import terminal
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError
from batch_snapshot.manifest import filters

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_snapshot.config.options import Options
    from batch_snapshot.discovery.readers import Environment
    from batch_snapshot.manifest.filters import Filters

#: Seconds between two lines of progress in a log, and on a terminal.
LINES_EVERY, REDRAW_EVERY = 5.0, 0.2


@click.command(short_help="Make a manifest out of the service's own lists.")
@click.option("--catalog", type=click.Choice(["AWS", "Sandbox"]), required=True, help="Whose lists are read.")
@click.option(
    "--output",
    type=flags.FILE,
    metavar="FILE",
    help="A new file: a manifest (.yaml), or pairs for a manifest to include (.ndjson).",
)
@click.option(
    "--update",
    type=flags.FILE,
    metavar="MANIFEST",
    help="Instead of --output: add what is new to this manifest, and mark what is gone.",
)
@click.option("--name", metavar="NAME", help="Of the new manifest. Default: after its file.")
@click.option(
    "--source",
    "sources",
    type=click.Choice(filters.SOURCES),
    multiple=True,
    help="tasks know pairs that were never snapshotted too, associations those that were. Default: both.",
)
@click.option("--engagement", "engagements", metavar="ID,…", help="Only these engagements.")
@click.option("--created-by", metavar="ACCOUNT,…", help="Only engagements that these AWS accounts have made.")
@click.option(
    "--context-type",
    "context_types",
    metavar="TYPE,…",
    help="Only engagements with such a context: a read each.",
)
@click.option(
    "--stage", "stages", metavar="STAGE,…", help="Only opportunities in these stages, such as Launched."
)
@click.option(
    "--changed-since", metavar="TIME", help="Only opportunities modified since (2026-01-31, or a span: 36h)."
)
@click.option("--template", metavar="NAME", help="Of the snapshots to make. Default: OpportunitySummaryView.")
@click.option(
    "--skip-active-jobs", is_flag=True, help="Leave out pairs that a running snapshot job takes care of."
)
@flags.asking
def discover(output: Path | None, update: Path | None, form: str, *, name: str | None, **given: Any) -> int:
    """Make a manifest out of the service's own lists.

    An interrupted search goes on where it stopped when the same command is given again.

    \b
    batch-snapshot discover --catalog Sandbox --output found.yaml --stage Committed,Launched
    batch-snapshot discover --catalog Sandbox --update found.yaml
    """
    from batch_snapshot.discovery import discover as discovering

    if (output is None) == (update is None):
        raise InputError("discover: give either --output FILE, or --update MANIFEST")
    _checked_name(name)
    terminal.telling().unfinished = ": what was found is kept, and the same command continues"
    search, options = _search(given), _options(given)
    skip = given["skip_active_jobs"]
    with _Progress(given["progress"]) as progress:
        around = _around(progress)
        if output is not None:
            work = discovering.discover(output, search, options, around, name=name, skip_active=skip)
        else:
            work = discovering.update(update or Path(), search, options, around, skip_active=skip)
        found = terminal.run(work)
    terminal.warn(found.warnings, len(found.warnings))
    if found.counts.pairs and output and output.suffix != ".yaml":
        terminal.say(f"a manifest takes them up with: include: [{output.name}]")
    return _tell(
        form,
        lambda: discovering.as_json(found),
        lambda: discovering.as_text(found, updated=update is not None),
    )


@click.command(short_help="Hold a ledger against the service.")
@click.argument("ledger", type=flags.FILE)
@click.option(
    "--sample", type=click.IntRange(1), metavar="N", help="Only so many rows, the same ones each time."
)
@flags.asking
def verify(ledger: Path, form: str, *, sample: int | None, **given: Any) -> int:
    """Look up at the service what LEDGER says was made: missing, other, and extra snapshots.

    Exit code 1 if something is off. It takes a read for each engagement, and one for each revision
    that no ledger of the folder names.

    \b
    batch-snapshot verify ledgers/backfill.ndjson
    batch-snapshot verify ledgers/backfill.ndjson --sample 100 --format json
    """
    from batch_snapshot import verify as room
    from batch_snapshot.discovery import discover as discovering

    with _Progress(given["progress"]) as progress:
        told = terminal.run(room.verify(ledger, _options(given), _around(progress), sample))
    terminal.warn(told.warnings, len(told.warnings))

    def text() -> str:
        calls = discovering.calls_line(dict(sorted(told.calls.items())), told.throttled, told.elapsed_s)
        return f"{room.as_text(told)}\n{calls}"

    _tell(form, lambda: room.as_json(told), text)
    return told.exit_code


@click.command(short_help="Compare the ledgers of two nights.")
@click.argument("before", type=flags.FILE)
@click.argument("after", type=flags.FILE)
@flags.FORMAT
def diff(before: Path, after: Path, form: str) -> int:
    """Tell what differs between two nights: the ledgers BEFORE and AFTER. Nothing is called.

    Exit code 1 if rows fail, or are in doubt, that did not before.

    \b
    batch-snapshot diff ledgers/nightly-2026-01-30.ndjson ledgers/nightly-2026-01-31.ndjson
    """
    from batch_snapshot.ledger import diff as room

    found = room.diff(before, after)
    _tell(form, lambda: room.as_json(found), lambda: room.as_text(found))
    return found.exit_code


def _search(given: dict[str, Any]) -> Filters:
    """The filters of the command line, checked as those of a manifest are."""
    from batch_snapshot.manifest import keys

    checks = keys.text_checks(keys.DISCOVER)
    lists = {
        name: flags.words(given[name]) for name in ("engagements", "created_by", "context_types", "stages")
    }
    for name, texts in lists.items():
        for text in texts:
            _refuse(checks[name].problem(text))
    for name in ("changed_since", "template"):
        if given[name]:
            _refuse(checks[name].problem(given[name]))
    return filters.Filters(
        account="",
        catalog=given["catalog"],
        resource_type="Opportunity",
        template=given["template"] or "",
        sources=given["sources"] or filters.SOURCES,
        changed_since=given["changed_since"],
        **lists,
    )


def _refuse(wrong: str | None) -> None:
    if wrong:
        raise InputError(f"discover: {wrong}")


def _checked_name(name: str | None) -> None:
    from batch_snapshot.manifest import checks

    if name is not None:
        _refuse(checks.check_name(name))


def _options(given: dict[str, Any]) -> Options:
    from batch_snapshot.config.options import Options

    return Options(
        accounts=flags.account_names(given["accounts"]),
        read_rate=given["read_rate"],
        wait=given["wait"],
        simulate=given["simulate"],
        simulator_state=given["state"],
        endpoint_url=flags.endpoint_url(given["endpoint_url"]),
        region=flags.region(given["region"]),
        profile=given["profile"],
        state_dir=given["state_dir"],
    )


def _around(progress: Callable[[str], None]) -> Environment:
    from random import Random

    from batch_snapshot.discovery import readers

    return readers.Environment(now=utc_now, rng=Random(), told=progress, clock=time.monotonic)  # noqa: S311 - jitter


class _Progress:
    """How far it is, on standard error: a line every few seconds, or one that is kept up to date."""

    def __init__(self, kind: str) -> None:
        told = sys.stderr is not None and sys.stderr.isatty()
        self._kind = ("bar" if told else "lines") if kind == "auto" else kind
        self._last = time.monotonic()
        self._width = shutil.get_terminal_size().columns
        self._drawn = False

    def __call__(self, text: str) -> None:
        every = REDRAW_EVERY if self._kind == "bar" else LINES_EVERY
        now = time.monotonic()
        if self._kind == "none" or now - self._last < every:
            return
        self._last = now
        if self._kind == "lines":
            terminal.say(text)
            return
        self._drawn = True
        terminal.write("\r" + terminal.shown(text)[: self._width - 1].ljust(self._width - 1))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._drawn:
            terminal.write("\r" + " " * (self._width - 1) + "\r")


def _tell(form: str, as_json: Callable[[], dict[str, Any]], as_text: Callable[[], str]) -> int:
    try:
        if form == "json":
            terminal.print_json(as_json())
        else:
            click.echo(terminal.shown(as_text()))
    except OSError as error:
        return terminal.unprinted(error, 0)
    return 0
