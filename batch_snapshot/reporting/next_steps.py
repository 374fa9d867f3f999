"""The command lines that continue from a ledger. Pure."""

from __future__ import annotations

import shlex
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from batch_snapshot.models import AWS, CURABLE, SIMULATOR, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_snapshot.ledger.history import FailureGroup
    from batch_snapshot.reporting.summary import Counts

#: The flags that say by whom and under which quotas, by the names of a run line's settings.
_KEPT_FLAGS = ("profile", "region", "rate", "daily_quota", "state_dir", "engine", "scheduler")


def next_steps(
    counts: Counts,
    failures: Mapping[FailureGroup, int],
    *,
    run: str | None,
    ledger: str,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> list[str]:
    """The commands that go on: `run` continues what is left, `retry` takes up what failed.

    The ledger itself tells `retry` the accounts and their quotas.
    """
    steps = []
    if run and counts.unattempted:
        steps.append(run)
    if any(group.kind in CURABLE or group.status is Status.IN_DOUBT for group in failures):
        steps.append(f"batch-snapshot retry {_argument(ledger)}{_retry_flags(settings)}")
    return steps


def remedy(group: FailureGroup, ledger: str, settings: Mapping[str, Any] = MappingProxyType({})) -> str:
    """The command that tries the rows of a group again, once its cause is mended."""
    doubtful = group.status is Status.IN_DOUBT
    # A word of `--only` ends at a comma and is trimmed: a code that would not survive goes by its kind.
    code = group.code if group.code == group.code.strip() and "," not in group.code else ""
    word = Status.IN_DOUBT.value if doubtful else code or group.kind.value
    return f"batch-snapshot retry {_argument(ledger)} --only {shlex.quote(word)}{_retry_flags(settings)}"


def flags_of(settings: Mapping[str, Any], *names: str) -> str:
    """The flags out of a run line's settings, each after a blank."""
    given = {name: settings.get(name) for name in names}
    if isinstance(accounts := given.get("accounts"), list):
        given["accounts"] = ",".join(map(str, accounts))
    return "".join(
        f" --{name.replace('_', '-')} {shlex.quote(_plain(value))}" for name, value in given.items() if value
    )


def _plain(value: object) -> str:
    return f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def run_command(
    path: str, ledger: str, endpoint: str, settings: Mapping[str, Any] = MappingProxyType({}), *names: str
) -> str:
    """The command line that runs the manifest at `path` into that ledger, under the quotas it was run.

    Args:
        path: of the manifest.
        ledger: its path.
        endpoint: as the run line has it.
        settings: of the run line.
        names: more settings to keep than those that hold for every run.
    """
    where = {AWS: "", SIMULATOR: " --simulate"}.get(endpoint, f" --endpoint-url {shlex.quote(endpoint)}")
    world = _world(settings) if endpoint == SIMULATOR else ""
    kept = flags_of(settings, *_KEPT_FLAGS, *names)
    return f"batch-snapshot run {_argument(path)} --ledger {shlex.quote(ledger)}{where}{world}{kept}"


def _world(settings: Mapping[str, Any]) -> str:
    """The flag for the file that keeps a simulated world, after a blank."""
    state = settings.get("simulator_state")
    return f" --state {shlex.quote(str(state))}" if state else ""


def _retry_flags(settings: Mapping[str, Any]) -> str:
    """The flags of `retry` that a ledger itself does not tell, each after a blank."""
    world = f" --simulate{_world(settings)}" if settings.get("simulator_state") else ""
    return world + flags_of(settings, "state_dir", "engine", "scheduler")


def _argument(path: str) -> str:
    """A path as a word of a command line that cannot be taken for a flag."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def pinned(command: str | None, ledger: str) -> str | None:
    """A command line with `ledger` in the place of a pattern with {date}: tomorrow that means another."""
    if command is None:
        return None
    words = shlex.split(command)
    for number, word in enumerate(words[1:], 1):
        if words[number - 1] == "--ledger" and "{date}" in word:
            words[number] = ledger
        elif word.startswith("--ledger=") and "{date}" in word:
            words[number] = f"--ledger={ledger}"
    return shlex.join(words)
