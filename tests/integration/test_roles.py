"""Roles over HTTP: assumed with their external id, renewed, refused, and many of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from batch_snapshot.aws import credentials
from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import utc_now
from batch_snapshot.models import Account, ApiError
from batch_snapshot.simulator import SimulatorSettings, serve
from tests.support import sts_server
from tests.support.haste import Hasty
from tests.support.http_server import endpoint
from tests.support.processes import Place, move_in, pairs
from tests.support.two_accounts import LEDGER, after, assert_other_stopped, assert_resumed, run, write

pytestmark = pytest.mark.asyncio

ROLE = "arn:aws:iam::210987654321:role/Snapshot"


@pytest.fixture(scope="module")
def moto():
    with sts_server.serve_sts() as service:
        yield service


@pytest.fixture
def sts(moto, monkeypatch):
    moto.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
    return moto


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    move_in(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def source(key: str, secret: str) -> None:
    """Let the other account assume its role by these credentials."""
    profiles = {"good": ("AKIAEXAMPLE000000000", "secret"), "source": (key, secret)}
    profile = "[{}]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
    Path("credentials").write_text("".join(profile.format(name, *keys) for name, keys in profiles.items()))
    write(role_arn=ROLE, external_id="partner-42", profile="source", session_name="nightly")


# -- moto --------------------------------------------------------------------------------------------


async def test_a_role_is_assumed_with_its_external_id_and_calls_are_signed_as_the_role(sts):
    source(*sts.user("partner", ROLE))
    async with serve() as (url, simulator):
        await assert_resumed(url, simulator)
    (assumed,) = sts.assumed
    wanted = {"role_arn": ROLE, "external_id": "partner-42", "session_name": "nightly"}
    assert {name: assumed[name] for name in wanted} == wanted
    keys = {snapshot.access_key for snapshot in simulator.snapshots}
    assert keys == {"AKIAEXAMPLE000000000", assumed["access_key_id"]}
    kept = await asyncio.to_thread(LEDGER.read_text)
    assert assumed["secret_access_key"] not in kept
    assert assumed["session_token"] not in kept


async def test_a_role_is_assumed_anew_before_it_expires_by_the_services_clock(sts):
    """Ours is 55 minutes behind: by it, the keys would have an hour yet."""
    source(*sts.user("partner", ROLE))
    async with serve(SimulatorSettings(clock_offset=3_300)) as (url, simulator):
        await assert_resumed(url, simulator)
    assert len(sts.assumed) > 5
    assert len({snapshot.access_key for snapshot in simulator.snapshots}) > 5


async def test_denied_role_stops_its_account_with_what_to_do(sts):
    source(*sts.user("partner"))
    async with serve() as (url, simulator):
        stopped = await run(url)
        assert_other_stopped(
            stopped, "AccessDenied", "sts:AssumeRole", ROLE, "trust policy", "profile source"
        )
        assert sts.assumed == []
        sts.allow("partner", ROLE)
        await assert_resumed(url, simulator)


async def test_role_denied_during_a_run_stops_its_account(sts):
    source(*sts.user("partner", ROLE))
    async with serve(SimulatorSettings(clock_offset=3_300, latency=0.01)) as (url, simulator):
        stopped = await run(url, outcome=after(5, "other", lambda: sts.allow("partner")))
        assert_other_stopped(stopped, "AccessDenied", "sts:AssumeRole", done=None)
        sts.allow("partner", ROLE)
        await assert_resumed(url, simulator)


@pytest.mark.parametrize(
    ("spoilt", "code"),
    [
        (lambda key, secret: (key, secret[::-1]), "SignatureDoesNotMatch"),
        (lambda key, secret: ("AKIANOBODY0000000000", secret), "InvalidClientTokenId"),
    ],
)
async def test_a_source_that_sts_refuses_is_named(sts, spoilt, code):
    source(*spoilt(*sts.user("partner", ROLE)))
    async with serve() as (url, _):
        assert_other_stopped(await run(url), code, "renew the credentials of profile source")


async def test_account_number_is_that_of_sts(sts):
    """Asked of STS itself, as without another endpoint."""
    source(*sts.user("partner", ROLE))
    account = Account("main", profile="source")
    async with Clients({"main": account}, Target(), utc_now) as clients:
        assert await clients.identify("main") == "aws:123456789012:us-east-1"


# -- what moto does not do: throttle, fail, count ----------------------------------------------------


class Stub:
    """A token service that answers as it is set up, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        #: Of the first calls: a status and a code; then roles are given.
        self.troubles: list[tuple[int, str]] = []
        self.flying = self.most = 0
        #: An answer waits until so many calls are in flight.
        self.together = 0
        self._full = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        fields = {name: values[0] for name, values in parse_qs((await request.read()).decode()).items()}
        self.asked.append(fields["RoleArn"])
        self.flying += 1
        self.most = max(self.most, self.flying)
        if self.flying >= self.together:
            self._full.set()
        await self._full.wait()
        self.flying -= 1
        if self.troubles:
            status, code = self.troubles.pop(0)
            text = f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
            return web.Response(status=status, text=text, content_type="text/xml")
        expires = (utc_now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        key = f"ASIA{len(self.asked):016d}"
        return web.Response(
            text=f"<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>{key}</AccessKeyId>"
            f"<SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken><Expiration>{expires}"
            "</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
            content_type="text/xml",
        )


@asynccontextmanager
async def stub(monkeypatch) -> AsyncIterator[Stub]:
    made = Stub()
    async with endpoint(made.answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        yield made


@asynccontextmanager
async def clients_of(number: int) -> AsyncIterator[Clients]:
    accounts = {
        f"a{n}": Account(f"a{n}", role_arn=f"arn:aws:iam::{n:012d}:role/Snapshot") for n in range(number)
    }
    target = Target(endpoint_url="http://127.0.0.1:9")
    async with Clients(accounts, target, utc_now, Hasty()) as clients:
        yield clients


@pytest.mark.parametrize(
    "trouble", [(400, "Throttling"), (503, "ServiceUnavailable"), (500, "InternalFailure")]
)
async def test_sts_is_asked_again_where_that_may_help(monkeypatch, trouble):
    async with stub(monkeypatch) as service, clients_of(1) as clients:
        service.troubles = [trouble] * (credentials.STS_TRIES - 1)
        assert await clients.identify("a0") == "http://127.0.0.1:9:000000000000:us-east-1"
        assert len(service.asked) == credentials.STS_TRIES


@pytest.mark.parametrize(
    ("trouble", "asked", "words"),
    [
        ((400, "Throttling"), credentials.STS_TRIES, "several tries: run the same command again later"),
        ((403, "AccessDenied"), 1, "in the trust policy of arn:aws:iam::000000000000:role/Snapshot, with"),
        ((403, "ExpiredToken"), 1, "renew the credentials"),
    ],
)
async def test_sts_is_asked_a_few_times_and_not_after_a_refusal(monkeypatch, trouble, asked, words):
    async with stub(monkeypatch) as service, clients_of(1) as clients:
        service.troubles = [trouble] * 50
        for _ in range(3):
            with pytest.raises(ApiError, match=words) as raised:
                await clients.identify("a0")
        assert raised.value.failure.verdict == "stop_account"
        assert len(service.asked) == asked, "every worker of the account meets the same refusal"


async def test_without_an_answer_from_sts_the_account_stops_after_some_tries(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    async with clients_of(1) as clients:
        with pytest.raises(ApiError, match="several tries: run the same command again later") as raised:
            await clients.identify("a0")
    assert raised.value.failure.verdict == "stop_account"


async def test_refused_role_is_one_line_without_a_traceback(sts, folder):
    (folder / "process").mkdir()
    place = Place(folder / "process")
    key, secret = sts.user("partner")
    place.env.update(AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret, AWS_ENDPOINT_URL_STS=sts.url)
    place.manifest(pairs(1, account="other"), accounts={"other": {"role_arn": ROLE}})
    async with serve() as (url, _):
        said = await place.call("run", "trial.yaml", "--endpoint-url", url)
    assert said.code == 3
    assert f"in the trust policy of {ROLE}, with" in said.stdout
    assert "Refreshing" not in said.stderr


async def test_roles_are_assumed_on_demand_with_limited_concurrency(monkeypatch):
    async with stub(monkeypatch) as service, clients_of(100) as clients:
        assert service.asked == []
        service.together = credentials.ASSUMED_AT_ONCE
        await asyncio.gather(*(clients.identify(f"a{n}") for n in range(60) for _ in range(3)))
        assert len(service.asked) == len(set(service.asked)) == 60, "none twice, and none that was not needed"
        assert service.most == credentials.ASSUMED_AT_ONCE
        assert len(clients._sessions._clients) == 2, "one for STS, one for the service"
