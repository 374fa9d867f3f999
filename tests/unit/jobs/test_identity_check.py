"""Pairs that two names of one AWS account both list, where only AWS can say so."""

from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from batch_snapshot import manifest
from batch_snapshot.config.options import Options
from batch_snapshot.engine.limits import AccountLimits
from batch_snapshot.errors import InputError
from batch_snapshot.failures import retry
from batch_snapshot.jobs import identity_check
from batch_snapshot.models import ApiError
from batch_snapshot.ratelimit.windows import CallLog
from tests.support.planned_jobs import run_job
from tests.support.processes import pairs, write_manifest
from tests.unit.manifest.test_duplicates import role, write

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def answered_by_sts(numbers):
    """What `Clients.quota_owner` answers where AWS knows these numbers; None: there are no credentials."""

    async def identify(name):
        await anyio.lowlevel.checkpoint()
        if numbers[name] is None:
            raise ApiError(retry.CLOCKS_DISAGREE)
        return numbers[name]

    return identify


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
    path = write(tmp_path, {"a": {"profile": "one"}, "b": {"profile": "two"}})
    with run_job(manifest.load(path), Options(ledger=str(tmp_path / "l"), state_dir=tmp_path), NOW) as job:
        if refused:
            with pytest.raises(InputError, match=r"O2 is listed for account a too .* one AWS account"):
                await identity_check.check_accounts(job, answered_by_sts(numbers))
        else:
            await identity_check.check_accounts(job, answered_by_sts(numbers))


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
        with run_job(manifest.load(path), options, NOW) as job:
            await identity_check.check_accounts(job, asked)


@pytest.mark.asyncio
@pytest.mark.parametrize("region", ["us-east-1", "us-west-2"])
async def test_names_of_one_aws_account_share_a_rate_only_where_they_share_quotas(tmp_path, region):
    rates = {"a": 5, "b": 2}
    accounts = {name: {"profile": name, "quota": {"per_second": rate}} for name, rate in rates.items()}
    path = write(tmp_path, accounts, rows=[*pairs(1, account="a"), *pairs(1, first=1, account="b")])
    regions = {"a": "us-east-1", "b": region}
    identify = answered_by_sts({name: f"aws:111111111111:{where}" for name, where in regions.items()})
    signers: dict[str, str] = {}
    with (
        run_job(manifest.load(path), Options(ledger=str(tmp_path / "l"), state_dir=tmp_path), NOW) as job,
        CallLog(tmp_path / "calls") as log,
    ):
        limits = AccountLimits(job.targets.limited_accounts, job.endpoint, log, {})
        states = {name: limits.new_state(name, wait=False) for name in rates}
        for one in states.values():
            await identity_check.identify_signer(
                job, signers, limits, identify, one, accounts=states.values()
            )
    lowest = dict.fromkeys(rates, 2)
    shared = regions["a"] == region
    assert {name: one.pacer.pace.declared for name, one in states.items()} == (lowest if shared else rates)
    assert [one.sharing for one in states.values()] == [2 if shared else 1] * 2
    assert [len(one.warnings) for one in states.values()] == [0, int(shared)]


@pytest.mark.asyncio
async def test_warning_names_rows_accounts_and_what_cannot_be_undone(tmp_path):
    accounts = {name: {"profile": name} for name in "zabcdef"}
    rows = [*pairs(2, account="z"), *(row for name in "abcdef" for row in pairs(1, account=name, first=7))]
    path = write_manifest(tmp_path / "m.yaml", rows, accounts=accounts, catalog="AWS")
    known = {**dict.fromkeys(accounts), "z": "aws:111111111111:us-east-1", "b": "aws key:abcd"}
    with run_job(manifest.load(path), Options(ledger=str(tmp_path / "l"), state_dir=tmp_path), NOW) as job:
        assert job.is_real
        warned: list[str] = []
        await identity_check.check_accounts(job, answered_by_sts(known), warned.append)
        [text] = warned
        assert text == (
            "8 rows will be sent to catalog AWS for AWS account 111111111111 (z), account a, account b, "
            "account c, account d, 2 other accounts: snapshots cannot be undone, and they notify partners"
        )
    path = write_manifest(tmp_path / "s.yaml", rows, accounts=accounts)
    with run_job(manifest.load(path), Options(ledger=str(tmp_path / "s"), state_dir=tmp_path), NOW) as job:
        assert not job.is_real
