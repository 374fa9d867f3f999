"""The service as the rest of the house sees it: a call by account, and what its failure is.

Every call is one HTTP exchange: botocore's own retries are off, so that the pacer pays for each
try and the ledger sees it. One place turns whatever was raised into an `ApiError`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any, Self

import anyio
from botocore import xform_name
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as ClientConnectionError

from batch_snapshot import __version__
from batch_snapshot.aws import answers, fast_call, providers
from batch_snapshot.aws.credentials import Sessions, Signer, signed_by
from batch_snapshot.failures import error_codes, retry
from batch_snapshot.failures.advice import credentials_advice, role_advice
from batch_snapshot.models import LARGEST_SKEW, REGION, UNKNOWN_ACCOUNT, ApiError, ErrorKind, Request, Verdict
from batch_snapshot.operations import CREATES, NOT_FOUND, SERVICE, create_operation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from batch_snapshot.aws.fast_call import FastCall
    from batch_snapshot.aws.http import Transport
    from batch_snapshot.models import Account, Failure, Receipt, Row
    from batch_snapshot.operations import CreateOperation

#: How an account comes by its credentials, where it has a role.
ASSUME = "AssumeRole"

#: Seconds to connect, between two reads of an answer, and for a whole call with its credentials.
CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
CALL_TIMEOUT = 90

#: A clock this far off is left alone: AWS takes signatures within five minutes.
TOLERATED_SKEW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the calls go.

    Attributes:
        endpoint_url: instead of AWS's own, for all accounts.
        simulated: the endpoint takes any signature: no credentials are looked for.
        concurrency: calls in flight at most; the pool has room for as many connections.
        call_timeout: seconds for a whole call, and before it for whatever gives its credentials.
        plain: make every call as botocore would by itself, though it takes more than twice the time.
    """

    endpoint_url: str | None = None
    simulated: bool = False
    concurrency: int = 32
    call_timeout: float = CALL_TIMEOUT
    plain: bool = False


@dataclass(slots=True)
class _AccountClient:
    """What calls for an account, and its credentials (refreshed in place where they can be)."""

    client: Any
    credentials: Any
    #: By operation; an operation without one is called as botocore does.
    fast_calls: Mapping[str, FastCall] = field(default_factory=dict)
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
    """Calls by account; each signs for itself from its first call on, and all is closed with the block."""

    def __init__(
        self,
        accounts: Mapping[str, Account],
        target: Target,
        now: Callable[[], datetime],
        rng: Random | None = None,
        *,
        allowed: Callable[[], None] | None = None,
        creates: Sequence[CreateOperation] = CREATES,
    ) -> None:
        """Serve `accounts` at `target`.

        Args:
            accounts: by name; more may come.
            target: where the calls go.
            now: the wall clock the skew is measured against.
            rng: draws the jitter between two tries to get credentials; None: any.
            allowed: asked before a call is signed; what it raises is raised, and the call not made.
            creates: the operations that carry rows out, chosen by a row's resource type.
        """
        self._accounts = accounts
        self._target = target
        self._now = now
        self._allowed = allowed
        self._creates = creates
        self._sessions = Sessions(
            # What expires does so by AWS's clock.
            clock=lambda account: now() + self.skew(account),
            rng=rng or Random(),  # noqa: S311 - jitter is no secret
            timeout=target.call_timeout,
            simulated=target.simulated,
        )
        self._lines: dict[str, _AccountClient] = {}
        self._opening: dict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._fast_calls: dict[tuple[int, bool], dict[str, FastCall]] = {}
        self._learning = anyio.Lock()
        #: The AWS accounts that STS told.
        self._numbers: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        """Open nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every client that was opened."""
        with anyio.CancelScope(shield=True):
            await self._sessions.aclose()

    async def send(self, request: Request) -> Receipt:
        """Create the snapshot of `request` by one call under its token.

        Raises:
            ApiError: it failed; the failure says whether it may have been carried out.
        """
        account = request.row.account
        operation = create_operation(request.row, self._creates)
        answer = await self._call(account, operation.name, operation.create_parameters(request))
        return answers.receipt(operation, answer, self._scrub(account), request.row)

    async def look_up(self, request: Request) -> Receipt | None:
        """Find the snapshot that an earlier try under the request's token may have made.

        Only one created since that try counts, by the service's own clock.

        Raises:
            ApiError: the look-up itself failed.
        """
        account = request.row.account
        try:
            answer = await self._look_up(request.row)
        except ApiError as error:
            if error.failure.code == NOT_FOUND:
                return None
            raise
        scrub = self._scrub(account)
        receipt = answers.receipt(create_operation(request.row, self._creates), answer, scrub, request.row)
        created_at = answer.get("CreatedAt")
        if not isinstance(created_at, datetime) or request.first_sent_at is None:
            raise ApiError(answers.nonsense(answer, "the look-up's answer has no CreatedAt", scrub))
        first = retry.ClockReading(request.first_sent_at, request.clock_skew)
        ours = retry.created_after(created_at, first, self.clock_skew(account))
        if ours is None:
            raise ApiError(retry.CLOCKS_DISAGREE)
        return receipt if ours else None

    def clock_skew(self, account: str) -> float | None:
        """The service's clock less ours in seconds, as the account's last answer told; None: none has."""
        line = self._lines.get(account)
        return None if line is None or line.skew is None else line.skew.total_seconds()

    async def identify(self, account: str) -> str:
        """Name whose quotas the account spends (see `whose`), and see that it can sign.

        Raises:
            ApiError: there are no credentials to sign with.
        """
        await self._signing(account)
        return await self.whose(account)

    async def whose(self, account: str) -> str:
        """Name whose quotas the account spends: an AWS account, or elsewhere an endpoint and a key.

        A role's ARN tells it. Else only AWS itself is asked who we are, once; where it does not tell, the
        key that signs stands for it.

        Raises:
            ApiError: there are no credentials to sign with.
        """
        given = self._accounts[account]
        where = self._target.endpoint_url or given.endpoint_url
        if number := given.number or self._numbers.get(account):
            return f"{where or 'aws'}:{number}:{given.region or REGION}"
        line, signer = await self._signing(account)
        if where is None and (number := await self._sessions.number(given, line.credentials)):
            self._numbers[account] = number
            return f"aws:{number}:{given.region or REGION}"
        key = blake2b(signer.access_key.encode(), digest_size=8).hexdigest()
        return f"{where} key:{key}" if where else f"{UNKNOWN_ACCOUNT}{key}"

    async def probe(self, request: Request) -> None:
        """Make the cheapest read that these rights allow, to learn whether the account can call at all.

        Raises:
            ApiError: it cannot, or not read.
        """
        for last in (False, True):
            try:
                await self._look_up(request.row)
            except ApiError as error:
                if error.failure.code == NOT_FOUND:
                    return
                if last or not error_codes.is_clock_error(error.failure):
                    raise
            else:
                return

    async def read(self, account: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Make one read, such as ListOpportunities: one exchange, of a list one page.

        Raises:
            ApiError: it failed.
        """
        return await self._call(account, operation, parameters)

    def skew(self, account: str) -> timedelta:
        """The service's clock less ours, as its last answer told; none without one."""
        line = self._lines.get(account)
        return line.offset if line else timedelta()

    async def _look_up(self, row: Row) -> dict[str, Any]:
        operation = create_operation(row, self._creates)
        return await self._call(row.account, operation.look_up, operation.read_parameters(row))

    async def _call(self, account: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call; whatever goes wrong is an `ApiError`."""
        line, signer = await self._signing(account)
        if self._allowed is not None:
            self._allowed()
        signed_with = line.offset
        try:
            with anyio.fail_after(self._target.call_timeout):
                if fast := line.fast_calls.get(operation):
                    answer = await fast.call(parameters, signer, self._now() + line.correction)
                else:
                    at = self._now() + line.correction if line.correction else None
                    with signed_by(Signer(signer, at)):
                        answer = await getattr(line.client, xform_name(operation))(**parameters)
        except Exception as error:
            if isinstance(error, ClientError):
                line.skew = self._skew(error.response, line.skew)
            failure = answers.failure(error, self._scrub(account))
            if error_codes.is_clock_error(failure) and abs(line.offset - signed_with) > TOLERATED_SKEW:
                # Refused for its time alone, and now we know the service's: the next try is signed by it.
                failure = replace(failure, verdict=Verdict.RETRY, kind=ErrorKind.TRANSIENT)
            raise ApiError(self._advised(account, failure)) from error
        line.skew = self._skew(answer, line.skew)
        return answer

    async def _signing(self, account: str) -> tuple[_AccountClient, Any]:
        """Open the account's client if need be, and get the credentials to sign with, as they are now."""
        try:
            line = await self._line(account)
            return line, await self._sessions.frozen(account, line.credentials)
        except Exception as error:
            raise ApiError(await self._unsigned(account, error)) from error

    async def _unsigned(self, account: str, error: Exception) -> Failure:
        """Classify a failure to get credentials; what it says may quote them."""
        given = self._accounts[account]
        await self._sessions.learn_source(given)
        scrub = self._scrub(account)
        failure = error_codes.credentials_failure(answers.failure(error, scrub))
        if told := providers.explained(error):
            failure = replace(failure, message=error_codes.clean_text(scrub(told)))
        of_sts = isinstance(error, (ClientConnectionError, HTTPClientError)) or (
            isinstance(error, ClientError) and error.operation_name == ASSUME
        )
        if given.role_arn and of_sts:
            advice = role_advice(failure, given.role_arn, given.profile)
            return replace(failure, message=f"{failure.message.rstrip('.')}; {advice}")
        return self._advised(account, failure, providers.provider_of(error))

    def _scrub(self, account: str) -> Callable[[str], str]:
        return self._sessions.scrub(account)

    def _advised(self, account: str, failure: Failure, provider: str | None = None) -> Failure:
        """Add the way out where the account stops; it depends on the provider of the credentials."""
        if failure.verdict is not Verdict.STOP_ACCOUNT:
            return failure
        given = self._accounts[account]
        provider = provider or self._sessions.provider(given)
        advice = credentials_advice(failure.code, given.profile, provider)
        return replace(failure, message=f"{failure.message.rstrip('.')}; {advice}")

    def _skew(self, answer: Mapping[str, Any], known: timedelta | None) -> timedelta | None:
        """The service's clock less ours, as the answer's Date tells; without one, what was known."""
        try:
            date = _date(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        except (KeyError, TypeError, ValueError):
            return known
        skew = date - self._now()
        return skew if abs(skew.total_seconds()) < LARGEST_SKEW else known

    async def _line(self, account: str) -> _AccountClient:
        if line := self._lines.get(account):
            return line
        async with self._opening[account]:
            if account not in self._lines:
                self._lines[account] = await self._open(self._accounts[account])
        return self._lines[account]

    async def _open(self, account: Account) -> _AccountClient:
        target = self._target
        credentials = await self._sessions.credentials(account)
        client = await self._sessions.client(
            SERVICE,
            account.region or REGION,
            await self._sessions.source(account),
            endpoint_url=target.endpoint_url or account.endpoint_url,
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
        # Accounts share clients: an id keeps the handler from being called twice.
        client.meta.events.register(f"before-parse.{SERVICE}", fast_call.name_error, unique_id="name-error")
        line = _AccountClient(client, credentials)
        exchanges: Transport = client._endpoint.http_session  # noqa: SLF001 - it is ours
        if not (target.plain or exchanges.proxied):
            frozen = await self._sessions.frozen(account.name, credentials)
            line.fast_calls = await self._learned(client, exchanges, frozen)
        return line

    async def _learned(self, client: Any, exchanges: Transport, credentials: Any) -> Mapping[str, FastCall]:
        """The fast calls of a client: learned once for credentials with a token, and once without."""
        key = (id(client), bool(credentials.token))
        async with self._learning:
            if key not in self._fast_calls:
                self._fast_calls[key] = {}
                for operation in self._creates:
                    example = operation.create_parameters(Request(operation.example, "token"))
                    with signed_by(Signer(credentials)):
                        call = await fast_call.learn(
                            client, operation.name, exchanges.exchange, example, credentials
                        )
                    if call is not None:
                        self._fast_calls[key][operation.name] = call
        return self._fast_calls[key]


@lru_cache(maxsize=1)
def _date(text: str) -> datetime:
    """Read a Date header; it changes once a second.

    Raises:
        ValueError: it is no date.
    """
    date = parsedate_to_datetime(text)
    return date.replace(tzinfo=date.tzinfo or UTC)
