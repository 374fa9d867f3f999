"""Network file systems: known by the kernel's list, and a log of calls that works there."""

from __future__ import annotations

import sqlite3
from pathlib import PurePosixPath

import pytest

from batch_snapshot import mounts
from batch_snapshot.errors import StorageError
from batch_snapshot.ratelimit.windows import CallLog, Machine, QuotaWindow, WindowFull

#: As a task with EFS sees it, and a machine with a space in a mount's name.
MOUNTINFO = """\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw
30 22 0:26 / /data rw,relatime shared:2 master:1 - nfs4 127.0.0.1:/ rw,vers=4.1
31 30 0:27 / /data/local rw - tmpfs tmpfs rw
32 22 0:28 / /mnt/my\\040share rw - cifs //server/share rw
33 22 0:29 / /mnt/twice rw - nfs server:/a rw
34 22 0:30 / /mnt/twice rw - xfs /dev/sdb rw
35 22 0:31 / /mnt/s3 rw - fuse.mount-s3 bucket rw
nonsense
"""
WINDOW = QuotaWindow("per_minute", 3, 60.0)
REMOTE = Machine(remote=lambda _: True)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/state", "ext4"),
        ("/data", "nfs4"),
        ("/data/state/usage.sqlite", "nfs4"),
        ("/database/usage.sqlite", "ext4"),
        ("/data/local/x", "tmpfs"),
        ("/mnt/my share/x", "cifs"),
        ("/mnt/twice/x", "xfs"),
        ("/mnt/s3/x", "fuse.mount-s3"),
    ],
)
def test_the_nearest_mount_decides_the_type(path, kind):
    assert mounts.file_system_type(PurePosixPath(path), MOUNTINFO) == kind


def test_without_a_matching_mount_the_type_is_unknown():
    assert mounts.file_system_type(PurePosixPath("/data"), "") == ""


def test_the_mounts_of_this_machine_can_be_read(tmp_path):
    assert mounts.is_remote(tmp_path) is False
    assert mounts.file_system_type(tmp_path.resolve(), mounts.MOUNTS.read_text("utf-8"))


def test_on_a_network_file_system_there_is_no_write_ahead_log(tmp_path):
    """Its index is memory that only one machine's processes share."""
    path = tmp_path / "usage.sqlite"
    with CallLog(path, machine=REMOTE) as one, CallLog(path, machine=REMOTE) as other:
        assert all(isinstance(log.reserve("a", [WINDOW]), int) for log in (one, other, one))
        assert isinstance(other.reserve("a", [WINDOW]), WindowFull)
        assert {made.name for made in tmp_path.iterdir()} == {"usage.sqlite"}
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_log_that_moved_to_a_network_file_system_or_back_is_continued(tmp_path):
    path = tmp_path / "usage.sqlite"
    for machine in (Machine(), REMOTE, Machine()):
        with CallLog(path, machine=machine) as log:
            assert isinstance(log.reserve("a", [WINDOW]), int)
    with CallLog(path) as log:
        assert len(log.ages("a", 60.0)) == 3


def test_another_machine_continues_at_the_last_time_in_the_file(tmp_path):
    """Every task has a boot of its own: what one has called counts for the next."""

    def task(boot: str, wall: float) -> Machine:
        return Machine(boot=lambda: boot, elapsed=lambda: 5.0, wall=lambda: wall, remote=lambda _: True)

    path = tmp_path / "usage.sqlite"
    with CallLog(path, machine=task("first", 1000.0)) as log:
        for _ in range(3):
            reservation = log.reserve("a", [WINDOW])
            assert isinstance(reservation, int)
            log.finish(reservation)
    with CallLog(path, machine=task("second", 1059.0)) as log:
        assert isinstance(log.reserve("a", [WINDOW]), WindowFull)
    with CallLog(path, machine=task("third", 1061.0)) as log:
        assert isinstance(log.reserve("a", [WINDOW]), int)


def test_a_journal_mode_that_is_not_available_is_a_clear_error(tmp_path):
    path = tmp_path / "usage.sqlite"
    with CallLog(path), pytest.raises(StorageError, match="cannot keep count"):
        # Others use the write-ahead log now, so it cannot be left.
        CallLog(path, machine=REMOTE, timeout=0.1)
