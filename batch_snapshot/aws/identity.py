"""Asks STS which AWS account credentials belong to, and for the credentials of roles."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from batch_snapshot.aws import answers
from batch_snapshot.aws.signing import Signer, signed_by
from batch_snapshot.failures import retry
from batch_snapshot.models import REGION, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime
    from random import Random

    from batch_snapshot.models import Account

    #: Opens the client of a service in a region with the settings of a source (see `Sessions.client`).
    OpenClient = Callable[..., Awaitable[Any]]

#: Seconds to connect to STS, and for its answer.
STS_TIMEOUT = 10

#: Tries of STS where another one may help: throttled, a 5xx, no answer.
STS_TRIES = 5

#: Tries of GetCallerIdentity, whose answer is useful but not needed.
IDENTITY_TRIES = 2

#: Roles that are assumed at once: STS limits the calls of the account that asks.
ASSUMED_AT_ONCE = 16

#: A role that was refused is not asked for again within this time.
REFUSED_FOR = timedelta(seconds=30)


class CredentialSource(NamedTuple):
    """A profile, or the ambient credentials."""

    profile: str | None
    credentials: Any
    #: The profile's settings that shape a client.
    shape: tuple[str, ...] = ()


class Sts:
    """Asks STS with the credentials of a source, and again where that may help."""

    def __init__(
        self,
        open_client: OpenClient,
        scrubber: Callable[[str], Callable[[str], str]],
        rng: Random,
        timeout: float,
    ) -> None:
        """Make no call yet.

        Args:
            open_client: opens a shared client.
            scrubber: of an account: takes its secrets out of a text.
            rng: draws the jitter between two tries.
            timeout: seconds for one try.
        """
        self._open_client = open_client
        self._scrubber = scrubber
        self._rng = rng
        self._timeout = timeout
        self._concurrency = anyio.Semaphore(ASSUMED_AT_ONCE)

    async def account_number(self, account: Account, source: CredentialSource, frozen: Any) -> str:
        """The number of the AWS account that credentials belong to.

        Raises:
            Exception: what botocore raised the last time.
        """
        sts = await self._client(REGION, source)
        answer = await self._ask(account, sts.get_caller_identity, frozen, IDENTITY_TRIES)
        return str(answer["Account"])

    async def assume_role(self, account: Account, source: CredentialSource, frozen: Any) -> dict[str, Any]:
        """Assume an account's role; the answer is in the form of botocore's refreshed credentials.

        Raises:
            Exception: what botocore raised the last time.
        """
        sts = await self._client(account.region or REGION, source)
        answer = await self._ask(account, partial(sts.assume_role, **_role_parameters(account)), frozen)
        assumed = answer["Credentials"]
        return {
            "access_key": assumed["AccessKeyId"],
            "secret_key": assumed["SecretAccessKey"],
            "token": assumed["SessionToken"],
            "expiry_time": assumed["Expiration"].isoformat(),
        }

    async def _client(self, region: str, source: CredentialSource) -> Any:
        return await self._open_client(
            "sts",
            region,
            source,
            # Each of our tries is one exchange: botocore's own retries would multiply them.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=STS_TIMEOUT,
            read_timeout=STS_TIMEOUT,
            max_pool_connections=ASSUMED_AT_ONCE,
        )

    async def _ask(
        self, account: Account, call: Callable[[], Any], frozen: Any, tries: int = STS_TRIES
    ) -> Any:
        scrub = self._scrubber(account.name)

        def may_pass(error: BaseException) -> bool:
            if not isinstance(error, Exception):
                return False
            return answers.failure(error, scrub).verdict in {Verdict.RETRY, Verdict.THROTTLED}

        def pause(state: RetryCallState) -> float:
            return retry.backoff(state.attempt_number, self._rng)

        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(tries),
            wait=pause,
            retry=retry_if_exception(may_pass),
            sleep=anyio.sleep,
            reraise=True,
        ):
            with attempt:
                async with self._concurrency:
                    with signed_by(Signer(frozen)), anyio.fail_after(self._timeout):
                        return await call()
        raise AssertionError("the last try returns or raises")


class RoleFetcher:
    """Assumes the role of one account; a refusal is remembered for a while.

    Every worker of the account may ask, one after the other: they share the refusal.
    """

    def __init__(self, assume: Callable[[], Awaitable[dict[str, Any]]], now: Callable[[], datetime]) -> None:
        """Take what assumes the role, and the clock that refusals age by."""
        self._assume = assume
        self._now = now
        self._refused: tuple[datetime, Exception] | None = None

    async def __call__(self) -> dict[str, Any]:
        """The role's credentials.

        Raises:
            Exception: what botocore raised, now or shortly before.
        """
        if self._refused and abs(self._now() - self._refused[0]) < REFUSED_FOR:
            raise self._refused[1]
        try:
            assumed = await self._assume()
        except Exception as error:
            self._refused = (self._now(), error)
            raise
        self._refused = None
        return assumed


def _role_parameters(account: Account) -> Mapping[str, str]:
    parameters = {
        "RoleArn": str(account.role_arn),
        "RoleSessionName": account.session_name or "batch-snapshot",
    }
    return {**parameters, "ExternalId": account.external_id} if account.external_id else parameters
