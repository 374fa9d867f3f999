"""The command line as a shell sees it: real processes, their exit codes, streams and signals."""

import asyncio
import platform
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aioboto3
import aiobotocore
import botocore
import pytest

from batch_snapshot import __version__
from batch_snapshot.simulator import Faults, SimulatorSettings, serve
from tests.support.processes import (
    Finished,
    Place,
    assert_exactly_once,
    of_type,
    pairs,
    record,
    results,
    until,
    write_manifest,
)
from tests.support.terminals import typed

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


def denied(number: int) -> list[dict[str, Any]]:
    return [{"engagement": f"eng-denied{n:08d}", "resource": f"O{n + 1}"} for n in range(number)]


# -- help, versions, what costs nothing --------------------------------------------------------------


@pytest.mark.asyncio
async def test_help_and_version(place, call):
    python = f"Python {platform.python_version()}"
    libraries = (f"{one.__name__} {one.__version__}" for one in (aioboto3, aiobotocore, botocore))
    version = f"batch-snapshot {__version__}\n{', '.join([python, *libraries])}\n"
    assert call("--version") == call("-V") == (0, version, "")
    # In processes of their own: click remembers how a command was first asked for help, by other tests, too.
    whole, run, again = await together(place, ["-h"], ["run", "-h"], ["help", "run"])
    for done in (whole, run, again):
        assert (done.code, done.stderr, done.stdout[:7]) == (0, "", "Usage: ")
    assert all(f"\n  {command} " in whole.stdout for command in COMMANDS)
    assert "130, 143" in whole.stdout
    assert run.stdout == again.stdout


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


def test_init_prints_a_valid_manifest_and_schema_a_json_schema(cwd, call):
    init, schema = call("init"), call("schema")
    assert (init.code, init.stderr, schema.code, schema.stderr) == (0, "", 0, "")
    assert schema.json["$schema"].startswith("http")
    assert set(schema.json["properties"]) >= {"version", "name", "defaults", "accounts", "pairs", "include"}
    (cwd / "mine.yaml").write_text(init.stdout, "utf-8")
    valid = call("validate", "mine.yaml")
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


def test_validate_names_every_mistake_and_its_line(cwd, trap, call):
    (cwd / "wrong.yaml").write_text(MISTAKES, "utf-8")
    text, as_json = call("validate", "wrong.yaml"), call("validate", "wrong.yaml", "--format", "json")
    run, dry = (call("run", "wrong.yaml", "--endpoint-url", trap, *more) for more in ([], ["--dry-run"]))
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
    told = zip(problems, done, strict=True)
    assert all(one["message"] in line and (one["hint"] or "") in line for one, line in told)
    assert sum(one["column"] is not None for one in problems) > len(problems) / 2
    assert not Path("ledgers").exists()


def test_validate_summarizes_a_valid_manifest(cwd, call):
    write_manifest(cwd / "trial.yaml", [*pairs(3), *pairs(1)], accounts={"main": {"profile": "partner"}})
    text, as_json = call("validate", "trial.yaml"), call("validate", "trial.yaml", "--format", "json")
    assert (text.code, as_json.code) == (0, 0)
    assert "3 rows" in text.stdout
    assert "warning: trial.yaml:" in text.stderr, "a pair that is listed twice is a warning"
    assert as_json.json["rows"] == 3
    assert as_json.json["rows_by_account"] == {"main": 3}


# -- 0 and 1: it went through ------------------------------------------------------------------------

CONTRACT = {
    *("outcome", "counts", "failures", "ledger", "run_id", "elapsed_s"),
    *("calls", "throttled_calls", "learned_rate"),
}


@pytest.mark.asyncio
async def test_a_run_writes_its_result_to_stdout_and_the_rest_to_stderr(place):
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


@pytest.mark.asyncio
async def test_failures_are_grouped_with_exit_code_1_until_retry_fixes_them(place):
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


@pytest.mark.asyncio
async def test_simulate_needs_no_credentials(place):
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


# -- 130 and 143: signals ----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_sigterm_drains_and_the_same_command_resumes(place):
    rows = pairs(40)
    place.manifest([*denied(1), *rows])
    async with serve(SimulatorSettings(latency=0.15)) as (url, simulator):
        command = ["run", "trial.yaml", "--endpoint-url", url, "--rate", "80", "--format", "json"]
        async with place.started(*command) as child:
            await until(lambda: len(simulator.snapshots) >= 10, "some snapshots")
            child.signal(signal.SIGTERM)
            done = await child.finished()
        assert done.code == 143, "a signal weighs more than a row that failed"
        made = len(simulator.snapshots)
        assert made < 40
        assert simulator.max_in_flight > 1
        assert done.json["outcome"] == "interrupted"
        assert any("SIGTERM" in reason for reason in done.json["reasons"])
        counts = {"succeeded": made, "failed": 1, "in_doubt": 0, "unattempted": 40 - made}
        assert done.json["counts"] == counts, "what was in flight was waited for"
        (end,) = of_type(place.ledger, "end")
        assert (end["outcome"], end["counts"]) == ("interrupted", counts)
        assert (await place.call(*command)).code == 1
        answers = {call.answer for call in simulator.log if call.operation == CREATE}
        assert answers == {"ok", "AccessDeniedException"}, "none was sent twice"
        assert len(simulator.snapshots) == 40
        assert len({snapshot.engagement for snapshot in simulator.snapshots}) == 40


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


# -- pipes and terminals -----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_catalog_aws_is_confirmed_on_a_terminal(place):
    rows = pairs(3)
    place.manifest(rows, catalog="AWS")
    async with serve() as (url, simulator):
        # What is not named on the command line is AWS itself.
        place.env["AWS_ENDPOINT_URL"] = url
        done, shown = await typed(place, ["run", "trial.yaml"], "n\n")
        assert (done.code, done.stdout) == (2, "")
        assert "3 of 3 rows to send" in shown
        assert "Continue?" in shown
        assert "nothing was called" in shown
        assert not simulator.calls
        assert not place.ledger.exists()
        done, shown = await typed(place, ["run", "trial.yaml", "--format", "json"], "y\n")
        assert done.code == 0
        assert "Continue?" in shown
        assert "\r" in shown
        assert done.json["counts"]["succeeded"] == 3
        assert_exactly_once(simulator, place.ledger, rows)


@pytest.mark.asyncio
async def test_lines_on_a_terminal_break_between_words_and_never_in_a_path_or_command(place):
    ledger = "a folder/with a name that is long enough to be broken somewhere/trial.ndjson"
    place.manifest(pairs(40), accounts={"default": {"quota": {"per_day": 30}}})
    done, shown = await typed(
        place, ["run", "trial.yaml", "--simulate", "--ledger", ledger], "", 80, stdout=True
    )
    assert done.code == 4
    command = f"batch-snapshot run trial.yaml --simulate --ledger '{ledger}'"
    lines = shown.replace("\r", "").split("\n")
    assert f"  {command}" in lines
    assert "next" in lines
    assert all(len(line) <= 80 or ledger[:20] in line for line in lines if "\x1b" not in line), lines
    name = ledger.replace("trial", "trial.simulated")
    _, shown = await typed(place, ["run", "trial.yaml", "--ledger", name], "", 80)
    assert shown.replace("\r", "").split("\n")[0].endswith(f" \x1b[0m{name}:")


@pytest.mark.asyncio
async def test_no_question_without_a_terminal_or_with_yes(place):
    rows = pairs(2)
    for name, catalog in (("certain", "AWS"), ("sandbox", "Sandbox"), ("alone", "AWS")):
        place.manifest(rows, f"{name}.yaml", name=name, catalog=catalog)
    async with serve() as (url, simulator):
        place.env["AWS_ENDPOINT_URL"] = url
        certain, sandbox, alone = await asyncio.gather(
            typed(place, ["run", "certain.yaml", "--yes"], ""),
            typed(place, ["run", "sandbox.yaml"], ""),
            place.call("run", "alone.yaml"),
        )
        for done, shown in (certain, sandbox, (alone, alone.stderr)):
            assert done.code == 0
            assert "Continue?" not in shown
        assert simulator.calls[CREATE] == 6


# -- simulate ----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_simulate_serves_until_a_signal_and_keeps_its_state(place):
    place.manifest(pairs(4))
    out = place.folder / "url"
    for revisions, number, code in (([1], signal.SIGTERM, 143), ([1, 2], signal.SIGINT, 130)):
        with out.open("wb") as file:
            async with place.started("simulate", "--state", "world.ndjson", stdout=file) as served:
                await until(lambda: out.read_bytes().endswith(b"\n"), "the URL")
                url = out.read_text("utf-8").strip()
                assert url.startswith("http://127.0.0.1:")
                run = ["run", "trial.yaml", "--endpoint-url", url, "--ledger", f"{code}.ndjson"]
                assert (await place.call(*run)).code == 0
                made = (await record(url))["snapshots"]
                assert [snapshot["revision"] for snapshot in made] == [n for n in revisions for _ in range(4)]
                served.signal(number)
                ended = await served.finished()
                assert ended.code == code
                assert len(ended.stderr.splitlines()) <= 2
