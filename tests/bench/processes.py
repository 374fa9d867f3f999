"""Processes that are waited for, with what they used of the machine, and processes that serve."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from threading import Timer
from typing import Any, NamedTuple

from tests.support.processes import environment

#: Seconds for a process that has no limit of its own.
PATIENCE = 900.0

#: The unit of a process' peak memory, in bytes, as `wait4` tells it.
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


class Ended(NamedTuple):
    """How a process ended, and what it used."""

    code: int
    stdout: str
    stderr: str
    #: By the monotonic clock, which all processes share.
    begun: float
    #: From its start to its end, and those that processors spent on it and its own children.
    seconds: float
    cpu: float
    #: The most memory that it, or the largest of its children, held at a time; in MB.
    peak: float

    @property
    def trouble(self) -> str:
        """What was wrong with its end; empty where nothing was."""
        last = (self.stderr.strip().splitlines() or [""])[-1]
        return f"exit {self.code}: {last}" if self.code else ""

    @property
    def json(self) -> Any:
        """What it printed, which must be JSON and nothing else."""
        if self.code:
            raise RuntimeError(self.trouble)
        return json.loads(self.stdout)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder to run in, with a home of its own."""
    with TemporaryDirectory(prefix="bench-") as name:
        Path(name, "home").mkdir()
        yield Path(name)


def python(module: str, *words: object) -> list[str]:
    """The command line of a module."""
    return [sys.executable, "-m", module, *map(str, words)]


def run(
    words: Sequence[str],
    place: Path,
    *,
    stdin: Path | None = None,
    patience: float = PATIENCE,
    **variables: str,
) -> Ended:
    """Run a process to its end, in a folder and an environment that know nothing of this machine's AWS.

    Other `variables` are put into that environment.
    Keep this process small: the peak that the system tells of a child is never below its parent's.
    """
    env = {**environment(place), **variables}
    with (stdin or Path(os.devnull)).open("rb") as fed, TemporaryFile() as out, TemporaryFile() as err:
        begun = time.monotonic()
        # wait4 reaps it, not Popen: it alone tells what was used.
        child = subprocess.Popen(words, cwd=place, env=env, stdin=fed, stdout=out, stderr=err)
        watchdog = Timer(patience, os.kill, (child.pid, signal.SIGKILL))
        watchdog.start()
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            raise
        finally:
            watchdog.cancel()
        seconds = time.monotonic() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        for stream in (out, err):
            stream.seek(0)
        return Ended(
            child.returncode,
            out.read().decode("utf-8", "replace"),
            err.read().decode("utf-8", "replace"),
            begun,
            seconds,
            used.ru_utime + used.ru_stime,
            used.ru_maxrss * _PEAK_UNIT / 1e6,
        )


@contextmanager
def served(words: Sequence[str], place: Path) -> Iterator[str]:
    """A process that serves for the length of the block; the URL that it prints."""
    with subprocess.Popen(words, env=environment(place), stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip() if server.stdout else ""
            if not url:
                raise RuntimeError("the endpoint did not start")
            yield url
        finally:
            server.terminate()
