"""The only room that knows AWS: sessions and clients by account, and what their failures are.

Every call is one HTTP exchange: botocore's own retries are off, so that the pacer pays for each
try and the ledger sees it. One place turns whatever was raised into an `ApiError`.
"""

from __future__ import annotations

import math
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

import aioboto3
import anyio
from aiobotocore.config import AioConfig
from aiobotocore.credentials import (
    AioAssumeRoleCredentialFetcher,
    AioDeferredRefreshableCredentials,
)
from aiobotocore.session import get_session
from botocore.auth import AUTH_TYPE_MAPS, SIGV4_TIMESTAMP, SigV4Auth
from botocore.exceptions import ClientError, NoCredentialsError

from batch_snapshot import __version__, policy
from batch_snapshot.model import ApiError, ErrorKind, Failure, Receipt, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from batch_snapshot.model import Account, Request

SERVICE = "partnercentral-selling"

#: Only this region serves the API; botocore would build a URL for any.
REGION = "us-east-1"

#: Seconds to connect, between two reads of an answer, and for a whole call with its credentials.
CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
CALL_TIMEOUT = 90

#: A clock this far off is left alone: AWS takes signatures within five minutes.
TOLERATED_SKEW = timedelta(minutes=1)

#: The service's Date header has whole seconds, so a skew read from it is off by up to one.
SKEW_ERROR = timedelta(seconds=1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the calls go.

    Attributes:
        endpoint_url: instead of AWS's own, for all accounts.
        simulated: the endpoint takes any signature: no credentials are looked for.
        region: for accounts that name none.
        profile: for accounts that name neither profile nor role.
        concurrency: calls in flight at most; the pool has room for as many connections.
        call_timeout: seconds for a whole call, and for fetching its credentials before.
    """

    endpoint_url: str | None = None
    simulated: bool = False
    region: str | None = None
    profile: str | None = None
    concurrency: int = 32
    call_timeout: float = CALL_TIMEOUT


@dataclass(slots=True)
class _Line:
    """An account's open client, and its credentials (refreshed in place where they can be)."""

    client: Any
    credentials: Any
    #: The service's clock less ours, as the last answer told.
    skew: timedelta = timedelta()


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
        answer = await self._call(
            request.row.account,
            "create_resource_snapshot",
            ClientToken=request.client_token,
            **_names(request),
        )
        return _receipt(answer)

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
        receipt = _receipt(answer)
        created_at = answer.get("CreatedAt")
        if not isinstance(created_at, datetime) or request.first_sent_at is None:
            raise ApiError(_nonsense(answer, "the look-up's answer has no CreatedAt"))
        since = request.first_sent_at + self._lines[account].skew - SKEW_ERROR
        return receipt if created_at >= since else None

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

    async def _call(self, account: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Make one call; whatever goes wrong is an `ApiError`."""
        try:
            with anyio.fail_after(self._target.call_timeout):
                line = await self._line(account)
                signing = await line.credentials.get_frozen_credentials()
        except Exception as error:
            failure = policy.credentials_failure(_failure(error))
            raise ApiError(self._advised(account, failure, _environment_secrets())) from error
        signed_with = line.skew
        try:
            with anyio.fail_after(self._target.call_timeout):
                answer: dict[str, Any] = await getattr(line.client, operation)(**parameters)
        except Exception as error:
            failure = _failure(error)
            if isinstance(error, ClientError):
                line.skew = self._skew(error.response, line.skew)
            if policy.blames_clock(failure) and abs(line.skew - signed_with) > TOLERATED_SKEW:
                # Refused for its time alone, and now we know the service's: the next try is signed by it.
                failure = replace(failure, verdict=Verdict.RETRY, kind=ErrorKind.TRANSIENT)
            secrets = (signing.secret_key, signing.token)
            raise ApiError(self._advised(account, failure, secrets)) from error
        line.skew = self._skew(answer, line.skew)
        return answer

    def _advised(self, account: str, failure: Failure, secrets: tuple[str | None, ...]) -> Failure:
        """The failure as it may be told: no secrets, and the way out where the account stops."""
        failure = policy.scrubbed(failure, secrets)
        if failure.verdict is not Verdict.STOP_ACCOUNT:
            return failure
        profile = self._accounts[account].profile or self._target.profile
        advice = policy.credentials_advice(failure.code, profile)
        return replace(failure, message=f"{failure.message.rstrip('.')}; {advice}")

    def _skew(self, answer: Mapping[str, Any], known: timedelta) -> timedelta:
        """The service's clock less ours, as the answer's Date tells; without one, what was known."""
        try:
            date = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        except (KeyError, TypeError, ValueError):
            return known
        return date.replace(tzinfo=date.tzinfo or UTC) - self._now()

    async def _line(self, account: str) -> _Line:
        if line := self._lines.get(account):
            return line
        async with self._opening[account]:
            if account not in self._lines:
                self._lines[account] = await self._open(self._accounts[account])
        return self._lines[account]

    async def _open(self, account: Account) -> _Line:
        target = self._target
        session = _simulated_session(account) if target.simulated else await _session(account, target)
        credentials = await session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        config = AioConfig(
            # One exchange a call: tenacity and the ledger must see every try.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            max_pool_connections=target.concurrency,
            user_agent_extra=f"batch-snapshot/{__version__}",
        )
        client = session.client(
            SERVICE,
            region_name=account.region or target.region or REGION,
            endpoint_url=target.endpoint_url or account.endpoint_url,
            config=config,
        )
        line = _Line(await self._stack.enter_async_context(client), credentials)
        line.client.meta.events.register("choose-signer", partial(_choose_signer, line, self._now))
        return line


def _choose_signer(line: _Line, now: Callable[[], datetime], context: dict[str, Any], **_: Any) -> str | None:
    """Sign by the service's clock where ours is off; else as botocore would."""
    if abs(line.skew) <= TOLERATED_SKEW:
        return None
    context["signed_at"] = now() + line.skew
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


def _environment_secrets() -> tuple[str | None, ...]:
    return os.environ.get("AWS_SECRET_ACCESS_KEY"), os.environ.get("AWS_SESSION_TOKEN")


def _names(request: Request) -> dict[str, str]:
    row = request.row
    return {
        "Catalog": row.catalog,
        "EngagementIdentifier": row.engagement,
        "ResourceIdentifier": row.resource,
        "ResourceSnapshotTemplateIdentifier": row.template,
        "ResourceType": row.resource_type,
    }


def _simulated_session(account: Account) -> Any:
    """Credentials that no service but a simulator takes: a key of its own for each account."""
    key = "AKIASIM" + blake2b(account.name.encode(), digest_size=8).hexdigest().upper()
    return aioboto3.Session(aws_access_key_id=key, aws_secret_access_key=key)


async def _session(account: Account, target: Target) -> Any:
    """Sign as the account: its profile or the ambient credentials, and its role if it has one."""
    source: Any = aioboto3.Session(profile_name=account.profile or target.profile)
    if account.role_arn is None:
        return source
    credentials = await source.get_credentials()
    if credentials is None:
        raise NoCredentialsError

    def create_client(service: str, **keys: str) -> Any:
        return source.client(service, region_name=account.region or target.region or REGION, **keys)

    extra = {"ExternalId": account.external_id, "RoleSessionName": account.session_name or "batch-snapshot"}
    fetcher = AioAssumeRoleCredentialFetcher(
        create_client,
        credentials,
        account.role_arn,
        extra_args={key: value for key, value in extra.items() if value},
    )
    assumed = AioDeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method="assume-role")
    core = get_session()
    core.register_component("credential_provider", _Given(assumed))
    return aioboto3.Session(botocore_session=core)


class _Given:
    """A credential chain of one link."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    async def load_credentials(self) -> Any:
        return self._credentials


def _receipt(answer: Mapping[str, Any]) -> Receipt:
    """Read the snapshot out of a success; garbage looks like a success that names none."""
    arn, revision = answer.get("Arn"), answer.get("Revision")
    if not (isinstance(arn, str) and arn and isinstance(revision, int) and revision >= 1):
        raise ApiError(_nonsense(answer, "the answer says success but names no snapshot"))
    return Receipt(arn, revision, answer.get("ResponseMetadata", {}).get("RequestId"))


def _nonsense(answer: Mapping[str, Any], message: str) -> Failure:
    metadata = answer.get("ResponseMetadata", {})
    status, request_id = metadata.get("HTTPStatusCode"), metadata.get("RequestId")
    return policy.nonsense(message, http_status=status, request_id=request_id)


def _failure(error: Exception) -> Failure:
    """Turn whatever a call raised into a failure: the one place that does."""
    if isinstance(error, ClientError):
        return policy.service_failure(_answer(error.response))
    inner = getattr(error, "kwargs", {}).get("error")
    chain = [inner, error] if isinstance(inner, Exception) else [error]
    names = [cls.__name__ for cause in chain for cls in type(cause).__mro__]
    general = {"Exception", "BaseException", "object"}
    names = [name for name in names if name not in general] + ["Exception"]
    told = " ".join(str(cause) for cause in chain if str(cause))
    return policy.client_failure(names, told or names[0])


def _answer(response: Mapping[str, Any]) -> policy.Answer:
    error = response.get("Error", {})
    metadata = response.get("ResponseMetadata", {})
    message = str(error.get("Message") or response.get("Message") or "")
    details = [
        f"{item.get('FieldName', '?')}: {item.get('Message', '')} ({item.get('Code', '?')})"
        for item in response.get("ErrorList") or []
    ]
    return policy.Answer(
        code=str(error.get("Code") or "Unknown"),
        message="; ".join([message, *details]) if details else message,
        reason=response.get("Reason"),
        http_status=metadata.get("HTTPStatusCode"),
        request_id=metadata.get("RequestId"),
        retry_after=_retry_after(metadata.get("HTTPHeaders", {})),
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read the service's hint in seconds, if it gave one that can be read."""
    for name, unit in (("x-amz-retry-after", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None
