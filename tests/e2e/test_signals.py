"""SIGINT, SIGTERM and SIGHUP: in every command, from its first moment, at prompts, on closed terminals."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import batch_snapshot
from batch_snapshot import interrupts
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.jobs.run import Hooks
from batch_snapshot.reporting import progress
from batch_snapshot.simulator import Faults, SimulatorSettings, serve
from tests.support.http_server import endpoint
from tests.support.processes import (
    Place,
    assert_exactly_once,
    first,
    move_in,
    of_type,
    pairs,
    results,
    until,
)
from tests.support.terminals import CONTROLLED, on_terminal

CREATE = "CreateResourceSnapshot"
TIMED = Settings(max_duration=0.2)
STUCK = SimulatorSettings(faults=Faults(plan=lambda n, _: "slow" if n < 6 else None, slow_delay=600))


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    place.env["PYTHONDONTWRITEBYTECODE"] = "1"
    return place


def events(log: Path, kind: str) -> list[dict[str, Any]]:
    """The whole lines of a log that tell of this."""
    whole, _, _ = log.read_text("utf-8").rpartition("\n")
    lines = map(json.loads, whole.splitlines())
    return [line for line in lines if line["event"] == kind]


# -- a run -------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
async def test_first_signal_names_the_calls_waited_for_and_the_second_those_dropped(place, number):
    rows = pairs(6)
    place.manifest(rows)
    async with serve(STUCK) as (url, simulator):
        line = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "100", "--log-format", "json"]
        log = place.folder / "log"
        with log.open("wb") as stream:
            async with place.started(*line, "--drain-timeout", "77s", stderr=stream) as child:
                await until(lambda: len(simulator.snapshots) == 6, "six calls in flight")
                child.signal(number)
                await until(lambda: events(log, "stopping"), "what is waited for")
                child.signal(signal.SIGTERM)
                done = await child.finished()
        code = 130 if number is signal.SIGINT else 143
        assert done.code == code
        stop, drop = events(log, "stopping")
        assert stop["reason"] == f"{number.name} received"
        assert (stop["in_flight"], stop["level"]) == (6, "warning")
        assert 70 < stop["drain_s"] <= 77
        assert "waiting for 6 calls in flight, 77 s at most (--drain-timeout)" in stop["message"]
        assert "press Ctrl-C again, or send another signal, to drop them" in stop["message"]
        assert drop["message"].startswith("SIGTERM received again: dropped 6 calls")
        assert drop["dropped"] == 6
        assert {row["status"] for row in results(place.ledger).values()} == {"in_doubt"}
        (end,) = of_type(place.ledger, "end")
        assert end["outcome"] == "interrupted"
        assert (await place.call(*line)).code == 0
        assert_exactly_once(simulator, place.ledger, rows)


@pytest.mark.asyncio
async def test_max_duration_names_the_calls_waited_for_in_a_line_and_in_the_progress(tmp_path, monkeypatch):
    place = Place(tmp_path)
    move_in(monkeypatch, tmp_path, place.env)
    done: list[tuple[str, Mapping[str, Any]]] = []
    shown: list[str | None] = []

    async def watch(view: Any) -> None:
        await progress.watch(view, lambda frame: shown.append(frame.stopping), every=0.02, first=0.0)

    slow = SimulatorSettings(latency=0.6)
    async with serve(slow) as (url, _):
        options = Options(ledger=str(place.ledger), endpoint_url=url, rate=100.0, engine=TIMED)
        hooks = Hooks(stopping=lambda text, facts: done.append((text, facts)), watch=watch)
        summary = await batch_snapshot.run(place.manifest(pairs(5)), options, hooks)
    assert summary.exit_code == 4
    ((text, facts),) = done
    assert text.startswith("--max-duration is over (0.2 s): no further row is sent; waiting for ")
    assert "press Ctrl-C twice, or send two signals, to drop them" in text
    assert facts["in_flight"] >= 1
    assert any(text and text.startswith("stopping: waiting for") for text in shown)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
async def test_a_signal_that_was_ignored_at_the_start_stays_ignored(place, name):
    rows = pairs(8)
    place.manifest(rows)
    script = first(f"import signal\nsignal.signal(signal.{name}, signal.SIG_IGN)")
    async with serve(SimulatorSettings(latency=0.05)) as (url, simulator):
        line = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "50", "--concurrency", "1"]
        async with place.started(*line, script=script) as child:
            await until(lambda: simulator.snapshots, "a snapshot")
            child.signal(getattr(signal, name))
            done = await child.finished()
        assert done.code == 0, done.stderr
        assert_exactly_once(simulator, place.ledger, rows)


# -- every command, wherever it is -------------------------------------------------------------------

#: Sends this process a signal the first time it opens a file with this ending.
AT_OPENING = """
import os, signal, sys
def look(event, arguments, sent=[]):
    if event == "open" and str(arguments[0]).endswith({ending!r}) and not sent:
        sent.append(1)
        os.kill(os.getpid(), signal.{name})
sys.addaudithook(look)
"""
NOTHING = ": nothing was sent; the same command starts again"
FOUND = ": what was found is kept, and the same command continues"
FETCHED = ": what was fetched is kept, and the same command continues"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("line", "ending", "tail"),
    [
        ("run trial.yaml --simulate", "trial.yaml", NOTHING),
        ("plan trial.yaml", "trial.yaml", ""),
        ("validate trial.yaml", "trial.yaml", ""),
        ("retry old.ndjson", "old.ndjson", NOTHING),
        ("status old.ndjson", "old.ndjson", ""),
        ("status --watch old.ndjson", "old.ndjson", ""),
        ("report old.ndjson --html out.html", "old.ndjson", ""),
        ("diff old.ndjson old.ndjson", "old.ndjson", ""),
        ("verify old.ndjson", "old.ndjson", ""),
        ("export old.ndjson --output out.ndjson", "old.ndjson", FETCHED),
        ("prune . --keep 1", "old.ndjson", ""),
        ("discover --catalog Sandbox --update trial.yaml", "trial.yaml", FOUND),
    ],
)
async def test_a_signal_while_files_are_read_is_one_line_in_every_command(place, line, ending, tail):
    place.manifest(pairs(2))
    run = await place.call("run", "trial.yaml", "--simulate", "--progress", "none")
    (place.folder / "ledgers" / "trial.simulated.ndjson").rename(place.folder / "old.ndjson")
    assert run.code == 0
    before = {path.name for path in place.folder.iterdir()}
    names = ("SIGTERM", 143), ("SIGINT", 130)
    name, code = names[len(line) % 2]
    done = await place.call(*line.split(), script=first(AT_OPENING.format(ending=ending, name=name)))
    assert (done.code, done.stdout) == (code, "")
    assert done.stderr == f"interrupted ({name}){tail}\n"
    left = {path.name for path in place.folder.iterdir()} - before
    assert not {file for file in left if not file.startswith("script_")} - {"ledgers", "state"}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
async def test_a_signal_ends_discover_as_it_waits_for_the_service(place, name):
    asked = asyncio.Event()

    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()  # never an answer, until the other end is gone
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(answer, "127.0.0.1")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    line = ["discover", "--catalog", "Sandbox", "--output", "found.yaml", "--format", "json"]
    try:
        async with place.started(*line, "--endpoint-url", url) as child:
            await asyncio.wait_for(asked.wait(), 20)
            child.signal(getattr(signal, name))
            done = await child.finished()
        await asyncio.wait_for(gone.wait(), 20)
    finally:
        server.close()
    assert (done.code, done.stderr) == (143, f"interrupted ({name}){FOUND}\n")
    assert (done.json["outcome"], done.json["error"]["kind"]) == ("interrupted", "interrupted")
    assert not list(place.folder.glob("*.tmp"))


@pytest.mark.asyncio
async def test_a_signal_during_imports_is_a_line_in_the_log_format(place):
    taken = """
import os, signal, sys
from batch_snapshot import interrupts
interrupts.exit_on_signal(sys.argv[1:])
os.kill(os.getpid(), signal.SIGHUP)
"""
    text = await place.call("run", "x.yaml", script=taken)
    assert (text.code, text.stderr) == (143, "interrupted (SIGHUP)\n")
    log = await place.call("run", "x.yaml", "--log-format", "json", script=taken)
    told = json.loads(log.stderr)
    assert (log.code, told["event"], told["exit_code"]) == (143, "error", 143)


def test_signal_handlers_are_installed_before_slow_imports():
    slow = {"click", "anyio", "asyncio", "json"}
    source = f"import sys, batch_snapshot.__main__; print(*{slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=True, timeout=20)
    assert done.stdout == b"\n"


@pytest.mark.asyncio
async def test_sigterm_ends_a_run_that_is_process_1(place):
    """The kernel drops a signal without a handler. Where no first process can be had, another one."""
    rows = pairs(200)
    place.manifest(rows)
    apart = first_processes()
    async with serve() as (url, simulator):
        line = [*apart, sys.executable, "-m", "batch_snapshot", "run", "trial.yaml", "--endpoint-url", url]
        line += ["--rate", "20", "--progress", "none"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *line, cwd=place.folder, env=place.env, stdout=pipe, stderr=pipe
        )
        try:
            await until(lambda: simulator.snapshots, "a snapshot")
            os.kill(child_of(process.pid) if apart else process.pid, signal.SIGTERM)
            _, stderr = await asyncio.wait_for(process.communicate(), 20)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 143
    assert b"SIGTERM received: no further row is sent" in stderr
    (end,) = of_type(place.ledger, "end")
    assert end["outcome"] == "interrupted"


def first_processes() -> list[str]:
    """What makes a command the first process of its own; nothing where that is not allowed."""
    apart = [shutil.which("unshare") or "false", "--pid", "--fork", "--kill-child"]
    can = subprocess.run([*apart, "true"], capture_output=True, check=False).returncode == 0
    return apart if can else []


def child_of(parent: int) -> int:
    """The one child of a process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text("utf-8")
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            return int(folder.name)
    raise AssertionError(parent)


# -- the handlers themselves -------------------------------------------------------------------------


def test_a_signal_cancels_waiting_work_which_cleans_up():
    tidied: list[str] = []

    async def work() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied.append("yes")

    with interrupts.handle_signals(), pytest.raises(interrupts.Interrupted) as caught:
        interrupts.run(work())
    assert interrupts.exit_code(caught.value) == 143
    assert tidied == ["yes"]


def test_a_signal_interrupts_computing_work_at_once():
    reached: list[int] = []

    async def work() -> None:
        for number in range(10):
            reached.append(number)
            if number == 3:
                signal.raise_signal(signal.SIGINT)

    with interrupts.handle_signals(), pytest.raises(interrupts.Interrupted) as caught:
        interrupts.run(work())
    assert interrupts.exit_code(caught.value) == 130
    assert reached == [0, 1, 2, 3]


def test_signal_handlers_are_restored():
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    with interrupts.handle_signals():
        assert {signal.getsignal(number) for number in interrupts.SIGNALS} & set(before.values()) <= {
            signal.SIG_IGN
        }
    assert {number: signal.getsignal(number) for number in interrupts.SIGNALS} == before


# -- terminals ---------------------------------------------------------------------------------------

#: Before it, signals reach a thread that does nothing, so they do not wake a read of the main thread.
ELSEWHERE = """
import signal, threading, time
threading.Thread(target=time.sleep, args=[60], daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
"""


@pytest.mark.asyncio
async def test_a_closed_terminal_ends_the_run_gracefully_and_its_end_is_recorded(place):
    rows = pairs(60)
    place.manifest(rows)
    async with serve(SimulatorSettings(latency=0.05)) as (url, simulator):
        line = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "60", "--progress", "bar"]
        async with on_terminal(place, line) as (child, terminal):
            await until(lambda: len(simulator.snapshots) > 4 and "rows" in terminal.shown, "the display")
            terminal.close()
            done = await child.finished()
        assert done.code == 143
        (end,) = of_type(place.ledger, "end")
        assert (end["outcome"], end["counts"]["in_doubt"]) == ("interrupted", 0)
        assert end["counts"]["succeeded"] == len(simulator.snapshots) < 60
        assert (await place.call(*line[:-2])).code == 0
        assert_exactly_once(simulator, place.ledger, rows)


@pytest.mark.asyncio
async def test_ctrl_c_shows_in_the_display_the_calls_waited_for(place):
    place.manifest(pairs(6))
    async with serve(STUCK) as (url, simulator):
        line = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "100"]
        async with on_terminal(place, line) as (child, terminal):
            await until(lambda: len(simulator.snapshots) == 6, "six calls in flight")
            terminal.type("\x03")
            await until(lambda: "SIGINT received: no further row is sent" in terminal.shown, "the line")
            await until(lambda: "stopping: waiting for 6 calls in flight" in terminal.shown, "the display")
            terminal.type("\x03")
            done = await child.finished()
        await until(lambda: "in doubt" in terminal.shown.rpartition("received again")[2], "the summary")
    assert done.code == 130


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM", "Ctrl-C elsewhere"])
@pytest.mark.parametrize("asked", ["Continue?", "MFA code for arn:aws:iam::111122223333:mfa/jane"])
async def test_a_signal_at_a_question_ends_the_run_with_nothing_sent(place, asked, way):
    if asked != "Continue?":
        guard(place)
    place.manifest(pairs(3), catalog="AWS" if asked == "Continue?" else "Sandbox")
    script = ELSEWHERE + CONTROLLED if way == "Ctrl-C elsewhere" else CONTROLLED
    async with serve() as (url, simulator):
        place.env["AWS_ENDPOINT_URL_PARTNERCENTRAL_SELLING"] = url
        async with on_terminal(place, ["run", "trial.yaml"], script=script) as (child, terminal):
            await until(lambda: asked in terminal.shown, "the question")
            if way == "SIGTERM":
                child.signal(signal.SIGTERM)
            else:
                terminal.type("\x03")
            done = await child.finished()
        name, code = ("SIGTERM", 143) if way == "SIGTERM" else ("SIGINT", 130)
        if asked == "Continue?":
            await until(lambda: f"interrupted ({name}){NOTHING}" in terminal.shown, "the last line")
            assert not place.ledger.exists()
        assert done.code == code
        assert not simulator.calls


# -- MFA codes ---------------------------------------------------------------------------------------

PROFILES = """
[profile guarded]
role_arn = arn:aws:iam::111122223333:role/partner
mfa_serial = arn:aws:iam::111122223333:mfa/jane
source_profile = base
region = us-east-1
[profile base]
aws_access_key_id = AKIAEXAMPLE000000000
aws_secret_access_key = secret-of-the-example
region = us-east-1
"""


def guard(place: Place) -> None:
    """Let only a profile sign that asks for MFA codes."""
    config = place.folder / "config"
    config.write_text(PROFILES, "utf-8")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del place.env[name]
    place.env |= {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "guarded"}


ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>ASIAEXAMPLE000000000</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>t</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>
<AssumedRoleUser><AssumedRoleId>A:b</AssumedRoleId>
<Arn>arn:aws:sts::111122223333:assumed-role/partner/b</Arn></AssumedRoleUser>
</AssumeRoleResult></AssumeRoleResponse>"""


@asynccontextmanager
async def sts(place: Place) -> AsyncIterator[list[str]]:
    """An STS that assumes any role; the codes that it was given."""
    codes: list[str] = []

    async def assume(request: web.Request) -> web.Response:
        form = await request.post()
        codes.append(str(form.get("TokenCode")))
        return web.Response(text=ASSUMED, content_type="text/xml")

    async with endpoint(assume) as url:
        place.env["AWS_ENDPOINT_URL_STS"] = url
        yield codes


@pytest.mark.asyncio
async def test_a_typed_mfa_code_is_used_once_and_never_shown_and_the_display_pauses(place):
    guard(place)
    rows = pairs(5)
    place.manifest(rows)
    async with sts(place) as codes, serve() as (url, simulator):
        async with on_terminal(place, ["run", "trial.yaml", "--endpoint-url", url]) as (child, terminal):
            await until(lambda: "MFA code for arn:aws:iam::111122223333:mfa/jane" in terminal.shown, "it")
            terminal.type("123456\n")
            done = await child.finished()
        assert done.code == 0
        assert codes == ["123456"]
        assert "123456" not in terminal.shown
        prompt = terminal.shown.index("MFA code")
        assert terminal.shown.count("MFA code") == 1
        wiped = "\x1b[2K"
        between = terminal.shown[:prompt].rpartition(wiped)[2].removeprefix("\x1b[?25h")
        assert between == "Enter ", "the display was wiped before it"
        assert_exactly_once(simulator, place.ledger, rows)


@pytest.mark.asyncio
async def test_an_mfa_code_without_a_terminal_is_refused_in_one_line(place):
    guard(place)
    place.manifest(pairs(3))
    detached = first("import os\nos.setsid()")
    async with serve() as (url, simulator):
        done = await place.call("run", "trial.yaml", "--endpoint-url", url, script=detached)
        assert not simulator.calls
    assert done.code == 3
    assert "MFA code, and there is no terminal to ask for it" in done.stderr + done.stdout
    assert "Warning" not in done.stderr
