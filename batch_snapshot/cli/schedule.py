"""`schedule`: unit files for nightly runs."""

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from batch_snapshot import __version__
from batch_snapshot.cli import options, terminal
from batch_snapshot.cli.retry import retry_command
from batch_snapshot.errors import InputError
from batch_snapshot.files import make_folder, resolved, write_new
from batch_snapshot.operations import DISCOVERY_READS, iam_action


@options.command(
    """
    Print files that schedule nightly runs.
    $ batch-snapshot schedule systemd nightly.yaml --at 02:17 --output units
    $ batch-snapshot schedule cron nightly.yaml -- --max-duration 6h --wait
    $ batch-snapshot schedule kubernetes nightly.yaml --image registry.example/batch-snapshot:1
    $ batch-snapshot schedule eventbridge nightly.yaml > template.yaml
    --at=HH:MM       Start time in UTC; cron uses the machine's time zone.
    --keep=N         Ledgers to keep.
    --image=NAME     Image for kubernetes and eventbridge.
    --output=FOLDER  Write each file there, instead of all to stdout; existing files are not overwritten.
    """,
    at={"default": "02:17"},
    keep={"default": 30},
    image={"default": f"batch-snapshot:{__version__}"},
)
@click.argument("kind", type=click.Choice(["systemd", "cron", "kubernetes", "eventbridge"]))
@options.MANIFEST
@click.argument("run_flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- FLAG…]")
def schedule_command(
    kind: str,
    manifest: Path,
    run_flags: tuple[str, ...],
    at: tuple[int, int],
    output: Path | None,
    **job: Any,
) -> None:
    """Print files that schedule nightly runs of MANIFEST.

    Each night they retry last night's failures that another try can fix, remove old ledgers, and run into
    a new ledger. Two runs never overlap. Write flags for run and retry after --.
    """
    from batch_snapshot import schedule
    from batch_snapshot.cli import notify
    from batch_snapshot.manifest import load

    given = _checked(run_flags)
    topic, metrics = notify.topic_arn(given["notify_sns"]), given["metrics_file"]
    loaded = load(manifest)
    accounts, path = loaded.accounts.values(), resolved(loaded.path)
    package = Path(__file__).parent.parent.parent
    program_folders = {str(Path(folder).resolve()) for folder in (sys.prefix, sys.base_prefix, package)}
    made = schedule.files(
        kind,
        schedule.NightlyJob(
            **job,
            hour=at[0],
            minute=at[1],
            flags=run_flags,
            topic=topic,
            metrics_folder=str(resolved(metrics.parent)) if metrics else None,
            program=_program(),
            folder=str(Path.cwd()),
            name=loaded.name,
            manifest=str(path),
            catalogs=tuple(sorted(loaded.catalogs)),
            list_actions=tuple(sorted(map(iam_action, DISCOVERY_READS))) if loaded.discover else (),
            profiles=tuple(sorted({one.profile for one in accounts if one.profile})),
            role_arns=tuple(sorted({one.role_arn for one in accounts if one.role_arn})),
            reads=(*program_folders, str(path.parent)),
        ),
    )
    if output:
        make_folder(output)
        for file in made:
            write_new(output / file.name, file.text, "name another --output")
            terminal.say(str(output / file.name))
    else:
        click.echo("\n".join(f"# ---- {file.name}\n{file.text}" for file in made), nl=False)


def _checked(run_flags: tuple[str, ...]) -> dict[str, Any]:
    """Read the flags as `retry` does: what it takes, `run` takes too."""
    if any(word.partition("=")[0] == "--notify-webhook" for word in run_flags):
        raise InputError(
            "--notify-webhook: its URL is a secret, and others can read these files: leave it out, and set "
            "$BATCH_SNAPSHOT_NOTIFY_WEBHOOK as the files say"
        )
    words, parent = ["LEDGER", *run_flags], click.get_current_context()
    given = retry_command.make_context("batch-snapshot run", words, parent).params
    if given["only"] or given["everything"]:
        raise InputError("--only and --all are for retry alone: leave them out")
    return given


def _program() -> str:
    installed = Path(sys.prefix) / "bin" / terminal.PROG
    program = str(installed) if installed.exists() else shutil.which(terminal.PROG)
    if program is None:
        raise InputError(f"{terminal.PROG} is not installed as a program here: install it, then schedule it")
    return str(Path(program).absolute())
