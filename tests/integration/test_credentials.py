"""Credentials that are not there, wrong, expired or refreshed: their account stops, and no other does."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession

import batch_snapshot
from batch_snapshot.aws import http
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.models import Outcome
from batch_snapshot.reporting import status
from batch_snapshot.reporting.summary import Summary
from batch_snapshot.simulator import SimulatorSettings, serve
from tests.support.processes import (
    assert_exactly_once,
    environment,
    move_in,
    of_type,
    pairs,
    results,
    write_manifest,
    write_profiles,
)

pytestmark = pytest.mark.asyncio

MANIFEST, LEDGER = Path("trial.yaml"), Path("ledgers/trial.ndjson")
GOOD, EXPIRED = "AKIAEXAMPLE000000000", "AKIAEXPIRED000000001"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder, an account called good, and none in the environment."""
    nobodys = environment(tmp_path)
    del nobodys["AWS_ACCESS_KEY_ID"], nobodys["AWS_SECRET_ACCESS_KEY"]
    move_in(monkeypatch, tmp_path, nobodys)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "home").mkdir()
    profiles(good=GOOD)
    return tmp_path


def profiles(**keys: str) -> None:
    """Write static credentials for these profiles, and no others."""
    write_profiles(Path("credentials"), **keys)


def config(**sections: dict[str, str]) -> None:
    """Write profiles of another kind, and what belongs to them: no others."""
    text = "".join(
        "\n".join([f"[{name.replace('_', ' ')}]", *(f"{key} = {value}" for key, value in keys.items()), ""])
        for name, keys in sections.items()
    )
    Path("config").write_text(text, "utf-8")


def handed_out(key: str, lives: float = 300.0) -> None:
    """Let the process that hands out credentials give these from now on.

    Shortly before they expire they are fetched again for each call.
    """
    expires = utc_now() + timedelta(seconds=lives)
    given = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "secret", "SessionToken": "token"}
    new = Path("handed-out.new")
    new.write_text(json.dumps({**given, "Expiration": expires.isoformat()}), "utf-8")
    new.replace("handed-out")


def process_profile(profile: str) -> None:
    settings = {"credential_process": f"cat {Path('handed-out').resolve()}"}
    config(**{f"profile_{profile}": settings})


GOOD_ROWS = pairs(10, account="good")
OTHER_ROWS = pairs(16, first=100, account="other")
ROWS = [*OTHER_ROWS, *GOOD_ROWS]


def write(**other: str) -> None:
    """A manifest of two accounts: one called good, and the other."""
    write_manifest(MANIFEST, ROWS, accounts={"good": {"profile": "good"}, "other": other})


async def run(url: str, *, concurrency: int = 2, outcome: Callable[[Outcome], None] | None = None) -> Summary:
    settings = Settings(concurrency=concurrency)
    options = Options(endpoint_url=url, rate=200.0, engine=settings)
    return await batch_snapshot.run(MANIFEST, options, batch_snapshot.Hooks(outcome=outcome))


def after(number: int, account: str, act: Callable[[], None]) -> Callable[[Outcome], None]:
    """Do something once so many rows of the account have an outcome."""
    seen: Counter[str] = Counter()

    def on_outcome(outcome: Outcome) -> None:
        seen[outcome.request.row.account] += 1
        if outcome.request.row.account == account and seen[account] == number:
            act()

    return on_outcome


def assert_other_stopped(summary: Summary, *words: str, done: int | None = 0) -> None:
    """The other account has stopped with a clear line, and its rows wait; the good one's are done."""
    assert (summary.outcome, summary.exit_code) == ("stopped", 3)
    (line,) = summary.reasons
    assert "\n" not in line
    for word in ("account other: ", *words):
        assert word in line
    assert summary.accounts["good"].stopped is None
    lines = Counter((key[0], line["status"]) for key, line in results(LEDGER).items())
    made = lines["other", "succeeded"]
    assert done is None or made == done
    assert lines == Counter({("good", "succeeded"): len(GOOD_ROWS), ("other", "succeeded"): made}), (
        "no row is blamed for its account's credentials"
    )
    assert summary.counts == (10 + made, 0, 0, 16 - made)
    assert of_type(LEDGER, "end")[-1]["counts"] == summary.counts._asdict()


async def assert_resumed(url: str, simulator: Any) -> None:
    assert (await run(url)).exit_code == 0
    assert_exactly_once(simulator, LEDGER, ROWS)
    assert status.check_ledger(LEDGER) == len(ROWS)


# -- none, wrong, expired ----------------------------------------------------------------------------


async def test_missing_credentials_are_reported_with_what_to_do(monkeypatch):
    write()
    async with serve() as (url, simulator):
        stopped = await run(url)
        assert_other_stopped(stopped, "NoCredentialsError", "name a profile or a role_arn", "AWS_PROFILE")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", GOOD)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        await assert_resumed(url, simulator)


@pytest.mark.parametrize(
    ("key", "code"),
    [("AKIAUNKNOWN00000001", "UnrecognizedClientException"), (EXPIRED, "ExpiredTokenException")],
)
async def test_credentials_that_the_service_refuses_name_their_profile(key, code):
    profiles(good=GOOD, partner=key)
    write(profile="partner")
    async with serve() as (url, simulator):
        assert_other_stopped(await run(url), code, "renew the credentials of profile partner")
        profiles(good=GOOD, partner="AKIAMENDED0000000000")
        await assert_resumed(url, simulator)


async def test_unknown_profile_is_named():
    write(profile="partner")
    async with serve() as (url, simulator):
        assert_other_stopped(await run(url), "ProfileNotFound", "partner", "aws configure list-profiles")
        profiles(good=GOOD, partner="AKIAMENDED0000000000")
        await assert_resumed(url, simulator)


@pytest.mark.parametrize("kind", ["a session", "the profile itself"])
async def test_expired_sso_session_is_reported_with_the_login_command(kind):
    account = {"sso_account_id": "123456789012", "sso_role_name": "Partner", "region": "us-east-1"}
    session = {"sso_start_url": "https://example.invalid/start", "sso_region": "us-east-1"}
    if kind == "a session":
        config(profile_partner={**account, "sso_session": "mine"}, **{"sso-session_mine": session})
    else:
        config(profile_partner=account | session)
    write(profile="partner")
    async with serve() as (url, simulator):
        assert_other_stopped(await run(url), "aws sso login --profile partner")
        config()
        profiles(good=GOOD, partner="AKIAMENDED0000000000")
        await assert_resumed(url, simulator)


# -- in the middle of a run --------------------------------------------------------------------------


async def test_credentials_renewed_during_a_run_are_used():
    process_profile("partner")
    handed_out("AKIABEFORE0000000000")
    write(profile="partner")
    async with serve() as (url, simulator):
        done = await run(url, outcome=after(5, "other", lambda: handed_out("AKIAAFTER00000000000")))
        assert done.exit_code == 0
        assert_exactly_once(simulator, LEDGER, ROWS)
        keys = Counter(snapshot.access_key for snapshot in simulator.snapshots)
        assert keys.keys() == {GOOD, "AKIABEFORE0000000000", "AKIAAFTER00000000000"}
        assert keys["AKIAAFTER00000000000"] >= 8


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda: handed_out(EXPIRED), ["ExpiredTokenException"]),
        (lambda: handed_out(GOOD, lives=-60.0), ["still expired"]),
        (lambda: Path("handed-out").unlink(), ["CredentialRetrievalError"]),
        (lambda: Path("handed-out").write_text("no JSON", "utf-8"), ["JSONDecodeError"]),
    ],
    ids=["expired for the service", "expired by their own word", "none any more", "nonsense"],
)
async def test_credentials_expiring_during_a_run_stop_the_account(spoil, words):
    process_profile("partner")
    handed_out("AKIABEFORE0000000000")
    write(profile="partner")
    async with serve(SimulatorSettings(latency=0.01)) as (url, simulator):
        stopped = await run(url, outcome=after(5, "other", spoil))
        assert_other_stopped(stopped, *words, "profile partner", done=None)
        assert 5 <= stopped.counts.succeeded - 10 <= 8, "what was in flight was still answered"
        handed_out("AKIAMENDED0000000000")
        await assert_resumed(url, simulator)


async def test_each_session_has_botocores_handlers_and_shares_none():
    one, other, plain = http.new_session(), http.new_session(), AioSession()

    def registered(session):
        return session.get_component("event_emitter")._emitter._handlers._root

    assert registered(one) == registered(other) == registered(plain)
    one.register("before-call", lambda **_: None)
    assert registered(one) != registered(other) == registered(plain)
