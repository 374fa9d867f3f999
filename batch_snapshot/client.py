"""The only room that knows AWS: sessions and clients by account, and what their failures are.

Every call is one HTTP exchange: botocore's own retries are off, so that the pacer pays for each
try and the ledger sees it. One place turns whatever was raised into an `ApiError`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from hashlib import blake2b
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import aioboto3
import anyio
from aiobotocore.config import AioConfig
from aiobotocore.credentials import (
    AioAssumeRoleCredentialFetcher,
    AioDeferredRefreshableCredentials,
)
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import get_session
from aiohttp.abc import AbstractResolver, ResolveResult
from botocore import xform_name
from botocore.auth import AUTH_TYPE_MAPS, SIGV4_TIMESTAMP, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError, NoCredentialsError
from yarl import URL

from batch_snapshot import __version__, answers, policy, shortcut
from batch_snapshot.model import LARGEST_SKEW, REGION, UNKNOWN_ACCOUNT, ApiError, ErrorKind, Verdict
from batch_snapshot.shortcut import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from batch_snapshot.model import Account, Failure, Receipt, Request
    from batch_snapshot.shortcut import Shortcut, Wire

SERVICE = "partnercentral-selling"

#: What we call; a failure of another operation is one of getting credentials.
OPERATIONS = frozenset(
    {
        "CreateResourceSnapshot",
        "GetEngagement",
        "GetResourceSnapshot",
        "GetResourceSnapshotJob",
        "ListEngagementFromOpportunityTasks",
        "ListEngagementResourceAssociations",
        "ListEngagements",
        "ListOpportunities",
        "ListResourceSnapshotJobs",
        "ListResourceSnapshots",
    }
)

#: The call of which there are many, as the client's method is named.
CREATE = "create_resource_snapshot"

#: Seconds to connect, between two reads of an answer, and for a whole call with its credentials.
CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
CALL_TIMEOUT = 90

#: Seconds to ask STS who we are: it is good to know, not needed.
IDENTITY_TIMEOUT = 5

#: Bytes of an answer. Snapshots have some tens of KB; whatever is longer comes from something else,
#: and one from every worker still fits into memory.
LONGEST_ANSWER = 1024 * 1024

#: A clock this far off is left alone: AWS takes signatures within five minutes.
TOLERATED_SKEW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the calls go.

    Attributes:
        endpoint_url: instead of AWS's own, for all accounts.
        simulated: the endpoint takes any signature: no credentials are looked for.
        concurrency: calls in flight at most; the pool has room for as many connections.
        call_timeout: seconds for a whole call, and for fetching its credentials before.
        plain: make every call as botocore would by itself, though it takes more than twice the time.
    """

    endpoint_url: str | None = None
    simulated: bool = False
    concurrency: int = 32
    call_timeout: float = CALL_TIMEOUT
    plain: bool = False


@dataclass(slots=True)
class _Line:
    """An account's open client, and its credentials (refreshed in place where they can be)."""

    client: Any
    credentials: Any
    session: Any
    #: How the calls are made of which there are many; None: as botocore makes them.
    create: Shortcut | None = None
    #: The service's clock less ours, as the last answer told; None: none has.
    skew: timedelta | None = None

    @property
    def offset(self) -> timedelta:
        """The skew, as far as it is known."""
        return self.skew or timedelta()

    @property
    def correction(self) -> timedelta:
        """What is added to our clock to sign; nothing while the service takes it as it is."""
        return self.offset if abs(self.offset) > TOLERATED_SKEW else timedelta()


class Clients:
    """A client an account, opened at its first call and closed with the block."""

    def __init__(self, accounts: Mapping[str, Account], target: Target, now: Callable[[], datetime]) -> None:
        """Serve `accounts` at `target`; `now` is the wall clock the skew is measured against."""
        self._accounts = accounts
        self._target = target
        self._now = now
        self._stack = AsyncExitStack()
        self._lines: dict[str, _Line] = {}
        self._opening = {name: anyio.Lock() for name in accounts}
        self._secrets = {name: _environment_secrets() for name in accounts}
        #: What an account's role is assumed with.
        self._sources: dict[str, list[Any]] = {name: [] for name in accounts}

    async def __aenter__(self) -> Self:
        """Open nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every client that was opened."""
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()

    async def send(self, request: Request) -> Receipt:
        """Create the snapshot of `request` by one call under its token.

        Raises:
            ApiError: it failed; the failure says whether it may have been carried out.
        """
        account = request.row.account
        answer = await self._call(account, CREATE, ClientToken=request.client_token, **_names(request))
        return answers.receipt(answer, self._scrub(account))

    async def look_up(self, request: Request) -> Receipt | None:
        """Find the snapshot that an earlier try under the request's token may have made.

        Only one created since that try counts, by the service's own clock.

        Raises:
            ApiError: the look-up itself failed.
        """
        account = request.row.account
        try:
            answer = await self._call(account, "get_resource_snapshot", **_names(request))
        except ApiError as error:
            if error.failure.code == "ResourceNotFoundException":
                return None
            raise
        scrub = self._scrub(account)
        receipt = answers.receipt(answer, scrub)
        created_at = answer.get("CreatedAt")
        if not isinstance(created_at, datetime) or request.first_sent_at is None:
            raise ApiError(answers.nonsense(answer, "the look-up's answer has no CreatedAt", scrub))
        first = policy.Reading(request.first_sent_at, request.clock_skew)
        ours = policy.made_since(created_at, first, self.clock_skew(account))
        if ours is None:
            raise ApiError(policy.CLOCKS_DISAGREE)
        return receipt if ours else None

    def clock_skew(self, account: str) -> float | None:
        """The service's clock less ours in seconds, as the account's last answer told; None: none has."""
        line = self._lines.get(account)
        return None if line is None or line.skew is None else line.skew.total_seconds()

    async def identify(self, account: str) -> str:
        """Name whose quotas the account spends: an AWS account, or elsewhere an endpoint and a key.

        Only AWS itself is asked who we are; where it does not tell, the key that signs stands for it.

        Raises:
            ApiError: there are no credentials to sign with.
        """
        line, signer = await self._signing(account)
        given = self._accounts[account]
        where = self._target.endpoint_url or given.endpoint_url
        number = given.role_arn.split(":")[4] if given.role_arn else None
        if where is None:
            number = number or await _caller(line.session)
        if number:
            return f"{where or 'aws'}:{number}:{given.region or REGION}"
        key = blake2b(signer.access_key.encode(), digest_size=8).hexdigest()
        return f"{where} key:{key}" if where else f"{UNKNOWN_ACCOUNT}{key}"

    async def probe(self, request: Request) -> None:
        """Make the cheapest read that these rights allow, to learn whether the account can call at all.

        Raises:
            ApiError: it cannot, or not read.
        """
        for last in (False, True):
            try:
                await self._call(request.row.account, "get_resource_snapshot", **_names(request))
            except ApiError as error:
                if error.failure.code == "ResourceNotFoundException":
                    return
                if last or not policy.blames_clock(error.failure):
                    raise
            else:
                return

    async def read(self, account: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Make one read, such as ListOpportunities: one exchange, of a list one page.

        Raises:
            ApiError: it failed.
        """
        return await self._call(account, xform_name(operation), **parameters)

    def skew(self, account: str) -> timedelta:
        """The service's clock less ours, as its last answer told; none without one."""
        line = self._lines.get(account)
        return line.offset if line else timedelta()

    async def _call(self, account: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Make one call; whatever goes wrong is an `ApiError`."""
        line, signer = await self._signing(account)
        signed_with = line.offset
        try:
            with anyio.fail_after(self._target.call_timeout):
                if line.create is not None and operation == CREATE:
                    answer = await line.create.call(parameters, signer, self._now() + line.correction)
                else:
                    answer = await getattr(line.client, operation)(**parameters)
        except Exception as error:
            if isinstance(error, ClientError):
                if error.operation_name not in OPERATIONS:
                    raise ApiError(await self._unsigned(account, error)) from error
                line.skew = self._skew(error.response, line.skew)
            failure = answers.failure(error, self._scrub(account))
            if policy.blames_clock(failure) and abs(line.offset - signed_with) > TOLERATED_SKEW:
                # Refused for its time alone, and now we know the service's: the next try is signed by it.
                failure = replace(failure, verdict=Verdict.RETRY, kind=ErrorKind.TRANSIENT)
            raise ApiError(self._advised(account, failure)) from error
        line.skew = self._skew(answer, line.skew)
        return answer

    async def _signing(self, account: str) -> tuple[_Line, Any]:
        """Open the account's client if need be, and get the credentials to sign with, as they are now."""
        try:
            with anyio.fail_after(self._target.call_timeout):
                line = await self._line(account)
                return line, await self._learn(account, line.credentials)
        except Exception as error:
            raise ApiError(await self._unsigned(account, error)) from error

    async def _unsigned(self, account: str, error: Exception) -> Failure:
        """Classify a failure to get credentials; what it says may quote them."""
        for source in self._sources[account]:
            with suppress(Exception):
                await self._learn(account, source)
        failure = answers.failure(error, self._scrub(account))
        return self._advised(account, policy.credentials_failure(failure))

    async def _learn(self, account: str, credentials: Any) -> Any:
        """Get the credentials as they are now, and know their secrets when an answer echoes them."""
        frozen = await credentials.get_frozen_credentials()
        self._secrets[account].update(filter(None, (frozen.secret_key, frozen.token)))
        return frozen

    def _scrub(self, account: str) -> Callable[[str], str]:
        return partial(policy.scrubbed, secrets=self._secrets[account])

    def _advised(self, account: str, failure: Failure) -> Failure:
        """Add the way out where the account stops."""
        if failure.verdict is not Verdict.STOP_ACCOUNT:
            return failure
        profile = self._accounts[account].profile
        advice = policy.credentials_advice(failure.code, profile)
        return replace(failure, message=f"{failure.message.rstrip('.')}; {advice}")

    def _skew(self, answer: Mapping[str, Any], known: timedelta | None) -> timedelta | None:
        """The service's clock less ours, as the answer's Date tells; without one, what was known."""
        try:
            date = _date(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        except (KeyError, TypeError, ValueError):
            return known
        skew = date - self._now()
        return skew if abs(skew.total_seconds()) < LARGEST_SKEW else known

    async def _line(self, account: str) -> _Line:
        if line := self._lines.get(account):
            return line
        async with self._opening[account]:
            if account not in self._lines:
                self._lines[account] = await self._open(self._accounts[account])
        return self._lines[account]

    async def _session(self, account: Account) -> Any:
        """Sign as the account: its profile or the ambient credentials, and its role if it has one."""
        source: Any = aioboto3.Session(profile_name=account.profile)
        if account.role_arn is None:
            return source
        credentials = await source.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        self._sources[account.name].append(credentials)
        region = account.region or REGION
        fetcher = AioAssumeRoleCredentialFetcher(
            partial(source.client, region_name=region, config=_config()),
            credentials,
            account.role_arn,
            extra_args=_role_arguments(account),
        )
        assumed = AioDeferredRefreshableCredentials(
            refresh_using=fetcher.fetch_credentials, method="assume-role"
        )
        core = get_session()
        core.register_component("credential_provider", _Given(assumed))
        return aioboto3.Session(botocore_session=core)

    async def _open(self, account: Account) -> _Line:
        target = self._target
        session = _simulated_session(account) if target.simulated else await self._session(account)
        credentials = await session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        config = _config(
            # One exchange a call: tenacity and the ledger must see every try.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            max_pool_connections=target.concurrency,
            user_agent_extra=f"batch-snapshot/{__version__}",
            # The ledger says where the calls went: nobody else redirects them.
            ignore_configured_endpoint_urls=True,
            # A simulator is on this machine: no proxy of the environment stands before it.
            proxies={} if target.simulated else None,
        )
        client = session.client(
            SERVICE,
            region_name=account.region or REGION,
            endpoint_url=target.endpoint_url or account.endpoint_url,
            config=config,
        )
        line = _Line(await self._stack.enter_async_context(client), credentials, session)
        line.client.meta.events.register("choose-signer", partial(_choose_signer, line, self._now))
        transport: _Transport = line.client._endpoint.http_session  # noqa: SLF001 - it is ours
        if not (target.plain or transport.proxied):
            frozen = await credentials.get_frozen_credentials()
            line.create = await shortcut.learn(
                line.client, "CreateResourceSnapshot", transport.exchange, _EXAMPLE, frozen
            )
        return line


@lru_cache(maxsize=1)
def _date(text: str) -> datetime:
    """Read a Date header; it changes once a second.

    Raises:
        ValueError: it is no date.
    """
    date = parsedate_to_datetime(text)
    return date.replace(tzinfo=date.tzinfo or UTC)


def _config(**settings: Any) -> AioConfig:
    """How every client of ours speaks HTTP."""
    return AioConfig(http_session_cls=_Transport, connector_args={"resolver": Resolver()}, **settings)


class AnswerTooLongError(Exception):
    """An answer went on beyond what any honest one holds; it was not read to its end."""

    def __init__(self) -> None:
        """Say how long is too long."""
        super().__init__(f"the answer is longer than {LONGEST_ANSWER:,} bytes")


class _Transport(AIOHTTPSession):  # type: ignore[misc] # aiobotocore is untyped
    """aiobotocore's own, but a call is one exchange with one endpoint, and its answer is bounded."""

    def __init__(self, *args: Any, proxies: Mapping[str, str] | None = None, **settings: Any) -> None:
        super().__init__(*args, proxies=proxies, **settings)
        self.proxied = bool(proxies)

    async def _get_session(self, proxy_url: str | None) -> _Exchanges:
        return _Exchanges(await super()._get_session(proxy_url))

    async def exchange(self, call: Wire) -> Answer:
        """Send a call by the short way, which knows of no proxy.

        Raises:
            Exception: what botocore raises where an exchange fails.
        """
        headers = {**call.headers, "Accept-Encoding": "identity"}
        try:
            session = await self._get_session(None)
            read = await session.request("POST", url=_url(call.url), headers=headers, data=call.body)
        except Exception as error:
            await _Raising(error).send(AWSRequest("POST", call.url, data=call.body).prepare())
            raise
        told = {name.decode().lower(): value.decode() for name, value in read.raw_headers}
        return Answer(read.status, told, read.body)


class _Raising(AIOHTTPSession):  # type: ignore[misc] # aiobotocore is untyped
    """Tells what aiohttp raised in botocore's words: they are in the middle of aiobotocore's sending."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def _get_session(self, _: str | None) -> None:
        raise self._error


_url = lru_cache(maxsize=1024)(partial(URL, encoded=True))


class _Exchanges(NamedTuple):
    """What aiobotocore needs of an aiohttp session: it would follow redirects and read without end."""

    session: Any

    async def request(self, method: str, **options: Any) -> _Read:
        """Make one exchange, and read its answer."""
        # A redirect would take what signs the call to whomever it names, and bring his answer as ours.
        async with self.session.request(method, allow_redirects=False, **options) as response:
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > LONGEST_ANSWER:
                    raise AnswerTooLongError
            # As with botocore itself, no answer's cookies are kept, let alone sent.
            self.session.cookie_jar.clear()
            return _Read(response.url, response.status, response.raw_headers, bytes(body))


class _Read(NamedTuple):
    """An answer that was read; what aiobotocore needs of an aiohttp response."""

    url: Any
    status: int
    raw_headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    async def read(self) -> bytes:
        return self.body


async def _caller(session: Any) -> str | None:
    """The number of the AWS account that the session signs for; None: it cannot be known now."""
    config = _config(
        connect_timeout=IDENTITY_TIMEOUT,
        read_timeout=IDENTITY_TIMEOUT,
        retries={"total_max_attempts": 2, "mode": "standard"},
    )
    with suppress(Exception):
        with anyio.fail_after(IDENTITY_TIMEOUT):
            async with session.client("sts", region_name=REGION, config=config) as sts:
                return str((await sts.get_caller_identity())["Account"])
    return None


class Resolver(AbstractResolver):
    """Looks names up beside everything else: one that hangs keeps no process from its end.

    aiohttp's own thread would, for as long as the system waits for its name servers.
    """

    def __init__(self, look_up: Callable[..., list[Any]] = socket.getaddrinfo) -> None:
        """Take the function that blocks."""
        self._look_up = look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Find the addresses of `host`.

        Raises:
            OSError: it has none, or nobody knows.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def settle(error: Exception | None, infos: list[Any]) -> None:
            if found.done():
                return
            if error:
                found.set_exception(error)
            else:
                found.set_result(infos)

        def look_up() -> None:
            error, infos = None, []
            try:
                infos = self._look_up(
                    host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
                )
            except (OSError, ValueError) as caught:
                error = caught
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(settle, error, infos)

        Thread(target=look_up, daemon=True).start()
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=address[0], port=address[1], family=kind, proto=protocol, flags=numeric
            )
            for kind, _, protocol, _, address in await found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _choose_signer(line: _Line, now: Callable[[], datetime], context: dict[str, Any], **_: Any) -> str | None:
    """Sign by the service's clock where ours is off; else as botocore would."""
    if not line.correction:
        return None
    context["signed_at"] = now() + line.correction
    return _SkewedSigV4.NAME


class _SkewedSigV4(SigV4Auth):  # type: ignore[misc] # botocore is untyped
    """Signature version 4 by a clock that is ahead of ours, or behind.

    botocore signs by the machine's clock and, unlike other SDKs, never corrects it.
    """

    NAME = "batch-snapshot-v4"

    def _modify_request_before_signing(self, request: Any) -> None:
        request.context["timestamp"] = request.context["signed_at"].strftime(SIGV4_TIMESTAMP)
        super()._modify_request_before_signing(request)


AUTH_TYPE_MAPS[_SkewedSigV4.NAME] = _SkewedSigV4


def _environment_secrets() -> set[str]:
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return {os.environ[name] for name in names if os.environ.get(name)}


def _names(request: Request) -> dict[str, str]:
    row = request.row
    return {
        "Catalog": row.catalog,
        "EngagementIdentifier": row.engagement,
        "ResourceIdentifier": row.resource,
        "ResourceSnapshotTemplateIdentifier": row.template,
        "ResourceType": row.resource_type,
    }


#: Never sent: what the short way is learned with.
_EXAMPLE = {
    "Catalog": "Sandbox",
    "EngagementIdentifier": "eng-0123456789abcd",
    "ResourceIdentifier": "O1",
    "ResourceSnapshotTemplateIdentifier": "OpportunitySummaryView",
    "ResourceType": "Opportunity",
    "ClientToken": "00000000-0000-0000-0000-000000000000",
}


def _simulated_session(account: Account) -> Any:
    """Credentials that no service but a simulator takes: a key of its own for each account."""
    key = "AKIASIM" + blake2b(account.name.encode(), digest_size=8).hexdigest().upper()
    return aioboto3.Session(aws_access_key_id=key, aws_secret_access_key=key)


def _role_arguments(account: Account) -> dict[str, str]:
    arguments = {"RoleSessionName": account.session_name or "batch-snapshot"}
    return {**arguments, "ExternalId": account.external_id} if account.external_id else arguments


class _Given:
    """A credential chain of one link."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    async def load_credentials(self) -> Any:
        return self._credentials
