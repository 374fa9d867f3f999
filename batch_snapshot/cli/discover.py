"""`discover`: make a manifest out of the service's own lists, or update one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot.cli import options, terminal
from batch_snapshot.cli.command import command, option, section
from batch_snapshot.cli.invocation import note_simulator
from batch_snapshot.cli.params import FILE, words
from batch_snapshot.cli.progress import ProgressLine, environment
from batch_snapshot.errors import InputError
from batch_snapshot.operations import SNAPSHOT, SOURCES

if TYPE_CHECKING:
    from batch_snapshot.manifest.filters import Filters


@command(
    "discover",
    "Make a manifest out of the service's own lists.",
    "batch-snapshot discover --catalog Sandbox --output found.yaml --stage Committed,Launched",
    "batch-snapshot discover --catalog Sandbox --update found.yaml",
    interrupt_note=": what was found is kept, and the same command continues",
)
@option(
    "--catalog",
    type=click.Choice(["AWS", "Sandbox"]),
    required=True,
    help="The catalog whose lists are read.",
)
@options.path(
    "--output", help="A new file: a manifest (.yaml), or pairs for a manifest to include (.ndjson)."
)
@option(
    "--update",
    type=FILE,
    metavar="MANIFEST",
    help="Instead of --output: add what is new to this manifest, and mark what is gone.",
)
@option(
    "--name", metavar="NAME", help="Name of the new manifest. Default: the file's name without its ending."
)
@section(
    "Filters",
    option(
        "--source",
        "sources",
        type=click.Choice(SOURCES),
        multiple=True,
        help="tasks: also pairs that never had a snapshot. associations: pairs that have one. Default: both.",
    ),
    option("--engagement", "engagements", metavar="ID,…", help="Only these engagements."),
    option("--created-by", metavar="ACCOUNT,…", help="Only engagements that these AWS accounts have made."),
    option(
        "--context-type",
        "context_types",
        metavar="TYPE,…",
        help="Only engagements with such a context. This takes one read for each engagement.",
    ),
    option(
        "--template",
        metavar="NAME",
        help=f"Template of the snapshots to make. Default: {SNAPSHOT.templates[0]}.",
    ),
    options.switch("--skip-active-jobs", help="Leave out pairs that a running snapshot job takes care of."),
)
@option("--stage", "stages", metavar="STAGE,…", help="Only opportunities in these stages, such as Launched.")
@option(
    "--changed-since", metavar="TIME", help="Only opportunities modified since (2026-01-31, or a span: 36h)."
)
@options.reading
def discover_command(
    output: Path | None, update: Path | None, form: str, *, name: str | None, **given: Any
) -> int:
    """Make a manifest out of the service's own lists.

    The same command resumes a search that was interrupted.
    """
    from batch_snapshot.discovery.discover import discover
    from batch_snapshot.discovery.output import as_json, as_text
    from batch_snapshot.discovery.update import update as update_manifest
    from batch_snapshot.manifest import checks

    if (output is None) == (update is None):
        raise InputError("discover: give either --output FILE, or --update MANIFEST")
    if name is not None:
        _refuse(checks.check_name(name))
    search = _filters(given)
    chosen = options.options_of(given)
    skip = given["skip_active_jobs"]
    note_simulator(given["simulate"] if given["progress"] != "none" else None)
    with ProgressLine(given["progress"]) as progress:
        if output is not None:
            work = discover(output, search, chosen, environment(progress), name=name, skip_active=skip)
        else:
            work = update_manifest(update or Path(), search, chosen, environment(progress), skip_active=skip)
        found = terminal.run(work)
    if found.counts.pairs and output and output.suffix != ".yaml":
        terminal.log(f"to use them in a manifest, write: include: [{output.name}]")
    return terminal.print_outcome(
        form, lambda: as_json(found), lambda: as_text(found, updated=update is not None)
    )


def _filters(given: dict[str, Any]) -> "Filters":
    """The filters of the command line, checked as those of a manifest are."""
    from batch_snapshot.manifest import filters, keys

    known = keys.text_checks(keys.DISCOVER)
    lists = {
        name: words(given[name] or "") for name in ("engagements", "created_by", "context_types", "stages")
    }
    single = {name: [given[name]] for name in ("changed_since", "template") if given[name]}
    for name, texts in (lists | single).items():
        for text in texts:
            _refuse(known[name].problem(text))
    return filters.Filters(
        account="",
        catalog=given["catalog"],
        resource_type=SNAPSHOT.resource_types[0],
        template=given["template"] or "",
        sources=given["sources"] or SOURCES,
        changed_since=given["changed_since"],
        **lists,
    )


def _refuse(wrong: str | None) -> None:
    if wrong:
        raise InputError(f"discover: {wrong}")
