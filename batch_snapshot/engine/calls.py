"""What every call of an account goes through: its turn, its permit, and what its answer says.

Before the first write of an account its AWS account is identified, and each catalog gets one cheap read.
An answer may slow the pace down, pause the account, or trip its breaker. A look-up finds out whether an
earlier try made the snapshot.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace

import anyio

from batch_snapshot.config.options import Settings
from batch_snapshot.engine.account import Abandoned, AccountState, StopKind
from batch_snapshot.engine.attempts import Attempts
from batch_snapshot.engine.limits import ConcurrencyLimit
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.engine.seams import Seams
from batch_snapshot.errors import StorageError
from batch_snapshot.failures import retry
from batch_snapshot.failures.breakers import UNREACHABLE, Pause
from batch_snapshot.failures.error_codes import is_clock_error
from batch_snapshot.models import ApiError, ErrorKind, Failure, Receipt, Request, Verdict
from batch_snapshot.ratelimit.pacer import Pacer, Permit, Reserved, WindowFullError

_NO_WAIT = nullcontext()


@dataclass(eq=False)
class LookUpRefusedError(Exception):
    """The snapshot cannot be looked up, so sending again might make a second one."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Calls:
    """The rules for the calls of all accounts of a run.

    Whatever waits raises `Abandoned` if the run or the account stops, perhaps because a window is spent.
    """

    run: RunState
    concurrency: ConcurrencyLimit
    settings: Settings
    seams: Seams

    def turn(self, account: AccountState) -> AbstractAsyncContextManager[None]:
        """Make a call inside: at once, or while the account pauses, as the next probe."""
        return _NO_WAIT if account.pause is None else self._probe_turn(account)

    @asynccontextmanager
    async def _probe_turn(self, account: AccountState) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            with account.interruptible():
                await stack.enter_async_context(account.probe_turn)
                await account.until_next_probe()
            if account.pause is None:
                await stack.aclose()
            yield

    async def permit(self, account: AccountState, pacer: Pacer) -> Permit:
        """Wait for a permit of one of the account's pacers; while the run is paused there is none."""
        while True:
            if self.run.paused:
                await self.run.until_resumed(account)
            permit = await self._permit(account, pacer)
            if not self.run.paused:
                return permit
            permit.never_left()
            permit.give_back()

    async def _permit(self, account: AccountState, pacer: Pacer) -> Permit:
        permit = None
        account.check_halted()
        try:
            if (permit := pacer.acquire_nowait()) is None:
                with account.interruptible():
                    permit = await pacer.acquire()
        except (WindowFullError, StorageError) as error:
            raise self._stop_refused(account, pacer, error) from None
        except Abandoned:
            if permit is not None:
                permit.give_back()
            raise
        return permit

    async def reserve(self, account: AccountState, pacer: Pacer, wanted: int) -> Reserved | None:
        """Reserve calls for another machine to make; None: the account has no windows."""
        reserved = None
        try:
            with account.interruptible():
                reserved = await pacer.reserve(wanted)
        except (WindowFullError, StorageError) as error:
            raise self._stop_refused(account, pacer, error) from None
        except Abandoned:
            pacer.settle(reserved)
            raise
        return reserved

    def _stop_refused(
        self, account: AccountState, pacer: Pacer, error: WindowFullError | StorageError
    ) -> Abandoned:
        """Stop the account or the run, as no window lets a call leave."""
        if isinstance(error, WindowFullError):
            self.run.stop_account(account.name, account.window_spent(pacer, error.spent, self.seams.now()))
        else:
            self.run.stop_uncounted(error)
        return Abandoned()

    async def begin(self, pacer: Pacer, permit: Permit) -> bool:
        """Begin a call as soon as fewer than the most calls are in flight; then give its place back.

        False: the run was paused meanwhile, so no call begins, and the permit is not used.

        There is a wait only with more accounts than calls in flight, where each account has one worker, or
        after the limit was lowered. The longest waiter is next. The wait is added to the pace, which counts
        from when a call leaves.
        """
        if not self.concurrency.take_nowait():
            await self.concurrency.take()
            if self.run.paused:
                self.concurrency.give_back()
                permit.never_left()
                return False
            leaves = pacer.now()
            pacer.change(lambda pace: pace.late(leaves))
        return True

    async def read(
        self, account: AccountState, read: Callable[[], Awaitable[Receipt | None]]
    ) -> Receipt | Failure | None:
        """Make one read under a permit; returns its result, or why it failed."""
        async with self.turn(account):
            while True:
                with await self.permit(account, account.read_pacer) as permit:
                    if not await self.begin(account.read_pacer, permit):
                        continue
                    permit.used()
                    try:
                        found = await read()
                    except ApiError as error:
                        self.failed(account, permit, error.failure)
                        return error.failure
                    finally:
                        self.concurrency.give_back()
                    self.answered(account, permit)
                    return found

    def answered(self, account: AccountState, permit: Permit) -> None:
        """Note a success: the rate was not too high, and the service can be reached."""
        permit.answered()
        self._reached(account)

    def failed(self, account: AccountState, permit: Permit, failure: Failure) -> None:
        """Note what a failed call says about the pace and about the way to the service."""
        if failure.verdict is Verdict.THROTTLED:
            permit.throttled(failure.retry_after)
        elif failure.never_left:
            permit.never_left()
        elif not failure.may_have_landed and failure.http_status is not None:
            permit.answered()
        if not failure.never_left:
            self._reached(account)
        elif failure.unreachable and not account.halted:
            self._pause(account, UNREACHABLE, failure.message, permit.sent_at)

    def _reached(self, account: AccountState) -> None:
        if account.pause is not None and account.pause.key == UNREACHABLE:
            account.end_pause()

    def _pause(self, account: AccountState, key: str, what: str, sent_at: float) -> None:
        """Let the account make no call but probes; if they fail for too long, defer it."""
        now = anyio.current_time()
        if account.pause is None:
            account.pause = Pause.begin(key, what, now, self.settings.pause)
        elif sent_at < account.pause.next_at:
            return  # the call left before the pause began, so it is no probe
        elif now < account.pause.ends:
            account.pause = account.pause.after_probe(what, now)
        else:
            stop = account.pause_failed(replace(account.pause, what=what), now)
            self.run.stop_account(account.name, stop)

    def stop_if_starved(self, account: AccountState) -> None:
        """Defer an account whose calls were only throttled for too long at the lowest rate."""
        if account.pacer.starved(self.settings.patience):
            waited = f"nothing but throttles for {self.settings.patience:g} s at the lowest rate"
            stop = account.stopped(
                StopKind.DEFERRED, f"{waited}: its quota is spent; run the same command later"
            )
            self.run.stop_account(account.name, stop)

    def stop_signing(self, account: AccountState, failure: Failure) -> None:
        stop = account.stopped(StopKind.STOPPED, f"{failure.code}: {failure.message}")
        self.run.stop_account(account.name, stop)

    def row_succeeded(self, account: AccountState) -> None:
        """Reset the breaker, and end a pause."""
        account.breaker = account.breaker.after_success()
        account.end_pause()

    def row_failed(self, account: AccountState, failure: Failure) -> None:
        """Count a row that failed or is in doubt; too many of one kind pause or stop the account."""
        breaker = account.breaker = account.breaker.after(failure)
        pattern = breaker.pattern
        if account.pause is not None and account.pause.key != pattern.key:
            account.end_pause()
        if not breaker.tripped:
            return
        if pattern.passes:
            self._pause(account, pattern.key, breaker.reason, anyio.current_time())
        else:
            self.run.stop_account(account.name, account.stopped(StopKind.STOPPED, breaker.reason))

    # -- look-ups of rows in doubt -------------------------------------------------------------------

    def clock_reading(self, account: AccountState) -> retry.ClockReading:
        """Our clock now, and the skew of the service's."""
        return retry.ClockReading(self.seams.now(), self.seams.clock_skew(account.name))

    def look_up_due(self, account: AccountState, attempts: Attempts) -> bool:
        """Whether the service may have forgotten the token of an ambiguous try."""
        return attempts.request.ambiguous and retry.may_be_forgotten(
            attempts.known_since, self.clock_reading(account), self.settings.token_ttl
        )

    async def find(self, account: AccountState, attempts: Attempts) -> Receipt | None:
        """Find the snapshot of an earlier try; None: there is none, send under the same token.

        `ApiError`: another try of the row may cure it. `LookUpRefusedError`: the look-up is not possible, and
        rows in doubt are not to be sent again.
        """
        while True:
            # Reads may not show yet what was sent last. A clock that was set back adds nothing.
            lag, waited = self.settings.read_lag, (self.seams.now() - attempts.last_sent_at).total_seconds()
            with account.interruptible():
                await anyio.sleep(min(lag, max(0.0, lag - waited)))
            failure = await self.read(account, lambda: self.seams.look_up(attempts.request))
            if not isinstance(failure, Failure):
                attempts.known_since = None
                return failure
            if failure.unreachable:
                continue
            if failure.verdict is Verdict.THROTTLED:
                if account.read_pacer.starved(self.settings.patience):
                    raise LookUpRefusedError(failure)
                continue
            if failure.verdict is not Verdict.REFUSED:
                raise ApiError(failure)
            if not self.settings.resend_in_doubt:
                raise LookUpRefusedError(failure)
            attempts.known_since = None
            return None

    async def find_after(self, account: AccountState, attempts: Attempts, failure: Failure) -> Receipt | None:
        """Find the snapshot of an earlier, ambiguous try: a conflict suggests that it landed."""
        if not (attempts.request.ambiguous and failure.kind is ErrorKind.CONFLICT):
            return None
        try:
            return await self.find(account, attempts)
        except (ApiError, LookUpRefusedError):
            return None

    # -- before the first write ----------------------------------------------------------------------

    async def ready(self, account: AccountState, request: Request) -> bool:
        """Whether the account can call. It comes before the intent, which records the clock skew."""
        try:
            await self.check(account, request)
        except Abandoned:
            return False
        except ApiError as error:
            if error.failure.verdict is Verdict.STOP_ACCOUNT:
                self.stop_signing(account, error.failure)
                return False
        return True

    async def check(self, account: AccountState, request: Request) -> None:
        """Identify the account, and make one read in the catalog of `request`, each once.

        An account that cannot sign, or cannot be identified now, raises `ApiError`.
        """
        catalog = request.row.catalog
        if catalog in account.read_catalogs:
            return
        async with account.first_read:
            account.check_halted()
            if not account.identified:
                await self._identify(account)
            if catalog not in account.read_catalogs:
                await self._first_read(account, request)

    async def _identify(self, account: AccountState) -> None:
        try:
            # A prompt for an MFA code, or a slow STS, must not outlast a stop.
            with account.interruptible():
                await self.seams.identify(account)
        except StorageError as error:
            self.run.stop_uncounted(error)
            raise Abandoned from None
        account.identified = True

    async def _first_read(self, account: AccountState, request: Request) -> None:
        corrected = False
        while isinstance(failure := await self.read(account, lambda: self.seams.probe(request)), Failure):
            if not failure.unreachable:
                if corrected or not is_clock_error(failure):
                    break
                # The answer says what the service's time is: the next try is signed by it.
                corrected = True
        if isinstance(failure, Failure):
            if failure.verdict is Verdict.STOP_ACCOUNT:
                raise ApiError(failure)
            account.warnings.append(
                f"account {account.name}, catalog {request.row.catalog}: a first read failed "
                f"({failure.code}: {failure.message}); rows in doubt may stay in doubt"
            )
        account.read_catalogs.add(request.row.catalog)
