"""`completion`: what a shell needs to complete commands, flags, files, and the names that flags take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batch_snapshot.cli.terminal import PROG

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click.shell_completion import CompletionItem

#: A file larger than so many bytes is not read while somebody waits for a word.
LARGEST = 5_000_000


@click.command(short_help="Print completions for bash, zsh or fish.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completions for SHELL; it then knows commands, flags, files, accounts and error kinds.

    \b
    bash  batch-snapshot completion bash > ~/.local/share/bash-completion/completions/batch-snapshot
    zsh   batch-snapshot completion zsh > "${fpath[1]}/_batch-snapshot"
    fish  batch-snapshot completion fish > ~/.config/fish/completions/batch-snapshot.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:  # pragma: no cover - click knows the three
        raise click.UsageError(f"{shell}: not known to this version of click")
    variable = f"_{PROG.replace('-', '_').upper()}_COMPLETE"
    click.echo(made(context.find_root().command, {}, PROG, variable).source())


class WordParam(click.ParamType[str]):
    """Words separated by commas, of which a shell completes the last."""

    name = "words"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The words that go on from here."""
        from click.shell_completion import CompletionItem

        before, comma, begun = incomplete.rpartition(",")
        known = _accounts(ctx) if param.name == "accounts" else _kinds(ctx)
        given = before.split(",")
        return [
            CompletionItem(f"{before}{comma}{word}")
            for word in known
            if word.startswith(begun) and word not in given
        ]


def _file(context: click.Context) -> Path | None:
    """The manifest or ledger that stands on the command line already."""
    # A flag that lacks its value, as it does now, ends click's reading before the arguments.
    given = next(filter(None, map(context.params.get, ("manifest", "ledger"))), None)
    path = given or next(map(Path, context.args), None)
    try:
        return path if path and path.stat().st_size < LARGEST else None
    except OSError:
        return None


def _accounts(context: click.Context) -> Iterable[str]:
    """Those of the manifest or ledger, and their tags."""
    from batch_snapshot import manifest
    from batch_snapshot.config.accounts import TAG, recorded_accounts
    from batch_snapshot.errors import BatchSnapshotError
    from batch_snapshot.ledger import reader

    path = _file(context)
    if path is None:
        return ()
    try:
        if context.info_name != "retry":
            accounts = manifest.load(path).accounts
        else:
            head = reader.head(path)
            accounts = recorded_accounts(path, head) if head else {}
    except BatchSnapshotError:
        return ()
    tags = {f"{TAG}{tag}" for account in accounts.values() for tag in account.tags}
    return [*accounts, *sorted(tags)]


def _kinds(context: click.Context) -> Iterable[str]:
    """Error kinds, and the codes of the ledger."""
    from batch_snapshot.errors import BatchSnapshotError
    from batch_snapshot.ledger import reader
    from batch_snapshot.models import ErrorKind, Status

    codes: set[str] = set()
    path = _file(context)
    with suppress(BatchSnapshotError):
        codes = {group.code for group in reader.history_of(path).failures() if group.code} if path else set()
    return [*(kind.value for kind in ErrorKind), Status.IN_DOUBT.value, *sorted(codes)]


def attach(group: click.Group) -> None:
    """Let the flags that take names complete them."""
    for command in group.commands.values():
        for parameter in command.params:
            if parameter.name in {"accounts", "only"}:
                parameter.type = WordParam()
