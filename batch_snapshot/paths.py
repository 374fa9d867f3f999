"""Where files are: the state folder, the ledger of a manifest, the locks."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

from batch_snapshot import files
from batch_snapshot.errors import InputError, StorageError

DATE = "%Y-%m-%d"


def state_folder(given: Path | None, environ: Mapping[str, str], home: Path | None = None) -> Path:
    """The folder for what outlives a run: `--state-dir`, BATCH_SNAPSHOT_STATE_DIR, or XDG's.

    https://specifications.freedesktop.org/basedir-spec/latest/
    """
    if given:
        return given
    if named := environ.get("BATCH_SNAPSHOT_STATE_DIR"):
        return Path(files.user_path(named, "$BATCH_SNAPSHOT_STATE_DIR"))
    base = environ.get("XDG_STATE_HOME", "")
    if Path(base).is_absolute():
        return Path(base) / "batch-snapshot"
    try:
        home = home or Path.home()
    except RuntimeError:
        raise InputError("there is no home folder: name one for locks with --state-dir") from None
    return home / ".local" / "state" / "batch-snapshot"


def call_log_file(state: Path) -> Path:
    return state / "usage.sqlite"


def ledger_pattern(given: str | None, *, simulated: bool) -> str:
    """`--ledger`, or the default: without a date, so that a backfill over days finds its ledger again."""
    default = "ledgers/{name}.simulated.ndjson" if simulated else "ledgers/{name}.ndjson"
    pattern = default if given is None else files.user_path(given, "--ledger")
    unknown = set(re.findall(r"\{[^{}]*\}", pattern)) - {"{name}", "{date}"}
    # A file name may contain braces: an existing ledger is used as named.
    if unknown and not files.exists(Path(pattern)):
        raise InputError(f"--ledger {pattern}: {min(unknown)} is not known; there are {{name}} and {{date}}")
    return simulated_name(pattern) if simulated else pattern


def simulated_name(pattern: str) -> str:
    """The name of a simulated run's ledger for `pattern`: it contains `.simulated`."""
    folder, slash, name = pattern.rpartition("/")
    if name in {"", ".", ".."} or ".simulated" in name:
        return pattern
    stem, _, ending = name.rpartition(".")
    return f"{folder}{slash}{stem}.simulated.{ending}" if stem else f"{pattern}.simulated"


def simulated_state(world: Path, given: Path | None) -> Path:
    """The state folder of simulated runs whose service is kept in the file `world`: next to that file.

    With `--state-dir` it is a folder within it; real runs use that folder itself.
    """
    if not world.name:
        raise InputError(f"--state {world}: is a folder; name a file")
    return given / "simulated" if given else world.with_name(f"{world.name}.state")


@contextmanager
def temporary_state() -> Iterator[Path]:
    """A state folder for a simulated run whose world is not kept."""
    try:
        folder = TemporaryDirectory(prefix="batch-snapshot-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(
            f"cannot make a folder for the state of the simulated run ({error.strerror or error}): name one "
            "that can be written with TMPDIR"
        ) from None
    with folder as name:
        yield Path(name)


def ledger_path(pattern: str, name: str, today: datetime) -> Path:
    return Path(pattern.replace("{name}", name).replace("{date}", today.strftime(DATE)))


def dated_ledgers(pattern: str, name: str) -> list[Path]:
    """The existing ledgers of a pattern with {date}, newest first."""
    parts = pattern.replace("{name}", name).split("{date}")
    if len(parts) == 1:
        return []
    dated = _dated(parts)
    wanted = "????-??-??".join(glob.escape(part) for part in parts)
    found = glob.glob(wanted)  # noqa: PTH207 - a Path takes no absolute pattern
    matches = [match for match in map(dated.fullmatch, found) if match]
    return [Path(match[0]) for match in sorted(matches, key=lambda match: match[1], reverse=True)]


def _dated(parts: list[str]) -> re.Pattern[str]:
    """Matches the paths of a pattern that was split at {date}; the first group is the date."""
    first, second, *rest = map(re.escape, parts)
    return re.compile(rf"{first}(\d{{4}}-\d{{2}}-\d{{2}}){second}" + "".join(rf"\1{part}" for part in rest))


def is_dated_ledger(pattern: str, name: str, path: Path) -> bool:
    """Whether the resolved `path` is the ledger of a pattern with {date} on some day."""
    first, *rest = pattern.replace("{name}", name).split("{date}")
    if not rest:
        return False
    folder, slash, begin = first.rpartition("/")
    parent = str(Path(folder + slash or ".").resolve()).rstrip("/")
    if _dated([f"{parent}/{begin}", *rest]).fullmatch(str(path)):
        return True
    # The folder of a day may be a symbolic link.
    return any(each.resolve() == path for each in dated_ledgers(pattern, name))


def ledgers_of(pattern: str) -> list[Path]:
    """The existing ledgers of a pattern with {date} that names no manifest, newest first."""
    if "{name}" in ledger_pattern(pattern, simulated=False):
        raise InputError(f"{pattern}: there is no manifest here to take {{name}} from: write the name")
    return dated_ledgers(pattern, "")


def discovered_file(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.name}.discovered.ndjson")


def control_socket(state: Path, ledger: Path) -> Path:
    """Where the run that writes a ledger takes commands; a socket's path is short, so the name is a hash."""
    name = blake2b(os.fsencode(files.resolved(ledger)), digest_size=8).hexdigest()
    return state / "control" / f"{name}.sock"


def snapshot_index_file(state: Path) -> Path:
    return state / "snapshots.sqlite"


def ledger_lock(ledger: Path) -> Path:
    if not ledger.name:
        raise InputError(f"{ledger}: is a folder; name the ledger's file")
    # One file has one lock, also where a link names it.
    file = files.resolved(ledger) if ledger.is_symlink() else ledger
    return file.with_name(f"{file.name}.lock")


def original_file(ledger: Path, number: int) -> Path:
    """Where the `number`th repair of a ledger, from 0, keeps the original."""
    return ledger.with_name(f"{ledger.name}.original{f'.{number}' if number else ''}")


def is_original(path: Path) -> bool:
    return re.search(r"\.original(\.\d+)?$", path.name) is not None


def unfinished_files(state: Path, name: str, accounts: Iterable[str], endpoint: str) -> dict[str, Path]:
    """By account, the file that records the unfinished ledgers of a manifest name, next to its lock."""
    return {
        account: account_lock(state, name, account, endpoint).with_suffix(".unfinished")
        for account in sorted(accounts)
    }


def account_lock(state: Path, name: str, account: str, endpoint: str) -> Path:
    """The lock on a manifest name and account, so that two nightly runs never overlap.

    Each endpoint, such as a simulator, has locks of its own.
    """
    world = "" if endpoint == "aws" else "." + blake2b(endpoint.encode(), digest_size=6).hexdigest()
    return state / "locks" / f"{name}@{account}{world}.lock"
