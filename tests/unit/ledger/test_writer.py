"""Writing a ledger: no crash and no full disk can tear it."""

import os
import resource
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path, PosixPath

import pytest
from msgspec import structs

from batch_snapshot import manifest
from batch_snapshot.config.options import Options
from batch_snapshot.errors import LedgerError, LedgerWriteError, LockedError, StateFolderError
from batch_snapshot.ledger import history, reader, records, writer
from batch_snapshot.ledger.repair import repair
from batch_snapshot.ledger.writer import Ledger
from batch_snapshot.models import Account, ErrorKind, RowError
from tests.support.planned_jobs import run_job
from tests.unit.ledger.examples import (
    AT,
    END_LINE,
    FAILED,
    HEADER,
    INTENT_LINE,
    LINES,
    RESULT_LINE,
    RUN_LINE,
    WHOLE,
    records_of,
    written,
)


@contextmanager
def file_size_limit(size: int):
    """A disk that is full at `size` bytes of any one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@contextmanager
def umask(mask: int):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077, 0o177, 0o777])
def test_a_ledger_has_mode_0600_under_any_umask(path, mask):
    with umask(mask), Ledger(path):
        pass
    assert path.stat().st_mode & 0o7777 == 0o600


def test_a_ledger_needs_its_folder(tmp_path):
    path = tmp_path / "none" / "nightly.ndjson"
    with pytest.raises(StateFolderError) as caught:
        Ledger(path)
    assert str(caught.value) == (
        f"{path}: cannot be created (No such file or directory); "
        "create its folder, or name another place with --ledger"
    )
    assert caught.value.exit_code == 2


def test_whole_lines_are_appended(path):
    with Ledger(path) as ledger:
        assert ledger.empty
        ledger.append(RUN_LINE)
        assert not ledger.empty
        assert path.read_bytes() == RUN_LINE
        ledger.append(INTENT_LINE)
        assert path.read_bytes() == RUN_LINE + INTENT_LINE
        ledger.sync()
    with Ledger(path) as ledger:
        assert not ledger.empty
        ledger.append(RESULT_LINE)
        ledger.sync()
        ledger.sync()
    assert path.read_bytes() == RUN_LINE + INTENT_LINE + RESULT_LINE


def test_a_ledger_closes_its_file(path):
    before = open_files()
    with Ledger(path) as ledger:
        ledger.append(RUN_LINE)
    with pytest.raises(LedgerError):
        Ledger(written(path, b"not ours"))
    assert open_files() == before


# ---- torn tails


def assert_recovered(path: Path, before: bytes) -> None:
    """A writer keeps the whole lines of a cut ledger unchanged, and appends to them."""
    originals = [records.decode(line) for line in WHOLE.splitlines(keepends=True)]
    with Ledger(path) as ledger:
        repaired = path.read_bytes()
        assert repaired == b"" or repaired.endswith(b"\n")
        assert WHOLE.startswith(repaired)
        kept = records_of(path)
        assert kept == originals[: len(kept)]
        # At most the line that was torn is gone.
        assert len(kept) >= before.count(b"\n")
        assert repaired.startswith(before[: before.rfind(b"\n") + 1])
        ledger.append(END_LINE)
        ledger.sync()
    assert path.read_bytes() == repaired + END_LINE
    assert records_of(path) == [*kept, records.decode(END_LINE)]


def test_a_ledger_cut_at_any_byte_is_repaired(path):
    borders = {at + near for at, byte in enumerate(WHOLE) if byte == ord("\n") for near in (-1, 0, 1, 2)}
    for cut in sorted({*range(0, len(WHOLE), 11), *borders, len(WHOLE)}):
        assert_recovered(written(path, WHOLE[:cut]), WHOLE[:cut])


#: A line longer than one read.
LONG_LINE = records.encode_result(
    "night-1", replace(FAILED, error=RowError(ErrorKind.UNKNOWN, "Long", "x" * 300_000))
)
ZEROS = bytes(len(RUN_LINE))


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        *((whole[:-1], whole) for whole in accumulate(LINES)),
        (RUN_LINE + LONG_LINE[:-3], RUN_LINE),
        (RUN_LINE + b"\0", RUN_LINE),
        (RUN_LINE + b"\0" * 5000, RUN_LINE),
        (RUN_LINE + b"\0\0note", RUN_LINE),
        (RUN_LINE + RESULT_LINE[:40] + b"\0" * 100, RUN_LINE),
        (RUN_LINE + RESULT_LINE[:-1] + b"\0", RUN_LINE),
        (RUN_LINE[:8] + b"\0" * 50 + RUN_LINE[58:-1], b""),
        (RUN_LINE + b"\0\0" + RUN_LINE[:-1], RUN_LINE + b"\0\0" + RUN_LINE),
        (ZEROS + RUN_LINE + RESULT_LINE + b"\0\0rest", ZEROS + RUN_LINE + RESULT_LINE),
    ],
)
def test_a_last_line_without_its_newline_is_kept_if_it_is_whole_else_cut_off(path, content, kept):
    with Ledger(written(path, content)) as ledger:
        assert path.read_bytes() == kept
        ledger.append(END_LINE)
    assert path.read_bytes() == kept + END_LINE


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_first_line_that_zeros_tore_is_to_be_removed(path, end):
    path.write_bytes(b"\0" * 100 + RUN_LINE[100:].rstrip() + end)
    read = reader.history_of if end else writer.repair_last_line
    with pytest.raises(LedgerError, match=r"nothing was sent: .*, then run the same command") as caught:
        read(path)
    assert f"`mv {path} {path}.original`" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"engagement,resource",
        b"version: 1\nname: nightly\npairs: []",
        b'{"engagement": "eng-0123456789abcd"}',
        b"[1, 2]",
        b"x",
        RUN_LINE + b"a note at the end",
    ],
)
def test_a_file_that_is_no_ledger_is_refused_and_not_altered(path, content):
    with pytest.raises(LedgerError, match="its last line is not a ledger's") as caught:
        Ledger(written(path, content))
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2
    assert path.read_bytes() == content


MANIFEST = (
    "version: 1\nname: nightly\ndefaults: {catalog: Sandbox, account: main}\naccounts: {main: }\n"
    "pairs: [{engagement: eng-0123456789abcd, resource: O1234567}]\n"
)
HEAD = structs.replace(HEADER, accounts={"main": records.encode_account(Account("main"))})
HEAD_LINE = records.encode_run(HEAD, "0.1.0")


def test_repairing_the_last_line_creates_no_ledger(path):
    writer.repair_last_line(path)
    assert not path.exists()
    writer.repair_last_line(written(path, RUN_LINE + END_LINE[:9]))
    assert path.read_bytes() == RUN_LINE
    with pytest.raises(LedgerError, match="is not a ledger's"):
        writer.repair_last_line(written(path, b"engagement,resource"))
    assert path.read_bytes() == b"engagement,resource"


def nightly(folder: Path, content: bytes) -> tuple[manifest.Manifest, Path]:
    """A manifest and its ledger."""
    listed = folder / "nightly.yaml"
    listed.write_text(MANIFEST)
    return manifest.load(listed), written(folder / "nightly.ndjson", content)


OPTIONS = Options(ledger="nightly.ndjson", state_dir=Path("state"))


def test_a_dry_run_repairs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed, path = nightly(tmp_path, HEAD_LINE + b'{"type":"int')
    with run_job(listed, OPTIONS, AT, read_only=True) as made:
        assert made.header.run_id == "night-1"
    assert path.read_bytes() == HEAD_LINE + b'{"type":"int'


@pytest.mark.parametrize("cut", [0, 1, 2, 40])
def test_a_resume_reads_the_ledger_that_the_repair_leaves(tmp_path, monkeypatch, cut):
    """The run id of a resume is that of the ledger it writes, wherever the run line is torn."""
    monkeypatch.chdir(tmp_path)
    listed, path = nightly(tmp_path, HEAD_LINE[: len(HEAD_LINE) - cut])
    with run_job(listed, OPTIONS, AT) as made, Ledger(path) as ledger:
        ledger.append(records.encode_run(structs.replace(HEAD, run_id=made.header.run_id), "0.1.0"))
    folded = history.fold(reader.lines(path))
    assert folded.first is not None
    assert folded.first.run_id == made.header.run_id


# ---- what cannot be written


@pytest.mark.parametrize("room", [0, 1, len(INTENT_LINE) // 2, len(INTENT_LINE) - 1])
def test_a_full_disk_leaves_no_torn_line_and_ends_the_writing(path, room):
    with Ledger(path) as ledger:
        ledger.append(RUN_LINE)
        with file_size_limit(len(RUN_LINE) + room), pytest.raises(LedgerWriteError) as caught:
            ledger.append(INTENT_LINE)
        assert path.read_bytes() == RUN_LINE
        # There is room again, but a line behind a torn one would be lost with it.
        for again in (lambda: ledger.append(RESULT_LINE), ledger.sync):
            with pytest.raises(LedgerWriteError) as later:
                again()
            assert str(later.value) == str(caught.value)
        assert path.read_bytes() == RUN_LINE
    assert caught.value.exit_code == 5
    assert str(caught.value) == (
        f"{path}: cannot be written (File too large); raise the limit on the size of files (ulimit -f), "
        "then run the same command"
    )
    with Ledger(path) as ledger:
        ledger.append(INTENT_LINE)
    assert records_of(path) == [records.decode(RUN_LINE), records.decode(INTENT_LINE)]


def test_a_device_without_room_is_a_write_error():
    with Ledger(Path("/dev/full")) as ledger:
        for _ in range(2):
            with pytest.raises(LedgerWriteError, match=r"/dev/full: cannot be written .No space left"):
                ledger.append(RUN_LINE)


def test_a_repair_that_cannot_be_written_is_a_write_error(path):
    written(path, RUN_LINE + END_LINE[:-1])
    with file_size_limit(len(RUN_LINE)), pytest.raises(LedgerWriteError, match="cannot be written"):
        Ledger(path)
    assert path.read_bytes() == RUN_LINE + END_LINE[:-1]


def replaced(path: Path) -> None:
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    copy.replace(path)


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, replaced, lambda path: os.truncate(path, 0), lambda path: os.truncate(path, 10)],
    ids=["removed", "replaced", "emptied", "cut"],
)
def test_a_ledger_that_is_removed_replaced_or_cut_ends_the_run(path, damage):
    with Ledger(path) as ledger:
        ledger.append(RUN_LINE)
        ledger.sync()
        damage(path)
        ledger.append(INTENT_LINE)
        with pytest.raises(LedgerWriteError, match=r"nightly.ndjson") as caught:
            ledger.sync()
        assert "then run the same command" in str(caught.value)
        with pytest.raises(LedgerWriteError):
            ledger.append(RESULT_LINE)
        with pytest.raises(LedgerWriteError):
            ledger.sync()


class _Watched(PosixPath):
    """A path that holds up its first look at the file until it is let go."""

    looked: threading.Event
    go: threading.Event

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        if not self.looked.is_set():
            self.looked.set()
            self.go.wait(10)
        return super().stat(follow_symlinks=follow_symlinks)


def test_a_sync_returns_only_when_what_was_appended_before_it_is_durable(path):
    """Also while another sync is under way: an intent must not pass for durable on its account."""
    watched = _Watched(path)
    watched.looked, watched.go = threading.Event(), threading.Event()
    errors: dict[str, Exception] = {}

    def sync(who: str) -> None:
        try:
            ledger.sync()
        except LedgerWriteError as error:
            errors[who] = error

    with Ledger(watched) as ledger:
        ledger.append(INTENT_LINE)
        path.unlink()
        regular = threading.Thread(target=sync, args=("regular",))
        regular.start()
        assert watched.looked.wait(10)
        intent = threading.Thread(target=sync, args=("intent",))
        intent.start()
        # It may wait for the other, or see for itself; it may not say that all is well.
        intent.join(0.2)
        watched.go.set()
        regular.join()
        intent.join()
    assert set(errors) == {"regular", "intent"}


def test_a_ledger_with_two_names_is_written_by_one_run_at_a_time(tmp_path):
    """Each name has a lock file of its own."""
    one, other = tmp_path / "one.ndjson", tmp_path / "other.ndjson"
    one.touch()
    other.hardlink_to(one)
    for write in (Ledger, lambda path: repair(path, AT)):
        with Ledger(one), pytest.raises(LockedError, match=r"other.ndjson is in use by another run"):
            write(other)
    Ledger(other).__exit__()
