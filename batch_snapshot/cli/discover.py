"""`discover`: make a manifest out of the service's own lists, or update one."""

from functools import partial
from pathlib import Path
from typing import Any

from batch_snapshot.cli import options, terminal
from batch_snapshot.errors import InputError
from batch_snapshot.operations import SNAPSHOT, SOURCES


@options.command(
    f"""
    Make a manifest from the service's own lists.
    $ batch-snapshot discover --catalog Sandbox --output found.yaml --stage Committed,Launched
    $ batch-snapshot discover --catalog Sandbox --update found.yaml
    --catalog=[AWS|Sandbox]  The catalog whose lists are read.
    --output=FILE           A new file: a manifest (.yaml), or pairs for a manifest to include (.ndjson).
    --update=MANIFEST       Instead of --output: add what is new to this manifest, and mark what is gone.
    --name=NAME             Name of the new manifest. Default: the file's name without its ending.
    [Filters]
    --source=[{"|".join(SOURCES)}] sources  tasks, invitations: also pairs that never had a snapshot.
                            associations: pairs that have one. Default: all.
    --engagement=ID,… engagements  Only these engagements.
    --created-by=ACCOUNT,…  Only engagements that these AWS accounts have made.
    --context-type=TYPE,… context_types  Only engagements with such a context. An older SDK takes one read
                            for each engagement.
    --template=NAME         Template of the snapshots to make. Default: {SNAPSHOT.templates[0]}.
    --skip-active-jobs
    [Common]
    --stage=STAGE,… stages  Only opportunities in these stages, such as Launched.
    --changed-since=TIME    Only opportunities modified since (2026-01-31, or a span: 36h).
    --format
    """,
    options.reading,
    interrupt_note=": what was found is kept, and the same command continues",
    catalog={"required": True},
    sources={"multiple": True},
    changed_since={"type": str},
)
def discover_command(output: Path | None, update: Path | None, name: str | None, **given: Any) -> int:
    """Make a manifest from the service's own lists.

    The same command resumes a search that was interrupted.
    """
    from batch_snapshot.cli import invocation
    from batch_snapshot.discovery import discover
    from batch_snapshot.discovery import output as results
    from batch_snapshot.manifest import filters, keys

    if (output is None) == (update is None):
        raise InputError("discover: give either --output FILE, or --update MANIFEST")
    if name is not None and (wrong := keys.check_name(name)):
        raise InputError(f"discover: {wrong}")
    problems = {key.name: key.problem for key in keys.DISCOVER}
    lists = {name: given[name] or () for name in ("engagements", "created_by", "context_types", "stages")}
    single = {name: [given[name]] for name in ("changed_since", "template") if given[name]}
    for field, texts in (lists | single).items():
        for wrong in filter(None, map(problems[field], texts)):
            # The flag is named, not the manifest's key.
            raise InputError(f"discover: {wrong.replace('changed_since:', '--changed-since:')}")
    wanted = filters.Filters(
        account="",
        catalog=given["catalog"],
        resource_type=SNAPSHOT.resource_types[0],
        template=given["template"] or "",
        sources=given["sources"] or SOURCES,
        changed_since=given["changed_since"],
        **lists,
    )
    more = {"skip_active": given["skip_active_jobs"]} | ({"name": name} if output else {})
    work = discover.discover if output else discover.update
    found = invocation.read(given, partial(work, output or update or Path(), wanted, **more))
    terminal.warn(found.warnings)
    if found.counts.pairs and output and output.suffix != ".yaml":
        terminal.log(f"to use them in a manifest, write: include: [{output.name}]")
    as_text = partial(results.as_text, updated=update is not None)
    return terminal.print_result(results.as_json, as_text, found)
