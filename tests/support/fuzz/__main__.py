"""Fuzz a target, guided by coverage.

    python -m tests.support.fuzz manifest|ledger CORPUS [libFuzzer's flags]

It needs atheris (`pip install atheris`). CORPUS begins with a copy of `tests/support/fuzz/findings/{target}`.
Findings are written to the working folder; keep them there too.
"""

import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["batch_snapshot", "yaml"]):
    from tests.support.fuzz.targets import TARGETS

from tests.support.fuzz.mutations import change_lines


def change(data: bytes, max_size: int, seed: int) -> bytes:
    """Change lines, or bytes as libFuzzer would."""
    if seed % 2:
        return change_lines(data, Random(seed))[:max_size]
    changed: bytes = atheris.Mutate(data, max_size)
    return changed


def main(target: str, *flags: str) -> None:
    """Fuzz until a flag says stop, or something is found."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        atheris.Setup(
            [sys.argv[0], *flags, "-timeout=20", "-rss_limit_mb=2048"],
            lambda data: TARGETS[target](data, Path(folder)),
            custom_mutator=change,
        )
        atheris.Fuzz()


main(*sys.argv[1:])
