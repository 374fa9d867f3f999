"""Paths, values and ledgers that nobody sane would give: a result or one clear line, never a traceback."""

import os
import socket
import warnings
from pathlib import Path

import pytest

from batch_snapshot import cli, files
from batch_snapshot.cli import errors
from batch_snapshot.errors import InputError, LedgerError
from batch_snapshot.ledger import diff
from tests import ROOT
from tests.support.processes import Place, pairs

SEED = (ROOT / "tests/support/fuzz/findings/ledger/a-run-and-a-retry").read_bytes()


@pytest.fixture
def place(cwd):
    made = Place(cwd)
    made.manifest(pairs(2)).rename("m.yaml")
    Path("seed.ndjson").write_bytes(SEED)
    return made


# -- the command line --------------------------------------------------------------------------------


def test_times_are_summed_and_zero_needs_no_unit():
    from batch_snapshot.cli.params import duration

    assert [duration(text) for text in ("90s", "1h30m", "1d", "0")] == [90.0, 5400.0, 86400.0, 0.0]


PATH_FLAGS = [
    ("run", "m.yaml", "--simulate", "--ledger"),
    ("run", "m.yaml", "--simulate", "--state"),
    ("run", "m.yaml", "--simulate", "--state-dir"),
    ("run", "m.yaml", "--simulate", "--metrics-file"),
    ("run", "m.yaml", "--dry-run", "--ledger"),
    ("plan", "m.yaml", "--ledger"),
    ("report", "seed.ndjson", "--html"),
    ("report", "seed.ndjson", "--csv"),
    ("discover", "--simulate", "--catalog", "Sandbox", "--output"),
    ("schedule", "cron", "m.yaml", "--output"),
    ("run", "--simulate"),
    ("retry", "--simulate"),
    ("status",),
    ("status", "--check"),
    ("validate",),
    ("verify", "--simulate"),
    ("diff", "seed.ndjson"),
    ("prune", "--keep", "1"),
]


@pytest.mark.parametrize("words", PATH_FLAGS, ids=" ".join)
def test_an_invalid_path_is_refused_and_no_file_is_left(call, place, words):
    before = sorted(Path().iterdir())
    for path in (
        "s3://bucket/key",
        "~nobody-has-this-name/x",
        "-",
        "",
        "a\0b",
        "p/" * 3000 + "x",
        "file:///x",
    ):
        code, out, err = call(*words, path)
        assert (code, out) == (2, ""), path
        assert len(err.splitlines()) <= 4
        assert sorted(Path().iterdir()) == before


def test_a_tilde_is_the_home_folder(call, place, monkeypatch):
    monkeypatch.setenv("HOME", str(place.folder))
    assert call("status", "~/seed.ndjson")[0] == 0
    assert files.user_path("~/{name}.ndjson", "--ledger") == f"{place.folder}/{{name}}.ndjson"


def special(kind: str) -> str:
    """Make something that is not a regular file; returns its path."""
    path = Path(kind)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to("loop")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(kind)
    elif kind == "folder":
        path.mkdir()
    elif kind == "deep":
        return "d/" * 300 + "x"
    elif kind == "long":
        return "x" * 5000
    return {"zero": "/dev/zero", "root": "/", "here": "."}.get(kind, kind)


SPECIAL = ["fifo", "loop", "socket", "folder", "long", "zero", "root", "here"]


@pytest.mark.parametrize("kind", SPECIAL)
def test_special_files_are_refused_by_every_command(call, place, kind):
    path = special(kind)
    Path("including.yaml").write_text(f"version: 1\nname: x\ninclude: [{path}.csv]\n")
    lines = [
        ("validate", path),
        ("plan", path),
        ("run", path, "--simulate"),
        ("run", "m.yaml", "--simulate", "--ledger", path),
        ("run", "m.yaml", "--simulate", "--state", path),
        ("plan", "m.yaml", "--ledger", path),
        ("retry", path, "--simulate"),
        ("status", path),
        ("status", path, "--check"),
        ("report", path, "--csv", "out"),
        ("verify", path, "--simulate"),
        ("diff", path, "seed.ndjson"),
        ("simulate", "--state", path),
        ("schedule", "cron", path),
        ("validate", "including.yaml"),
    ]
    for line in lines:
        code, _, err = call(*line)
        assert code in {2, 5}, line
        assert err


@pytest.mark.parametrize("kind", ["fifo", "socket", "loop", "deep"])
def test_special_files_in_the_state_folder_never_hang_a_run(call, place, kind):
    path = special(kind)
    Path("state").mkdir()
    for name in ("usage.sqlite", "snapshots.sqlite"):
        Path(f"state/{name}").symlink_to(Path(path).absolute())
    words = ("run", "m.yaml", "--simulate", "--changed-since", "last", "--state-dir", "state")
    code, _, _ = call(*words)
    assert code in {0, 2, 5}
    call("run", "m.yaml", "--simulate", "--state-dir", path)


def test_file_names_that_are_not_utf_8_are_no_obstacle(call, place):
    odd = os.fsdecode(b"night-\xff\xfe.ndjson")
    Path(odd).write_bytes(SEED)
    for line in (
        ("verify", "seed.ndjson", "--simulate"),
        ("verify", odd, "--simulate"),
        ("status", odd),
        ("status", odd, "--check"),
        ("diff", "seed.ndjson", odd),
        ("report", odd, "--csv", "out"),
        ("retry", "night-{date}.ndjson", "--simulate"),
        ("prune", ".", "--keep", "1", "--dry-run"),
    ):
        code, out, _ = call(*line)
        assert code in {0, 1, 2}, line
        out.encode()


# -- messages ----------------------------------------------------------------------------------------


def test_control_characters_are_shown_as_escapes(call, place):
    for name in ("a\x1b[31mb", "a\nb", "a\u202eb", os.fsdecode(b"a\xffb")):
        _, _, err = call("validate", name)
        assert err.strip().isprintable()


# -- what nobody foresaw -----------------------------------------------------------------------------


def broken(error: BaseException):
    def work(*_: object, **__: object) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    "error",
    [
        ValueError("odd"),
        RecursionError(),
        MemoryError(),
        BaseExceptionGroup("several", [KeyError("a"), ValueError("b")]),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"),
    ],
)
def test_an_unforeseen_error_is_one_line_and_a_traceback_file(capsys, tmp_path, monkeypatch, error):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-very-secret-token")
    if isinstance(error, ValueError) and error.args == ("odd",):
        error.add_note("a-very-secret-token")
    monkeypatch.setattr(cli.cli, "main", broken(error))
    assert [cli.main([name]) for name in ("run", "status", "export")] == [3, 2, 3]
    out, err = capsys.readouterr()
    assert not out
    assert "Traceback" not in err
    assert ["the same command resumes" in line for line in err.splitlines()] == [True, False, False]
    for kept in tmp_path.iterdir():
        assert kept.stat().st_mode & 0o777 == 0o600
        assert str(kept) in err
        assert "Traceback" in kept.read_text()
        assert "very-secret" not in kept.read_text()
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setenv(errors.DEBUG, "1")
    cli.main(["run"])
    assert "Traceback" in capsys.readouterr().err


def test_an_input_error_in_a_group_is_shown_alone(capsys, monkeypatch):
    group = BaseExceptionGroup("x", [BaseExceptionGroup("y", [InputError("name another")]), ValueError()])
    monkeypatch.setattr(cli.cli, "main", broken(group))
    assert cli.main(["run"]) == 2
    assert capsys.readouterr().err == "error: name another\n"


def test_python_warnings_are_hidden(capsys, monkeypatch):
    monkeypatch.setattr("sys.warnoptions", [])
    monkeypatch.setattr("sys.unraisablehook", None)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        errors.hide_python_warnings()
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("revision", [2**63, 2**64 - 1])
def test_a_revision_too_large_for_the_database_is_refused(tmp_path, revision):
    path = tmp_path / "ledger.ndjson"
    assert b'"revision":1,' in SEED
    path.write_bytes(SEED.replace(b'"revision":1,', b'"revision":%d,' % revision))
    with pytest.raises(LedgerError, match="Expected `int`"):
        diff.diff(path, path)
