"""The type of the file system that a path is on, from the kernel's list of mounts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import PurePath

#: Types of file systems that several machines can write.
REMOTE = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "gpfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3",
    "smbfs", "vboxsf",
})  # fmt: skip

MOUNTS = Path("/proc/self/mountinfo")


def is_remote(path: Path) -> bool:
    """Whether `path` is on a network file system; False where the kernel has no list of mounts."""
    try:
        text = MOUNTS.read_text("utf-8", "surrogateescape")
        real = path.resolve()
    except OSError:
        return False
    kind = file_system_type(real, text)
    return kind in REMOTE or kind.startswith("fuse.")


def file_system_type(path: PurePath, text: str) -> str:
    """The type of the file system that an absolute path is on; empty: unknown.

    Args:
        path: without symbolic links.
        text: the content of mountinfo, see proc(5).
    """
    above = {str(path), *map(str, path.parents)}
    found, longest = "", 0
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if not dash or len(fields) < 5:
            continue
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4])
        # A later mount at the same point hides the earlier one.
        if point in above and len(point) >= longest:
            found, longest = after.split()[0], len(point)
    return found
