"""Resuming a ledger: one that has vanished, under other credentials, by the printed commands."""

import json
import re
import shlex
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from batch_snapshot import cli, manifest, paths
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.limits import AccountLimits
from batch_snapshot.errors import InputError, LedgerError, StorageError
from batch_snapshot.failures import retry
from batch_snapshot.jobs import identity_check, plan, run
from batch_snapshot.ledger import locks, open_runs
from batch_snapshot.models import ApiError, Quota, Verdict
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.pacer import Pacer
from batch_snapshot.reporting.status import read_status
from batch_snapshot.simulator import serve
from tests.support.ledgers import LedgerBuilder, row
from tests.support.planned_jobs import retry_job, run_job
from tests.support.processes import Place, assert_exactly_once, of_type, pairs

pytestmark = pytest.mark.asyncio


@pytest.fixture
def place(cwd):
    return Place(cwd)


def missing(number):
    return [{"engagement": f"eng-missing{n:07d}", "resource": f"O{n + 1}"} for n in range(number)]


#: Stops at the second row that is refused.
CUT_SHORT = Settings(failure_limit=retry.FailureLimit.parse("0"), concurrency=1)


# -- a ledger that has vanished ------------------------------------------------------------------------


async def test_a_run_is_refused_where_its_unfinished_ledger_has_vanished(place):
    path = place.manifest([*pairs(3), *missing(1), *pairs(3, first=3)])
    async with serve() as (url, simulator):
        options = Options(endpoint_url=url, engine=CUT_SHORT, rate=1000.0)
        assert (await run.run(path, options)).exit_code == 3
        made = len(simulator.snapshots)
        aside = place.ledger.rename("aside")
        for _ in range(2):
            with pytest.raises(LedgerError, match="put it back, or start over with --new-ledger"):
                await run.run(path, options)
        assert len(simulator.snapshots) == made, "nothing was made a second time"
        # Another ledger and a dry run are still possible, and an empty file is not a ledger.
        assert run.dry_run(path, options).rows == 7
        place.ledger.touch()
        with pytest.raises(LedgerError, match="is gone, or empty"):
            await run.run(path, options)
        place.ledger.write_bytes(b"".join(aside.read_bytes().splitlines(keepends=True)[1:]))
        with pytest.raises(LedgerError, match=r"lost its first line.*--new-ledger and another"):
            await run.run(path, options)
        aside.rename(place.ledger)
        place.manifest([*pairs(3), *pairs(3, first=3)])
        with pytest.raises(InputError, match=r"--new-ledger: .* already exists"):
            await run.run(path, replace(options, new_ledger=True))
        assert (await run.run(path, options)).counts == (6, 1, 0, 0)
        assert len(simulator.snapshots) == 6


async def test_a_removed_simulated_ledger_blocks_nothing(place):
    path = place.manifest([*missing(1), *pairs(2)])
    options = Options(simulate=True, engine=CUT_SHORT)
    for _ in range(2):
        summary = await run.run(path, options)
        assert summary.exit_code == 3
        place.ledger.with_name("trial.simulated.ndjson").unlink()


async def test_recorded_unfinished_ledgers_are_private_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(open_runs, "KEPT", 3)
    file = tmp_path / "trial.unfinished"
    for number in range(5):
        open_runs.record(file, tmp_path / f"{number}.ndjson", f"run-{number}")
    assert file.stat().st_mode & 0o7777 == 0o600
    kept = {str(tmp_path / f"{number}.ndjson"): f"run-{number}" for number in (2, 3, 4)}
    assert open_runs.unfinished_runs(file) == kept
    open_runs.remove(file, tmp_path / "3.ndjson", "run-3")
    assert open_runs.unfinished_runs(file).get(str(tmp_path / "3.ndjson")) is None
    for invalid in ("{", "[]", "\0"):
        file.write_text(invalid)
        with pytest.raises(StorageError, match="remove it if it is broken"):
            open_runs.unfinished_runs(file).get(str(tmp_path / "4.ndjson"))


# -- who signs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "refused", "warned"),
    [
        (None, "aws:1", False, False),
        ("aws:1", "aws:1", False, False),
        ("aws:1", "aws:2", True, False),
        ("key:a", "key:b", False, True),
        ("aws:1", "key:b", False, True),
        ("key:a", "aws:1", False, False),
    ],
)
async def test_another_aws_account_is_refused_and_another_key_warned_about(before, now, refused, warned):
    assert (identity_check.refusal("main", before, now) is not None) is refused
    assert (identity_check.warning("main", before, now) is not None) is warned


async def test_a_ledger_records_the_account_number_or_the_key():
    assert identity_check.recorded_form("aws:123456789012:us-east-1") == "aws:123456789012"
    assert identity_check.recorded_form("http://127.0.0.1:9 key:abc") == "key:abc"
    assert identity_check.recorded_form("aws key:abc") == "key:abc"


async def test_other_credentials_are_warned_about_and_another_account_is_refused_before_anything_is_sent(
    place, monkeypatch
):
    path = place.manifest(pairs(2))
    async with serve() as (url, simulator):
        options = Options(endpoint_url=url, rate=1000.0)
        assert (await run.run(path, options)).exit_code == 0
        place.manifest(pairs(4))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE000000001")
        again = await run.run(path, options)
        assert any("another access key" in warning for warning in again.warnings)
        signers = {line["signer"] for line in of_type(place.ledger, "intent")}
        assert len(signers) == 2
        assert all(text.startswith("key:") for text in signers)

        # As if AWS had named the account.
        text = place.ledger.read_text("utf-8")
        for text_ in signers:
            text = text.replace(text_, "aws:111111111111")
        place.ledger.write_text(text, "utf-8")
        place.manifest(pairs(6))
        calls = len(simulator.log)

        async def other(_: str) -> str:
            return "aws:222222222222:us-east-1"

        async def unknown(_: str) -> str:
            raise ApiError(retry.CLOCKS_DISAGREE)

        with run_job(manifest.load(path), options, utc_now()) as job:
            with pytest.raises(InputError, match="was AWS account 111111111111 until now") as raised:
                await identity_check.check_accounts(job, other)
            await identity_check.check_accounts(job, unknown)
            account = AccountState("default", Pacer(pace.Pace()), Pacer(pace.Pace()))
            with pytest.raises(ApiError, match="AnotherAccount") as stopped:
                await identity_check.identify_signer(
                    job, {}, AccountLimits(job.accounts, url, None, {}), other, account
                )
            assert stopped.value.failure.verdict is Verdict.STOP_ACCOUNT
        assert raised.value.exit_code == 2
        assert len(simulator.log) == calls


# -- the next commands ---------------------------------------------------------------------------------


def words(command):
    return shlex.split(command)


async def test_the_next_commands_keep_the_quota_the_state_folder_and_the_accounts(place):
    accounts: dict[str, dict[str, object]] = {"a": {}, "b": {}}
    rows = [
        *pairs(2, account="a"),
        *[{**row, "account": "a"} for row in missing(2)],
        *pairs(2, 2, account="b"),
    ]
    path = place.manifest(rows, accounts=accounts)
    async with serve() as (url, _):
        options = Options(
            endpoint_url=url, daily_quota=500, rate=2.5, accounts=("a",), state_dir=Path("my state"),
            engine=CUT_SHORT,
        )  # fmt: skip
        assert (await run.run(path, replace(options, rate=1000.0))).outcome == "stopped"
    status = read_status(place.ledger)
    run_command = next(step for step in status.next_steps if " run " in step)
    expected = ["--rate", "1000", "--daily-quota", "500", "--state-dir", "my state", "--accounts", "a"]
    assert words(run_command)[-len(expected) :] == expected
    # A retry takes the quota from the ledger, and its next command keeps what the run was given.
    with retry_job(
        place.ledger, Options(state_dir=Path("my state")), utc_now(), plan.all_unfinished()
    ) as job:
        assert job.targets.quotas["a"] == Quota(per_second=1000.0, per_day=500)
        assert words(job.rest_command)[-6:] == expected[:6]


async def test_a_dry_retry_shows_what_it_would_send_and_sends_nothing(place, capsys):
    path = place.manifest([*pairs(1), *missing(3)])
    async with serve() as (url, simulator):
        summary = await run.run(path, Options(endpoint_url=url, rate=1000.0))
        assert summary.exit_code == 1
        before, calls = place.ledger.read_bytes(), len(simulator.log)
        flags = ["--all", "--dry-run", "--format", "json", "--run-id", summary.run_id]
        assert cli.main(["retry", str(place.ledger), *flags]) == 0
        preview = json.loads(capsys.readouterr().out)
        assert (preview["rows"], preview["catalogs"]) == (3, ["Sandbox"])
        assert (place.ledger.read_bytes(), len(simulator.log)) == (before, calls)


async def test_a_retry_in_production_asks_first(place):
    path = place.manifest(missing(2), catalog="AWS")
    asked = []

    def confirm(preview):
        asked.append((preview.catalogs, preview.rows))
        return False

    async with serve() as (url, _):
        await run.run(path, Options(endpoint_url=url, rate=1000.0))
        with pytest.raises(InputError, match="not confirmed"):
            await run.retry(place.ledger, plan.all_unfinished(), None, run.Hooks(confirm=confirm))
    assert asked == [(frozenset({"AWS"}), 2)]


# -- other ledgers and live runs -----------------------------------------------------------------------


async def test_a_file_that_is_no_ledger_among_dated_ones_is_passed_over_and_named(place):
    path = place.manifest(pairs(2))
    (place.folder / "trial-2020-01-01.ndjson").write_text("these are no lines of a ledger\n", "utf-8")
    headless = LedgerBuilder(rows=1).begin().intend(row(1)).lines[1:]
    (place.folder / "trial-2020-01-02.ndjson").write_bytes(b"".join(headless))
    async with serve() as (url, simulator):
        summary = await run.run(path, Options(endpoint_url=url, ledger="{name}-{date}.ndjson", rate=1000.0))
        assert summary.exit_code == 0
        for said in ("01.ndjson: is not a ledger", "02.ndjson names rows, but its first line is missing"):
            assert any(f"ignored: trial-2020-01-{said}" in warning for warning in summary.warnings)
        assert_exactly_once(simulator, Path(summary.ledger), pairs(2))


async def test_a_plan_during_a_live_run_counts_no_row_as_in_doubt(place):
    path = place.manifest(pairs(3))
    async with serve() as (url, _):
        options = Options(endpoint_url=url, rate=1000.0)
        await run.run(path, options)
        lines = place.ledger.read_bytes().splitlines(keepends=True)
        place.ledger.write_bytes(b"".join(line for line in lines[:2]))
        assert run.dry_run(path, options).counts == (0, 0, 3, 0), "it has crashed"
        with locks.hold(paths.ledger_lock(place.ledger), what="it", since="now"):
            found = run.dry_run(path, options)
        assert (found.counts, found.rows) == ((0, 0, 0, 3), 3)
        assert utc_now() - found.now < timedelta(minutes=1)


@pytest.mark.parametrize("edited", ['"rate":[1]', '"rate":-1', '"daily_quota":"x"', '"daily_quota":0'])
async def test_a_quota_that_was_edited_in_the_ledger_is_refused(place, edited):
    path = place.manifest(missing(1))
    async with serve() as (url, _):
        await run.run(path, Options(endpoint_url=url, rate=1000.0, daily_quota=5))
    name = edited.partition(":")[0]
    text = place.ledger.read_text("utf-8")
    place.ledger.write_text(re.sub(name + ":[0-9.]+", edited, text), "utf-8")
    with pytest.raises(LedgerError, match="restore it from a backup"):
        await run.retry(place.ledger)


@pytest.mark.parametrize(("field", "name"), [("name", "../other"), ("accounts", "a/b")])
async def test_a_retry_refuses_names_in_the_ledger_that_no_manifest_can_have(place, field, name):
    """They become the names of lock files."""
    path = place.manifest(missing(1))
    async with serve() as (url, _):
        await run.run(path, Options(endpoint_url=url, rate=1000.0))
    head, *lines = place.ledger.read_text("utf-8").splitlines()
    fields = json.loads(head)
    fields[field] = name if field == "name" else {name: fields["accounts"]["default"]}
    place.ledger.write_text("\n".join([json.dumps(fields), *lines, ""]), "utf-8")
    with pytest.raises(LedgerError, match="which is not allowed: the file was edited; restore it"):
        await run.retry(place.ledger)
