"""Which file systems are mounted where, as far as the kernel tells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import PurePath

#: Types of file systems that other machines may write too.
REMOTE = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "gpfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3",
    "smbfs", "vboxsf",
})  # fmt: skip

MOUNTS = Path("/proc/self/mountinfo")


def remote(path: Path) -> bool:
    """Whether the file at `path` lies on a network file system; where nobody tells, it does not."""
    try:
        text = MOUNTS.read_text("utf-8", "surrogateescape")
        real = path.resolve()
    except OSError:
        return False
    kind = kind_of(real, text)
    return kind in REMOTE or kind.startswith("fuse.")


def kind_of(path: PurePath, text: str) -> str:
    """The type of the file system that an absolute path lies on; empty: it is not told.

    Args:
        path: without symbolic links.
        text: of mountinfo, see proc(5).
    """
    above = {str(path), *map(str, path.parents)}
    found, longest = "", 0
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if not dash or len(fields) < 5:
            continue
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4])
        # Of two mounts on one point the later hides the earlier.
        if point in above and len(point) >= longest:
            found, longest = after.split()[0], len(point)
    return found
