"""Files and folders that cannot be written: a wrong path is exit code 2, a full disk 5."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_snapshot import errors
from batch_snapshot.clock import utc_now
from batch_snapshot.discovery.output import replaced
from batch_snapshot.discovery.search import Search
from batch_snapshot.errors import StateFolderError, StorageError
from batch_snapshot.ledger import locks, open_runs, writer
from batch_snapshot.ledger.snapshot_index import SnapshotIndex
from batch_snapshot.ratelimit.windows import CallLog

PLACES = [
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    *(errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG),
]


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", PLACES, ids=errno.errorcode.get)
def test_a_wrong_place_is_never_cured_by_room(number):
    error = failure(number)
    assert errors.is_path_error(error)
    out = errors.way_out(error, "name another folder with --state-dir")
    assert out.endswith(", or name another folder with --state-dir")
    assert "room" not in out


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_full_disk_is_cured_by_room_alone(number):
    error = failure(number)
    assert not errors.is_path_error(error)
    assert errors.way_out(error, "name another") == "the disk is full: free some space"


def lock(path: Path) -> None:
    with locks.hold(path, what="nightly", since="now"):
        pass


def note(path: Path) -> None:
    open_runs.record(path, path.with_name("x.ndjson"), "run")


OPENED: dict[str, tuple[Callable[[Path], object], str]] = {
    "lock": (lock, "--state-dir"),
    "unfinished": (note, "--state-dir"),
    "index": (SnapshotIndex, "--state-dir"),
    "usage": (CallLog, "--state-dir"),
    "ledger": (writer.Ledger, "--ledger"),
    "search": (lambda path: Search(path, [], "", utc_now()), "write elsewhere"),
}


@pytest.mark.parametrize("kind", OPENED)
def test_a_file_in_the_place_of_a_folder_is_a_wrong_argument(tmp_path, kind):
    (tmp_path / "state").write_text("", "utf-8")
    open_it, flag = OPENED[kind]
    path = tmp_path / "state" / "deep" / kind
    with pytest.raises(StateFolderError) as caught:
        open_it(path)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert flag in message
    assert "free some space" not in message


def test_a_ledger_that_exists_is_copied_and_not_begun_under_another_name(tmp_path):
    (tmp_path / "old.ndjson").mkdir()
    with pytest.raises(StateFolderError, match="copy the ledger elsewhere and name the copy with --ledger"):
        writer.Ledger(tmp_path / "old.ndjson")


def test_a_listing_that_cannot_be_written_says_why_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(StorageError, match="or write elsewhere") as caught, replaced(tmp_path / "file" / "x"):
        pytest.fail("written nowhere")
    assert "free some space" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
