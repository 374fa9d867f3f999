"""What comes before the first write of an account: whose it is, and one cheap read in each catalog."""

from dataclasses import dataclass

from batch_snapshot.engine.account import Abandoned, AccountState
from batch_snapshot.engine.calls import Calls
from batch_snapshot.engine.run_state import RunState
from batch_snapshot.engine.seams import Seams
from batch_snapshot.errors import StorageError
from batch_snapshot.models import ApiError, Failure, Request, Verdict


@dataclass(frozen=True, slots=True)
class Preflight:
    run: RunState
    calls: Calls
    seams: Seams

    async def ready(self, account: AccountState, request: Request) -> bool:
        """Whether the account can call. It comes before the intent, which records the clock skew."""
        try:
            await self.check(account, request)
        except Abandoned:
            return False
        except ApiError as error:
            if error.failure.verdict is Verdict.STOP_ACCOUNT:
                self.calls.stop_signing(account, error.failure)
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
        while True:
            failure = await self.calls.read(account, lambda: self.seams.probe(request))
            if not (isinstance(failure, Failure) and failure.unreachable):
                break
        if isinstance(failure, Failure):
            if failure.verdict is Verdict.STOP_ACCOUNT:
                raise ApiError(failure)
            account.warnings.append(
                f"account {account.name}, catalog {request.row.catalog}: a first read failed "
                f"({failure.code}: {failure.message}); rows in doubt may stay in doubt"
            )
        account.read_catalogs.add(request.row.catalog)
