"""Credentials by account, of its profile or of a role; and the clients that accounts share.

A session is opened for each profile. A client of botocore's (its model of a service, and a pool of
connections) is shared by all accounts for which it would be set up alike, and each call brings what signs it
(`signing`): a thousand clients would take gigabytes, and minutes to make.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timedelta
from functools import partial
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple

import anyio
from aiobotocore.credentials import AioCredentials, AioDeferredRefreshableCredentials
from botocore.exceptions import NoCredentialsError

from batch_snapshot import redaction
from batch_snapshot.aws import answers, http, mfa, providers
from batch_snapshot.aws.signing import CallerCredentials, Signer, choose_signer, signed_by
from batch_snapshot.failures import retry
from batch_snapshot.models import REGION, Account, Verdict

#: Seconds to connect to STS, and for its answer.
STS_TIMEOUT = 10

#: Tries of STS where another one may help: throttled, a 5xx, no answer.
STS_TRIES = 5

#: Seconds and tries to ask STS whose credentials these are: the answer is useful, not needed.
IDENTITY_TIMEOUT, IDENTITY_TRIES = 5, 2

#: Roles that are assumed at once: STS limits the calls of the account that asks.
ASSUMED_AT_ONCE = 16

#: A role that was refused is not asked for again within this time.
REFUSED_FOR = timedelta(seconds=30)

#: Settings of a profile that shape a client; profiles that agree in them share their clients.
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

# aiobotocore logs credentials with their tracebacks. A program that sets up logging may want that; our users
# get one line instead.
logging.getLogger("aiobotocore").addHandler(logging.NullHandler())


class CredentialSource(NamedTuple):
    """A profile, or the ambient credentials."""

    profile: str | None
    credentials: Any
    #: The profile's settings that shape a client.
    shape: tuple[str, ...] = ()


class Sessions:
    """Credentials by account, and the clients that are shared; each is opened when it is first needed.

    An account's credentials expire by `clock`; `rng` draws the jitter between two tries of STS. A provider,
    and one try of STS, has `timeout` seconds; the wait for other accounts to assume their roles has no limit.
    """

    def __init__(
        self, *, clock: Callable[[str], datetime], rng: Random, timeout: float, simulated: bool
    ) -> None:
        # A process has less, so that what it did is reported before the wait for it ends.
        self._process_timeout = timeout
        self._timeout = timeout + min(5.0, timeout)
        self._clock = clock
        self._simulated = simulated
        self._stack = AsyncExitStack()
        self.aclose = self._stack.aclose
        self._loader: Any = None
        #: The session of the first profile that had a shape makes the clients of that shape.
        self._sessions: dict[tuple[str, ...], Any] = {}
        self._locks: dict[object, anyio.Lock] = defaultdict(anyio.Lock)
        self._sources: dict[str | None, CredentialSource] = {}
        self._roles: dict[str, Any] = {}
        self._refused_roles: dict[str, tuple[datetime, Exception]] = {}
        self._clients: dict[object, Any] = {}
        self._prompt_lock = anyio.Lock()
        self._refused_prompts: dict[str, mfa.MfaCodeError] = {}
        self._secrets: dict[str, redaction.Secrets] = defaultdict(redaction.known)
        #: By account: what signed last.
        self._frozen: dict[str, Any] = {}
        #: By profile: what gave its credentials, or failed to.
        self._chains: dict[str | None, providers.Chain] = {}
        self._rng = rng
        self._asking_sts = anyio.Semaphore(ASSUMED_AT_ONCE)

    async def source(self, account: Account) -> CredentialSource:
        """The profile of an account, or the ambient credentials: what signs, or assumes its role."""
        if self._simulated:
            return CredentialSource(None, _simulated(account))
        async with self._locks[account.profile]:
            if account.profile not in self._sources:
                opened = partial(self._open, account.profile)
                self._sources[account.profile] = await mfa.with_codes(
                    opened, self._prompt_lock, self._refused_prompts
                )
        return self._sources[account.profile]

    async def credentials(self, account: Account) -> Any:
        """What signs for an account, refreshed in place where possible; its role is not assumed yet."""
        source = await self.source(account)
        if account.role_arn is None or self._simulated:
            return source.credentials
        if account.name not in self._roles:
            self._roles[account.name] = AioDeferredRefreshableCredentials(
                refresh_using=partial(self._assume_role, account, source),
                method="assume-role",
                time_fetcher=partial(self._clock, account.name),
            )
        return self._roles[account.name]

    async def _assume_role(self, account: Account, source: CredentialSource) -> dict[str, Any]:
        # Every worker of the account may ask, one after the other: they share a refusal.
        refused = self._refused_roles.get(account.name)
        if refused and abs(self._clock(account.name) - refused[0]) < REFUSED_FOR:
            raise refused[1]
        parameters = {
            "RoleArn": account.role_arn,
            "RoleSessionName": account.session_name or "batch-snapshot",
        }
        if account.external_id:
            parameters["ExternalId"] = account.external_id
        try:
            frozen = await self.frozen(account.name, source.credentials)
            sts = await self._sts(account.region or REGION, source)
            answer = await self._ask_sts(account, partial(sts.assume_role, **parameters), frozen, STS_TRIES)
            assumed = answer["Credentials"]
            return {
                "access_key": assumed["AccessKeyId"],
                "secret_key": assumed["SecretAccessKey"],
                "token": assumed["SessionToken"],
                "expiry_time": assumed["Expiration"].isoformat(),
            }
        except Exception as error:
            self._refused_roles[account.name] = (self._clock(account.name), error)
            raise

    async def frozen(self, account: str, credentials: Any) -> Any:
        """The credentials as they are now. Their secrets are taken out of texts from now on."""
        assumed = isinstance(credentials, AioDeferredRefreshableCredentials)
        async with asyncio.timeout(None if assumed else self._timeout):
            frozen = await credentials.get_frozen_credentials()
        if frozen != self._frozen.get(account):
            if not self._simulated:
                profiles = (name for name, one in self._sources.items() if one.credentials is credentials)
                named = next((self._chains[name].profile for name in profiles), "the account")
                providers.check(frozen, credentials.method, named)
            secrets = (frozen.secret_key, frozen.token)
            self._secrets[account].add(text for text in secrets if text and len(text) >= redaction.LONG)
            self._frozen[account] = frozen
        return frozen

    def provider(self, account: Account) -> str | None:
        """Botocore's name of the provider that gave an account's credentials, or failed to; None: none."""
        chain = self._chains.get(account.profile)
        return chain.last if chain else None

    def scrubber(self, account: str) -> Callable[[str], str]:
        return self._secrets[account].scrub

    async def learn_source_secrets(self, account: Account) -> None:
        source = self._sources.get(account.profile)
        if account.role_arn is not None and source is not None:
            with suppress(Exception):
                await self.frozen(account.name, source.credentials)

    async def client(self, service: str, region: str, source: CredentialSource, **settings: Any) -> Any:
        """A client that is shared by all who need one like it; `signed_by` says who signs a call.

        Its `settings` are `endpoint_url`, and how it speaks HTTP (see `http_config`); `source` shapes it too.
        """
        key = (service, region, settings.get("endpoint_url"), source.shape)
        async with self._locks[key]:
            if key not in self._clients:
                if source.shape not in self._sessions:
                    self._sessions[source.shape] = self._new_session(source.profile)[1]
                made = self._sessions[source.shape].client(
                    service,
                    region_name=region,
                    endpoint_url=settings.pop("endpoint_url", None),
                    config=http.http_config(**settings),
                )
                client = await self._stack.enter_async_context(made)
                http.transport_of(client)
                client.meta.events.register("choose-signer", choose_signer)
                self._clients[key] = client
        return self._clients[key]

    async def account_number(self, account: Account, credentials: Any) -> str | None:
        """The number of the AWS account that credentials belong to; None: STS does not answer now."""
        with suppress(Exception), anyio.fail_after(IDENTITY_TIMEOUT):
            source = await self.source(account)
            frozen = await self.frozen(account.name, credentials)
            sts = await self._sts(REGION, source)
            answer = await self._ask_sts(account, sts.get_caller_identity, frozen, IDENTITY_TRIES)
            return str(answer["Account"])
        return None

    async def _sts(self, region: str, source: CredentialSource) -> Any:
        return await self.client(
            "sts",
            region,
            source,
            # Each of our tries is one exchange: botocore's own retries would multiply them.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=STS_TIMEOUT,
            read_timeout=STS_TIMEOUT,
            max_pool_connections=ASSUMED_AT_ONCE,
        )

    async def _ask_sts(self, account: Account, call: Callable[[], Any], frozen: Any, tries: int) -> Any:
        """Make a call of STS, signed by these credentials, and again where that may help."""
        number = 1
        while True:
            try:
                async with self._asking_sts:
                    with signed_by(Signer(frozen)), anyio.fail_after(self._timeout):
                        return await call()
            except Exception as error:
                verdict = answers.failure(error, self.scrubber(account.name)).verdict
                if number == tries or verdict not in {Verdict.RETRY, Verdict.THROTTLED}:
                    raise
            await anyio.sleep(retry.backoff(number, self._rng))
            number += 1

    async def _open(self, profile: str | None, codes: mfa.Codes) -> CredentialSource:
        core, session, chain = self._new_session(profile)
        codes.serve(chain)
        with anyio.fail_after(self._timeout):
            credentials = await chain.load_credentials()
            if credentials is None:
                raise NoCredentialsError
            if any("mfa_serial" in one for one in core.full_config.get("profiles", {}).values()):
                # A code is asked for, and used, now: a person's time is not that of a call.
                await credentials.get_frozen_credentials()
        settings = core.get_scoped_config()
        source = CredentialSource(profile, credentials, tuple(str(settings.get(name)) for name in _SHAPING))
        self._sessions.setdefault(source.shape, session)
        return source

    def _new_session(self, profile: str | None) -> tuple[Any, Any, providers.Chain]:
        """Botocore's session, boto3's whose clients are signed for by each call, and a profile's chain."""
        core = http.new_session()
        session, chain = providers.session(core, profile, self._process_timeout)
        self._chains[profile] = chain
        # What is read of service models takes some megabytes, and is the same for all.
        self._loader = self._loader or core.get_component("data_loader")
        core.register_component("data_loader", self._loader)
        core.register_component("credential_provider", CallerCredentials())
        return core, session, chain


def _simulated(account: Account) -> Any:
    """Credentials that only a simulator accepts: a key of its own for each account."""
    key = "AKIASIM" + blake2b(account.name.encode(), digest_size=8).hexdigest().upper()
    return AioCredentials(key, key)
