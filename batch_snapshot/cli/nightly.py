"""`schedule` and `prune`: what a nightly run needs beside itself."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_snapshot import __version__
from batch_snapshot.cli import options, sending, terminal
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError
from batch_snapshot.files import make_folder, resolved

if TYPE_CHECKING:
    from batch_snapshot.ledger.prune import Pruned
    from batch_snapshot.manifest import Manifest
    from batch_snapshot.schedule import File


class TimeOfDayParam(click.ParamType[tuple[int, int]]):
    """A time of day, HH:MM."""

    name = "time of day"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read the text as (hour, minute)."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", value)
        if not match:
            self.fail(f"{value!r} is no time of day; write HH:MM, such as 02:17", param, ctx)
        return int(match[1]), int(match[2])


@click.command(short_help="Print unit files for nightly runs.")
@click.argument("kind", type=click.Choice(["systemd", "cron", "kubernetes", "eventbridge"]))
@click.argument("manifest", type=options.FILE)
@click.argument("run_flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- FLAG…]")
@click.option(
    "--at", type=TimeOfDayParam(), default="02:17", show_default=True, metavar="HH:MM", help="In UTC."
)
@click.option(
    "--keep", type=click.IntRange(1), default=30, metavar="N", help="Ledgers to keep. [default: 30]"
)
@click.option(
    "--image",
    default=f"batch-snapshot:{__version__}",
    metavar="NAME",
    help=f"For kubernetes and eventbridge. [default: batch-snapshot:{__version__}]",
)
@click.option(
    "--output",
    type=options.FOLDER,
    metavar="FOLDER",
    help="Write each file there, instead of all to stdout; none that is there is overwritten.",
)
def schedule(
    kind: str,
    manifest: Path,
    run_flags: tuple[str, ...],
    *,
    at: tuple[int, int],
    keep: int,
    image: str,
    output: Path | None,
) -> int:
    """Print ready files for nightly runs of MANIFEST.

    Each night retries what can be cured of the last one, removes old ledgers, and runs: into a ledger
    of its own, never beside another run. Flags for run and retry follow --.

    \b
    batch-snapshot schedule systemd nightly.yaml --at 02:17 --output units
    batch-snapshot schedule cron nightly.yaml -- --max-duration 6h --wait
    batch-snapshot schedule kubernetes nightly.yaml --image registry.example/batch-snapshot:1
    batch-snapshot schedule eventbridge nightly.yaml > template.yaml
    """
    from batch_snapshot import manifest as room
    from batch_snapshot import schedule as planning

    given = _checked(run_flags)
    listed = room.load(manifest)
    metrics = given["metrics_file"]
    night = planning.NightlyJob(
        hour=at[0],
        minute=at[1],
        keep=keep,
        image=image,
        flags=run_flags,
        topic=options.topic_arn(given["notify_sns"]),
        metrics_folder=str(resolved(metrics.parent)) if metrics else None,
        **_here(),
        **_of(listed),
    )
    made = planning.files(kind, night)
    if output:
        _write(output, made)
    else:
        click.echo(planning.together(made), nl=False)
    return 0


def _checked(run_flags: tuple[str, ...]) -> dict[str, Any]:
    """Read the flags as `retry` does: what it takes, `run` takes too.

    Raises:
        InputError: one of them is not for both, or is a secret.
        click.UsageError: one of them is none.
    """
    if any(word.partition("=")[0] == "--notify-webhook" for word in run_flags):
        raise InputError(
            "--notify-webhook: its URL is a secret, and others read these files: "
            "give it as $BATCH_SNAPSHOT_NOTIFY_WEBHOOK, for which each of them has a place"
        )
    given = sending.retry.make_context("run and retry", ["LEDGER", *run_flags]).params
    if given["only"] or given["everything"]:
        raise InputError("--only and --all are for retry alone: leave them out")
    return given


def _of(listed: Manifest) -> dict[str, Any]:
    """What the files need to know of the manifest."""
    accounts = listed.accounts.values()
    return {
        "name": listed.name,
        "manifest": str(resolved(listed.path)),
        "catalogs": tuple(sorted(listed.catalogs)),
        "profiles": tuple(sorted({one.profile for one in accounts if one.profile})),
        "role_arns": tuple(sorted({one.role_arn for one in accounts if one.role_arn})),
        "reads": (*_program_folders(), str(resolved(listed.path).parent)),
    }


def _here() -> dict[str, Any]:
    beside = Path(sys.prefix) / "bin" / terminal.PROG
    program = str(beside) if beside.exists() else shutil.which(terminal.PROG)
    if program is None:
        raise InputError(f"{terminal.PROG} is not installed as a program here: install it, then schedule it")
    return {"program": str(Path(program).absolute()), "folder": str(Path.cwd())}


def _program_folders() -> set[str]:
    """Where this program, its Python and its packages lie."""
    package = Path(__file__).parent.parent.parent
    return {str(Path(folder).resolve()) for folder in (sys.prefix, sys.base_prefix, package)}


def _write(folder: Path, made: list[File]) -> None:
    for file in made:
        path = folder / file.name
        try:
            make_folder(folder)
            with path.open("x", encoding="utf-8") as target:
                target.write(file.text)
        except FileExistsError:
            raise InputError(f"{path}: is there already: remove it, or name another --output") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); name another --output") from None
        click.echo(terminal.shown(str(path)))


@click.command(short_help="Remove old ledgers that fully succeeded.")
@click.argument("folder", metavar="LEDGER-FOLDER", type=options.FOLDER)
@click.option(
    "--keep",
    type=click.IntRange(1),
    required=True,
    metavar="N",
    help="Of each manifest the newest N ledgers stay, whatever is in them.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be removed; remove nothing.")
@options.FORMAT
def prune(folder: Path, keep: int, form: str, *, dry_run: bool) -> int:
    """Remove old ledgers from LEDGER-FOLDER.

    A ledger that is not fully succeeded, or that a run holds, is kept however old it is, and so is
    whatever is no ledger. It looks into the folder itself, not into those within.

    \b
    batch-snapshot prune ledgers --keep 30 --dry-run
    """
    from batch_snapshot.ledger import prune as retention

    if not folder.exists():
        terminal.warn([f"{folder}: there is no such folder yet: nothing to prune"], 1)
        pruned = retention.Pruned()
    else:
        pruned = retention.prune(folder, keep, utc_now(), dry_run=dry_run)
    if form == "json":
        terminal.print_json(
            {
                "removed": list(map(str, pruned.removed)),
                "kept": [{"ledger": str(path), "reason": reason} for path, reason in pruned.kept],
                "newest": pruned.newest,
                "dry_run": dry_run,
            }
        )
    else:
        click.echo(terminal.shown(_told(pruned, dry_run=dry_run)))
    return 0


def _told(pruned: Pruned, *, dry_run: bool) -> str:
    removed = "would be removed" if dry_run else "removed"
    lines = [f"{path}: {removed}" for path in pruned.removed]
    lines += [f"{path}: kept: {reason.removeprefix(f'{path}: ')}" for path, reason in pruned.kept]
    sums = f"{len(pruned.removed):,} {removed}, {len(pruned.kept):,} kept for a reason"
    return "\n".join([*lines, f"{sums}, {pruned.newest:,} among the newest"])
