"""What the command line tells beside its results: logs as JSON, a look at a run, reports, completions."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from click.shell_completion import BashComplete
from click.testing import CliRunner

from batch_snapshot import cli, paths
from batch_snapshot.cli import terminal
from batch_snapshot.engine.limits import AccountLimits
from batch_snapshot.ledger import locks, records
from batch_snapshot.models import Account, Quota, Status
from batch_snapshot.ratelimit.windows import CallLog, windows
from batch_snapshot.reporting import display, status
from tests.support.ledgers import BEGAN, LedgerBuilder, row
from tests.support.processes import Place, pairs, until, write_manifest
from tests.support.terminals import typed
from tests.unit.reporting.test_screen import Terminal

A, B, C, D = (row(number, ("main", "acme")[number % 2]) for number in range(1, 5))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCH_SNAPSHOT_STATE_DIR", str(tmp_path / "state"))
    return tmp_path


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# -- logs ------------------------------------------------------------------------------------------


def test_json_log_has_plan_outcomes_warnings_and_summary(place, capsys):
    rows = [*pairs(6), {"engagement": "eng-denied00000001", "resource": "O9"}]
    write_manifest(place / "trial.yaml", [*rows, rows[0]])
    code = cli.main(["run", "trial.yaml", "--simulate", "-v", "--log-format", "json", "--format", "json"])
    out, err = capsys.readouterr()
    told = objects(err)
    assert code == 1
    assert [each["event"] for each in told] == ["simulator", "plan", *["outcome"] * 7, "warning", "summary"]
    assert all(list(each)[:4] == ["at", "level", "event", "message"] for each in told)
    assert {each["level"] for each in told} == {"info", "warning"}
    assert told[1]["rows"] == 7
    denied = next(each for each in told if each.get("code"))
    assert (denied["level"], denied["status"], denied["kind"]) == ("warning", "failed", "denied")
    assert "listed before" in told[-2]["message"]
    result = json.loads(out)
    assert {key: told[-1][key] for key in result} == result
    assert told[-1]["exit_code"] == 1


def test_json_log_has_errors_and_does_not_affect_the_next_invocation(place, capsys):
    for line in (
        "run nowhere.yaml --log-format json",
        "run nowhere.yaml --log-format=json --no-such-flag",
        "run --log-format json trial.yaml --concurrency many",
        "status --log-format json nowhere.ndjson",
    ):
        assert cli.main(line.split()) == 2
        (told,) = objects(capsys.readouterr().err)
        assert (told["level"], told["event"], told["exit_code"]) == ("error", "error", 2)
        assert len(told["message"]) > 10
    assert cli.main(["run", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere.yaml")


@pytest.mark.asyncio
async def test_terminal_shows_outcomes_above_the_display_and_erases_it(tmp_path):
    place = Place(tmp_path)
    place.env |= {"TERM": "xterm", "NO_COLOR": "1"}
    place.manifest(pairs(24))
    said, shown = await typed(place, ["run", "trial.yaml", "--simulate", "-v"], "")
    assert said.code == 0
    assert said.stdout.startswith(
        "This command: 24 sent, 24 succeeded\nLedger: completed: 24 rows: 24 succeeded\n"
    )
    assert shown.count("succeeded: revision 1") == 24
    assert "of 24 rows" in shown
    assert "\x1b[2K" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("of 24 rows"), "the cursor is there again"
    assert "\x1b[32m" not in shown
    seen = Terminal()
    seen.write(shown)
    left = [line for line in seen.lines if line]
    assert len(left) == 26
    assert left[0] == "simulated: 20/s in bursts of 20, 50 ms a call, no faults; AWS is not called"
    assert left[1].startswith("24 rows: now")
    assert all(line.endswith("succeeded: revision 1") for line in left[2:])


# -- a look at a run -------------------------------------------------------------------------------


def test_refresh_reads_new_lines_and_sees_the_end_of_the_run(place):
    path = place / "l.ndjson"
    book = LedgerBuilder(4, name="nightly").begin().intend(A, B, C).result(A, at=2.0, throttles=1)
    book.write(path)
    looking = status.LedgerWatch(path, now=lambda: BEGAN.replace(second=10))
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        looking.refresh()
        frame = looking.frame()
        assert looking.running
        assert (frame.done, frame.counts.unattempted, frame.throttled, frame.elapsed) == (1, 3, 1, 10)
        assert frame.rate == pytest.approx(0.2)
        assert frame.left == pytest.approx(15)
        assert looking.summary().outcome == "running"
        book.result(B, Status.FAILED, at=4.0).write(path)
        looking.refresh()
        assert {part.name: (part.done, part.rows) for part in looking.frame().parts} == {
            "acme": (1, None),
            "main": (1, None),
        }
    looking.refresh()
    assert looking.summary().outcome == "crashed"
    assert looking.summary().counts == (1, 1, 1, 1)
    assert looking.summary() == status.read_status(path)


@pytest.mark.parametrize("wait", [True, False])
def test_frame_of_a_ledger_has_quota_windows_and_their_waits(place, wait):
    """Ten in any hour, of which four are used, and five rows to go: by the log of the run's state folder."""
    account = Account("main", quota=Quota(per_hour=1000))
    settings = {"rate": None, "daily_quota": 10, "wait": wait, "state_dir": str(place / "elsewhere")}
    path, file = place / "l.ndjson", paths.call_log_file(place / "elsewhere")
    rows = [row(number) for number in range(12)]
    book = LedgerBuilder(12).begin(accounts={"main": records.encode_account(account)}, settings=settings)
    book.intend(*rows).result(rows[0], at=2.0).write(path)
    looking = status.LedgerWatch(path, now=lambda: BEGAN.replace(second=10))
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        looking.refresh()
        assert looking.frame().parts[0].fullest is None, "there is no log yet"
        with CallLog(file) as usage:
            declared = windows(Quota(per_hour=1000, per_day=10))
            room = AccountLimits({"main": account}, "aws", usage, os.environ)
            trio.run(room.apply, room.new_state("main", wait=True), identified)
            for _ in range(4):
                reservation = usage.reserve("aws/1 writes", declared)
                assert isinstance(reservation, int)
                usage.finish(reservation)
        frame = looking.frame()
        assert frame.parts[0].fullest == display.WindowUse("per_day", 4, 10)
        assert frame.left is not None
        # The last five are sent tomorrow, if it waits.
        assert (frame.left > 80_000, frame.deferred) == ((True, 0) if wait else (False, 5))
        file.unlink()
        file.mkdir()
        assert looking.frame().parts[0].fullest is None
    looking.refresh()
    assert looking.frame().parts[0].fullest is None, "only while it runs"


async def identified(_: str) -> str:
    return "aws/1"


@pytest.mark.parametrize("form", ["text", "json"])
def test_status_watch_ends_with_the_run(place, capsys, monkeypatch, form):
    path = place / "l.ndjson"
    LedgerBuilder(4).begin().intend(A, B).write(path)
    codes: list[int] = []
    # `capsys` loses what another thread writes while it is read.
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    command = ["status", str(path), "--watch", "--log-format", form]
    watching = threading.Thread(target=lambda: codes.append(cli.main(command)))
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        watching.start()
        while watching.is_alive() and "rows" not in (told := shown.getvalue()):
            watching.join(0.01)
        with path.open("ab") as file:
            file.writelines(LedgerBuilder().result(A).result(B).end("deferred", at=30).lines)
    watching.join(10)
    assert codes == [0]
    assert "0/4 rows (0%)" in told
    if form == "json":
        seen = objects(told)[0]
        assert (seen["event"], seen["rows"], seen["unattempted"]) == ("progress", 4, 4)
    out = capsys.readouterr().out
    assert out.startswith("deferred: 4 rows: 2 succeeded, 2 unattempted\n")
    assert "account main  1 succeeded, 1 call, 0 throttled" in out


@pytest.mark.asyncio
async def test_interrupting_status_watch_does_not_stop_the_run(tmp_path):
    place = Place(tmp_path)
    path = LedgerBuilder(4).begin().intend(A, B).write(tmp_path / "l.ndjson")
    log = tmp_path / "log"
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"), log.open("wb") as errors:
        async with place.started("status", "l.ndjson", "--watch", stderr=errors) as child:
            await until(lambda: "rows" in log.read_text("utf-8"))
            child.signal(signal.SIGINT)
            said = await child.finished()
    assert (said.code, said.stdout) == (130, "")
    assert log.read_text("utf-8").splitlines()[-1] == "stopped watching; the run continues"


def test_status_watch_of_a_finished_ledger_returns_at_once(place, capsys):
    path = LedgerBuilder(2).begin().intend(A, B).result(A).result(B).end().write(place / "l.ndjson")
    assert cli.main(["status", str(path), "--watch"]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[0], err) == ("completed: 2 rows: 2 succeeded", "")


# -- reports ---------------------------------------------------------------------------------------


def test_report_command_writes_html_and_csv_and_names_them(place, capsys):
    ledger = LedgerBuilder(5).begin().intend(A, B).result(A).result(B, Status.FAILED).end("deferred")
    path = ledger.write(place / "l.ndjson")
    assert cli.main(["report", str(path), "--html", "page.html", "--csv", "tables"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "page.html: open it in a browser",
        "tables/succeeded.csv: 1 row",
        "tables/failed.csv: 1 row",
        "tables/unprocessed.csv: 0 rows",
    ]
    assert err.startswith("warning: 3 unattempted rows counted but not listed")
    assert "3 unattempted rows" in (place / "page.html").read_text("utf-8")


# -- the shell -------------------------------------------------------------------------------------


def completed(*words: str) -> list[str]:
    """What a shell is offered for the last word."""
    found = BashComplete(cli.cli, {}, terminal.PROG, "_X").get_completions(list(words[:-1]), words[-1])
    return [item.value if item.type == "plain" else item.type for item in found]


def test_completion_of_commands_flags_files_and_names(place):
    write_manifest(place / "trial.yaml", pairs(1, account="acme"), accounts={"main": {}, "acme": {}})
    LedgerBuilder(2).begin(accounts={"one": {}}).intend(A).result(A, Status.FAILED).end().write(
        place / "l.ndjson"
    )
    assert completed("re") == ["retry", "report"]
    assert completed("report", "l.ndjson", "--h") == ["--html", "--help-all", "--help"]
    assert completed("status", "") == ["file"]
    assert completed("run", "trial.yaml", "--progress", "") == ["auto", "bar", "lines", "none"]
    assert completed("run", "trial.yaml", "--accounts", "") == ["main", "acme"]
    assert completed("run", "trial.yaml", "--accounts", "main,") == ["main,acme"]
    assert completed("retry", "l.ndjson", "--accounts", "o") == ["one"]
    assert completed("retry", "l.ndjson", "--only", "d") == ["denied"]
    assert completed("retry", "l.ndjson", "--only", "denied,A") == ["denied,AccessDeniedException"]
    for broken in ("nowhere", "trial.yaml"):
        assert completed("retry", broken, "--only", "tr") == ["transient"]
        assert completed("retry", broken, "--accounts", "") == []
    assert completed("run", "l.ndjson", "--accounts", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_for_each_shell(shell):
    told = CliRunner().invoke(cli.cli, ["completion", shell])
    assert told.exit_code == 0
    assert f"_BATCH_SNAPSHOT_COMPLETE={shell}_complete" in told.output
    assert "batch-snapshot" in told.output


def test_completion_in_a_real_bash(tmp_path):
    script = tmp_path / "completion.bash"
    script.write_text(CliRunner().invoke(cli.cli, ["completion", "bash"]).output, "utf-8")
    (tmp_path / "batch-snapshot").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batch_snapshot "$@"\n')
    (tmp_path / "batch-snapshot").chmod(0o755)
    asked = (
        f"source {script}; COMP_WORDS=(batch-snapshot stat); COMP_CWORD=1; "
        f"_batch_snapshot_completion {tmp_path}/batch-snapshot; echo ${{COMPREPLY[@]}}"
    )
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(cli.__file__).parents[2]), "LC_ALL": "C.UTF-8"}
    said = subprocess.run(
        ["bash", "-c", asked], env=env, capture_output=True, text=True, timeout=20, check=True
    )
    assert said.stdout.split() == ["status"], said.stderr
