"""Files that schedule nightly runs: settings → the files of a kind, from templates in `unit_files`. Pure.

Every kind runs the same commands: `retry` for the last night, `prune`, and `run` for this night. The exit
code is that of `run`.
"""

import json
import re
import shlex
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from batch_snapshot.errors import InputError

#: The files of each kind: the template, and the file's name.
KINDS = {
    "systemd": (
        ("systemd.service", "batch-snapshot-{name}.service"),
        ("systemd.timer", "batch-snapshot-{name}.timer"),
    ),
    "cron": (("cron", "batch-snapshot-{name}.crontab"),),
    "kubernetes": (("kubernetes.yaml", "batch-snapshot-{slug}.yaml"),),
    "eventbridge": (("eventbridge.yaml", "batch-snapshot-{name}.template.yaml"),),
}

#: Folders that our systemd unit hides from the service; paths in them have to be bound.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - nothing is created there

#: Characters of a CronJob's name: Kubernetes appends eleven to it for its jobs.
LONGEST_SLUG = 52 - len("batch-snapshot-")
#: Characters of a line that every cron reads.
LONGEST_LINE = 990


class File(NamedTuple):
    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyJob:
    #: Of the manifest.
    name: str
    #: Absolute paths on this machine: the manifest, the program, the folder for ledgers and state.
    manifest: str
    program: str
    folder: str
    #: Folders that the program reads: its own, Python's, the manifest's.
    reads: tuple[str, ...]
    #: In UTC, as the dates in the names of ledgers.
    hour: int
    minute: int
    #: Ledgers that `prune` keeps.
    keep: int
    #: Flags for `run` and `retry`.
    flags: tuple[str, ...] = ()
    image: str
    catalogs: tuple[str, ...]
    #: Actions on lists that its `discover:` needs.
    list_actions: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    role_arns: tuple[str, ...] = ()
    topic: str | None = None
    metrics_folder: str | None = None

    @property
    def slug(self) -> str:
        """The name as Kubernetes allows it; a changed name gets a digest, so that it stays unique."""
        plain = re.sub(r"[^a-z0-9-]+", "-", self.name.lower()).strip("-")
        if plain == self.name and len(plain) <= LONGEST_SLUG:
            return plain
        digest = blake2b(self.name.encode(), digest_size=4).hexdigest()
        return f"{plain[: LONGEST_SLUG - 9].strip('-')}-{digest}".strip("-")

    @property
    def hidden(self) -> list[str]:
        """The folders that the program reads and the systemd unit hides."""
        inside = {path for path in map(Path, self.reads) if any(map(path.is_relative_to, HIDDEN))}
        return sorted(str(path) for path in inside if not inside & {*path.parents})


class Steps(NamedTuple):
    """The commands of a night, as lists of words."""

    retry: list[str]
    prune: list[str]
    run: list[str]


def steps(job: NightlyJob, *, program: str | None, manifest: str, ledgers: str) -> Steps:
    """The commands with these paths; without a `program` the words begin after it."""
    words = [program] if program else []
    # The name itself, not {name}: `retry` has no manifest to take it from.
    ledger = f"{ledgers}/{job.name}-{{date}}.ndjson"
    flags = ["--progress", "none", *job.flags]
    return Steps(
        [*words, "retry", ledger, *flags],
        [*words, "prune", ledgers, "--keep", str(job.keep)],
        [*words, "run", manifest, "--ledger", ledger, *flags],
    )


def files(kind: str, job: NightlyJob) -> list[File]:
    """The files of a kind; raises `InputError` if it cannot run this job."""
    for path in (job.manifest, job.program, job.folder, *job.reads, *job.flags):
        if not path.isprintable():
            raise InputError(f"{path!r}: no unit file can hold this; use another name")
    for path in job.hidden if kind == "systemd" else ():
        if ":" in path:
            raise InputError(f"{path}: systemd cannot bind a path with a colon; use another folder")
    file = Path(job.manifest).name
    if kind == "kubernetes" and not re.fullmatch(r"[A-Za-z0-9._-]+", file):
        raise InputError(f"{file}: a config map takes names of letters, digits, . _ and - only: rename it")
    if kind == "eventbridge" and job.profiles:
        raise InputError(
            f"{job.manifest}: names the profile {job.profiles[0]!r}, and a task has no profiles; "
            "leave it out for the task's own role, or name a role_arn"
        )
    return [
        File(name.format(name=job.name, slug=job.slug), _rendered(template, job))
        for template, name in KINDS[kind]
    ]


def _rendered(template: str, job: NightlyJob) -> str:
    import jinja2  # one command needs it

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("batch_snapshot", "unit_files"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML: every value passes the filter of its language
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "systemd": lambda words: " ".join(map(_systemd, words)),
        "path": lambda path: f'"{_specifiers(path)}"' if re.search(r"\s", path) else _specifiers(path),
        "shell": shlex.join,
        "json": partial(json.dumps, ensure_ascii=False),
        "cron": _cron,
    }
    text = environment.get_template(template).render(job=job, commands=partial(steps, job))
    return text.rstrip("\n") + "\n"


def _specifiers(text: str) -> str:
    """The text, escaped so that systemd expands nothing; see systemd.unit(5)."""
    return text.replace("%", "%%")


def _systemd(word: str) -> str:
    """A word of a command line; see systemd.service(5)."""
    escaped = _specifiers(word.replace("\\", "\\\\").replace('"', '\\"')).replace("$", "$$")
    return escaped if re.fullmatch(r"[A-Za-z0-9_@%+=:,./{}$-]+", escaped) else f'"{escaped}"'


def _cron(command: str) -> str:
    """A command in a crontab, where a percent sign would be a new line; see crontab(5)."""
    line = command.replace("%", r"\%")
    if len(line) > LONGEST_LINE:
        raise InputError(
            f"cron: the line would have {len(line):,} characters, more than cron reads: use systemd"
        )
    return line
