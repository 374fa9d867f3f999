"""The command lines that continue from a ledger, to be typed in the current folder."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from batch_snapshot import paths
from batch_snapshot.config.options import KEPT
from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.ledger.records import Header
from batch_snapshot.models import AWS, SIMULATOR, Status
from batch_snapshot.text import shell_argument

#: With it, `run` has another default.
_LEDGER_VARIABLE = "BATCH_SNAPSHOT_RUN_LEDGER"


def remedy(group: FailureGroup, ledger: str, settings: Mapping[str, Any] = MappingProxyType({})) -> str:
    doubtful = group.status is Status.IN_DOUBT
    # `--only` splits at commas and trims: the kind stands for a code that would not survive that.
    code = group.code if group.code == group.code.strip() and "," not in group.code else ""
    word = Status.IN_DOUBT.value if doubtful else code or group.kind.value
    return retry_command(ledger, settings, f" --only {shlex.quote(word)}")


def retry_command(ledger: str, settings: Mapping[str, Any], only: str = "") -> str:
    """The command line that retries a ledger: it has the accounts and quotas, so they need no flags."""
    simulated = settings.get("simulate") or settings.get("simulator_state")
    state = _simulator(settings, ledger) if simulated else ""
    kept = flags_of(settings, "state_dir", "engine", "scheduler")
    return f"batch-snapshot retry {shell_argument(ledger)}{only}{state}{kept}"


def report_command(ledger: str) -> str:
    page = ledger.removesuffix(".ndjson") + ".html"
    return f"batch-snapshot report {shell_argument(ledger)} --html {shlex.quote(page)}"


def resume_command(ledger: str) -> str:
    """The command line that continues a paused run."""
    return f"batch-snapshot control {shell_argument(ledger)} resume"


def flags_of(settings: Mapping[str, Any], *names: str) -> str:
    given = {name: value for name in names if (value := settings.get(name))}
    return "".join(
        f" --{name.replace('_', '-')} {shlex.quote(_plain(value))}" for name, value in given.items()
    )


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:f}".rstrip("0").rstrip(".")
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def run_command(header: Header, ledger: str, *names: str) -> str:
    """The command line that runs the manifest of a run line into its ledger again, as short as it can be."""
    endpoint, settings = header.endpoint, header.settings
    default = paths.ledger_pattern(None, simulated=endpoint == SIMULATOR).format(name=header.name)
    is_default = ledger == default and not os.environ.get(_LEDGER_VARIABLE)
    into = "" if is_default else f" --ledger {shlex.quote(ledger)}"
    given = {AWS: "", SIMULATOR: _simulator(settings, ledger)}
    where = given.get(endpoint, f" --endpoint-url {shlex.quote(endpoint)}")
    kept = flags_of(settings, *KEPT, "engine", "scheduler", *names)
    path = _near(header.manifest or "MANIFEST", ledger)
    return f"batch-snapshot run {shell_argument(path)}{into}{where}{kept}"


def _near(path: str, ledger: str) -> str:
    """The path, relative to the current folder if it is in there and the ledger has a relative path too."""
    relative = not Path(ledger).is_absolute() and Path(path).is_relative_to(Path.cwd())
    return os.path.relpath(path) if relative else path


def _simulator(settings: Mapping[str, Any], ledger: str) -> str:
    given = f"={shlex.quote(str(settings['simulate']))}" if settings.get("simulate") else ""
    path = settings.get("simulator_state")
    return f" --simulate{given}" + (f" --state {shlex.quote(_near(str(path), ledger))}" if path else "")


def pinned(command: str | None, ledger: str) -> str | None:
    """A command line with `ledger` in place of a pattern with {date}, which means another one tomorrow."""
    if command is None:
        return None
    words = shlex.split(command)
    for number, word in enumerate(words[1:], 1):
        if words[number - 1] == "--ledger" and "{date}" in word:
            words[number] = ledger
        elif word.startswith("--ledger=") and "{date}" in word:
            words[number] = f"--ledger={ledger}"
    return shlex.join(words)
