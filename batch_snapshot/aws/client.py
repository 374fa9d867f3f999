"""Calls to the service by account, each one HTTP exchange, and what a failed call means.

botocore's own retries are off: every try takes a permit first, and the ledger records it. Whatever a call
raises becomes an `ApiError` here.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Any, Self

import anyio
from botocore import xform_name
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as ClientConnectionError
from botocore.model import ServiceModel

from batch_snapshot import __version__
from batch_snapshot.aws import answers, fast_call, http, providers, sdk
from batch_snapshot.aws.credentials import Sessions
from batch_snapshot.aws.fast_call import FastCall
from batch_snapshot.aws.http import Transport, transport_of
from batch_snapshot.aws.signing import Signer, signed_by
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import seconds_since_boot
from batch_snapshot.failures import error_codes, retry
from batch_snapshot.failures.advice import credentials_advice, role_advice
from batch_snapshot.models import (
    LARGEST_CONCURRENCY,
    LARGEST_SKEW,
    LONG_AGO,
    REGION,
    SIMULATOR,
    UNKNOWN_ACCOUNT,
    Account,
    ApiError,
    ErrorKind,
    Failure,
    Receipt,
    Request,
    Row,
    Verdict,
)
from batch_snapshot.operations import CREATES, NOT_FOUND, SERVICE, CreateOperation, create_operation

#: Seconds to connect, and between two reads of an answer.
CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60

#: AWS accepts signatures within five minutes: a clock that is off by less than this needs no correction.
TOLERATED_SKEW = timedelta(minutes=1)


@dataclass(slots=True)
class _AccountClient:
    """A client (accounts share it) and the credentials of one account, refreshed in place where possible."""

    client: Any
    credentials: Any
    #: By operation; an operation without one is called as botocore does.
    fast_calls: Mapping[str, FastCall] = field(default_factory=dict)
    #: The last answer's Date, and when it came, in steady seconds; None: there is none yet.
    dated: tuple[datetime, float] | None = None


class Clients:
    """Calls by account. An account's client is opened by its first call; all are closed with the block.

    Every method raises an `ApiError` where a call fails, or where there are no credentials to sign with.

    More `accounts` may be added. The skew is measured against the clock `now`, which may be set meanwhile, by
    steady seconds (`elapsed`). `rng` draws the jitter between two tries to get credentials. `allowed` is
    called before a call is signed: if it raises, the call is not made. `creates` are the operations that
    carry rows out, chosen by a row's resource type.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account],
        target: Target,
        now: Callable[[], datetime],
        rng: Random | None = None,
        *,
        allowed: Callable[[], None] | None = None,
        creates: Sequence[CreateOperation] = CREATES,
        elapsed: Callable[[], float] = seconds_since_boot,
    ) -> None:
        self._accounts = accounts
        self._target = target
        self._now = now
        self._elapsed = elapsed
        self._allowed = allowed
        self._creates = creates
        self._sessions = Sessions(
            # Credentials expire by AWS's clock.
            clock=lambda account: now() + timedelta(seconds=self.clock_skew(account) or 0),
            rng=rng or Random(),  # noqa: S311 - jitter is no secret
            timeout=target.call_timeout,
            simulated=target.simulated,
        )
        self._clients: dict[str, _AccountClient] = {}
        self._opening: dict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._fast_calls: dict[tuple[int, bool], Mapping[str, FastCall]] = {}
        self._learning = anyio.Lock()
        #: Numbers of AWS accounts, as STS answered.
        self._numbers: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._sessions.aclose()

    async def send(self, request: Request) -> Receipt:
        account = request.row.account
        operation = create_operation(request.row, self._creates)
        answer = await self.read(account, operation.name, operation.create_parameters(request))
        return answers.receipt(operation, answer, self._sessions.scrubber(account), request.row)

    async def look_up(self, request: Request) -> Receipt | None:
        """Find what an earlier try under the request's token may have made.

        Only what was created since that try counts, by the service's own clock.
        """
        account = request.row.account
        try:
            answer = await self._look_up(request.row)
        except ApiError as error:
            if error.failure.code == NOT_FOUND:
                return None
            raise
        scrub = self._sessions.scrubber(account)
        receipt = answers.receipt(create_operation(request.row, self._creates), answer, scrub, request.row)
        created_at = answer.get("CreatedAt")
        if not isinstance(created_at, datetime) or request.first_sent_at is None:
            raise ApiError(answers.invalid_response(answer, "the look-up's answer has no CreatedAt", scrub))
        first = retry.ClockReading(request.first_sent_at, request.clock_skew)
        ours = retry.created_after(created_at, first, self.clock_skew(account))
        if ours is None and request.sent_again_at:
            # An older one may be of the first try or of another run, but a later one is this row's.
            again = retry.ClockReading(request.sent_again_at, request.clock_skew)
            ours = retry.created_after(created_at, again, self.clock_skew(account)) or None
        if ours is None:
            lost = request.first_sent_at == LONG_AGO
            raise ApiError(retry.FIRST_TRY_LOST if lost else retry.CLOCKS_DISAGREE)
        return receipt if ours else None

    def clock_skew(self, account: str) -> float | None:
        """The service's clock less ours in seconds, by the account's last answer; None: there is none yet."""
        client = self._clients.get(account)
        return self._skew(client).total_seconds() if client and client.dated else None

    def _skew(self, client: _AccountClient) -> timedelta:
        """The service's clock less ours, which may have been set since the last answer; 0: not known yet."""
        if client.dated is None:
            return timedelta()
        date, came = client.dated
        return date + timedelta(seconds=self._elapsed() - came) - self._now()

    async def identify(self, account: str) -> str:
        """Name whose quotas the account spends (see `quota_owner`), and check that it can sign."""
        await self._signing(account)
        return await self.quota_owner(account)

    async def check_identity(self, account: str, expected: str) -> None:
        """Refuse to sign for another AWS account than the one whose quotas are counted elsewhere."""
        found = await self.identify(account)
        unknown = any(one.startswith(UNKNOWN_ACCOUNT) for one in (found, expected))
        if found != expected and not unknown:
            why = f"a worker signs for {found}, not for {expected}: give all workers the same credentials"
            stop = ErrorKind.DENIED, "WorkerIdentity", why, Verdict.STOP_ACCOUNT
            raise ApiError(Failure(*stop, may_have_landed=False))

    async def quota_owner(self, account: str) -> str:
        """Name whose quotas the account spends: an AWS account, or elsewhere an endpoint and a key.

        The number is that of the role's ARN. Without a role STS is asked once, and only for calls to AWS
        itself; where it does not answer, the key that signs stands for the account.
        """
        settings = self._accounts[account]
        # A simulator has another port each time.
        endpoint = SIMULATOR if self._target.simulated else self._target.endpoint_url or settings.endpoint_url
        region = settings.region or REGION
        if number := settings.number or self._numbers.get(account):
            return f"{endpoint or 'aws'}:{number}:{region}"
        client, signer = await self._signing(account)
        if endpoint is None and (number := await self._sessions.account_number(settings, client.credentials)):
            self._numbers[account] = number
            return f"aws:{number}:{region}"
        key = blake2b(signer.access_key.encode(), digest_size=8).hexdigest()
        return f"{endpoint} key:{key}" if endpoint else f"{UNKNOWN_ACCOUNT}{key}"

    async def probe(self, request: Request) -> None:
        """Make the cheapest read that these rights allow, to learn whether the account can call at all."""
        try:
            await self._look_up(request.row)
        except ApiError as error:
            if error.failure.code != NOT_FOUND:
                raise

    async def _look_up(self, row: Row) -> dict[str, Any]:
        operation = create_operation(row, self._creates)
        return await self.read(row.account, operation.look_up, operation.read_parameters(row))

    async def read(self, account: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call, such as ListOpportunities: one exchange, of a list one page."""
        client, credentials = await self._signing(account)
        if self._allowed is not None:
            self._allowed()
        skew_before = self._skew(client)
        # Nothing is added to our clock to sign while the service accepts it as it is.
        at = self._now() + skew_before if abs(skew_before) > TOLERATED_SKEW else None
        try:
            async with asyncio.timeout(self._target.call_timeout):
                if fast := client.fast_calls.get(operation):
                    answer = await fast.call(parameters, credentials, at or self._now())
                else:
                    with signed_by(Signer(credentials, at)):
                        answer = await getattr(client.client, xform_name(operation))(**parameters)
        except Exception as error:
            if isinstance(error, ClientError):
                self._note_date(client, error.response)
            failure = answers.failure(error, self._sessions.scrubber(account))
            learned = abs(self._skew(client) - skew_before)
            if error_codes.is_clock_error(failure) and learned > TOLERATED_SKEW:
                # The service's time is known only now: the next try is signed by it.
                failure = replace(failure, verdict=Verdict.RETRY, kind=ErrorKind.TRANSIENT)
            raise ApiError(self._with_advice(account, failure)) from error
        self._note_date(client, answer)
        return answer

    async def _signing(self, account: str) -> tuple[_AccountClient, Any]:
        """The account's client, opened if need be, and its frozen credentials of this moment."""
        try:
            client = self._clients.get(account) or await self._account_client(account)
            return client, await self._sessions.frozen(account, client.credentials)
        except Exception as error:
            raise ApiError(await self._credentials_failure(account, error)) from error

    async def _credentials_failure(self, account: str, error: Exception) -> Failure:
        """Classify a failure to get credentials; its text may quote them."""
        settings = self._accounts[account]
        await self._sessions.learn_source_secrets(settings)
        scrub = self._sessions.scrubber(account)
        failure = error_codes.credentials_failure(answers.failure(error, scrub))
        if explanation := providers.explained(error):
            failure = replace(failure, message=error_codes.clean_text(scrub(explanation)))
        by_sts = isinstance(error, (ClientConnectionError, HTTPClientError)) or (
            isinstance(error, ClientError) and error.operation_name == "AssumeRole"
        )
        if settings.role_arn and by_sts:
            return _with_hint(failure, role_advice(failure, settings.role_arn, settings.profile))
        return self._with_advice(account, failure, providers.provider_of(error))

    def _with_advice(self, account: str, failure: Failure, provider: str | None = None) -> Failure:
        if failure.verdict is not Verdict.STOP_ACCOUNT:
            return failure
        settings = self._accounts[account]
        provider = provider or self._sessions.provider(settings)
        return _with_hint(failure, credentials_advice(failure.code, settings.profile, provider))

    def _note_date(self, client: _AccountClient, answer: Mapping[str, Any]) -> None:
        with suppress(KeyError, TypeError, ValueError):
            date = _date(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
            if abs(date - self._now()).total_seconds() < LARGEST_SKEW:
                client.dated = date, self._elapsed()

    async def _account_client(self, account: str) -> _AccountClient:
        async with self._opening[account]:
            if account not in self._clients:
                self._clients[account] = await self._open(self._accounts[account])
        return self._clients[account]

    async def _open(self, account: Account) -> _AccountClient:
        target = self._target
        credentials = await self._sessions.credentials(account)
        client = await self._sessions.client(
            SERVICE,
            account.region or REGION,
            await self._sessions.source(account),
            endpoint_url=target.endpoint_url or account.endpoint_url,
            # One exchange a call: every try takes a permit, and is recorded.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            # `control` can raise the limit of calls in flight, which the engine keeps.
            max_pool_connections=max(target.concurrency, LARGEST_CONCURRENCY),
            user_agent_extra=f"batch-snapshot/{__version__}",
            # The ledger records where the calls went: nothing else may redirect them.
            ignore_configured_endpoint_urls=True,
            # A simulator runs on this machine: no proxy of the environment applies.
            proxies={} if target.simulated else None,
        )
        # Accounts share clients: with an id the handler is registered once.
        client.meta.events.register(f"before-parse.{SERVICE}", fast_call.name_error, unique_id="name-error")
        opened = _AccountClient(client, credentials)
        transport = transport_of(client)
        if not (target.plain or transport.proxied):
            frozen = await self._sessions.frozen(account.name, credentials)
            opened.fast_calls = await self._learned(client, transport, frozen)
        return opened

    async def _learned(self, client: Any, transport: Transport, credentials: Any) -> Mapping[str, FastCall]:
        """The fast calls of a client: learned once for credentials with a token, and once without."""
        key = (id(client), bool(credentials.token))
        async with self._learning:
            if key not in self._fast_calls:
                exchange, learned = transport.exchange, {}
                for one in self._creates:
                    example = one.create_parameters(Request(one.example, "token"))
                    with signed_by(Signer(credentials)):
                        call = await fast_call.learn(client, one.name, exchange, example, credentials)
                    if call:
                        learned[one.name] = call
                    else:
                        sdk.degraded(f"fast way to call {one.name}", "calls take more processor time")
                self._fast_calls[key] = learned
        return self._fast_calls[key]


def _with_hint(failure: Failure, hint: str) -> Failure:
    return replace(failure, message=f"{failure.message.rstrip('.')}; {hint}")


@lru_cache(maxsize=1)
def _date(text: str) -> datetime:
    """Read a Date header; it changes once a second."""
    date = parsedate_to_datetime(text)
    return date.replace(tzinfo=date.tzinfo or UTC)


def inputs(operation: str) -> dict[str, tuple[str, ...]]:
    """The parameters that the SDK knows of an operation, and the values of their enums; empty: none."""
    loader = http.new_session().get_component("data_loader")
    model = ServiceModel(loader.load_service_model(SERVICE, "service-2"), SERVICE)
    known = operation in model.operation_names
    members = model.operation_model(operation).input_shape.members if known else {}
    return {name: tuple(getattr(getattr(one, "member", one), "enum", ())) for name, one in members.items()}
