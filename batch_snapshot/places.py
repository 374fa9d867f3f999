"""Where things lie: the state folder, the ledger of a manifest, the locks."""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from batch_snapshot.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

DATE = "%Y-%m-%d"
_DATE_PATTERN = re.compile(r"\d{4}-\d{2}-\d{2}")


def state_folder(given: Path | None, environ: Mapping[str, str], home: Path) -> Path:
    """The folder for what outlives a run: `--state-dir`, BATCH_SNAPSHOT_STATE_DIR, or XDG's.

    https://specifications.freedesktop.org/basedir-spec/latest/
    """
    if given:
        return given
    if named := environ.get("BATCH_SNAPSHOT_STATE_DIR"):
        return Path(named)
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else home / ".local" / "state") / "batch-snapshot"


def ledger_pattern(given: str | None, *, simulated: bool) -> str:
    """`--ledger`, or the default: without a date, so that a backfill over days finds its own again.

    Raises:
        InputError: for a placeholder that is none.
    """
    pattern = given or ("ledgers/{name}.simulated.ndjson" if simulated else "ledgers/{name}.ndjson")
    unknown = set(re.findall(r"\{[^{}]*\}", pattern)) - {"{name}", "{date}"}
    if unknown:
        raise InputError(f"--ledger {pattern}: {min(unknown)} is not known; there are {{name}} and {{date}}")
    return pattern


def ledger_path(pattern: str, name: str, today: datetime) -> Path:
    """The ledger that `pattern` means for the manifest called `name` on the (UTC) day of `today`."""
    return Path(pattern.replace("{name}", name).replace("{date}", today.strftime(DATE)))


def dated_ledgers(pattern: str, name: str) -> Iterator[Path]:
    """The ledgers of other days that a pattern with {date} means, the newest first."""
    path = Path(pattern.replace("{name}", name))
    if "{date}" not in path.name:
        return
    before, after = path.name.split("{date}", 1)
    if not path.parent.is_dir():
        return
    for candidate in sorted(path.parent.iterdir(), reverse=True):
        middle = candidate.name.removeprefix(before).removesuffix(after)
        if candidate.name == f"{before}{middle}{after}" and _DATE_PATTERN.fullmatch(middle):
            yield candidate


def ledger_lock(ledger: Path) -> Path:
    """The lock beside a ledger."""
    return ledger.with_name(f"{ledger.name}.lock")


def account_lock(state: Path, name: str, account: str, endpoint: str) -> Path:
    """The lock on a manifest name and account, so that two nights never overlap.

    A simulator or another endpoint is another world, with locks of its own.
    """
    world = "" if endpoint == "aws" else "." + blake2b(endpoint.encode(), digest_size=6).hexdigest()
    return state / "locks" / f"{name}.{account}{world}.lock"
