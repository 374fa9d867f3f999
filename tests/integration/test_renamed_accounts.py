"""An account gets another name between a run and its resume: no row is sent again for the same signer."""

from collections import Counter
from pathlib import Path

import pytest

from batch_snapshot import manifest
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.limits import AccountLimits
from batch_snapshot.errors import InputError
from batch_snapshot.failures import retry
from batch_snapshot.jobs import identity_check, run
from batch_snapshot.models import ApiError, Verdict
from batch_snapshot.ratelimit import pace
from batch_snapshot.ratelimit.pacer import Pacer
from batch_snapshot.simulator import serve
from tests.support.planned_jobs import run_job
from tests.support.processes import of_type, pairs, write_manifest, write_profiles

CUT_SHORT = Settings(failure_limit=retry.FailureLimit.parse("0"), concurrency=1)
MISSING = {"engagement": "eng-missing0000000", "resource": "O99"}
MANIFEST, LEDGER = Path("trial.yaml"), Path("ledgers/trial.ndjson")

P, Q, R = ({"profile": name} for name in "pqr")
ROLE_1, ALSO_1, ROLE_2 = (
    {"role_arn": f"arn:aws:iam::{number}:role/{role}"}
    for number, role in [("1" * 12, "A"), ("1" * 12, "B"), ("2" * 12, "A")]
)


@pytest.fixture(autouse=True)
def place(cwd, monkeypatch):
    # Profiles p and q sign with the ambient key, r with another.
    keys = {"p": "AKIAEXAMPLE000000000", "q": "AKIAEXAMPLE000000000", "r": "AKIAEXAMPLE000000009"}
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", write_profiles(cwd / "credentials", **keys))
    return cwd


def options(url, **more):
    return Options(endpoint_url=url, rate=1000.0, **more)


def rows_of(account, rows):
    return [{**row, "account": account} for row in rows] if account else rows


def made(simulator):
    return Counter(one.engagement for one in simulator.snapshots)


# -- a run, an edit, and a resume ------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (None, {"main": {}}, True),
        ({"a": {}}, {"b": {}}, True),
        ({"a": P}, {"b": P}, True),
        (None, {"main": P}, True),
        ({"a": P}, {"b": Q}, True),
        ({"a": P}, {"b": {}}, True),
        ({"a": P}, {"b": R}, False),
        (None, {"main": R}, False),
    ],
    ids=str,
)
async def test_rows_under_a_new_name_of_the_same_signer_are_refused(before, after, same):
    old, new = (next(iter(one)) if one else None for one in (before, after))
    rows = [*pairs(3), MISSING, *pairs(2, first=3)]
    write_manifest(MANIFEST, rows_of(old, rows), accounts=before)
    async with serve() as (url, simulator):
        assert (await run.run(MANIFEST, options(url, engine=CUT_SHORT))).exit_code == 3
        text, first = LEDGER.read_text("utf-8"), made(simulator)
        write_manifest(MANIFEST, rows_of(new, pairs(5)), accounts=after)
        if not same:
            done = await run.run(MANIFEST, options(url))
            assert (done.counts.succeeded, max(made(simulator).values())) == (8, 2)
            return
        with pytest.raises(
            InputError, match=f"under account '{old or 'default'}'.*again under '{new}'"
        ) as caught:
            await run.run(MANIFEST, options(url))
        assert caught.value.exit_code == 2
        assert (LEDGER.read_text("utf-8"), made(simulator)) == (text, first)
        # As the message says: under the ledger's name it is resumed; with another ledger all is sent again.
        name = old or "default"
        write_manifest(MANIFEST, rows_of(name, pairs(5)), accounts=before or {"default": {}})
        assert (await run.run(MANIFEST, options(url))).counts.succeeded == 5
        assert set(made(simulator).values()) == {1}
        write_manifest(MANIFEST, rows_of(new, pairs(5)), accounts=after)
        assert (await run.run(MANIFEST, options(url, ledger="other.ndjson"))).exit_code == 0


@pytest.mark.asyncio
async def test_rows_moved_between_accounts_of_one_signer_are_refused_and_others_are_not():
    accounts = {"a": P, "b": Q, "c": R}
    write_manifest(
        MANIFEST,
        [*rows_of("a", pairs(2)), *rows_of("b", pairs(2, 2)), *rows_of("c", pairs(1, 4))],
        accounts=accounts,
    )
    async with serve() as (url, simulator):
        assert (await run.run(MANIFEST, options(url))).exit_code == 0
        for moved, refused in ([rows_of("b", pairs(4)), True], [rows_of("c", pairs(1)), False]):
            write_manifest(MANIFEST, [*moved, *rows_of("c", pairs(1, 4))], accounts=accounts)
            for selected in ((), (moved[0]["account"],)):
                before = made(simulator)
                if refused:
                    with pytest.raises(InputError, match=r"under account 'a'.*again under 'b'"):
                        await run.run(MANIFEST, options(url, accounts=selected))
                    assert made(simulator) == before
                else:
                    await run.run(MANIFEST, options(url, accounts=selected))
        assert made(simulator)[pairs(1)[0]["engagement"]] == 2


@pytest.mark.asyncio
async def test_rows_of_an_added_account_are_sent():
    """Accounts are added, rows stay where they were: only theirs are sent."""
    write_manifest(MANIFEST, pairs(3))
    async with serve() as (url, simulator):
        await run.run(MANIFEST, options(url))
        accounts: dict[str, dict[str, str]] = {"default": {}, "main": {}}
        write_manifest(
            MANIFEST, [*rows_of("default", pairs(2)), *rows_of("main", pairs(3, 5))], accounts=accounts
        )
        done = await run.run(MANIFEST, options(url))
        assert (done.exit_code, done.vanished) == (0, 1)
        assert set(made(simulator).values()) == {1}


@pytest.mark.asyncio
async def test_a_simulated_resume_goes_by_profiles_and_roles():
    """All accounts sign with the simulator's key there, so the key proves nothing."""
    write_manifest(MANIFEST, rows_of("a", pairs(3)), accounts={"a": P})
    assert (await run.run(MANIFEST, Options(simulate=True))).exit_code == 0
    write_manifest(MANIFEST, rows_of("b", pairs(3)), accounts={"b": P})
    with pytest.raises(InputError, match="again under 'b'"):
        await run.run(MANIFEST, Options(simulate=True))
    write_manifest(MANIFEST, rows_of("b", pairs(3)), accounts={"b": Q})
    assert (await run.run(MANIFEST, Options(simulate=True))).exit_code == 0


@pytest.mark.asyncio
async def test_a_plan_warns_of_renamed_accounts_and_a_retry_is_refused():
    """A ledger of an earlier version has rows under two names, and failed under one of them."""
    write_manifest(MANIFEST, rows_of("a", pairs(2)), accounts={"a": P})
    async with serve() as (url, simulator):
        await run.run(MANIFEST, options(url))
        write_manifest(MANIFEST, rows_of("b", pairs(2)), accounts={"b": P})
        preview = run.dry_run(MANIFEST, options(url))
        assert any("under account 'a' and is to be sent under 'b'" in note for note in preview.notes)
        text = LEDGER.read_text("utf-8").replace('"a"', '"b"')
        [header] = of_type(LEDGER, "run")
        more = text.replace('"status":"succeeded"', '"status":"failed"').replace(
            '"error":null',
            '"error":{"kind":"transient","code":"X","message":"x","reason":null,"http_status":500}',
        )
        more = more.replace('"rows":2', '"rows":4').replace(
            '"succeeded":2,"failed":0', '"succeeded":2,"failed":2'
        )
        LEDGER.write_text(LEDGER.read_text("utf-8") + more, "utf-8")
        assert header["accounts"]
        lines = LEDGER.read_text("utf-8").splitlines(keepends=True)
        merged = '"accounts":{"a":{"role_arn":null,"profile":"p","region":null},"b":{'
        LEDGER.write_text("".join(line.replace('"accounts":{"b":{', merged) for line in lines), "utf-8")
        before = made(simulator)
        preview = run.dry_retry(LEDGER, None, options(url))
        assert any("under account 'a'" in note for note in preview.notes)
        with pytest.raises(InputError, match="leave account 'b' out with --accounts"):
            await run.retry(LEDGER, None, options(url))
        assert made(simulator) == before
        assert (await run.retry(LEDGER, None, options(url, accounts=("a",)))).calls == 0


# -- the signer is known late, or not at all------------------------------------------------------------


#: Of roles at an endpoint of their own.
AT_1, AT_1_TOO = "http://127.0.0.1:9:111111111111:us-east-1", "http://[::1]:8:111111111111:eu-west-1"
AT_2 = "http://127.0.0.1:9:222222222222:us-east-1"


@pytest.mark.parametrize(
    ("before", "now", "alike", "simulated", "one"),
    [
        ("aws:1", "aws:1", False, False, True),
        ("aws:1", "aws:2", True, False, False),
        ("key:a", "key:a", False, False, True),
        ("key:a", "key:b", False, False, False),
        ("key:a", "key:b", True, False, True),
        ("aws:1", "key:a", False, False, True),
        ("key:a", "aws:1", False, False, True),
        (None, "aws:1", False, False, True),
        (AT_1, AT_1_TOO, False, False, True),
        (AT_1, AT_2, True, False, False),
        ("key:a", "key:a", False, True, False),
        ("key:a", "key:a", True, True, True),
        (AT_1, AT_1_TOO, False, True, True),
    ],
)  # fmt: skip
def test_two_names_count_as_one_signer_unless_proven_different(before, now, alike, simulated, one):
    assert identity_check.may_be_same(before, now, alike=alike, simulated=simulated) is one


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("accounts", "numbers", "refused"),
    [
        ({"b": ROLE_2}, {}, False),
        ({"b": ROLE_1}, {}, True),
        ({"b": ALSO_1}, {}, True),
        ({"b": Q}, {"b": "aws:111111111111:us-east-1"}, True),
        ({"b": Q}, {"b": "aws:222222222222:us-east-1"}, False),
    ],
)
async def test_the_account_number_from_sts_decides_whose_rows_they_are(tmp_path, accounts, numbers, refused):
    """As if AWS had said that account a is 111111111111."""
    write_manifest(MANIFEST, rows_of("a", pairs(2)), accounts={"a": P})
    async with serve() as (url, _):
        await run.run(MANIFEST, options(url))
    [named] = {line["signer"] for line in of_type(LEDGER, "intent")}
    LEDGER.write_text(
        LEDGER.read_text("utf-8").replace(named, "aws:111111111111").replace(url, "aws"), "utf-8"
    )
    write_manifest(MANIFEST, rows_of("b", pairs(2)), accounts=accounts)
    role = accounts["b"].get("role_arn", "::").split(":")
    found = {"b": f"aws:{role[4]}:us-east-1"} if len(role) > 4 else numbers
    identified = []

    async def identify(name):
        identified.append(name)
        return found[name]

    async def unknown(_):
        raise ApiError(retry.CLOCKS_DISAGREE)

    with run_job(manifest.load(MANIFEST), Options(), utc_now()) as job:
        # Without credentials at the start the account stops alone, and is checked when it has some.
        await identity_check.check_accounts(job, unknown)
        account = AccountState("b", Pacer(pace.Pace()), Pacer(pace.Pace()))
        settle = identity_check.identify_signer(
            job, {}, AccountLimits(job.accounts, "aws", None, {}), identify, account
        )
        if refused:
            with pytest.raises(InputError, match="again under 'b'"):
                await identity_check.check_accounts(job, identify)
            with pytest.raises(ApiError, match="again under 'b'") as stopped:
                await settle
            assert stopped.value.failure.verdict is Verdict.STOP_ACCOUNT
        else:
            await identity_check.check_accounts(job, identify)
            await settle
    assert set(identified) == {"b"}


@pytest.mark.asyncio
@pytest.mark.parametrize(("number", "refused"), [("111111111111", True), ("222222222222", False)])
async def test_an_account_that_is_not_called_counts_as_its_recorded_signer(number, refused):
    """Account a has sent a row; b lists it too, and is called for alone."""
    accounts = {"a": P, "b": Q}
    write_manifest(MANIFEST, rows_of("a", pairs(2)), accounts=accounts)
    async with serve() as (url, _):
        await run.run(MANIFEST, options(url))
    [named] = {line["signer"] for line in of_type(LEDGER, "intent")}
    LEDGER.write_text(
        LEDGER.read_text("utf-8").replace(named, "aws:111111111111").replace(url, "aws"), "utf-8"
    )
    write_manifest(MANIFEST, [*rows_of("a", pairs(2)), *rows_of("b", pairs(1))], accounts=accounts)

    async def identify(_):
        return f"aws:{number}:us-east-1"

    with run_job(manifest.load(MANIFEST), Options(accounts=("b",)), utc_now()) as job:
        if refused:
            with pytest.raises(InputError, match="111111111111"):
                await identity_check.check_accounts(job, identify)
        else:
            await identity_check.check_accounts(job, identify)
