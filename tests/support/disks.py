"""File systems of memory alone, where the tests may mount them."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mounted(folder: Path, *flags: str) -> Iterator[bool]:
    """A file system of memory alone at `folder`; False where this process may not mount any."""
    folder.mkdir(exist_ok=True)
    mount = shutil.which("mount")
    asked = [mount or "mount", "-t", "tmpfs", *flags, "batch-snapshot-tests", str(folder)]
    done = mount is not None and subprocess.run(asked, capture_output=True, check=False).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", str(folder)], check=True)
