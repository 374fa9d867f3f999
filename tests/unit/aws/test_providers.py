"""What gives credentials: profiles as boto3 has them, within bounds, and what is said of others."""

import asyncio
import json
import os
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web

import batch_snapshot
from batch_snapshot.aws import profiles, providers
from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.models import Account, ApiError, Verdict
from batch_snapshot.reporting.summary import Summary
from batch_snapshot.simulator import serve
from tests.support import sts_server
from tests.support.http_server import endpoint
from tests.support.processes import Place, environment, first, move_in, pairs, until, write_manifest

pytestmark = pytest.mark.asyncio

KEYS = "aws_access_key_id = AKIAEXAMPLE000000000\naws_secret_access_key = secret\n"
SSO = "sso_account_id = 1\nsso_role_name = R\n"
ROLE = "arn:aws:iam::210987654321:role/Snapshot"
PRINTED = {"Version": 1, "AccessKeyId": "AKIAEXAMPLE000000000", "SecretAccessKey": "secret"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder, and no credentials in the environment."""
    nobodys = environment(tmp_path)
    del nobodys["AWS_ACCESS_KEY_ID"], nobodys["AWS_SECRET_ACCESS_KEY"]
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    nobodys |= {"AWS_CONFIG_FILE": str(tmp_path / "config")}
    nobodys |= {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}
    move_in(monkeypatch, tmp_path, nobodys)
    return tmp_path


def config(text: str, name: str = "config") -> None:
    Path(name).write_text(text, "utf-8")


def helper(*lines: str) -> str:
    """A shell script that is a `credential_process`, and the line of the profile that runs it."""
    Path("helper").write_text("\n".join(["#!/bin/sh", *lines, ""]), "utf-8")
    Path("helper").chmod(0o700)
    return f"credential_process = {Path('helper').resolve()}\n"


def printing(**more: str) -> str:
    """The same for one that prints these credentials."""
    return helper("cat <<END", json.dumps(PRINTED | more), "END")


async def refused(profile: str | None = "p", within: float = 20.0) -> str:
    """What is said of a profile that gives no credentials; its account stops, and nothing is sent."""
    account = Account("main", profile=profile)
    target = Target(endpoint_url="http://127.0.0.1:9", call_timeout=within)
    async with Clients({"main": account}, target, utc_now, Random(1)) as clients:
        with pytest.raises(ApiError) as caught:
            await clients.identify("main")
    failure = caught.value.failure
    assert (failure.verdict, failure.may_have_landed) == (Verdict.STOP_ACCOUNT, False)
    assert "\n" not in failure.message
    return f"{failure.code}: {failure.message}"


async def run(**options: Any) -> Summary:
    write_manifest(Path("trial.yaml"), pairs(2), accounts={"main": {"profile": "p"}})
    settings = Settings(max_attempts=1)
    return await batch_snapshot.run(Path("trial.yaml"), Options(rate=200.0, engine=settings, **options))


# -- helpers, and files that don't end ---------------------------------------------------------------


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_credential_process_that_prints_without_end_is_killed(stream):
    to = "" if stream == "stdout" else " >&2"
    config(f"[profile p]\n{helper('echo $$ > pid', f'exec yes secret{to}')}")
    said = await refused()
    assert "credential_process of profile p printed more than 4,194,304 bytes; it was killed" in said
    await ended("pid")


async def ended(name: str) -> None:
    """Wait until the process whose id is in a file has ended."""

    def over() -> bool:
        try:
            stat = Path("/proc", Path(name).read_text("utf-8").strip(), "stat").read_text("utf-8")
        except OSError:
            return True
        return stat.rpartition(")")[2].split()[0] == "Z"

    await until(over, f"the end of {name}")


@pytest.mark.parametrize(
    "ending",
    ["wait", "exit 0", "trap '' TERM INT HUP; sleep 600"],
    ids=["waits for it", "leaves it behind", "ignores signals"],
)
async def test_credential_process_that_hangs_is_killed_with_its_children(ending):
    config(f"[profile p]\n{helper('sleep 600 &', 'echo $! > child', 'echo $$ > pid', ending)}")
    began = time.monotonic()
    said = await refused(within=0.5)
    assert time.monotonic() - began < 5
    assert "credential_process of profile p did not end within 0.5 s" in said
    assert "all processes that it had started" in said
    for name in ("child", "pid"):
        await ended(name)


async def test_credential_process_is_killed_when_its_account_is_cancelled():
    config(f"[profile p]\n{helper('echo $$ > new; mv new pid', 'exec sleep 600')}")
    waiting = asyncio.ensure_future(refused())
    await until(Path("pid").exists, "the helper")
    waiting.cancel()
    await asyncio.wait([waiting])
    await ended("pid")


async def test_credential_process_of_a_source_profile_is_killed_too():
    config(f"[profile p]\nrole_arn = {ROLE}\nsource_profile = inner\n[profile inner]\n{helper('exec yes')}")
    assert "credential_process of profile inner printed more than" in await refused()


async def test_missing_credential_process_is_named():
    config("[profile p]\ncredential_process = /nowhere/helper --secret word\n")
    said = await refused()
    assert "credential_process of profile p cannot be started (No such file or directory)" in said
    assert "word" not in said


async def test_output_of_a_credential_process_within_the_limits_is_used():
    padded = json.dumps(PRINTED | {"Padding": "x" * 100_000})
    config(f"[profile p]\n{helper('head -c 200000 /dev/zero >&2', 'cat <<END', padded, 'END')}")
    async with serve() as (url, _):
        assert (await run(endpoint_url=url)).exit_code == 0


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 36)


#: Files that no program reads to their end: a pipe, a device, and what is too large.
WITHOUT_END = pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), huge])


@WITHOUT_END
async def test_web_identity_token_without_end_is_not_read(make):
    make(Path("token"))
    config(f"[profile p]\nrole_arn = {ROLE}\nweb_identity_token_file = token\n")
    said = await refused()
    assert "web identity token file token " in said
    assert "at most 1,048,576 are read" in said or "not a regular file" in said


async def test_missing_web_identity_token_is_named(monkeypatch):
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "nowhere")
    said = await refused(None)
    assert "web identity token file nowhere cannot be read (No such file or directory)" in said


@WITHOUT_END
@pytest.mark.parametrize("variable", [*profiles._FILES, "AWS_CREDENTIAL_FILE"])
async def test_config_file_without_end_is_not_read(make, variable, monkeypatch, folder):
    config("[profile p]\nregion = us-east-1\n")
    make(Path("other"))
    monkeypatch.setenv(variable, str(folder / "other"))
    said = await refused()
    assert f"{folder / 'other'} ({variable}) " in said
    assert "not a regular file" in said or "at most 4,194,304 are read" in said


async def test_missing_config_files_are_ignored_as_by_boto3(monkeypatch):
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    assert (await refused(None)).startswith("NoCredentialsError: ")


async def test_sso_cache_without_end_is_not_read(monkeypatch, folder):
    config(
        "[profile p]\nsso_account_id = 123456789012\nsso_role_name = R\nsso_session = mine\n"
        "[sso-session mine]\nsso_start_url = https://example.invalid/start\nsso_region = us-east-1\n"
    )
    cache = providers._TokenCache(str(folder))
    huge(folder / "key.json")
    with pytest.raises(providers.CredentialsError, match="at most 4,194,304 are read"):
        cache["key"]
    assert "aws sso login --profile p" in await refused()


# -- credentials that cannot be sent -----------------------------------------------------------------

FAULTS = {
    "tok\n": "a line break at position 4 of 4",
    "tok\r\n": "a carriage return at position 4 of 5",
    "to\x07ken": "a control character at position 3 of 6",
    "t\u0142oken": "a character that is not ASCII at position 2 of 6",
    "two words": "a blank at position 4 of 9",
}


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.parametrize("value", FAULTS)
async def test_variable_that_no_header_can_hold_is_named(monkeypatch, variable, value):
    given = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    for name, text in (given | {variable: value}).items():
        monkeypatch.setenv(name, text)
    said = await refused(None)
    assert f"{variable} holds {FAULTS[value]}; it is not shown" in said
    assert value.strip() not in said


@pytest.mark.parametrize("key", ["AccessKeyId", "SecretAccessKey", "SessionToken"])
@pytest.mark.parametrize("value", ["half\ud800", "line\nbreak", "\u0142"])
async def test_credential_process_whose_output_no_header_can_hold_is_named(key, value):
    config(f"[profile p]\n{printing(**{key: value})}")
    said = await refused()
    assert "that the credential_process of profile p printed holds " in said


async def test_profile_whose_credentials_no_header_can_hold_is_named():
    config(f"[p]\n{KEYS}aws_session_token = t\u0142\n", "credentials")
    assert "the session token of profile p in the AWS credentials file holds" in await refused()
    config(f"[profile role]\nrole_arn = {ROLE}\nsource_profile = p\n")
    assert "the session token of profile p in the AWS credentials file holds" in await refused("role")


# -- messages, and what to do ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"[profile p]\nrole_arn = {ROLE}\nsource_profile = gone\n", ['source_profile "gone"', "not exist"]),
        (f"[profile p]\n{SSO}sso_session = gone\n", ['sso-session does not exist: "gone"']),
        (f"[profile p]\n{SSO}sso_region = a\n", ["missing required configuration: sso_start_url"]),
        ("[profile p]\nregion = a\n[profile p]\n", ["config:3: section [profile p] appears twice"]),
        (f"[profile p]\n{KEYS}{KEYS}", ["config:4: option aws_access_key_id appears twice"]),
        ("[profile p]\nregion = us-east-1\nSECRETWORD\n", ["config: line 3: neither"]),
        ("SECRETWORD = 1\n", ["config:1: a line before the first [section]"]),
        ("[profile p]\ns3 =\n  SECRETWORD\n", ["config: a nested block has a line without ="]),
        (f"[profile p]\n{KEYS}defaults_mode = wrong\n", ["wrong", "legacy", "correct that setting"]),
        (f"[profile p]\n{KEYS}sts_regional_endpoints = wrong\n[x]\n", ["wrong", "correct that setting"]),
        (f"[profile p]\nrole_arn = {ROLE}\n", ["source_profile or credential_source"]),
        (f"[profile p]\nrole_arn = {ROLE}\ncredential_source = Nowhere\n", ["Nowhere"]),
        ("[profile p]\nlogin_session = arn:x\n", ["aws login", "export-credentials"]),
    ],
)
async def test_invalid_profile_is_explained_without_its_lines(text, words):
    config(text)
    said = await refused()
    for word in words:
        assert word in said
    assert "SECRETWORD" not in said
    assert "not shown; correct that file" in said or "getting credentials failed" not in said


async def test_invalid_mode_is_named(monkeypatch):
    config(f"[p]\n{KEYS}", "credentials")
    monkeypatch.setenv("AWS_DEFAULTS_MODE", "wrong")
    assert "wrong" in (said := await refused())
    assert "correct that setting" in said


async def test_advice_for_container_credentials_names_their_variables(monkeypatch):
    async def secret(_: web.Request) -> web.Response:
        return web.Response(status=404, text="a secret")

    monkeypatch.setattr("aiobotocore.utils.AioContainerMetadataFetcher.SLEEP_TIME", 0)
    async with endpoint(secret) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/given")
        said = await refused(None)
    assert "the container's credentials endpoint answered 404; check the task role" in said
    assert "a secret" not in said


async def test_advice_for_a_refused_call_depends_on_the_provider(monkeypatch):
    async def expired(_: web.Request) -> web.Response:
        return web.Response(
            status=400, text=json.dumps({"__type": "ExpiredTokenException", "Message": "too old"})
        )

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE000000000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    write_manifest(Path("trial.yaml"), pairs(1))
    async with endpoint(expired) as url:
        ambient = await batch_snapshot.run(Path("trial.yaml"), Options(endpoint_url=url))
        config(f"[profile p]\n{printing()}")
        stopped = await run(endpoint_url=url, new_ledger=True, ledger="second.ndjson")
    assert "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN" in ambient.reasons[0]
    assert "run the credential_process of profile p by hand" in stopped.reasons[0]


# -- roles without a region, and endpoints of profiles -----------------------------------------------


@pytest.fixture(scope="module")
def moto():
    with sts_server.serve_sts() as service:
        yield service


@pytest.mark.parametrize("kind", ["source", "web identity"])
async def test_role_of_a_profile_without_a_region_is_assumed(moto, monkeypatch, kind):
    moto.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
    config("a.token", "token")
    how = {"source": "source_profile = s", "web identity": "web_identity_token_file = token"}[kind]
    config(f"[profile p]\nrole_arn = {ROLE}\n{how}\n[profile s]\n{KEYS}")
    async with serve() as (url, simulator):
        done = await run(endpoint_url=url)
    assert done.exit_code == 0, done.reasons
    assert {snapshot.access_key[:4] for snapshot in simulator.snapshots} == {"ASIA"}


def named(url: str, by: str) -> str:
    return {
        "itself": f"[profile p]\n{KEYS}endpoint_url = {url}\n",
        "services": (
            f"[profile p]\n{KEYS}services = s\n[services s]\npartnercentral_selling =\n  endpoint_url = "
            f"{url}\n"
        ),
    }[by]


@pytest.mark.parametrize("by", ["itself", "services"])
async def test_endpoint_of_a_profile_is_recorded_in_the_ledger(by):
    async with serve() as (url, simulator):
        config(named(url, by))
        done = await run()
        assert (done.exit_code, done.endpoint) == (0, url)
        assert len(simulator.snapshots) == 2


async def test_endpoint_that_boto3_ignores_is_ignored(monkeypatch):
    config(named("http://127.0.0.1:9", "itself"))
    async with serve() as (url, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert (await run()).endpoint == url
    assert profiles.endpoints(["p"], os.environ) == {"p": "http://127.0.0.1:9"}
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert profiles.endpoints(["p"], os.environ) == {}
    monkeypatch.delenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
    config(f"{named('http://127.0.0.1:9', 'itself')}ignore_configured_endpoint_urls = true\n")
    assert profiles.endpoints(["p"], os.environ) == {}


@pytest.mark.parametrize(
    ("text", "accounts", "word"),
    [
        (named("http://me:hunter2@127.0.0.1", "itself"), {"main": {"profile": "p"}}, "leave credentials out"),
        (named("nothing", "itself"), {"main": {"profile": "p"}}, "give a URL such as"),
        (f"[profile p]\n{KEYS}services = gone\n", {"main": {"profile": "p"}}, 'the "gone" services'),
        (
            "[profile p]\nservices = s\n[services s]\npartnercentral_selling = x\n",
            {"main": {"profile": "p"}},
            "must hold blocks",
        ),
        (
            named("http://127.0.0.1:9", "itself"),
            {"main": {"profile": "p"}, "other": {}},
            "the profiles name different endpoints (main: http://127.0.0.1:9, other: the one of AWS)",
        ),
    ],
)
async def test_invalid_endpoint_of_a_profile_is_refused(folder, text, accounts, word):
    config(text)
    place = Place(folder)
    place.env.update(AWS_CONFIG_FILE=str(folder / "config"))
    rows = [row for name in accounts for row in pairs(1, account=name)]
    place.manifest(rows, accounts=accounts)
    said = await place.call("run", "trial.yaml")
    assert said.code == 2
    assert word in said.stderr
    assert "hunter2" not in said.stderr
    assert not place.ledger.exists()


async def test_endless_process_or_token_does_not_fill_the_memory(folder):
    """The whole program, in an address space that an unbounded read would fill at once."""
    place = Place(folder)
    place.env.update(AWS_CONFIG_FILE=str(folder / "config"))
    token = f"role_arn = {ROLE}\nweb_identity_token_file = /dev/zero\n"
    config(f"[profile p]\n{helper('exec yes')}[profile q]\n{token}")
    accounts = {"main": {"profile": "p"}, "other": {"profile": "q"}}
    place.manifest([*pairs(1, account="main"), *pairs(1, account="other")], accounts=accounts)
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
    said = await place.call("run", "trial.yaml", "--endpoint-url", "http://127.0.0.1:9", script=first(limit))
    assert said.code == 3, said.stderr
    assert "printed more than" in said.stdout
    assert "/dev/zero is not a regular file" in said.stdout
