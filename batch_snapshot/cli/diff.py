"""`diff`: compare the ledgers of two nights."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from batch_snapshot import files
from batch_snapshot.cli import options, params, terminal
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError


@options.command(
    """
    Compare the ledgers of two nights, or what their snapshots say.
    $ batch-snapshot diff ledgers/night-1.ndjson ledgers/night-2.ndjson
    $ batch-snapshot diff --payload ledgers/night-1.ndjson ledgers/night-2.ndjson
    $ batch-snapshot diff --payload old.ndjson new.ndjson --html changes.html
    --payload         Compare what the snapshots say, field by field. BEFORE and AFTER are ledgers, or NDJSON
                      files of the command export. All other options but --format need it.
    --html=FILE page  Also write what changed as one page that needs no other file.
    --exports=FOLDER  Where the exports of ledgers are kept, and what they lack is fetched to.
    --fields --format
    """,
    options.reading,
    exports={"default": "exports"},
)
@click.argument("before", type=params.FILE)
@click.argument("after", type=params.FILE)
def diff_command(before: Path, after: Path, *, payload: bool, **given: Any) -> int:
    """Show what differs between two nights: the ledgers BEFORE and AFTER.

    This calls nothing. The exit code is 1 if rows fail, or are in doubt, that did not before.

    With --payload each snapshot of a ledger that --exports lacks takes one read. The exit code is 1 if one
    cannot be fetched.
    """
    from batch_snapshot.ledger import diff

    if payload:
        return _diff_payloads([before, after], given)
    context = click.get_current_context()
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name in given and source is ParameterSource.COMMANDLINE:
            raise InputError(f"{param.opts[0]}: works only with --payload: add --payload, or leave it out")
    found = diff.diff(*(params.LEDGER.convert(one, None, None) for one in (before, after)))
    if files.resolved(before) == files.resolved(after):
        terminal.warn([f"{before}: is compared with itself; name the ledgers of two nights"])
    return terminal.print_result(diff.as_json, diff.as_text, found, exit_code=found.exit_code)


def _diff_payloads(paths: list[Path], given: dict[str, Any]) -> int:
    from batch_snapshot.cli import invocation
    from batch_snapshot.export import diff, fetch
    from batch_snapshot.ledger import reader
    from batch_snapshot.reporting import report

    folder, fields, html = given["exports"], given["fields"], given["page"]
    # Before any read is spent on the other one.
    if gone := [path for path in paths if not files.exists(path)]:
        raise reader.missing(gone[0])
    ledgers = fetch.export_files([path for path in paths if reader.head_if_ledger(path)], folder)
    if html:
        report.check_target(html, [*paths, *ledgers.values()], "page")
    done = fetch.Exported()
    if ledgers:
        note = ": what was fetched is kept, and the same command continues"
        terminal.current_reporter().interrupt_note = note
        done = invocation.read(
            given, lambda *around: fetch.export([*ledgers], folder, *around, form="ndjson", fields=fields)
        )
    before, after = (ledgers.get(path, path) for path in paths)
    found = diff.diff(before, after, fields, {one.row for one in done.findings})
    terminal.warn(found.warnings)
    if html:
        diff.write_page(found, html, utc_now())
    more = {"export": fetch.as_json(done)} if ledgers else {}
    lines = [*([fetch.as_text(done)] if ledgers else []), diff.as_text(found)]
    lines += [f"{html}: open it in a browser"] if html else []
    as_json, as_text = lambda: diff.as_json(found) | more, lambda: "\n".join(lines)
    return terminal.print_result(as_json, as_text, exit_code=done.exit_code)
