"""A disk that loses what was not synced.

Files are real, on whatever file system holds the folder. This disk knows which of their bytes and names are
durable. After a power cut it puts back a state that the calls allow: each write since the last fsync is
kept, lost, torn or zero-filled, whatever happens to the others; each new or replaced name is old or new.
SQLite's files and locks are left alone: they keep what was committed.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from stat import S_ISDIR

from batch_snapshot import files


@dataclass
class _File:
    #: What survives a power cut for sure.
    durable: bytes = b""
    #: Writes since the last fsync, in their order: an offset and bytes; None as bytes: cut off there.
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    #: Writes that a failed fsync dropped: no later fsync writes them.
    dropped: list[tuple[int, bytes]] = field(default_factory=list)


class SimulatedDisk(files.Disk):
    def __init__(self, rng: Random, point: Callable[[str], None], folder: Path) -> None:
        """Draw what a power cut leaves from `rng`; `point` is called wherever a crash is possible.

        No name in `folder` is durable yet.
        """
        self._rng = rng
        self._point = point
        self._files: dict[int, _File] = {}
        #: By folder: the names that are durable, with their files.
        self._names: dict[Path, dict[str, int]] = {folder: {}}
        #: Kinds of the next faults, "full" or "fsync".
        self.faults: list[str] = []
        #: The last write failed: nothing may be sent any more.
        self.failed = False

    def write(self, fd: int, data: bytes) -> int:
        self._point("write")
        size = os.fstat(fd).st_size
        if self._fault("full"):
            part = data[: self._rng.randrange(len(data))]
            if part:
                self._append(fd, size, part)
                self.faults.insert(0, "full")
                return len(part)
            raise self._fail(errno.ENOSPC)
        if self._rng.random() < 0.02 and len(data) > 1:
            data = data[: self._rng.randrange(1, len(data))]
        self._append(fd, size, data)
        self._point("written")
        return len(data)

    def truncate(self, fd: int, size: int) -> None:
        self._point("truncate")
        self._file(fd).pending.append((size, None))
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        self._point("fsync")
        if S_ISDIR(os.fstat(fd).st_mode):
            folder = Path(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115 - no link of a file system
            self._names[folder] = {entry.name: entry.inode() for entry in os.scandir(folder)}
        else:
            file = self._file(fd)
            if self._fault("fsync"):
                # The kernel reports the error once, and forgets that the pages were not written.
                file.dropped += [(at, data) for at, data in file.pending if data is not None]
                file.pending.clear()
                raise self._fail(errno.EIO)
            content = Path(f"/proc/self/fd/{fd}").read_bytes()  # the descriptor may be for writing alone
            file.durable = _without(content, file.dropped)
            file.pending.clear()
        self._point("fsynced")

    def write_again(self, path: Path, start: int) -> None:
        file = self._files[path.stat().st_ino]
        file.pending += [one for one in file.dropped if one[0] >= start]
        file.dropped = [one for one in file.dropped if one[0] < start]

    def replace(self, source: Path, target: Path) -> None:
        self._point("rename")
        source.replace(target)
        self._point("renamed")

    def cut_power(self) -> None:
        """Leave what is durable, and by chance parts of the rest."""
        for folder, durable in self._names.items():
            present = {entry.name: entry.inode() for entry in os.scandir(folder)}
            for name in sorted(present.keys() | durable.keys()):
                new, old = present.get(name), durable.get(name)
                if new not in self._files and old not in self._files:
                    continue
                kept = new if new == old or self._rng.random() < 0.5 else old
                if kept is None:
                    (folder / name).unlink()
                elif kept in self._files:
                    self._restore(folder / name, self._files[kept])
        self._files.clear()
        for folder in self._names:
            for entry in os.scandir(folder):
                if entry.is_file():
                    self._files[entry.inode()] = _File(Path(entry.path).read_bytes())
            self._names[folder] = {entry.name: entry.inode() for entry in os.scandir(folder)}

    def _restore(self, path: Path, file: _File) -> None:
        content = bytearray(file.durable)
        longest = len(content)
        for offset, data in file.pending:
            longest = max(longest, offset + len(data or b""))
            fate = self._rng.choice(["kept", "kept", "lost", "torn", "zeros"])
            if fate == "lost":
                continue
            if data is None:
                del content[offset:]
                continue
            written = self._rng.randrange(len(data)) if fate == "torn" else len(data)
            _place(content, offset, bytes(len(data)) if fate == "zeros" else data[:written])
        if self._rng.random() < 0.2:
            content.extend(bytes(max(0, longest - len(content))))
        path.write_bytes(bytes(content))

    def _append(self, fd: int, offset: int, data: bytes) -> None:
        self._file(fd).pending.append((offset, data))
        os.write(fd, data)

    def _file(self, fd: int) -> _File:
        return self._files.setdefault(os.fstat(fd).st_ino, _File())

    def _fault(self, kind: str) -> bool:
        if self.faults[:1] == [kind]:
            self.faults.pop(0)
            return True
        return False

    def _fail(self, number: int) -> OSError:
        self.failed = True
        return OSError(number, os.strerror(number))


def _place(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _without(content: bytes, dropped: list[tuple[int, bytes]]) -> bytes:
    durable = bytearray(content)
    for offset, data in dropped:
        if content[offset : offset + len(data)] == data:
            durable[offset : offset + len(data)] = bytes(len(data))
    return bytes(durable)
