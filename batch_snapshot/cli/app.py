"""The group of all commands, and the entry point that turns how they end into an exit code."""

import sys
from collections.abc import Sequence

import click

from batch_snapshot import __version__, interrupts, redaction
from batch_snapshot.cli import errors
from batch_snapshot.cli.command import SectionedGroup, page_option
from batch_snapshot.cli.terminal import PROG, Reporter


def main(arguments: Sequence[str] | None = None) -> int:
    if arguments is None:
        arguments = sys.argv[1:]
        errors.hide_python_warnings()
    redaction.begin(arguments)
    reporter = Reporter()
    with interrupts.handle_signals():
        try:
            code = cli.main(
                list(arguments) or ["--help"], prog_name=PROG, standalone_mode=False, obj=reporter
            )
        except BaseException as error:  # noqa: BLE001 - the one place that turns errors into lines
            return errors.report(error, arguments, reporter)
        return code if isinstance(code, int) else 0


def _versions(_: click.Context) -> str:
    """Show the version, and those of Python and the AWS libraries."""
    import platform
    from importlib.metadata import version

    libraries = ", ".join(f"{name} {version(name)}" for name in ("aioboto3", "aiobotocore", "botocore"))
    return f"{PROG} {__version__}\nPython {platform.python_version()}, {libraries}"


@click.group(
    cls=SectionedGroup,
    sections={
        "Prepare": "init validate plan discover schema",
        "Run": "run retry control schedule simulate",
        "Inspect": "status watch rows ls report diff verify export",
        "Maintain": "prune completion help",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[page_option("-V", "--version", page=_versions)],
)
def cli() -> None:
    """Create AWS Partner Central resource snapshots in bulk: exactly one for each row."""
