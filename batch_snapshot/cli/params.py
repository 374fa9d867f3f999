"""The types of values that flags take, as functions of their text; and those that shells complete.

A function raises `click.BadParameter` where the flag's usage helps, and else `InputError`.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from batch_snapshot import files, text
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import BatchSnapshotError, InputError

#: The longest time that a flag takes, in seconds: 100 years.
LONGEST_TIME = 36_525 * 86400.0

#: Where the live page is served, unless another address is named.
SERVED_AT = "127.0.0.1:8080"

#: Larger files, in bytes, are not read to complete a word in a shell: it would have to wait.
LARGEST_TO_COMPLETE = 5_000_000


def duration_text(seconds: float) -> str:
    """A time as `duration` reads it, in its largest whole unit, such as 10m."""
    unit = max((unit for unit in text.UNITS if seconds % text.UNITS[unit] == 0), key=text.UNITS.__getitem__)
    return f"{seconds / text.UNITS[unit]:g}{unit}"


def duration(value: str) -> float:
    """Seconds of a time such as 90s, 15m, 6h, 1d or 1h30m, or 0."""
    seconds = text.parse_duration(value)
    if seconds is None:
        raise click.BadParameter(
            f"{value!r} is not a time: write a number with its unit (s, m, h or d), such as 90s, 15m, 6h, "
            "1d or 1h30m"
        )
    if seconds > LONGEST_TIME:
        raise click.BadParameter(f"{value!r} is longer than 100 years; write a shorter time")
    return seconds


def interval(value: str) -> float:
    """As `duration`, but not 0."""
    if not (seconds := duration(value)):
        raise click.BadParameter(f"{value!r} is no interval; give at least 1s, such as 30s")
    return seconds


def short_duration(value: str) -> float:
    """As `duration`, and a number without a unit is in seconds, one with ms in milliseconds."""
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?ms", value):
        return float(value.removesuffix("ms")) / 1000
    return duration(f"{value}s" if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", value) else value)


def time_of_day(value: str) -> tuple[int, int]:
    if match := re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", value):
        return int(match[1]), int(match[2])
    raise click.BadParameter(f"{value!r} is not a time of day; write HH:MM, such as 02:17")


def address(value: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or PORT; empty: the default."""
    match = re.fullmatch(r"(?:(\[[0-9a-fA-F:.]+\]|[^:\[\]]*):)?([0-9]{1,5})", value or SERVED_AT)
    if not match or int(match[2]) > 65_535:
        raise click.BadParameter(f"{value!r} is not an address: write HOST:PORT, such as {SERVED_AT}")
    return (match[1] or "127.0.0.1").strip("[]"), int(match[2])


def rate(value: str) -> float | str:
    if value == "auto":
        return value
    with suppress(ValueError):
        if 1e-6 <= (number := float(value)) <= 999_999:
            return number
    raise click.BadParameter(
        f"{value!r} is not a rate; write calls a second from 0.000001 to 999999, such as 2.5, or auto"
    )


def window(value: str) -> tuple[int, float]:
    number, slash, time = value.partition("/")
    if not (slash and re.fullmatch("0*[1-9][0-9]{0,11}", number)):
        raise click.BadParameter(f"{value!r} is not a window; write calls/time, such as 100/1m")
    return int(number), short_duration(time)


def region(name: str) -> str:
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", name):
        raise InputError(f"--region {name!r}: is not a region; leave it out for us-east-1")
    return name


def run_id(value: str) -> str:
    if not (0 < len(value) <= 128 and value.isascii() and value.isprintable()):
        raise InputError(f"--run-id {value!r}: give 1 to 128 printable ASCII characters")
    return value


def changed_since(value: str) -> str:
    from batch_snapshot.manifest import filters

    try:
        if value != "last":
            filters.since(value, utc_now())
    except ValueError as error:
        raise InputError(f"--changed-since: {error}, or last") from None
    return value


def words(value: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in value.split(","))))


class PathParam(click.Path[Path]):
    """A path on this machine; `~` is the home folder, and URLs are refused."""

    def __init__(self, check: Callable[[Path, bytes], None] | None = None, *, folder: bool = False) -> None:
        """`check` gets the beginning of the file, and refuses what is something else."""
        super().__init__(file_okay=not folder)
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        name = param.opts[0] if param else "path"
        flag = name if name.startswith("-") else name.upper()
        path = value if isinstance(value, Path) else Path(files.user_path(value, flag))
        if not self.file_okay and files.is_file(path):
            self.fail(f"{text.shortened(str(path))!r} is a file; name a folder", param, ctx)
        # A file that cannot be read is refused with the reason where it is read.
        with suppress(OSError):
            if self._check is not None and path.is_file():
                with path.open("rb") as file:
                    self._check(path, file.read(65_536))
        return path


def _refuse_ledger(path: Path, begin: bytes) -> None:
    if re.match(rb'\s*{\s*"type"\s*:\s*"run"', begin):
        raise InputError(
            f"{path}: is a ledger, not a manifest: name the manifest, or send the ledger's failed rows "
            f"again with `batch-snapshot retry {text.shell_argument(path)}`"
        )


def _refuse_all_but_ledgers(path: Path, begin: bytes) -> None:
    if not begin or re.search(rb'{\s*"type"\s*:', begin):
        return
    if begin.startswith(b"\0"):
        from batch_snapshot.ledger import reader

        raise reader.not_begun(path, "then run its manifest")
    what, default = "is not a ledger: no line in it is a line of a ledger", ""
    if path.suffix in {".yaml", ".yml", ".csv"}:
        named = re.search(rb"^name:\s*[\"']?([A-Za-z0-9._-]+)", begin, re.MULTILINE)
        what = "is a manifest, not a ledger"
        default = f", by default ledgers/{named[1].decode() if named else path.stem}.ndjson"
    raise InputError(
        f"{path}: {what}: name a ledger that a run wrote{default} (`batch-snapshot ls` lists them)"
    )


FILE, FOLDER = PathParam(), PathParam(folder=True)
MANIFEST, LEDGER = PathParam(_refuse_ledger), PathParam(_refuse_all_but_ledgers)


def simulator_settings(value: str) -> str | None:
    """Settings of a simulator; None: no simulator, as an environment variable may say."""
    if value.casefold() in {"", "1", "true", "yes", "on"}:
        return ""
    if value.casefold() in {"0", "false", "no", "off"}:
        return None
    from batch_snapshot.cli.simulate import parse_settings

    parse_settings(value)
    return value


def complete_accounts(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Accounts of the manifest or ledger on the command line, and their tags as tag:NAME."""
    from batch_snapshot import manifest
    from batch_snapshot.config.accounts import TAG, recorded_accounts
    from batch_snapshot.ledger import reader

    path = _file_on_command_line(ctx)
    if path is None:
        return []
    try:
        if ctx.info_name != "retry":
            accounts = manifest.load(path).accounts
        else:
            head = reader.head(path)
            accounts = recorded_accounts(path, head) if head else {}
    except BatchSnapshotError:
        return []
    tags = {f"{TAG}{tag}" for account in accounts.values() for tag in account.tags}
    return _completed([*accounts, *sorted(tags)], incomplete)


def complete_failures(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from batch_snapshot.ledger import reader
    from batch_snapshot.models import ErrorKind, Status

    codes: set[str] = set()
    if path := _file_on_command_line(ctx):
        with suppress(BatchSnapshotError):
            codes = {group.code for group in reader.history_of(path).failures() if group.code}
    return _completed(
        [*(kind.value for kind in ErrorKind), Status.IN_DOUBT.value, *sorted(codes)], incomplete
    )


def _completed(known: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """The words that the last one of a list separated by commas may become."""
    before, comma, begun = incomplete.rpartition(",")
    return [
        CompletionItem(f"{before}{comma}{word}")
        for word in known
        if word.startswith(begun) and word not in before.split(",")
    ]


def _file_on_command_line(context: click.Context) -> Path | None:
    # A flag that lacks its value, as it does now, ends click's parsing before the arguments.
    given = next(filter(None, map(context.params.get, ("manifest", "ledger"))), None)
    path = given or next(map(Path, context.args), None)
    try:
        return path if path and path.stat().st_size < LARGEST_TO_COMPLETE else None
    except OSError:
        return None
