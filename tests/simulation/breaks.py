"""Deliberate breaks of the code, each of which the simulation must catch within a minute.

A break is a text replaced in a copy of the package; the copy then lives lives until one of them fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

#: Seconds within which a break must be caught.
LONGEST = 60.0


class Break(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    #: What does the same in another way.
    also: Break | None = None


BREAKS = (
    Break(
        "no fsync at an intent",
        "jobs/recorder.py",
        "requests, skew, signer))\n        await self._sync()",
        "requests, skew, signer))",
    ),
    Break(
        "rows are sent before their intent is written",
        "engine/pool.py",
        "await self._seams.intend(batch)\n",
        "workers.start_soon(self._seams.intend, batch)\n",
    ),
    Break(
        "fsync makes nothing durable",
        "ledger/writer.py",
        "self._disk.sync(self._fd)\n            ours",
        "ours",
    ),
    Break("the ledger's name is not durable", "ledger/writer.py", "files.sync_folder(path.parent)", "pass"),
    Break(
        "a row in doubt gets a new token",
        "jobs/plan.py",
        "return Request(row, token, past.generation",
        'return Request(row, client_token("another", row, 99), 99',
    ),
    Break(
        "retry gives a row whose try was ambiguous a new token",
        "jobs/plan.py",
        "elif past.ambiguous:",
        "elif False:",
    ),
    Break(
        "an old token is sent without a look-up",
        "failures/retry.py",
        "return not (0 <= waited <= token_ttl and young)",
        "return False",
    ),
    Break(
        "another program's older snapshot is taken for the row's",
        "aws/client.py",
        "return receipt if ours else None",
        "return receipt",
    ),
    Break(
        "a torn last line stays", "ledger/writer.py", "        disk.truncate(fd, size)\n", "        pass\n"
    ),
    Break("zeros in the ledger stop a resume", "ledger/reader.py", 'if b"\\0" in line.raw:', "if False:"),
    Break(
        "the end line can be durable before the results",
        "jobs/recorder.py",
        "        await self._sync()\n        end =",
        "        end =",
    ),
    Break(
        "rows of a crashed run count as never sent",
        "ledger/history.py",
        "self.unfinished[row.key] = named",
        "self.unfinished[row.key] = named._replace(status=None, ambiguous=False, first_sent_at=None)",
    ),
    Break(
        "calls are not counted in their window",
        "ratelimit/pacer.py",
        "return self.meter.reserve() if self.meter else None",
        "return None",
    ),
    Break(
        "a call leaves its window when it ends",
        "ratelimit/windows.py",
        "(now + 1, reservation)",
        "(now - _micros(DAY), reservation)",
    ),
    Break(
        "two rows of a pair are sent at once",
        "engine/pool.py",
        "if self._claim(attempts):",
        "if self._claim(attempts) or True:",
    ),
    Break(
        "the locks lock nothing",
        "ledger/locks.py",
        "lock.acquire(timeout=TIMEOUT)",
        "pass",
        also=Break("", "ledger/locks.py", "fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),
    ),
    Break(
        "what a failed fsync has dropped is not written again",
        "ledger/writer.py",
        "self._disk.write_again(self.path, self._durable)",
        "pass",
    ),
    Break(
        "calls leave after a failed write",
        "ledger/writer.py",
        "            self._failed = self._unwritable(error)\n            raise self._failed from None\n"
        "        self._size",
        "            return\n        self._size",
    ),
    Break(
        "a call without an answer counts as refused",
        "failures/error_codes.py",
        "_NO_ANSWER = Rule(ErrorKind.TRANSIENT, Verdict.RETRY, may_have_landed=True)",
        "_NO_ANSWER = Rule(ErrorKind.TRANSIENT, Verdict.RETRY, may_have_landed=False)",
    ),
    Break(
        "the service's clock is taken to be right",
        "aws/client.py",
        "ours = retry.created_after(created_at, first, self.clock_skew(account))",
        "ours = retry.created_after(created_at, retry.ClockReading(first.at, 0.0), 0.0)",
    ),
)


def prove(say: Callable[[str], None]) -> int:
    """Say of each break after how long it was caught; returns how many were not."""
    missed = 0
    for one in BREAKS:
        seconds, story = catch(one)
        missed += not story
        say(f"{one.name}: " + (f"caught after {seconds:.1f} s: {story}" if story else "NOT CAUGHT"))
    return missed


def catch(one: Break) -> tuple[float, str]:
    """Seconds until the break was caught, and what was violated; an empty text: it was not."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(ROOT / "batch_snapshot", root / "batch_snapshot")
        shutil.copytree(ROOT / "tests" / "simulation", root / "tests" / "simulation")
        (root / "tests" / "__init__.py").touch()
        _break(root / "batch_snapshot", one)
        began = time.monotonic()
        words = f"-m tests.simulation --seeds 1000000 --seconds {LONGEST} --jobs 2 --no-shrink"
        done = subprocess.run(
            [sys.executable, *words.split()],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        failed = [line for line in done.stdout.splitlines() if line.startswith("seed ")]
        return time.monotonic() - began, failed[0] if done.returncode == 1 and failed else ""


def _break(package: Path, one: Break) -> None:
    file = package / one.file
    source = file.read_text("utf-8")
    if source.count(one.old) != 1:
        raise ValueError(f"{one.name}: {one.file} has {source.count(one.old)} times what is to be replaced")
    file.write_text(source.replace(one.old, one.new), "utf-8")
    if one.also:
        _break(package, one.also)
