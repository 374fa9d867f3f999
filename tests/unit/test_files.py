"""Files are replaced as a whole, or not at all."""

import os
import stat
import subprocess
import sys
from typing import Any

import pytest

from batch_snapshot import files
from tests.support.marks import on_linux


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_atomic_write_replaces_the_content_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with files.atomic_write(path) as file:
        file.write(b"after")
        file.flush()
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_after_an_error_leaves_the_file_unchanged_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    half: Any = ["half", 0]
    with pytest.raises(TypeError), files.atomic_write_text(path) as file:
        file.writelines(half)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_takes_the_mode_given_else_the_old_one_else_the_umask(tmp_path):
    path = tmp_path / "file"
    for given, expected in [(None, 0o640), (0o644, 0o644), (None, 0o644), (0o600, 0o600), (None, 0o600)]:
        with files.atomic_write(path, given):
            pass
        assert mode(path) == expected


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_atomic_write_replaces_no_folder_and_no_pipe(tmp_path, make):
    make(tmp_path / "special")
    with pytest.raises(files.NotAFileError, match="not a file"), files.atomic_write(tmp_path / "special"):
        pass
    assert len(list(tmp_path.iterdir())) == 1


def test_atomic_write_takes_the_longest_names(tmp_path):
    path = tmp_path / ("é" * 127)
    with files.atomic_write_text(path) as file:
        file.write("é\r\n")
    assert path.read_bytes() == "é\r\n".encode()


#: Replaces a file in a process whose every fsync fails.
FAILING_FSYNC = """
import errno, pathlib, sys
from batch_snapshot import files
from tests.support.seccomp import fail_system_call
fail_system_call("fsync", errno.EIO)()
with files.atomic_write(pathlib.Path(sys.argv[1])) as file:
    file.write(b"after")
"""

#: Prints the names that a process opens and renames while it replaces a file.
AUDITED = """
import pathlib, sys
from batch_snapshot import files
events = []
sys.addaudithook(lambda event, args: event in {"open", "os.rename"} and events.append((event, str(args[0]))))
with files.atomic_write(pathlib.Path(sys.argv[1])):
    pass
print(*(event for event, name in events if name.startswith(sys.argv[2])))
"""


def run(script, *arguments):
    line = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@on_linux
def test_atomic_write_replaces_nothing_that_cannot_be_made_durable(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    done = run(FAILING_FSYNC, path)
    assert "Input/output error" in done.stderr
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_syncs_the_folder_after_the_rename(tmp_path):
    done = run(AUDITED, tmp_path / "file", tmp_path)
    assert done.stdout.split()[-2:] == ["os.rename", "open"]
