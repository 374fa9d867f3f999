"""Whoever credentials go to, or come from, has to prove the name that was called: by real TLS on loopback."""

import asyncio
import json
import os
import re
from contextlib import ExitStack
from datetime import timedelta
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import SSOProvider

from batch_snapshot.aws import http
from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import utc_now
from batch_snapshot.models import Account, ApiError, Receipt, Request, Row, Verdict
from batch_snapshot.notify import notice, sns, webhook
from batch_snapshot.reporting import summary
from tests.support.processes import environment, move_in
from tests.support.tls_servers import Authority, serve_proxy, serve_tls

ROW = Row("main", "Sandbox", "eng-0123456789abcd", "Opportunity", "O1234567", "OpportunitySummaryView")
REQUEST = Request(ROW, "00000000-0000-5000-8000-000000000000")
ROLE = "arn:aws:iam::123456789012:role/Snapshot"
TOPIC = "arn:aws:sns:us-east-1:123456789012:nights"
#: One with keys of its own.
PROFILE = "[profile a]\naws_access_key_id=AKIATEST\naws_secret_access_key=secret\n"
START = "https://example.awsapps.com/start"

#: What is wrong with a server's certificate, and what the message says of it.
REFUSED = {
    "wrong name": "mismatch",
    "unknown authority": "unable to get local issuer certificate",
    "expired": "expired",
    "self-signed": "self-signed certificate",
}


class World:
    """Servers by what their certificate is like, and the two kinds of proxy."""

    def __init__(self, folder, stack):
        ours, other = Authority(folder / "ca.pem"), Authority(folder / "other.pem", "another")
        self.ca, self.folder = ours.file, folder
        names = "localhost", "127.0.0.1"
        certificates = {
            "right": ours.issue(folder / "right.pem", *names),
            "name only": ours.issue(folder / "name.pem", "localhost"),
            "wrong name": ours.issue(folder / "wrong.pem", "evil.example"),
            "unknown authority": other.issue(folder / "unknown.pem", *names),
            "expired": ours.issue(folder / "expired.pem", *names, days=-1),
            "self-signed": other.file,
        }
        with other.file.open("ab") as file:
            file.write(_pem(other.key))
        self.servers = {kind: stack.enter_context(serve_tls(path)) for kind, path in certificates.items()}
        self.proxy = stack.enter_context(serve_proxy())
        self.tls_proxy = stack.enter_context(serve_proxy(certificates["right"]))
        self.evil_proxy = stack.enter_context(serve_proxy(certificates["wrong name"]))

    def url(self, kind, host="localhost"):
        return f"https://{host}:{self.servers[kind].port}"


def _pem(key):
    from cryptography.hazmat.primitives import serialization as form

    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with ExitStack() as stack:
        yield World(tmp_path_factory.mktemp("tls"), stack)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path, world):
    ours = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "HOME": str(tmp_path)}
    ours |= dict.fromkeys(("AWS_CA_BUNDLE", "SSL_CERT_FILE"), str(world.ca))
    move_in(monkeypatch, tmp_path, environment(tmp_path) | ours)
    for name in ("HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name)
    for server in (*world.servers.values(), world.proxy, world.tls_proxy, world.evil_proxy):
        server.received.clear()


async def outcome(url, account=None, **target):
    """What one send comes to: a receipt or a failure."""
    given = {"main": account or Account("main")}
    async with Clients(given, Target(endpoint_url=url, **target), utc_now) as clients:
        try:
            return await clients.send(REQUEST)
        except ApiError as error:
            return error.failure


def configure(text):
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(text)


def token_file():
    token = Path(os.environ["AWS_CONFIG_FILE"]).with_name("token")
    token.write_text("a-token")
    return token


def sign_in(monkeypatch):
    """Keep a token of SSO as `aws sso login` does."""
    cache = Path.home() / "sso"
    cache.mkdir()
    # botocore works its folder out from HOME when it is imported.
    monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", str(cache))
    until = (utc_now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    kept = {"startUrl": START, "region": "us-east-1", "accessToken": "token-of-sso", "expiresAt": until}
    (cache / f"{sha1(START.encode()).hexdigest()}.json").write_text(json.dumps(kept))


async def by_api(world, kind, *_):
    return await outcome(world.url(kind))


async def by_the_plain_way(world, kind, *_):
    return await outcome(world.url(kind), plain=True)


async def by_role(world, kind, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", world.url(kind))
    return await outcome(world.url("right"), Account("main", role_arn=ROLE))


async def by_chain(world, kind, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", world.url(kind))
    source = PROFILE.replace("profile a", "profile b")
    configure(f"[profile a]\nregion=us-east-1\nrole_arn={ROLE}\nsource_profile=b\n{source}")
    return await outcome(world.url("right"), Account("main", profile="a", region="us-east-1"))


async def by_web_identity(world, kind, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", world.url(kind))
    token = token_file()
    text = f"[profile a]\nregion=us-east-1\nrole_arn={ROLE}\nweb_identity_token_file={token}\n"
    configure(text)
    return await outcome(world.url("right"), Account("main", profile="a"))


async def by_sso(world, kind, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", world.url(kind))
    text = f"[profile a]\nsso_start_url={START}\nsso_region=us-east-1\nsso_account_id=1\nsso_role_name=r\n"
    configure(text)
    sign_in(monkeypatch)
    return await outcome(world.url("right"), Account("main", profile="a", region="us-east-1"))


ROUTES = [by_api, by_the_plain_way, by_role, by_chain, by_web_identity, by_sso]
WAYS = ["directly", "by a proxy", "by a TLS proxy"]


def connect(way, world, monkeypatch):
    if way == "by a proxy":
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{world.proxy.port}")
    elif way == "by a TLS proxy":
        monkeypatch.setenv("https_proxy", f"https://127.0.0.1:{world.tls_proxy.port}")


def proxied(world):
    return len(world.proxy.received) + len(world.tls_proxy.received)


def named(url):
    return url.removeprefix("https://")


@pytest.mark.asyncio
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("by", ROUTES)
async def test_right_certificate_is_accepted(world, by, way, monkeypatch):
    connect(way, world, monkeypatch)
    receipt = await by(world, "right", monkeypatch)
    assert isinstance(receipt, Receipt), receipt
    assert (proxied(world) > 0) is (way != "directly")


@pytest.mark.asyncio
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("by", ROUTES)
async def test_refused_certificate_stops_the_account_and_nothing_is_sent(world, by, way, monkeypatch):
    connect(way, world, monkeypatch)
    # Each route meets one kind of bad certificate by each way, and between them they meet all.
    kinds = [*REFUSED]
    kind = kinds[(ROUTES.index(by) + WAYS.index(way)) % len(kinds)]
    failure = await by(world, kind, monkeypatch)
    assert failure.verdict is Verdict.STOP_ACCOUNT
    assert not failure.may_have_landed
    assert named(world.url(kind)) in failure.message
    assert REFUSED[kind] in failure.message
    assert "AWS_CA_BUNDLE" in failure.message
    assert world.servers[kind].received == []


@pytest.mark.asyncio
@pytest.mark.parametrize("plain", [False, True])
async def test_proxy_with_another_name_gets_nothing(world, plain, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"https://user:password-of-it@127.0.0.1:{world.evil_proxy.port}")
    failure = await outcome(world.url("right"), plain=plain)
    assert (failure.verdict, failure.may_have_landed) == (Verdict.STOP_ACCOUNT, False)
    assert f"127.0.0.1:{world.evil_proxy.port}" in failure.message
    assert "password-of-it" not in failure.message
    assert world.evil_proxy.received == []


@pytest.mark.asyncio
async def test_address_as_host_needs_its_address_in_the_certificate(world):
    assert isinstance(await outcome(world.url("right", "127.0.0.1")), Receipt)
    failure = await outcome(world.url("name only", "127.0.0.1"))
    assert failure.verdict is Verdict.STOP_ACCOUNT
    assert "IP address mismatch" in failure.message
    assert world.servers["name only"].received == []


@pytest.mark.asyncio
async def test_ca_bundle_of_the_profile_is_used(world, monkeypatch):
    monkeypatch.delenv("AWS_CA_BUNDLE")
    configure(f"{PROFILE}ca_bundle={world.ca}\n")
    failure = await outcome(world.url("right"))
    assert "unable to get local issuer" in failure.message
    assert isinstance(await outcome(world.url("right"), Account("main", profile="a")), Receipt)


@pytest.mark.asyncio
async def test_empty_ca_bundle_does_not_switch_verification_off(world, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "")
    failure = await outcome(world.url("right"))
    assert failure.verdict is Verdict.STOP_ACCOUNT
    # Newer versions of botocore refuse the variable themselves.
    assert re.search("unable to get local issuer|Invalid CA bundle", failure.message)
    assert world.servers["right"].received == []


def unusable(tmp_path):
    """Paths that are no CA bundle."""
    (tmp_path / "no.pem").write_text("hello")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return [tmp_path / name for name in ("missing.pem", "no.pem", "folder", "pipe")]


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["directly", "by a proxy"])
@pytest.mark.parametrize("setting", ["AWS_CA_BUNDLE", "ca_bundle"])
async def test_unusable_ca_bundle_stops_the_account_and_is_named(world, setting, way, tmp_path, monkeypatch):
    connect(way, world, monkeypatch)
    for path in unusable(tmp_path):
        account = None
        if setting == "ca_bundle":
            monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
            configure(f"{PROFILE}ca_bundle={path}\n")
            account = Account("main", profile="a")
        else:
            monkeypatch.setenv(setting, str(path))
        failure = await outcome(world.url("right"), account)
        assert (failure.verdict, failure.may_have_landed) == (Verdict.STOP_ACCOUNT, False)
        assert setting in failure.message
        assert str(path) in failure.message
    assert world.servers["right"].received == []


FINISHED: dict[str, Any] = {"ledger": "ledgers/m.ndjson", "run_id": "r", "command": "run"}
NOTICE = notice.of_summary(
    summary.Summary(outcome="completed", exit_code=0, counts=summary.Counts(), failures={}, **FINISHED)
)


async def publish_by_sns(world, kind, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", world.url(kind))
    return await sns.publish(TOPIC, NOTICE)


async def post_by_webhook(world, kind, *_):
    return await webhook.send(f"{world.url(kind)}/secret-path", {"text": "x"})


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["directly", "by a proxy"])
@pytest.mark.parametrize("notify", [publish_by_sns, post_by_webhook])
async def test_messages_go_only_to_a_verified_host(world, notify, way, monkeypatch):
    connect(way, world, monkeypatch)
    assert await notify(world, "right", monkeypatch) is None
    for kind, reason in REFUSED.items():
        warning = await notify(world, kind, monkeypatch)
        assert named(world.url(kind)) in warning
        assert reason in warning
        assert "secret-path" not in warning
        assert world.servers[kind].received == []


@pytest.mark.asyncio
async def test_first_calls_at_once_share_one_session():
    async with http.Transport() as transport:
        one, other = await asyncio.gather(transport._get_session(None), transport._get_session(None))
    assert one is other
    assert isinstance(one, http._Exchanges)
