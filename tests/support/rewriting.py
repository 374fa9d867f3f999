"""Files that are written again and again."""

from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Write a file, and remove an old one first.

    Truncating the old one would take a millisecond: ext4 then waits until the new bytes are on the disk.
    """
    path.unlink(missing_ok=True)
    path.write_bytes(content)
