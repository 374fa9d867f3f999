"""The command line as a shell sees it: real processes, their exit codes, streams and signals."""

import asyncio
import json
import os
import platform
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aioboto3
import aiobotocore
import aiohttp
import botocore
import pytest

from batch_snapshot import __version__, cli
from batch_snapshot.models import Status
from batch_snapshot.simulator import Faults, SimulatorSettings, serve
from tests.support.ledgers import LedgerBuilder, row
from tests.support.processes import (
    Finished,
    Place,
    assert_exactly_once,
    by_engagement,
    move_in,
    of_type,
    pairs,
    results,
    until,
    write_profiles,
)

CREATE = "CreateResourceSnapshot"
COMMANDS = ["run", "retry", "validate", "status", "init", "schema", "simulate", "schedule", "prune"]
QUIET = ["--progress", "none"]


async def together(place: Place, *lines: Sequence[str | Path]) -> list[Finished]:
    """Run several commands, two at a time."""
    turns = asyncio.Semaphore(2)

    async def one(line: Sequence[str | Path]) -> Finished:
        async with turns:
            return await place.call(*line)

    return list(await asyncio.gather(*map(one, lines)))


async def side_by_side(folder: Path, *scenarios: Callable[[Place], Awaitable[None]]) -> None:
    """Play scenarios at once, each in a folder of its own: they mostly wait for processes to start."""
    turns = asyncio.Semaphore(3)

    async def play(scenario: Callable[[Place], Awaitable[None]]) -> Exception | None:
        own = folder / scenario.__name__
        own.mkdir()
        async with turns:
            try:
                await scenario(Place(own))
            except Exception as error:  # noqa: BLE001 - raised below, when all have ended
                return error
        return None

    failed = [error for error in await asyncio.gather(*map(play, scenarios)) if error]
    if failed:
        raise ExceptionGroup("scenarios that failed", failed)


def denied(number: int) -> list[dict[str, Any]]:
    return [{"engagement": f"eng-denied{n:08d}", "resource": f"O{n + 1}"} for n in range(number)]


# -- help, versions, what costs nothing --------------------------------------------------------------


@pytest.mark.asyncio
async def test_help_and_version(place):
    helps = [["-h"], ["run", "-h"]]
    version, *helped = await together(place, ["--version"], *helps)
    python = f"Python {platform.python_version()}"
    libraries = (f"{one.__name__} {one.__version__}" for one in (aioboto3, aiobotocore, botocore))
    assert version == (0, f"batch-snapshot {__version__}\n{', '.join([python, *libraries])}\n", "")
    for line, done in zip(helps, helped, strict=True):
        assert (done.code, done.stderr) == (0, ""), line
        assert done.stdout.startswith("Usage: "), line
    assert all(f"\n  {command} " in helped[0].stdout for command in COMMANDS)
    assert "130, 143" in helped[0].stdout


@pytest.mark.parametrize("arguments", [["run", "--help"], ["validate", "trial.yaml"]])
@pytest.mark.asyncio
async def test_commands_that_call_nothing_import_no_aws_client(place, arguments):
    place.manifest(pairs(3))
    done = await place.call(*arguments, python=["-X", "importtime"])
    assert done.code == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    heavy = {"aioboto3", "aiobotocore", "botocore", "boto3", "aiohttp", "anyio", "asyncio", "jinja2", "rich"}
    if "--help" not in arguments:
        heavy.add("cloup")
    assert not imported & heavy


@pytest.mark.asyncio
async def test_init_prints_a_valid_manifest_and_schema_a_json_schema(place):
    init, schema = await together(place, ["init"], ["schema"])
    assert (init.code, init.stderr, schema.code, schema.stderr) == (0, "", 0, "")
    assert schema.json["$schema"].startswith("http")
    assert set(schema.json["properties"]) >= {"version", "name", "defaults", "accounts", "pairs", "include"}
    (place.folder / "mine.yaml").write_text(init.stdout, "utf-8")
    valid = await place.call("validate", "mine.yaml")
    assert (valid.code, valid.stderr) == (0, "")
    assert "valid: 3 rows" in valid.stdout


MISTAKES = """\
version: 2
name: "two words"
defaults: {catalog: Sandbox, colour: red}
accounts:
  main: {profile: partner, quota: {per_second: fast}}
pairs:
- {engagement: eng-0123456789abcd, resource: "0123"}
- {engagement: eng-short, resource: O1}
- {engagement: eng-0123456789abcd, resource: O2, catalog: Production}
- {engagement: eng-0123456789abcd, resource: O3, account: nobody}
- {engagement: eng-0123456789abcd}
- {engagement: eng-0123456789abcd, resource: O4, templat: Other}
- {resource: O5}
include: [../elsewhere.yaml]
"""
MISTAKEN_LINES = [1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14]


@pytest.mark.asyncio
async def test_validate_names_every_mistake_and_its_line(place):
    (place.folder / "wrong.yaml").write_text(MISTAKES, "utf-8")
    async with serve() as (url, simulator):
        text, as_json, run, dry = await together(
            place,
            ["validate", "wrong.yaml"],
            ["validate", "wrong.yaml", "--format", "json"],
            ["run", "wrong.yaml", "--endpoint-url", url],
            ["run", "wrong.yaml", "--endpoint-url", url, "--dry-run"],
        )
        assert not simulator.calls
    assert [done.code for done in (text, as_json, run, dry)] == [2, 2, 2, 2]
    assert all(line.startswith("error: wrong.yaml:") for line in text.stderr.splitlines())
    done = [line.removeprefix("error: ") for line in text.stderr.splitlines()]
    assert [int(line.split(":")[1]) for line in done] == MISTAKEN_LINES
    assert text.stdout == run.stdout == dry.stdout == ""
    assert run.stderr == dry.stderr == text.stderr
    assert as_json.json["valid"] is False
    assert as_json.json["problem_count"] == len(MISTAKEN_LINES)
    problems = as_json.json["problems"]
    assert [(one["file"], one["line"]) for one in problems] == [("wrong.yaml", n) for n in MISTAKEN_LINES]
    assert all(
        one["message"] in line and (one["hint"] or "") in line
        for one, line in zip(problems, done, strict=True)
    )
    assert sum(one["column"] is not None for one in problems) > len(problems) / 2
    assert not place.ledger.parent.exists()


@pytest.mark.asyncio
async def test_validate_summarizes_a_valid_manifest(place):
    place.manifest([*pairs(3), *pairs(1)], accounts={"main": {"profile": "partner"}})
    text, as_json = await together(
        place, ["validate", "trial.yaml"], ["validate", "trial.yaml", "--format", "json"]
    )
    assert (text.code, as_json.code) == (0, 0)
    assert "3 rows" in text.stdout
    assert "warning: trial.yaml:" in text.stderr, "a pair that is listed twice is a warning"
    assert as_json.json["rows"] == 3
    assert as_json.json["rows_by_account"] == {"main": 3}


# -- what is wrong is one clear line, and nothing was called -----------------------------------------

LONG = "x" * 300

WRONG: list[tuple[list[str], str]] = [
    (["fly"], "fly"),
    (["run"], "MANIFEST"),
    (["run", "trial.yaml", "--fly"], "--fly"),
    (["run", "absent.yaml"], "absent.yaml"),
    (["run", "."], "."),
    (["run", "picture.yaml"], "picture.yaml"),
    (["run", "trial.yaml", "--accounts", "nobody"], "there are: default"),
    (["run", "trial.yaml", "--rate", "fast"], "--rate"),
    (["run", "trial.yaml", "--rate", "0"], "--rate"),
    (["run", "trial.yaml", "--rate", "nan"], "--rate"),
    (["run", "trial.yaml", "--rate", "1e-14"], "from 0.000001"),
    (["run", "trial.yaml", "--rate", "1e9"], "to 999999"),
    (["run", "trial.yaml", "--concurrency", "0"], "--concurrency"),
    (["run", "trial.yaml", "--max-attempts", "0"], "--max-attempts"),
    (["run", "trial.yaml", "--max-duration", "soon"], "--max-duration"),
    (["run", "trial.yaml", "--max-failures", "many"], "--max-failures many"),
    (["run", "trial.yaml", "--max-failures", "100%"], "--max-failures 100%"),
    (["run", "trial.yaml", "--max-failures", "-1"], "--max-failures -1"),
    (["run", "trial.yaml", "--endpoint-url", "ftp://127.0.0.1"], "--endpoint-url ftp://"),
    (["run", "trial.yaml", "--endpoint-url", "http://127.0.0.1:99999"], "--endpoint-url"),
    (["run", "trial.yaml", "--endpoint-url", "http://me:pw@127.0.0.1"], "credentials"),
    (["run", "trial.yaml", "--simulate", "--endpoint-url", "http://127.0.0.1:9"], "exclude each other"),
    (["run", "trial.yaml", "--ledger", "{nmae}.ndjson"], "{nmae}"),
    (["run", "trial.yaml", "--ledger", "trial.yaml"], "trial.yaml: is not a ledger"),
    (["run", "trial.yaml", "--run-id", ""], "--run-id"),
    (["run", "trial.yaml", "--state-dir", "trial.yaml"], "--state-dir"),
    (["run", "trial.yaml", "--progress", "loud"], "--progress"),
    (["run", "trial.yaml", "--progress-interval", "0"], "'--progress-interval': '0' is no interval"),
    (["status", "old.ndjson", "--watch", "--progress-interval", "0s"], "'0s' is no interval"),
    (["run", "trial.yaml", "--format", "xml"], "--format"),
    (["retry", "absent.ndjson"], "absent.ndjson"),
    (["retry", "trial.yaml"], "trial.yaml: is a manifest, not a ledger"),
    (["retry", "old.ndjson", "--only", "nonsense"], "--only nonsense"),
    (["retry", "old.ndjson", "--only", "denied", "--all"], "exclude each other"),
    (["retry", "old.ndjson", "--accounts", "nobody"], "there are: default"),
    (["status", "absent.ndjson"], "absent.ndjson"),
    (["status", "trial.yaml"], "trial.yaml: is a manifest, not a ledger"),
    (["run", "old.ndjson"], "old.ndjson: is a ledger, not a manifest"),
    (["run", "trial.yaml", "--simulate=raet=5"], "did you mean rate"),
    (["run", "trial.yaml", "--simulate=state=w.ndjson"], "write --simulate --state w.ndjson"),
    (["run", "foo.**"], "foo.**: the manifest does not exist: check the path"),
    (["run", "trial.yaml", "--simulate=rate=0"], "finite and above 0"),
    (["run", "trial.yaml", "--simulate=latency=soon"], "'--simulate': latency: 'soon' is not a time"),
    (["run", "trial.yaml", "--simulate=internal=2"], "internal"),
    (["run", "trial.yaml", "--limit", "0"], "'--limit': 0 is too small: the least is 1"),
    (["run", "trial.yaml", "--limit", "x"], "'--limit': 'x' is not a whole number"),
    (["simulate", "--port", "65536"], "'--port': 65536 is not between 0 and 65535"),
    (["run", "trial.yaml", "--simulate=rate=fast"], "'--simulate': rate: 'fast' is not a number"),
    (["discover"], "Choose from: AWS, Sandbox; for example: batch-snapshot discover --catalog"),
    (["prune", "ledgers"], "Missing option '--keep'; for example: batch-snapshot prune ledgers --keep 30"),
    (["run", "trial.yaml", "--serve", "8080"], "extra argument (8080): write --serve=8080"),
    (
        ["schedule", "cron", "trial.yaml", "--", "--wiat"],
        "batch-snapshot schedule --help)\nerror: No such option '--wiat'. Did you mean '--wait'?",
    ),
    (["run", "trial.yaml", "--name", "n", "--catalog", "AWS"], "--catalog is for CSV and NDJSON files"),
    (["status", "empty.ndjson"], "empty.ndjson"),
    (["status", "zeros.ndjson"], "move it away with `mv zeros.ndjson zeros.ndjson.original`"),
    (["validate", "absent.yaml"], "absent.yaml"),
    (["status", LONG], "File name too long"),
    (["retry", LONG], "File name too long"),
    (["run", "trial.yaml", "--ledger", LONG], "File name too long"),
    (["plan", "trial.yaml", "--ledger", LONG], "cannot be reached"),
    (["plan", "trial.yaml", "--state-dir", LONG], "cannot be reached"),
    (["retry", "old.ndjson", "--all", "--dry-run", "--run-id", "other"], "has run id night-1, not other"),
    (["simulate", "--faults", "fire=1"], "known: internal"),
    (["simulate", "--faults", "internal=2"], "internal"),
    (["simulate", "--rate", "0"], "rate"),
    (["simulate", "--host", "192.0.2.1"], "loopback"),
    (["simulate", "--window", "10"], "--window"),
]


def lay_out(place: Place) -> dict[Path, bytes]:
    """A manifest, a ledger with a row that failed, and files that are neither; returns them all."""
    place.manifest(pairs(1))
    (place.folder / "picture.yaml").write_bytes(bytes(range(256)))
    (place.folder / "empty.ndjson").touch()
    (place.folder / "zeros.ndjson").write_bytes(bytes(9) + b'"}\n')
    failed = row(0, "default", resource="O1")
    ledger = LedgerBuilder(1, name="trial").begin(accounts={"default": {}}).intend(failed)
    ledger.result(failed, Status.FAILED).write(place.folder / "old.ndjson")
    return {path: path.read_bytes() for path in place.folder.iterdir() if path.is_file()}


def assert_refused(done: Finished, words: str) -> None:
    assert (done.code, done.stdout) == (2, ""), done
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(line) for line, _ in WRONG])
def test_invalid_usage_is_one_line_with_exit_code_2(place, trap, monkeypatch, capsys, arguments, words):
    files = lay_out(place)
    move_in(monkeypatch, place.folder, place.env | {"AWS_ENDPOINT_URL": trap})
    code = cli.main(arguments)
    assert_refused(Finished(code, *capsys.readouterr()), words)
    assert {path: path.read_bytes() for path in files} == files
    assert not list(place.folder.rglob("trial*.ndjson"))


@pytest.mark.asyncio
async def test_invalid_usage_of_a_process_is_one_line_with_exit_code_2(place, trap):
    files = lay_out(place)
    place.env["AWS_ENDPOINT_URL"] = trap
    chosen = [WRONG[n] for n in (2, 3)]
    ended = await together(place, *(arguments for arguments, _ in chosen))
    for (_, words), done in zip(chosen, ended, strict=True):
        assert_refused(done, words)
    assert {path: path.read_bytes() for path in files} == files


# -- 0 and 1: it went through ------------------------------------------------------------------------

CONTRACT = {
    "outcome",
    "counts",
    "failures",
    "ledger",
    "run_id",
    "elapsed_s",
    "calls",
    "throttled_calls",
    "learned_rate",
}


async def a_run_writes_its_result_to_stdout_and_the_rest_to_stderr(place: Place) -> None:
    rows = pairs(12)
    place.manifest(rows)
    async with serve(SimulatorSettings(faults=Faults(plan=lambda n, _: None if n else "throttle"))) as (
        url,
        simulator,
    ):
        command = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "200"]
        done = await place.call(*command, "--format", "json", "-v")
        assert done.code == 0
        assert set(done.json) >= CONTRACT
        assert done.json["outcome"] == "completed"
        assert done.json["counts"] == {"succeeded": 12, "failed": 0, "in_doubt": 0, "unattempted": 0}
        assert (done.json["failures"], done.json["ledger"]) == ([], "ledgers/trial.ndjson")
        assert (done.json["calls"], done.json["throttled_calls"]) == (13, 1)
        assert 0 < done.json["learned_rate"] <= 200
        assert 0 < done.json["elapsed_s"] < 14
        assert done.json["run_id"] == of_type(place.ledger, "run")[0]["run_id"]
        assert sum("succeeded: revision 1" in line for line in done.stderr.splitlines()) == 12
        assert_exactly_once(simulator, place.ledger, rows)
        # What is done is not done again; the counts are the ledger's, the calls this invocation's.
        again, status, status_json = await together(
            place, command, ["status", place.ledger], ["status", place.ledger, "--format", "json"]
        )
        assert (again.code, status.code, status.stderr) == (0, 0, "")
        assert "completed: 12 rows: 12 succeeded" in again.stdout
        assert "--ledger" in again.stderr
        assert "completed: 12 rows: 12 succeeded" in status.stdout
        assert status_json.json["counts"] == done.json["counts"]
        assert simulator.calls[CREATE] == 13


async def failures_are_grouped_with_exit_code_1_until_retry_fixes_them(place: Place) -> None:
    broken = Faults(plan=lambda n, _: "internal-after" if n < 3 else None)
    rows = [*pairs(5), *denied(2)]
    place.manifest(rows)
    async with serve(SimulatorSettings(faults=broken)) as (url, simulator):
        command = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "200", *QUIET]
        text = await place.call(*command, "--max-attempts", "1", "--concurrency", "1")
        assert text.code == 1
        assert "7 rows: 2 succeeded, 2 failed, 3 in doubt" in text.stdout
        assert "2 failed, denied, AccessDeniedException" in text.stdout
        assert "3 in doubt, transient, InternalServerException" in text.stdout
        assert "partnercentral:CreateResourceSnapshot" in text.stdout, "what to do about it"
        (step,) = [
            line.removeprefix("next ") for line in text.stdout.splitlines() if line.startswith("next ")
        ]
        program, *arguments = shlex.split(step)
        assert (program, arguments[0]) == ("batch-snapshot", "retry")
        done = await place.call(*arguments, *QUIET, "--format", "json")
        assert done.code == 1, "two are denied still"
        assert done.json["counts"] == {"succeeded": 5, "failed": 2, "in_doubt": 0, "unattempted": 0}
        assert [(f["kind"], f["code"], f["count"]) for f in done.json["failures"]] == [
            ("denied", "AccessDeniedException", 2)
        ]
        assert done.json["calls"] == 3
        assert len(simulator.snapshots) == 5
        only = await place.call("retry", place.ledger, "--only", "AccessDeniedException", *QUIET)
        assert only.code == 1
        assert {line["generation"] for line in results(place.ledger).values() if line["error"]} == {1}


async def simulate_needs_no_credentials(place: Place) -> None:
    place.manifest(pairs(8), catalog="AWS")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del place.env[name]
    done = await place.call("run", "trial.yaml", "--simulate", "--format", "json")
    assert done.code == 0
    assert done.json["ledger"] == "ledgers/trial.simulated.ndjson"
    assert done.json["counts"]["succeeded"] == 8
    assert "cannot be undone" not in done.stderr
    (head,) = of_type(place.folder / done.json["ledger"], "run")
    assert head["endpoint"] == "simulator"
    assert not place.ledger.exists()


async def a_dry_run_calls_nothing_and_leaves_no_ledger(place: Place) -> None:
    place.manifest([*pairs(6), {**pairs(1)[0], "catalog": "AWS"}])
    async with serve() as (url, simulator):
        place.env["AWS_ENDPOINT_URL"] = url
        text, as_json = [
            await place.call("run", "trial.yaml", "--dry-run", "--rate", "2", *form)
            for form in ([], ["--format", "json"])
        ]
        assert not simulator.calls
        assert (text.code, text.stderr, as_json.code) == (0, "", 0)
        assert "7 of 7 rows to send" in text.stdout
        assert "2 calls/s, declared" in text.stdout
        assert as_json.json["rows"] == 7
        assert as_json.json["counts"]["unattempted"] == 7
        assert as_json.json["catalogs"] == ["AWS", "Sandbox"]
        assert not list(place.folder.rglob("*.ndjson"))


@pytest.mark.asyncio
async def test_completed_runs(tmp_path):
    await side_by_side(
        tmp_path,
        a_run_writes_its_result_to_stdout_and_the_rest_to_stderr,
        failures_are_grouped_with_exit_code_1_until_retry_fixes_them,
        simulate_needs_no_credentials,
        a_dry_run_calls_nothing_and_leaves_no_ledger,
    )


# -- 3: stopped --------------------------------------------------------------------------------------


async def more_failures_than_max_failures_stop_the_run(place: Place) -> None:
    place.manifest([*denied(9), *pairs(60)])
    async with serve(SimulatorSettings(latency=0.02)) as (url, simulator):
        done = await place.call(
            "run", "trial.yaml", "--endpoint-url", url, "--max-failures", "3", "--concurrency", "1",
            "--format", "json",
        )  # fmt: skip
        assert done.code == 3
        assert done.json["outcome"] == "stopped"
        assert done.json["counts"] == {"succeeded": 0, "failed": 4, "in_doubt": 0, "unattempted": 65}
        assert any("--max-failures" in reason for reason in done.json["reasons"])
        assert simulator.calls[CREATE] == 4
        assert of_type(place.ledger, "end")[-1]["outcome"] == "stopped"


async def exit_code_of_a_stop_precedes_that_of_a_deferral(place: Place) -> None:
    keys = {"good": "AKIAGOOD000000000000", "bad": "AKIAEXPIRED000000001"}
    place.env["AWS_SHARED_CREDENTIALS_FILE"] = write_profiles(place.folder / "credentials", **keys)
    accounts = {"good": {"profile": "good", "quota": {"per_second": 1}}, "bad": {"profile": "bad"}}
    place.manifest([*pairs(9, account="good"), *pairs(9, 50, account="bad")], accounts=accounts)
    async with serve() as (url, _):
        done = await place.call("run", "trial.yaml", "--endpoint-url", url, "--max-duration", "2s", "-v")
        assert done.code == 3
        assert "account bad: ExpiredTokenException" in done.stdout
        assert "--max-duration" in done.stdout
        assert "hush-hush" not in done.stdout + done.stderr + place.ledger.read_text("utf-8")


@pytest.mark.asyncio
async def test_stopped_runs(tmp_path):
    await side_by_side(
        tmp_path,
        more_failures_than_max_failures_stop_the_run,
        exit_code_of_a_stop_precedes_that_of_a_deferral,
    )


# -- 4 and 5: deferred, locked, not to be written ----------------------------------------------------


async def a_run_beyond_max_duration_names_the_command_that_resumes_it(place: Place) -> None:
    rows = [*denied(1), *pairs(13)]
    place.manifest(rows)
    async with serve() as (url, simulator):
        done = await place.call(
            "run", "trial.yaml", "--endpoint-url", url, "--rate", "2", "--max-duration", "5.5s",
            "--progress", "lines", "--format", "json",
        )  # fmt: skip
        assert done.code == 4, "a deferral weighs more than a row that failed"
        assert done.json["outcome"] == "deferred"
        made = len(simulator.snapshots)
        assert 0 < made < 13
        assert simulator.calls[CREATE] == made + 1
        assert done.json["counts"] == {
            "succeeded": made,
            "failed": 1,
            "in_doubt": 0,
            "unattempted": 13 - made,
        }
        (line,) = [line for line in done.stderr.splitlines() if re.search(r"Z  0:00:0[5-9] ", line)]
        assert "/14 rows" in line
        assert "1 failed" in line
        assert of_type(place.ledger, "end")[-1]["outcome"] == "deferred"
        program, *arguments = shlex.split(done.json["next_steps"][0])
        assert program == "batch-snapshot"
        assert (await place.call(*arguments)).code in {1, 4}
        assert len(simulator.snapshots) > made


# -- 130 and 143: signals ----------------------------------------------------------------------------


async def interrupt_and_resume(place: Place, number: signal.Signals, code: int) -> None:
    rows = pairs(40)
    place.manifest([*denied(1), *rows])
    async with serve(SimulatorSettings(latency=0.15)) as (url, simulator):
        command = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "80", "--format", "json"]
        async with place.started(*command) as child:
            await until(lambda: len(simulator.snapshots) >= 10, "some snapshots")
            child.signal(number)
            done = await child.finished()
        assert done.code == code, "a signal weighs more than a row that failed"
        made = len(simulator.snapshots)
        assert made < 40
        assert simulator.max_in_flight > 1
        assert done.json["outcome"] == "interrupted"
        assert any(number.name in reason for reason in done.json["reasons"])
        counts = {"succeeded": made, "failed": 1, "in_doubt": 0, "unattempted": 40 - made}
        assert done.json["counts"] == counts, "what was in flight was waited for"
        (end,) = of_type(place.ledger, "end")
        assert (end["outcome"], end["counts"]) == ("interrupted", counts)
        assert (await place.call(*command)).code == 1
        answers = {call.answer for call in simulator.log if call.operation == CREATE}
        assert answers == {"ok", "AccessDeniedException"}, "none was sent twice"
        assert len(simulator.snapshots) == 40
        assert len({snapshot.engagement for snapshot in simulator.snapshots}) == 40


async def sigint_drains_and_the_same_command_resumes(place: Place) -> None:
    await interrupt_and_resume(place, signal.SIGINT, 130)


async def sigterm_drains_and_the_same_command_resumes(place: Place) -> None:
    await interrupt_and_resume(place, signal.SIGTERM, 143)


@pytest.mark.asyncio
async def test_a_second_run_is_refused_meanwhile_and_a_second_signal_drops_the_calls(place):
    rows = pairs(6)
    place.manifest(rows)
    (place.folder / "bad.yaml").write_text("name: trial\n", "utf-8")
    stuck = Faults(plan=lambda n, _: "slow" if n < 6 else None, slow_delay=600)
    async with serve(SimulatorSettings(faults=stuck)) as (url, simulator):
        command = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "100"]
        async with place.started(*command) as child:
            await until(lambda: len(simulator.snapshots) == 6, "six calls in flight")
            same, other_ledger, retry, bad, status = await together(
                place,
                command,
                [*command, "--ledger", "other.ndjson"],
                ["retry", place.ledger],
                ["run", "bad.yaml", "--endpoint-url", url],
                ["status", place.ledger],
            )
            assert child.running
            child.signal(signal.SIGTERM)
            child.signal(signal.SIGINT)
            done = await child.finished()
        assert [other.code for other in (same, other_ledger, retry, bad)] == [5, 5, 5, 2]
        assert "ledgers/trial.ndjson is in use by another run (pid " in same.stderr
        assert "manifest name 'trial' in account 'default' is in use" in other_ledger.stderr
        assert same.stdout == other_ledger.stdout == retry.stdout == ""
        assert len(same.stderr.splitlines()) == 1
        pid = same.stderr.partition("(pid ")[2].partition(" ")[0]
        assert f"(pid {pid} on" in retry.stderr, "being refused takes nothing from the lock"
        assert "running: 6 rows" in status.stdout
        assert not (place.folder / "other.ndjson").exists()

        assert done.code in {130, 143}
        assert "6 in doubt" in done.stdout, "the calls in flight were dropped"
        assert {line["error"]["code"] for line in results(place.ledger).values()} == {"Interrupted"}
        assert (await place.call(*command)).code == 0
        assert_exactly_once(simulator, place.ledger, rows)


# -- status of what is not finished ------------------------------------------------------------------


async def status_names_a_crash_and_the_command_that_resumes(place: Place) -> None:
    rows = pairs(30)
    place.manifest(rows)
    async with serve(SimulatorSettings(latency=0.2)) as (url, simulator):
        command = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "30"]
        async with place.started(*command) as child:
            await until(lambda: len(of_type(place.ledger, "result")) >= 3, "three results")
            child.signal(signal.SIGKILL)
            assert (await child.finished()).code == -signal.SIGKILL
        known = len(by_engagement(place.ledger))
        text, as_json = await together(
            place, ["status", place.ledger], ["status", place.ledger, "--format", "json"]
        )
        assert (text.code, as_json.code) == (0, 0)
        assert f"crashed: 30 rows: {known} succeeded, {30 - known} in doubt" in text.stdout
        assert as_json.json["outcome"] == "crashed"
        assert as_json.json["counts"] == {
            "succeeded": known,
            "failed": 0,
            "in_doubt": 30 - known,
            "unattempted": 0,
        }
        assert as_json.json["run_id"] == of_type(place.ledger, "run")[0]["run_id"]
        assert (await place.call("retry", place.ledger, "--rate", "100")).code == 0
        assert_exactly_once(simulator, place.ledger, rows)


@pytest.mark.asyncio
async def test_deferred_interrupted_and_crashed_runs(tmp_path):
    await side_by_side(
        tmp_path,
        a_run_beyond_max_duration_names_the_command_that_resumes_it,
        status_names_a_crash_and_the_command_that_resumes,
        sigint_drains_and_the_same_command_resumes,
        sigterm_drains_and_the_same_command_resumes,
    )


# -- pipes and terminals -----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_closed_stdout_pipe_is_no_error(place):
    rows = pairs(3)
    place.manifest(rows)
    async with serve() as (url, simulator):
        for line in (
            ["run", "trial.yaml", "--endpoint-url", url, "--format", "json", "--progress", "none"],
            ["status", place.ledger],
            ["--help"],
        ):
            reader, writer = os.pipe()
            os.close(reader)
            async with place.started(*line, stdout=writer) as child:
                os.close(writer)
                done = await child.finished()
            assert done.stderr == "", line
            assert done.code in {0, 1}, line
        assert_exactly_once(simulator, place.ledger, rows)


def test_head_1_closes_the_pipe_without_a_message(place):
    command = f"{shlex.quote(sys.executable)} -m batch_snapshot schema | head -1"
    piped = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=place.folder,
        env=place.env,
        capture_output=True,
        check=True,
        timeout=10,
    )
    assert (piped.stdout, piped.stderr) == (b"{\n", b"")


@asynccontextmanager
async def terminal(columns: int = 0) -> AsyncIterator[tuple[int, int]]:
    """A pseudo-terminal: our end, and the one for a process."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, columns))
    try:
        yield ours, theirs
    finally:
        os.close(ours)


async def on_terminal(
    place: Place, line: Sequence[str], typed: bytes, columns: int = 0, *, stdout: bool = False
) -> tuple[Finished, str]:
    """Run a command on a terminal into which somebody types; returns what was shown there too."""
    async with terminal(columns) as (ours, theirs):
        os.write(ours, typed)
        streams: dict[str, Any] = {"stdin": theirs, "stderr": theirs} | ({"stdout": theirs} if stdout else {})
        async with place.started(*line, **streams) as child:
            os.close(theirs)

            def watch() -> bytes:
                shown = b""
                try:
                    while chunk := os.read(ours, 4096):
                        shown += chunk
                except OSError:  # Linux: nobody holds the other end any more
                    pass
                return shown

            watching = asyncio.ensure_future(asyncio.to_thread(watch))
            done = await child.finished()
            shown = (await asyncio.wait_for(watching, 5)).decode()
    assert "Traceback" not in shown
    return done, shown


@pytest.mark.asyncio
async def test_catalog_aws_is_confirmed_on_a_terminal(place):
    rows = pairs(3)
    place.manifest(rows, catalog="AWS")
    async with serve() as (url, simulator):
        # What is not named on the command line is AWS itself.
        place.env["AWS_ENDPOINT_URL"] = url
        done, shown = await on_terminal(place, ["run", "trial.yaml"], b"n\n")
        assert (done.code, done.stdout) == (2, "")
        assert "3 of 3 rows to send" in shown
        assert "Go on?" in shown
        assert "nothing was called" in shown
        assert not simulator.calls
        assert not place.ledger.exists()
        done, shown = await on_terminal(place, ["run", "trial.yaml", "--format", "json"], b"y\n")
        assert done.code == 0
        assert "Go on?" in shown
        assert "\r" in shown
        assert done.json["counts"]["succeeded"] == 3
        assert_exactly_once(simulator, place.ledger, rows)


@pytest.mark.asyncio
async def test_lines_on_a_terminal_break_between_words_and_never_in_a_path_or_command(place):
    ledger = "a folder/with a name that is long enough to be broken somewhere/trial.ndjson"
    place.manifest(pairs(40), accounts={"default": {"quota": {"per_day": 30}}})
    done, shown = await on_terminal(
        place, ["run", "trial.yaml", "--simulate", "--ledger", ledger], b"", 80, stdout=True
    )
    assert done.code == 4
    command = f"batch-snapshot run trial.yaml --simulate --ledger '{ledger}'"
    lines = shown.replace("\r", "").split("\n")
    assert f"  {command}" in lines
    assert "next" in lines
    assert all(len(line) <= 80 or ledger[:20] in line for line in lines if "\x1b" not in line), lines
    name = ledger.replace("trial", "trial.simulated")
    _, shown = await on_terminal(place, ["run", "trial.yaml", "--ledger", name], b"", 80)
    assert shown.replace("\r", "").split("\n")[0].endswith(f" \x1b[0m{name}:")


@pytest.mark.asyncio
async def test_no_question_without_a_terminal_or_with_yes(place):
    rows = pairs(2)
    for name, catalog in (("certain", "AWS"), ("sandbox", "Sandbox"), ("alone", "AWS")):
        place.manifest(rows, f"{name}.yaml", name=name, catalog=catalog)
    async with serve() as (url, simulator):
        place.env["AWS_ENDPOINT_URL"] = url
        certain, sandbox, alone = await asyncio.gather(
            on_terminal(place, ["run", "certain.yaml", "--yes"], b""),
            on_terminal(place, ["run", "sandbox.yaml"], b""),
            place.call("run", "alone.yaml"),
        )
        for done, shown in (certain, sandbox, (alone, alone.stderr)):
            assert done.code == 0
            assert "Go on?" not in shown
        assert simulator.calls[CREATE] == 6


# -- simulate ----------------------------------------------------------------------------------------


async def record(url: str) -> Any:
    async with aiohttp.ClientSession() as client, client.get(f"{url}/_simulator/record") as answer:
        return json.loads(await answer.read())


@pytest.mark.asyncio
async def test_simulate_serves_until_a_signal_and_keeps_its_state(place):
    place.manifest(pairs(4))
    out = place.folder / "url"
    for served_before, number in enumerate((signal.SIGTERM, signal.SIGINT)):
        with out.open("wb") as file:
            async with place.started("simulate", "--state", "world.ndjson", stdout=file) as served:
                await until(lambda: out.read_bytes().endswith(b"\n"), "the URL")
                url = out.read_text("utf-8").strip()
                assert url.startswith("http://127.0.0.1:")
                ledger = f"{served_before}.ndjson"
                done = await place.call(
                    "run", "trial.yaml", "--endpoint-url", url, "--ledger", ledger, "--rate", "100"
                )
                assert done.code == 0
                made = (await record(url))["snapshots"]
                assert [snapshot["revision"] for snapshot in made] == [1, 1, 1, 1, 2, 2, 2, 2][
                    : 4 + 4 * served_before
                ]
                served.signal(number)
                ended = await served.finished()
                assert ended.code == (143 if number is signal.SIGTERM else 130)
                assert len(ended.stderr.splitlines()) <= 2
