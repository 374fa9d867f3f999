"""Locks: one process holds them, the next is refused with its name, and they end with their holder."""

import errno
import fcntl
import json
import os
import platform
import resource
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from batch_snapshot import paths
from batch_snapshot.errors import LockedError, StorageError
from batch_snapshot.ledger import locks
from tests.support.marks import on_linux
from tests.support.processes import Child, Place, until

SINCE = "2026-03-01T12:00:00.000Z"

#: Holds the lock until its input is closed.
HOLDER = """
import sys
from pathlib import Path
from batch_snapshot.ledger import locks
with locks.hold(Path(sys.argv[1]), what="the ledger", since=sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder(NamedTuple):
    """Another process that holds a lock."""

    child: Child
    #: Closes its input.
    end: Callable[[], None]


@asynccontextmanager
async def holder(path: Path) -> AsyncIterator[Holder]:
    """Another process that holds the lock at `path`."""
    place = Place(path.parent.parent)
    said = place.folder / "said"
    reader, writer = os.pipe()
    with said.open("wb") as out, os.fdopen(reader, "rb") as given, os.fdopen(writer, "wb") as ours:
        async with place.started(str(path), SINCE, script=HOLDER, stdin=given, stdout=out) as child:
            given.close()
            await until(lambda: said.read_bytes() == b"held\n", "the lock")
            yield Holder(child, ours.close)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "locks" / "nightly.lock"


def held(path: Path):
    return locks.hold(path, what="nightly.ndjson", since=SINCE)


def assert_free(path: Path) -> None:
    with held(path):
        pass


@pytest.mark.asyncio
async def test_a_second_process_is_refused_with_the_holders_name(path):
    async with holder(path) as process:
        pid = process.child.pid
        with pytest.raises(LockedError) as caught, held(path):
            pytest.fail("two hold it")
        assert str(caught.value) == (
            f"locked: nightly.ndjson is in use by another run (pid {pid} on {platform.node()}, "
            f"since {SINCE}); wait until that run ends, or stop it"
        )
        assert caught.value.exit_code == 5
        # A refusal does not change the holder: the next process gets the same message.
        with pytest.raises(LockedError, match=f"pid {pid} on"), held(path):
            pytest.fail("two hold it")
        assert locks.is_held(path)


@pytest.mark.asyncio
async def test_a_holder_that_is_killed_leaves_no_obstacle(path):
    async with holder(path) as process:
        process.child.signal(signal.SIGKILL)
        assert (await process.child.finished(10)).code == -signal.SIGKILL
        assert json.loads(path.read_text())["pid"] == process.child.pid
        assert not locks.is_held(path)
        assert_free(path)


def test_a_lock_creates_its_folder_and_a_file_with_mode_0600(path):
    before = os.umask(0)
    try:
        with held(path):
            assert path.stat().st_mode & 0o7777 == 0o600
    finally:
        os.umask(before)


def test_a_lock_file_says_who_holds_it_and_since_when(path):
    with held(path):
        assert json.loads(path.read_text()) == {"pid": os.getpid(), "host": platform.node(), "since": SINCE}
    assert path.read_text() == ""


def names(pid: int) -> str:
    return json.dumps({"pid": pid, "host": platform.node(), "since": SINCE})


LEFT = ["", "{", "[]", '{"pid": "many"}', "\0\0\0", names(1), names(os.getpid()), names(10**30)]


@pytest.mark.parametrize("left", LEFT, ids=range(len(LEFT)))
def test_a_lock_file_with_any_content_can_be_locked(path, left):
    """Process ids are reused, and files are edited."""
    path.parent.mkdir()
    path.write_text(left)
    assert not locks.is_held(path)
    assert path.read_text() == left, "looking alters nothing"
    assert_free(path)


@pytest.mark.asyncio
async def test_a_lock_with_an_empty_file_is_held(path):
    async with holder(path) as process:
        path.write_text("")
        assert locks.is_held(path)
        with pytest.raises(LockedError, match="is in use by another run; wait"), held(path):
            pytest.fail("two hold it")
        process.end()
        assert (await process.child.finished()).code == 0
    assert not locks.is_held(path)
    assert_free(path)


# ---- whether the holder lives


def test_two_processes_that_look_at_once_see_no_holder(path):
    path.parent.mkdir()
    path.touch()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not locks.is_held(path)


def test_looking_at_a_lock_does_not_keep_a_run_out(path):
    path.parent.mkdir()
    looking = path.open("wb")
    fcntl.flock(looking, fcntl.LOCK_EX)
    timer = threading.Timer(0.05, looking.close)
    timer.start()
    try:
        with held(path):
            pass
    finally:
        timer.join()


# ---- where no lock can be had


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file/locks/nightly.lock", "Not a directory); move the file that is where a folder must be, or"),
        ("locks", "it is a folder, not a file); move away what has this name, or"),
        # A folder that exists, and in which a new file is not found.
        pytest.param("/proc/self/l.lock", "no file can be made); fix its permissions", marks=on_linux),
    ],
)
def test_a_lock_file_that_cannot_be_made_is_a_storage_error(tmp_path, place, said):
    (tmp_path / "file").write_text("")
    (tmp_path / "locks").mkdir()
    with pytest.raises(StorageError) as caught, held(tmp_path / place):
        pytest.fail("held nowhere")
    assert not isinstance(caught.value, LockedError)
    assert str(caught.value).startswith(f"{tmp_path / place}: cannot lock here ({said}")
    assert "name another folder with --state-dir" in str(caught.value)
    assert caught.value.exit_code == 2


#: Locks where the kernel says no, or says it only when the lock is given back.
REFUSED = """
import sys
from pathlib import Path
from batch_snapshot.ledger import locks
from batch_snapshot.errors import LockedError, StorageError
from tests.support.seccomp import fail_system_call
refuse, late = fail_system_call("flock", int(sys.argv[2])), len(sys.argv) > 3
late or refuse()
try:
    with locks.hold(Path(sys.argv[1]), what="the ledger", since=""):
        late and refuse()
        print("held")
except StorageError as error:
    print(error.exit_code, isinstance(error, LockedError), error)
"""


async def refused(path: Path, number: int, *late: str) -> str:
    """What a process says for which flock fails so."""
    path.parent.mkdir(exist_ok=True)
    said = await Place(path.parent.parent).call(path, str(number), *late, script=REFUSED)
    assert (said.code, said.stderr) == (0, "")
    return said.stdout


@pytest.mark.asyncio
@on_linux
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EPERM], ids=errno.errorcode.get)
async def test_a_file_system_without_locks_is_an_error(path, number):
    code, fix = 5, "use a folder on a file system with file locks:"
    if number == errno.EPERM:
        code, fix = 2, "fix its permissions, or"
    assert await refused(path, number) == (
        f"{code} False {path}: cannot lock here ({os.strerror(number)}); "
        f"{fix} name another folder with --state-dir\n"
    )
    assert path.read_text() == "", "no holder is written"


@pytest.mark.asyncio
@on_linux
async def test_a_lock_that_is_held_elsewhere_is_no_fault_of_the_file_system(path):
    assert (await refused(path, errno.EAGAIN)).startswith(
        "5 True locked: the ledger is in use by another run"
    )


@pytest.mark.asyncio
@on_linux
async def test_a_lock_that_cannot_be_released_does_not_hide_how_the_run_ended(path):
    assert await refused(path, errno.EIO, "late") == "held\n"
    assert_free(path)


def test_a_full_disk_is_a_storage_error_and_the_lock_is_free_again(path):
    assert_free(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(StorageError) as caught, held(path):
            pytest.fail("held without a name")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not isinstance(caught.value, LockedError)
    assert str(path) in str(caught.value)
    assert_free(path)


def test_a_lock_file_that_others_removed_does_not_hide_how_the_run_ended(path):
    """The state folder may be cleared while a long run goes on."""
    with held(path):
        path.unlink()
        path.parent.rmdir()
    assert_free(path)


def test_a_link_to_a_ledger_has_the_lock_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "ledger.ndjson").touch()
    (tmp_path / "latest").symlink_to("ledger.ndjson")
    with locks.hold(paths.ledger_lock(tmp_path / "ledger.ndjson"), what="a ledger", since="now"):
        assert locks.is_held(paths.ledger_lock(tmp_path / "latest"))
