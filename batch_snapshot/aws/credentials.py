"""Who signs: profiles, the ambient credentials, and the roles that are assumed with them.

An account costs little more than its credentials here. A session is opened for each profile, and a
client of botocore's (its model of a service, and a pool of connections) is shared by all accounts for
which it would be set up alike; what signs a call is told with the call. A thousand clients of their own
would take gigabytes, and minutes to make.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from contextlib import AsyncExitStack, contextmanager, suppress
from contextvars import ContextVar
from copy import copy
from datetime import timedelta
from functools import cache, partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from aiobotocore.credentials import AioCredentials, AioDeferredRefreshableCredentials
from aiobotocore.hooks import AioHierarchicalEmitter
from aiobotocore.session import AioSession
from aiobotocore.utils import AioContainerMetadataFetcher, AioIMDSFetcher
from botocore.auth import AUTH_TYPE_MAPS, SIGV4_TIMESTAMP, SigV4Auth
from botocore.exceptions import NoCredentialsError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from batch_snapshot import redaction
from batch_snapshot.aws import answers, http, mfa, providers
from batch_snapshot.failures import retry
from batch_snapshot.models import REGION, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from random import Random

    from batch_snapshot.models import Account

#: Seconds to ask STS who we are: it is good to know, not needed.
IDENTITY_TIMEOUT = 5

#: Seconds to connect to STS, and for its answer.
STS_TIMEOUT = 10

#: Tries of STS, where another may help: throttled, a 5xx, no answer.
STS_TRIES = 5

#: Roles that are assumed at once: STS has a limit of its own, for the account that asks.
ASSUMED_AT_ONCE = 16

#: Seconds for which a role that was not to be had is not asked for again.
REFUSED_FOR = timedelta(seconds=30)

#: Settings of a profile that shape a client; two profiles that agree in them share theirs.
_SHAPING = (
    "ca_bundle",
    "defaults_mode",
    "endpoint_url",
    "ignore_configured_endpoint_urls",
    "sdk_ua_app_id",
    "services",
    "sts_regional_endpoints",
    "tcp_keepalive",
    "use_dualstack_endpoint",
    "use_fips_endpoint",
)

# As botocore does for itself: what aiobotocore logs of credentials, tracebacks and all, is for programs that
# have set logging up; our users are told in a line.
logging.getLogger("aiobotocore").addHandler(logging.NullHandler())


class Signer(NamedTuple):
    """What signs one call."""

    #: Frozen ones.
    credentials: Any
    #: When, where the service's clock is not ours; None: by the machine's.
    at: datetime | None = None


_signer: ContextVar[Signer] = ContextVar("signer")


@contextmanager
def signed_by(signer: Signer) -> Iterator[None]:
    """Let it sign the calls that this task makes in the block."""
    token = _signer.set(signer)
    try:
        yield
    finally:
        _signer.reset(token)


class CredentialSource(NamedTuple):
    """A profile, or the ambient credentials."""

    profile: str | None
    credentials: Any
    #: How its clients are set up.
    shape: tuple[str, ...] = ()


class Sessions:
    """Credentials by account, and the clients that are shared; all are opened when they are needed."""

    def __init__(
        self, *, clock: Callable[[str], datetime], rng: Random, timeout: float, simulated: bool
    ) -> None:
        """Open nothing yet.

        Args:
            clock: the time by which an account's credentials expire.
            rng: draws the jitter between two tries of STS.
            timeout: seconds for whatever gives credentials to give them, and for a try of STS; those who
                wait for others to have assumed their roles wait as long as it takes.
            simulated: any credentials do.
        """
        #: A process has less, so that what it did is said before whatever waits for it gives up.
        self._within = timeout
        self._timeout = timeout + min(5.0, timeout)
        self._clock = clock
        self._rng = rng
        self._simulated = simulated
        self._stack = AsyncExitStack()
        self._loader: Any = None
        #: What makes the clients of a shape: the session of the first profile that had it.
        self._makers: dict[tuple[str, ...], Any] = {}
        self._locks: dict[object, anyio.Lock] = defaultdict(anyio.Lock)
        self._sources: dict[str | None, CredentialSource] = {}
        #: By account; a refusal is remembered with them.
        self._roles: dict[str, Any] = {}
        self._clients: dict[object, Any] = {}
        self._asking = anyio.Lock()
        self._no_codes: dict[str, mfa.MfaCodeError] = {}
        self._assuming = anyio.Semaphore(ASSUMED_AT_ONCE)
        self._secrets: dict[str, redaction.Secrets] = {}
        #: By profile: what gave its credentials, or did not.
        self._chains: dict[str | None, providers.Chain] = {}

    async def aclose(self) -> None:
        """Close every client that was opened."""
        await self._stack.aclose()

    async def source(self, account: Account) -> CredentialSource:
        """The profile of an account, or the ambient credentials: what signs, or assumes its role.

        Raises:
            Exception: whatever botocore raises where there are none.
        """
        if self._simulated:
            return CredentialSource(None, _simulated(account))
        async with self._locks[account.profile]:
            if account.profile not in self._sources:
                opened = partial(self._open, account.profile)
                self._sources[account.profile] = await mfa.with_codes(opened, self._asking, self._no_codes)
        return self._sources[account.profile]

    async def credentials(self, account: Account) -> Any:
        """What signs for an account, refreshed in place where it can be; a role is not assumed yet.

        Raises:
            Exception: whatever botocore raises where there is none.
        """
        source = await self.source(account)
        if account.role_arn is None or self._simulated:
            return source.credentials
        if account.name not in self._roles:
            now = partial(self._clock, account.name)
            self._roles[account.name] = AioDeferredRefreshableCredentials(
                refresh_using=_Role(account, source, self._assume, now),
                method="assume-role",
                time_fetcher=now,
            )
        return self._roles[account.name]

    async def frozen(self, account: str, credentials: Any) -> Any:
        """The credentials as they are now; their secrets are known when an answer echoes them.

        Raises:
            Exception: whatever botocore raises where they cannot be had.
        """
        assumed = isinstance(credentials, AioDeferredRefreshableCredentials)
        with anyio.fail_after(None if assumed else self._timeout):
            frozen = await credentials.get_frozen_credentials()
        if not self._simulated:
            providers.check(frozen, credentials.method, self._whose(credentials))
        given = (frozen.secret_key, frozen.token)
        self._known(account).add(text for text in given if text and len(text) >= redaction.LONG)
        return frozen

    def _whose(self, credentials: Any) -> str:
        """Names whose credentials these are."""
        profiles = (one.profile for one in self._sources.values() if one.credentials is credentials)
        return next((self._chains[profile].profile for profile in profiles), "the account")

    def provider(self, account: Account) -> str | None:
        """What botocore calls the provider that gave an account's credentials, or failed to; None: none."""
        chain = self._chains.get(account.profile)
        return chain.last if chain else None

    def scrub(self, account: str) -> Callable[[str], str]:
        """Takes an account's secrets out of a text."""
        return self._known(account).scrub

    async def learn_source(self, account: Account) -> None:
        """Know the secrets that a role is assumed with, if they can be had."""
        source = self._sources.get(account.profile)
        if account.role_arn is not None and source is not None:
            with suppress(Exception):
                await self.frozen(account.name, source.credentials)

    def _known(self, account: str) -> redaction.Secrets:
        if account not in self._secrets:
            self._secrets[account] = redaction.known()
        return self._secrets[account]

    async def client(self, service: str, region: str, source: CredentialSource, **settings: Any) -> Any:
        """A client that is shared by all who need one like it, and signs by whoever calls (see `signed_by`).

        Args:
            service: as botocore names it.
            region: to call.
            source: whose settings shape it.
            settings: `endpoint_url`, and how it speaks HTTP (see `transport.config`).
        """
        key = (service, region, settings.get("endpoint_url"), source.shape)
        async with self._locks[key]:
            if key not in self._clients:
                made = self._maker(source).client(
                    service,
                    region_name=region,
                    endpoint_url=settings.pop("endpoint_url", None),
                    config=http.config(**settings),
                )
                client = await self._stack.enter_async_context(made)
                client.meta.events.register("choose-signer", _choose_signer)
                self._clients[key] = client
        return self._clients[key]

    async def number(self, account: Account, credentials: Any) -> str | None:
        """The number of the AWS account that the credentials are of; None: it cannot be known now."""
        with suppress(Exception):
            with anyio.fail_after(IDENTITY_TIMEOUT):
                sts = await self._sts(REGION, await self.source(account))
                frozen = await self.frozen(account.name, credentials)
                return str((await self._asked(account, sts.get_caller_identity, frozen, 2))["Account"])
        return None

    async def _assume(self, account: Account, source: CredentialSource) -> dict[str, Any]:
        """Assume an account's role; what comes back is in botocore's words for refreshed credentials."""
        sts = await self._sts(account.region or REGION, source)
        frozen = await self.frozen(account.name, source.credentials)
        answer = await self._asked(account, partial(sts.assume_role, **_role_arguments(account)), frozen)
        given = answer["Credentials"]
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }

    async def _asked(
        self, account: Account, call: Callable[[], Any], frozen: Any, tries: int = STS_TRIES
    ) -> Any:
        """Ask STS, and again where that may help.

        Raises:
            Exception: whatever botocore raised the last time.
        """

        def passing(error: BaseException) -> bool:
            verdict = (
                isinstance(error, Exception) and answers.failure(error, self.scrub(account.name)).verdict
            )
            return verdict in {Verdict.RETRY, Verdict.THROTTLED}

        def pause(state: RetryCallState) -> float:
            return retry.backoff(state.attempt_number, self._rng)

        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(tries),
            wait=pause,
            retry=retry_if_exception(passing),
            sleep=anyio.sleep,
            reraise=True,
        ):
            with attempt:
                async with self._assuming:
                    with signed_by(Signer(frozen)), anyio.fail_after(self._timeout):
                        return await call()
        raise AssertionError("the last try returns or raises")

    async def _sts(self, region: str, source: CredentialSource) -> Any:
        return await self.client(
            "sts",
            region,
            source,
            # Each of our tries is one: botocore's own would multiply them.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=STS_TIMEOUT,
            read_timeout=STS_TIMEOUT,
            max_pool_connections=ASSUMED_AT_ONCE,
        )

    async def _open(self, profile: str | None, codes: mfa.Codes) -> CredentialSource:
        session, chain = self._session(profile)
        codes.serve(chain)
        with anyio.fail_after(self._timeout):
            credentials = await chain.load_credentials()
            if credentials is None:
                raise NoCredentialsError
            if _with_mfa(session._session):  # noqa: SLF001 - as below
                # So that a code is asked for, and used, now. A person's time is not that of a call.
                await credentials.get_frozen_credentials()
        scoped = session._session.get_scoped_config()  # noqa: SLF001 - aioboto3 shows it nowhere
        source = CredentialSource(profile, credentials, tuple(str(scoped.get(name)) for name in _SHAPING))
        self._makers.setdefault(source.shape, session)
        return source

    def _maker(self, source: CredentialSource) -> Any:
        if source.shape not in self._makers:
            self._makers[source.shape], _ = self._session(source.profile)
        return self._makers[source.shape]

    def _session(self, profile: str | None) -> tuple[Any, Any]:
        """A session whose clients sign by whoever calls, and the chain that gives a profile's credentials."""
        core = get_session()
        session, chain = providers.session(core, profile, self._within)
        self._chains[profile] = chain
        # What is read of service models is some megabytes, and the same for all.
        self._loader = self._loader or core.get_component("data_loader")
        core.register_component("data_loader", self._loader)
        core.register_component("credential_provider", _CallersSigner())
        return session, chain


def _with_mfa(core: Any) -> bool:
    """Whether any profile asks for MFA codes."""
    return any("mfa_serial" in profile for profile in core.full_config.get("profiles", {}).values())


class _Role:
    """Assumes the role of one account, and is not worn out where it cannot be had."""

    def __init__(
        self,
        account: Account,
        source: CredentialSource,
        assume: Callable[[Account, CredentialSource], Any],
        now: Callable[[], datetime],
    ) -> None:
        self._account = account
        self._source = source
        self._assume = assume
        self._now = now
        self._refused: tuple[datetime, Exception] | None = None

    async def __call__(self) -> dict[str, Any]:
        """Assume it.

        Every worker of the account may ask, one after the other: they share a refusal.
        """
        if self._refused and abs(self._now() - self._refused[0]) < REFUSED_FOR:
            raise self._refused[1]
        try:
            found: dict[str, Any] = await self._assume(self._account, self._source)
        except Exception as error:
            self._refused = (self._now(), error)
            raise
        self._refused = None
        return found


def get_session() -> Any:
    """A session like aiobotocore's own, in a twentieth of the time: its handlers are registered already."""
    return _Session(event_hooks=copy(_registered()), include_builtin_handlers=False)


class _Session(AioSession):  # type: ignore[misc] # aiobotocore is untyped
    """aiobotocore's own, but all that it sends goes our way, also what fetches credentials.

    Its credential providers make clients of their own (STS, SSO), or connections without a client, and take
    no other class of them.
    """

    async def _create_client(self, *args: Any, config: Any = None, **settings: Any) -> Any:
        if getattr(config, "http_session_cls", None) is not http.Transport:
            ours = http.config()
            config = ours.merge(config) if config else ours
            # It is lost when two are merged.
            config.http_session_cls = http.Transport
        return await super()._create_client(*args, config=config, **settings)

    def _create_credential_resolver(self) -> Any:
        resolver = super()._create_credential_resolver()
        for provider in resolver.providers:
            for fetcher in (getattr(provider, name, None) for name in ("_fetcher", "_role_fetcher")):
                if isinstance(fetcher, AioIMDSFetcher | AioContainerMetadataFetcher):
                    # Its settings stay as they are.
                    fetcher._session.__class__ = http.MetadataTransport  # noqa: SLF001
        return resolver


@cache
def _registered() -> Any:
    handlers = AioHierarchicalEmitter()
    AioSession(event_hooks=handlers)
    return handlers


class _CallersCredentials(AioCredentials):  # type: ignore[misc] # aiobotocore is untyped
    """The credentials of a shared client: each call brings its own."""

    def __init__(self) -> None:
        super().__init__("nobody", "nobody", method="explicit")

    async def get_frozen_credentials(self) -> Any:
        return _signer.get().credentials


class _CallersSigner:
    """A credential chain of one link."""

    async def load_credentials(self) -> Any:
        return _CallersCredentials()


def _choose_signer(context: dict[str, Any], **_: Any) -> str | None:
    """Sign by the service's clock where ours is off; else as botocore would."""
    at = _signer.get().at
    if at is None:
        return None
    context["signed_at"] = at
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


def _simulated(account: Account) -> Any:
    """Credentials that no service but a simulator takes: a key of its own for each account."""
    key = "AKIASIM" + blake2b(account.name.encode(), digest_size=8).hexdigest().upper()
    return AioCredentials(key, key)


def _role_arguments(account: Account) -> Mapping[str, str]:
    arguments = {
        "RoleArn": str(account.role_arn),
        "RoleSessionName": account.session_name or "batch-snapshot",
    }
    return {**arguments, "ExternalId": account.external_id} if account.external_id else arguments
