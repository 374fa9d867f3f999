"""Every command that is printed as the next one is read as its users would type it, and does what it says."""

import shlex
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from random import Random

import pytest

from batch_snapshot import cli
from batch_snapshot.cli import invocation, notify
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError
from batch_snapshot.jobs import plan, run
from batch_snapshot.ledger import open_runs
from batch_snapshot.reporting import report, status
from batch_snapshot.reporting.summary import as_json, as_text
from batch_snapshot.simulator import serve
from tests.support.processes import move_in, of_type, pairs, write_manifest, write_profiles

pytestmark = pytest.mark.asyncio

KEY = "AKIAEXAMPLE000000000"
QUOTA = {"engagement": "eng-quota000000000", "resource": "O98"}
MISSING = {"engagement": "eng-missing0000000", "resource": "O99"}
DENIED = [{"engagement": f"eng-denied{number:08d}", "resource": "O97"} for number in range(30)]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An odd folder to work in, and a profile that signs where the environment does not."""
    folder = tmp_path / "it's {here} now"
    folder.mkdir()
    move_in(monkeypatch, tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", write_profiles(tmp_path / "credentials", partner=KEY))
    return folder


async def typed(command, monkeypatch, hooks=None):
    """Carry out a command line as `main` would, in this loop."""
    words = shlex.split(command)
    assert words[0] == "batch-snapshot"
    monkeypatch.setattr("sys.argv", words)
    given = cli.cli.commands[words[1]].make_context(words[1], words[2:]).params
    options = invocation.options_of(given)
    notify.Notifiers(words[1], Path("x"), given)
    hooks = hooks or run.Hooks(rng=Random(1))
    if words[1] == "run":
        return await run.run(given["manifest"], options, hooks)
    chosen = partial(plan.select, only=given["only"], everything=given["everything"])
    return await run.retry(given["ledger"], chosen, options, hooks)


def printed(summary):
    """The commands that a summary tells, in text and in JSON."""
    shown = as_json(summary)
    commands = [*shown["next_steps"], *(group["next"] for group in shown["failures"])]
    text = as_text(summary)
    assert all(command in text for command in commands)
    return list(dict.fromkeys(commands))


async def assert_each_works(summary, monkeypatch):
    """Run each of them from the same state of the ledger; they go on with it under its run id."""
    commands = printed(summary)
    before, state = Path(summary.ledger).read_bytes(), remembered()
    for command in commands:
        put_back(summary.ledger, before)
        restore(state)
        done = await typed(command, monkeypatch)
        assert (done.ledger, done.run_id) == (summary.ledger, summary.run_id)
    return commands


def remembered():
    return {path: path.read_bytes() for path in Path("../state").rglob("*.unfinished")}


def put_back(path, text):
    if text is None:
        Path(path).unlink()
    else:
        Path(path).write_bytes(text)


def restore(state):
    for path in remembered():
        path.unlink()
    for path, content in state.items():
        path.write_bytes(content)


# -- every ending --------------------------------------------------------------------------------------

#: By ending: flags, rows, and the outcome.
ENDINGS = {
    "completed, rows failed": ("", [*pairs(2), QUOTA, MISSING], "completed"),
    "stopped by failures": ("--max-failures 0 --concurrency 1", [MISSING, QUOTA, *pairs(3)], "stopped"),
    "stopped by denials": ("--concurrency 1", [*DENIED, *pairs(2)], "stopped"),
    "deferred by the duration": ("--max-duration 0s", pairs(3), "deferred"),
    "deferred by the window": ("--daily-quota 2", [*pairs(5), QUOTA], "deferred"),
    "nothing to do": ("", pairs(2), "completed"),
}
#: Ways to name ledger and manifest, and flags that the next command must bear.
WAYS = {
    "plain": "trial.yaml",
    "new": "trial.yaml --new-ledger --run-id abc",
    "dated": "trial.yaml --ledger 'n/{name}-{date}.ndjson'",
    "dated, joined": "./trial.yaml --ledger='n/{date}.ndjson' --new-ledger",
    "quoted": """--ledger "le'dgers/a b.ndjson" --state-dir 'my state' -- '-my "own".yaml'""",
    "simulated": "trial.yaml --simulate --ledger x.ndjson",
    "world": "trial.yaml --simulate --state 'a world' --ledger 'x-{date}.ndjson'",
    "flags": "trial.yaml --profile partner --region us-east-1 --rate 500 --accounts default",
}
MANIFESTS = {"quoted": '-my "own".yaml'}


#: Each ending with the plain way, and each way with one of two endings.
CASES = [
    *((ending, "plain") for ending in ENDINGS),
    *zip(cycle(("completed, rows failed", "deferred by the window")), WAYS, strict=False),
]


@pytest.mark.parametrize(("ending", "way"), dict.fromkeys(CASES))
async def test_every_next_command_works(monkeypatch, ending, way):
    flags, rows, outcome = ENDINGS[ending]
    write_manifest(Path(MANIFESTS.get(way, "trial.yaml")), rows)
    async with serve() as (url, _):
        where = "" if "--simulate" in WAYS[way] else f"--endpoint-url {url}"
        summary = await typed(f"batch-snapshot run {where} {flags} {WAYS[way]}", monkeypatch)
        assert summary.outcome == outcome
        commands = await assert_each_works(summary, monkeypatch)
        assert bool(commands) == (ending != "nothing to do")
        # What status and the report say, works as well; the same commands are not run again.
        for shown in (status.read_status(Path(summary.ledger)), report.load(Path(summary.ledger)).summary):
            if not {*printed(shown)} <= {*commands}:
                commands += await assert_each_works(shown, monkeypatch)


async def test_a_crashed_run_is_resumed_by_the_printed_command(monkeypatch):
    write_manifest(Path("trial.yaml"), pairs(5))

    class Stopped(BaseException):
        pass

    def stop(_):
        raise Stopped

    async with serve() as (url, _):
        line = f"batch-snapshot run trial.yaml --endpoint-url {url} --ledger 'n-{{date}}.ndjson' --new-ledger"
        with pytest.raises(BaseException):  # noqa: B017,PT011 - whatever it is wrapped in
            await typed(line, monkeypatch, run.Hooks(outcome=stop))
        path = Path(f"n-{utc_now():%Y-%m-%d}.ndjson")
        shown = status.read_status(path)
        assert shown.outcome == "crashed"
        assert await assert_each_works(shown, monkeypatch)


async def test_commands_printed_by_retry_work(monkeypatch):
    write_manifest(Path("trial.yaml"), [*pairs(2), QUOTA, MISSING])
    async with serve() as (url, _):
        line = f"batch-snapshot run trial.yaml --endpoint-url {url} --state-dir 'my state' --profile partner"
        first = await typed(line, monkeypatch)
        for flags in ("", "--all", "--only not_found", "--all --max-duration 0s"):
            command = f"batch-snapshot retry ledgers/trial.ndjson {flags} --state-dir 'my state'"
            summary = await typed(command, monkeypatch)
            assert summary.run_id == first.run_id
            assert await assert_each_works(summary, monkeypatch)


# -- a day later ---------------------------------------------------------------------------------------


async def test_the_next_command_of_a_dated_ledger_resumes_it_a_week_later(monkeypatch):
    write_manifest(Path("trial.yaml"), pairs(5))
    day = datetime(2026, 3, 1, 2, tzinfo=UTC)
    async with serve() as (url, simulator):
        flags = f"--endpoint-url {url} --ledger '{{name}}-{{date}}.ndjson' --daily-quota 2"
        line = f"batch-snapshot run trial.yaml {flags}"
        summary = await typed(line, monkeypatch, run.Hooks(now=lambda: day))
        assert summary.outcome == "deferred"
        [command] = summary.next_steps
        later = run.Hooks(now=lambda: day + timedelta(days=7))
        done = await typed(command, monkeypatch, later)
        assert (done.ledger, done.run_id) == ("trial-2026-03-01.ndjson", summary.run_id)
        assert len(simulator.snapshots) == 2


# -- before anything was sent --------------------------------------------------------------------------


async def test_an_account_without_credentials_records_no_signer_and_no_unfinished_ledger(monkeypatch):
    """First without credentials, then under a profile: with the ledger as it is, or after removing it."""
    write_manifest(Path("trial.yaml"), pairs(3))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    async with serve() as (url, simulator):
        for flags in ("", "--new-ledger"):
            line = f"batch-snapshot run trial.yaml --endpoint-url {url} --ledger l{len(flags)}.ndjson {flags}"
            summary = await typed(line, monkeypatch)
            assert (summary.exit_code, summary.counts.unattempted) == (3, 3)
            assert not any(map(open_runs.unfinished_runs, remembered()))
            assert not of_type(Path(summary.ledger), "intent")
            for command in printed(summary):
                assert (await typed(command, monkeypatch)).exit_code == 3
            before = Path(summary.ledger).read_bytes()
            put_back(summary.ledger, None)
            assert (await typed(f"{line} --profile partner", monkeypatch)).exit_code == 0
            put_back(summary.ledger, before)
            for command in printed(summary):
                assert (await typed(f"{command} --profile partner", monkeypatch)).counts.succeeded == 3
        assert len(simulator.snapshots) == 12
        # From the first row on it is settled who signs.
        with pytest.raises(InputError, match="has other settings for account 'default'"):
            await typed(f"batch-snapshot run trial.yaml --endpoint-url {url} --ledger l0.ndjson", monkeypatch)


async def test_only_an_account_that_has_sent_must_keep_its_signer(monkeypatch):
    accounts = {"a": {"profile": "partner"}, "b": {"profile": "nobody"}}
    rows = [*pairs(2, account="a"), *pairs(2, 2, account="b")]
    write_manifest(Path("trial.yaml"), rows, accounts=accounts)
    async with serve() as (url, _):
        line = f"batch-snapshot run trial.yaml --endpoint-url {url}"
        assert (await typed(line, monkeypatch)).counts == (2, 0, 0, 2)
        for name, profile in (("a", "nobody"), ("b", "partner")):
            write_manifest(Path("trial.yaml"), rows, accounts={**accounts, name: {"profile": profile}})
            if name == "a":
                with pytest.raises(InputError, match="has other settings for account 'a'"):
                    await typed(line, monkeypatch)
            else:
                assert (await typed(line, monkeypatch)).exit_code == 0


async def test_a_ledger_is_recorded_as_unfinished_before_its_first_intent(monkeypatch):
    """The other way round a ledger that is lost in between would not be missed."""
    write_manifest(Path("trial.yaml"), pairs(2))
    seen = []

    def look(_):
        seen.append([*open_runs.unfinished_runs(next(iter(remembered()))).values()])

    async with serve() as (url, _):
        line = f"batch-snapshot run trial.yaml --endpoint-url {url} --concurrency 1"
        summary = await typed(line, monkeypatch, run.Hooks(outcome=look))
    assert seen == [[summary.run_id]] * 2
    assert [open_runs.unfinished_runs(file) for file in remembered()] == [{}]
