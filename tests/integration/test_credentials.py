"""Credentials that are not there, wrong, expired or refreshed: their account stops, and no other does."""

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from aiobotocore.session import AioSession

from batch_snapshot.aws import http
from batch_snapshot.clock import utc_now
from batch_snapshot.simulator import SimulatorSettings, serve
from tests.support.processes import assert_exactly_once, environment, move_in, write_profiles
from tests.support.two_accounts import LEDGER, ROWS, after, assert_other_stopped, assert_resumed, run, write

pytestmark = pytest.mark.asyncio

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


# -- none, wrong, expired ----------------------------------------------------------------------------

SSO = {"sso_account_id": "123456789012", "sso_role_name": "Partner", "region": "us-east-1"}
SESSION = {"sso_start_url": "https://example.invalid/start", "sso_region": "us-east-1"}
RENEW, LOGIN = "renew the credentials of profile partner", "aws sso login --profile partner"

#: By what is wrong: the profile's key, its other settings, and what the account says.
WRONG: dict[str, tuple[str | None, dict[str, dict[str, str]], list[str]]] = {
    "unknown": ("AKIAUNKNOWN00000001", {}, ["UnrecognizedClientException", RENEW]),
    "expired": (EXPIRED, {}, ["ExpiredTokenException", RENEW]),
    "no profile": (None, {}, ["ProfileNotFound", "partner", "aws configure list-profiles"]),
    "session": (
        None,
        {"profile_partner": {**SSO, "sso_session": "mine"}, "sso-session_mine": SESSION},
        [LOGIN],
    ),
    "old session": (None, {"profile_partner": SSO | SESSION}, [LOGIN]),
}


@pytest.mark.parametrize(("key", "sections", "words"), WRONG.values(), ids=WRONG)
async def test_credentials_that_are_wrong_are_named_with_what_to_do(key, sections, words):
    profiles(good=GOOD, **({"partner": key} if key else {}))
    config(**sections)
    write(profile="partner")
    async with serve() as (url, simulator):
        assert_other_stopped(await run(url), *words)
        config()
        profiles(good=GOOD, partner="AKIAMENDED0000000000")
        await assert_resumed(url, simulator)


async def test_missing_credentials_are_reported_with_what_to_do(monkeypatch):
    write()
    async with serve() as (url, simulator):
        stopped = await run(url)
        assert_other_stopped(stopped, "NoCredentialsError", "name a profile or a role_arn", "AWS_PROFILE")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", GOOD)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
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
