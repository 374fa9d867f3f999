"""Look-ups of rows in doubt: did an earlier try make the snapshot?"""

from dataclasses import dataclass
from functools import partial

import anyio

from batch_snapshot.config.options import Settings
from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.attempts import Attempts
from batch_snapshot.engine.calls import Calls
from batch_snapshot.engine.seams import Seams
from batch_snapshot.failures import retry
from batch_snapshot.models import ApiError, ErrorKind, Failure, Receipt, Verdict


class LookUpRefusedError(Exception):
    """The snapshot cannot be looked up, so sending again might make a second one."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class LookUps:
    """Decides when a look-up comes before a try, and makes it."""

    calls: Calls
    seams: Seams
    settings: Settings

    def clock_reading(self, account: AccountState) -> retry.ClockReading:
        """Our clock now, and the skew of the service's."""
        return retry.ClockReading(self.seams.now(), self.seams.clock_skew(account.name))

    def due(self, account: AccountState, attempts: Attempts) -> bool:
        """Whether the service may have forgotten the token of an ambiguous try."""
        return attempts.request.ambiguous and retry.may_be_forgotten(
            attempts.known_since, self.clock_reading(account), self.settings.token_ttl
        )

    async def find(self, account: AccountState, attempts: Attempts) -> Receipt | None:
        """Find the snapshot of an earlier try; None: there is none, send under the same token.

        Raises:
            ApiError: the read failed in a way that another try of the row may cure.
            LookUpRefusedError: the look-up is not possible, and rows in doubt are not to be sent again.
        """
        while True:
            # Reads may not show yet what was sent last. A clock that was set back adds nothing.
            lag, waited = self.settings.read_lag, (self.seams.now() - attempts.last_sent_at).total_seconds()
            with account.interruptible():
                await anyio.sleep(min(lag, max(0.0, lag - waited)))
            failure = await self.calls.read(account, partial(self.seams.look_up, attempts.request))
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
