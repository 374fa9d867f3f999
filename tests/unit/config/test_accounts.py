"""Many accounts: which are called for, which are the same, and how each is reported."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest
from rich.console import Console

from batch_snapshot import manifest
from batch_snapshot.aws import profiles
from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import utc_now
from batch_snapshot.config.accounts import resolve_targets
from batch_snapshot.config.options import Options
from batch_snapshot.errors import InputError, ManifestError
from batch_snapshot.failures import retry
from batch_snapshot.jobs import identity_check, run
from batch_snapshot.models import Account, ApiError, Request, Row
from batch_snapshot.reporting import display
from batch_snapshot.reporting import summary as report
from batch_snapshot.reporting.summary import AccountSummary, Counts
from batch_snapshot.reporting.text import SHOWN_ACCOUNTS, as_text
from batch_snapshot.simulator import serve
from tests.support.planned_jobs import run_job
from tests.support.processes import (
    Place,
    assert_exactly_once,
    environment,
    first,
    of_type,
    pairs,
    results,
    write_manifest,
)

TAGGED = {"north": {"tags": ["emea", "pilot"]}, "south": {"tags": ["emea"]}, "west": {"tags": ["amer"]}}
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def role(number: int, **more: str) -> dict[str, str]:
    return {"role_arn": f"arn:aws:iam::{number:012d}:role/Snapshot", **more}


# -- selection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ["north", "south", "west"]),
        (("tag:emea",), ["north", "south"]),
        (("west", "tag:emea"), ["west", "north", "south"]),
        (("north", "tag:emea", "tag:pilot", "north"), ["north", "south"]),
    ],
)
def test_accounts_are_selected_by_name_and_by_tag(words, names):
    accounts = {name: Account(name, tags=tuple(each["tags"])) for name, each in TAGGED.items()}
    assert (
        list(resolve_targets(accounts, Options(simulate=True, accounts=words), profiles.endpoints).accounts)
        == names
    )


@pytest.mark.parametrize(
    ("word", "tags", "message"),
    [
        ("tag:apac", ("emea", "amer"), "no account has this tag; there are: amer, emea"),
        ("tag:apac", (), "no account has this tag; none of them has any"),
        ("tag:", ("emea",), "no account has this tag; there are: emea"),
        ("emea", ("emea",), "no such account; there are: main"),
    ],
)
def test_a_selection_without_accounts_names_the_choices(word, tags, message):
    with pytest.raises(InputError, match=f"--accounts {word}: {message}"):
        resolve_targets(
            {"main": Account("main", tags=tags)}, Options(simulate=True, accounts=(word,)), profiles.endpoints
        )


@pytest.mark.asyncio
async def test_a_retry_knows_the_tags_from_the_ledger_alone(tmp_path):
    place = Place(tmp_path)
    rows = [one for n, name in enumerate(TAGGED) for one in pairs(3, first=10 * n, account=name)]
    place.manifest(rows, accounts=TAGGED)
    async with serve() as (url, simulator):
        assert simulator
        where = ["--endpoint-url", url, "--rate", "1000"]
        ran = await place.call("run", "trial.yaml", *where, "--accounts", "tag:emea", "--format", "json")
        assert ran.code == 1, "the others' rows are left"
        assert ran.json["counts"]["succeeded"] == 6
        assert ran.json["accounts"].keys() == {"north", "south"}
        (tmp_path / "trial.yaml").unlink()
        for words, code in ((["tag:pilot"], 1), (["tag:amer"], 2)):
            result = await place.call("retry", place.ledger, *where, "--accounts", *words, "--all")
            assert result.code == code, result.stderr
        assert "no account has this tag; there are: emea, pilot" in result.stderr
    (head, *_) = of_type(place.ledger, "run")
    assert head["accounts"]["north"]["tags"] == ["emea", "pilot"]
    assert head["settings"]["accounts"] == ["tag:emea"]


# -- two names for one account----------------------------------------------------------------------------


def write(folder, accounts, *, rows=None, name="m.yaml"):
    shared = [*pairs(2, account="a"), *pairs(2, first=1, account="b")]
    return write_manifest(folder / name, shared if rows is None else rows, accounts=accounts)


def test_two_names_for_one_account_and_pair_are_refused_with_both_places(tmp_path):
    path = write(tmp_path, {"a": role(1), "b": role(1, external_id="ab")})
    with pytest.raises(ManifestError) as refused:
        manifest.load(path)
    (problem,) = refused.value.problems
    lines = path.read_text().splitlines()
    first, second = (n for n, line in enumerate(lines, 1) if '"O2"' in line)
    assert f":{second}: eng-00000000000001 O2 is listed for account a too (" in problem
    assert f"m.yaml:{first})" in problem
    assert "a and b are one AWS account (000000000001): remove it" in problem


@pytest.mark.parametrize(
    ("accounts", "rows"),
    [
        ({"a": role(1), "b": role(2)}, None),
        ({"a": role(1), "b": role(1, endpoint_url="http://127.0.0.1:9")}, None),
        ({"a": {}, "b": {"profile": "p"}}, None),
        ({"a": role(1), "b": role(1)}, [*pairs(2, account="a"), *pairs(2, first=5, account="b")]),
        ({"a": role(1), "b": role(1)}, [*pairs(2, account="a"), *pairs(2, account="a")]),
    ],
    ids=["two accounts", "two endpoints", "nobody knows", "other pairs", "a repetition"],
)
def test_different_accounts_endpoints_or_pairs_are_not_refused(tmp_path, accounts, rows):
    assert manifest.load(write(tmp_path, accounts, rows=rows)).rows >= 2


def test_all_duplicates_are_counted_and_the_first_fifty_named(tmp_path):
    rows = [*pairs(200, account="a"), *pairs(200, account="b")]
    with pytest.raises(ManifestError) as refused:
        manifest.load(write(tmp_path, {"a": role(1), "b": role(1)}, rows=rows))
    assert (len(refused.value.problems), refused.value.total) == (50, 200)


def test_a_duplicate_in_another_file_is_named_with_its_line(tmp_path):
    (tmp_path / "more.ndjson").write_text(json.dumps(pairs(1, account="b")[0]) + "\n")
    path = write(tmp_path, {"a": role(1), "b": role(1)}, rows=pairs(1, account="a"))
    path.write_text(path.read_text() + "include: [more.ndjson]\n")
    with pytest.raises(ManifestError, match=r"more\.ndjson:1: .*m\.yaml:6\)"):
        manifest.load(path)


def answered_by_sts(numbers):
    """What `Clients.quota_owner` answers where AWS knows these numbers; None: there are no credentials."""

    async def whose(name):
        await anyio.lowlevel.checkpoint()
        if numbers[name] is None:
            raise ApiError(retry.CLOCKS_DISAGREE)
        return numbers[name]

    return whose


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("numbers", "refused"),
    [
        ({"a": "aws:111111111111:us-east-1", "b": "aws:111111111111:us-east-1"}, True),
        ({"a": "aws:111111111111:us-east-1", "b": "aws:222222222222:us-east-1"}, False),
        ({"a": "aws key:abcd", "b": "aws key:abcd"}, False),
        ({"a": "aws:111111111111:us-east-1", "b": None}, False),
    ],
)
async def test_aws_is_asked_for_duplicates_before_the_first_call(tmp_path, numbers, refused):
    listed = manifest.load(write(tmp_path, {"a": {"profile": "one"}, "b": {"profile": "two"}}))
    with run_job(listed, Options(ledger=str(tmp_path / "l"), state_dir=tmp_path), NOW) as made:
        if refused:
            with pytest.raises(InputError, match=r"O2 is listed for account a too .* one AWS account"):
                await identity_check.check_duplicates(made, answered_by_sts(numbers))
        else:
            await identity_check.check_duplicates(made, answered_by_sts(numbers))


@pytest.mark.asyncio
async def test_aws_is_not_asked_at_another_endpoint_or_where_roles_differ(tmp_path):
    async def asked(name):
        raise AssertionError(name)

    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"a": {"profile": "one"}, "b": {"profile": "two"}}, {"endpoint_url": "http://127.0.0.1:9"}),
        ({"a": role(1), "b": role(2)}, {}),
        ({"a": {"profile": "one"}}, {}),
    ]
    for number, (accounts, more) in enumerate(cases):
        rows = pairs(2, account="a")
        path = write(tmp_path, accounts, rows=rows, name=f"{number}.yaml")
        options = Options(ledger=str(tmp_path / f"{number}"), state_dir=tmp_path, **more)
        with run_job(manifest.load(path), options, NOW) as made:
            await identity_check.check_duplicates(made, asked)


# -- reports ----------------------------------------------------------------------------------------


def summary(accounts):
    reasons = [f"account {name}: {one.stopped}" for name, one in accounts.items() if one.stopped]
    return report.Summary(
        outcome="stopped",
        exit_code=3,
        counts=Counts(5, 0, 0, 5),
        failures={},
        ledger="l",
        run_id="r",
        accounts=accounts,
        reasons=reasons,
    )


def test_a_summary_shows_each_accounts_rows():
    accounts = {
        "good": AccountSummary(5, 0, None, None, {"succeeded": 5, "failed": 0, "unattempted": 0}),
        "bad": AccountSummary(1, 0, None, "denied", {"succeeded": 0, "failed": 0, "unattempted": 5}),
    }
    text = as_text(summary(accounts))
    assert "account good  5 succeeded, 5 calls, 0 throttled\n" in text
    assert "account bad   5 unattempted, 1 call, 0 throttled, stopped early\n" in text
    assert "  account bad: denied\n" in text
    message = report.as_json(summary(accounts))["accounts"]["bad"]
    assert (message["counts"]["unattempted"], message["stopped"]) == (5, "denied")


def test_of_a_thousand_accounts_failing_ones_are_named_and_the_rest_summed_up():
    accounts = {f"a{n:03}": AccountSummary(5, 1, None, None, {"succeeded": 5}) for n in range(1_000)}
    accounts["a777"] = AccountSummary(2, 0, None, "expired", {"succeeded": 1, "unattempted": 4})
    lines = as_text(summary(accounts)).splitlines()
    named = [line for line in lines if line.startswith("account ")]
    assert len(named) == SHOWN_ACCOUNTS
    assert named[0].startswith("account a777")
    assert "980 more accounts: 4,900 succeeded, 4,900 calls, 980 throttled" in lines
    every = {name: AccountSummary(0, 0, None, "no", {}) for name in accounts}
    assert "  … and 980 more: --format json names them" in as_text(summary(every)).splitlines()


def test_a_thousand_accounts_fit_into_eighty_columns():
    parts = [
        display.DisplayPart(name=f"account-number-{n:04}", done=n % 5, rows=5, rate=0.1) for n in range(1_000)
    ]
    parts[900] = display.DisplayPart(
        name="stopped-one", done=0, rows=5, stopped="account stopped-one: AccessDenied"
    )
    frame = display.Frame(name="many", counts=Counts(2_000, 0, 0, 3_000), elapsed=5.0, parts=parts)
    console = Console(width=80, file=None, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(display.block(frame, 80))
    lines = captured.get().splitlines()
    assert len(lines) <= 6 + display.SHOWN_ACCOUNTS
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  stopped-one") and "stopped: Acc" in line for line in lines)
    assert any(line.startswith("  991 more") for line in lines)


# -- a thousand accounts ------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_thousand_accounts_share_one_client_and_its_connections():
    accounts = {f"a{n}": Account(f"a{n}") for n in range(1_000)}
    async with (
        serve() as (url, simulator),
        Clients(accounts, Target(endpoint_url=url, simulated=True), utc_now) as clients,
    ):
        lines = [await clients._account_client(name) for name in accounts]
        assert len({id(line.client) for line in lines}) == 1
        assert len({id(line.fast_calls) for line in lines}) == 1
        assert len({id(line.credentials) for line in lines}) == 1_000
        for name in ("a0", "a999"):
            await clients.send(
                Request(
                    Row(name, "Sandbox", "eng-0123456789abcd", "Opportunity", "O1", "OpportunitySummaryView"),
                    name,
                )
            )
        keys = {snapshot.access_key for snapshot in simulator.snapshots}
        assert len(keys) == 2, "each signs for itself"


@pytest.mark.asyncio
async def test_regions_and_endpoints_have_clients_of_their_own():
    accounts = {
        "a": Account("a"),
        "b": Account("b", region="eu-west-1"),
        "c": Account("c", endpoint_url="http://127.0.0.1:8"),
    }
    async with Clients(accounts, Target(simulated=True), lambda: NOW, Random(1)) as clients:
        assert len({id((await clients._account_client(name)).client) for name in accounts}) == 3


@pytest.mark.asyncio
async def test_a_run_of_many_accounts_makes_each_row_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    names = [f"a{n}" for n in range(60)]
    rows = [one for n, name in enumerate(names) for one in pairs(2, first=2 * n, account=name)]
    path = write_manifest(Path("m.yaml"), rows, accounts={name: {} for name in names})
    async with serve() as (url, simulator):
        done = await run.run(path, Options(endpoint_url=url, state_dir=tmp_path, ledger="l.ndjson"))
        assert_exactly_once(simulator, Path("l.ndjson"), rows)
    assert done.exit_code == 0
    assert len(results(Path("l.ndjson"))) == 120
    assert {one.counts["succeeded"] for one in done.accounts.values() if one.counts} == {2}


@pytest.mark.asyncio
@pytest.mark.parametrize(("hard", "code"), [(4_096, 0), (100, 5)])
async def test_a_lock_for_each_account_needs_no_limit_raised_by_hand(tmp_path, hard, code):
    place = Place(tmp_path)
    names = [f"a{n}" for n in range(120)]
    place.manifest(
        [pairs(1, first=n, account=name)[0] for n, name in enumerate(names)],
        accounts={name: {} for name in names},
    )
    async with serve() as (url, _):
        result = await place.call(
            *("run", "trial.yaml", "--endpoint-url", url),
            script=first(f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, {hard}))"),
        )
    assert result.code == code, result.stderr
    assert ("ulimit -n" in result.stderr) is (code == 5)
