"""Asks STS which AWS account credentials belong to, and for the credentials of roles."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, NamedTuple

import anyio

from batch_snapshot.aws import answers
from batch_snapshot.aws.signing import Signer, signed_by
from batch_snapshot.failures import retry
from batch_snapshot.models import REGION, Account, Verdict

#: Seconds to connect to STS, and for its answer.
STS_TIMEOUT = 10

#: Tries of STS where another one may help: throttled, a 5xx, no answer.
STS_TRIES = 5

#: Tries of GetCallerIdentity, whose answer is useful but not needed.
IDENTITY_TRIES = 2

#: Roles that are assumed at once: STS limits the calls of the account that asks.
ASSUMED_AT_ONCE = 16


class CredentialSource(NamedTuple):
    """A profile, or the ambient credentials."""

    profile: str | None
    credentials: Any
    #: The profile's settings that shape a client.
    shape: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sts:
    """Asks STS with the credentials of a source, and again where that may help."""

    #: Opens a shared client (see `Sessions.client`).
    open_client: Callable[..., Awaitable[Any]]
    #: Of an account: takes its secrets out of a text.
    scrubber: Callable[[str], Callable[[str], str]]
    #: Draws the jitter between two tries.
    rng: Random
    #: Seconds for one try.
    timeout: float
    concurrency: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(ASSUMED_AT_ONCE))

    async def account_number(self, account: Account, source: CredentialSource, frozen: Any) -> str:
        sts = await self._client(REGION, source)
        answer = await self._ask(account, sts.get_caller_identity, frozen, IDENTITY_TRIES)
        return str(answer["Account"])

    async def assume_role(self, account: Account, source: CredentialSource, frozen: Any) -> dict[str, Any]:
        """Assume an account's role; the answer is in the form of botocore's refreshed credentials."""
        sts = await self._client(account.region or REGION, source)
        parameters = {
            "RoleArn": account.role_arn,
            "RoleSessionName": account.session_name or "batch-snapshot",
        }
        if account.external_id:
            parameters["ExternalId"] = account.external_id
        answer = await self._ask(account, partial(sts.assume_role, **parameters), frozen)
        assumed = answer["Credentials"]
        return {
            "access_key": assumed["AccessKeyId"],
            "secret_key": assumed["SecretAccessKey"],
            "token": assumed["SessionToken"],
            "expiry_time": assumed["Expiration"].isoformat(),
        }

    async def _client(self, region: str, source: CredentialSource) -> Any:
        return await self.open_client(
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
        scrub = self.scrubber(account.name)
        for number in range(1, tries + 1):
            try:
                async with self.concurrency:
                    with signed_by(Signer(frozen)), anyio.fail_after(self.timeout):
                        return await call()
            except Exception as error:
                may_pass = answers.failure(error, scrub).verdict in {Verdict.RETRY, Verdict.THROTTLED}
                if number == tries or not may_pass:
                    raise
            await anyio.sleep(retry.backoff(number, self.rng))
        raise AssertionError("the last try returns or raises")
