"""Who signs for a ledger's accounts, and whether that is who signed before."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from batch_snapshot.engine import reader
from batch_snapshot.errors import InputError, ManifestError
from batch_snapshot.jobs import signer
from batch_snapshot.manifest.duplicates import shared
from batch_snapshot.models import AWS, SIMULATOR, ApiError, ErrorKind, Failure, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batch_snapshot.engine.account import AccountState
    from batch_snapshot.engine.limits import AccountLimits
    from batch_snapshot.jobs.job import Job

    #: Says whose quotas an account uses; raises `ApiError`.
    Identify = Callable[[str], Awaitable[str]]


async def check_accounts(job: Job, identify: Identify) -> None:
    await check_signers(job, identify)
    await check_duplicates(job, identify)
    await check_renamed(job, identify)


async def check_signers(job: Job, identify: Identify) -> None:
    """Refuse to resume a ledger for another AWS account."""

    async def check(name: str) -> None:
        before = job.past.signers.get(name)
        if before is None or not before.startswith(signer.AWS_PREFIX):
            return
        # Credentials that cannot be had stop the account alone, when its first row is to be sent.
        with suppress(ApiError):
            if why := signer.refusal(name, before, signer.recorded_form(await identify(name))):
                raise InputError(f"{job.path}: {why}")

    await reader.map_concurrently(job.accounts, check)


async def check_duplicates(job: Job, identify: Identify) -> None:
    """Refuse two names for one AWS account under which the same row is listed: it would get two snapshots.

    Accounts that are not called this time count as whom the ledger has for them. Roles were compared when
    the manifest was validated; here AWS is asked, where it is called at all.
    """
    numbers: dict[str, str] = {
        name: before.removeprefix(signer.AWS_PREFIX)
        for name, before in job.past.signers.items()
        if name not in job.accounts and before.startswith(signer.AWS_PREFIX)
    }
    if job.endpoint != AWS or (not numbers and all(account.number for account in job.accounts.values())):
        return

    async def check(name: str) -> None:
        with suppress(ApiError):
            found = signer.recorded_form(await identify(name))
            if found.startswith(signer.AWS_PREFIX):
                numbers[name] = found.removeprefix(signer.AWS_PREFIX)

    if len(job.accounts) + len(numbers) > 1:
        await reader.map_concurrently(job.accounts, check)
    if (same := shared(numbers)) and (problems := job.doubled(same)):
        raise ManifestError(list(problems))


async def check_renamed(job: Job, identify: Identify) -> None:
    """Refuse to send rows again that were sent under another name of the same AWS account."""

    async def check(name: str) -> None:
        # Credentials that cannot be had stop the account alone, and `identify_signer` checks again.
        with suppress(ApiError):
            if why := _renamed_refusal(job, name, signer.recorded_form(await identify(name))):
                raise InputError(f"{job.path}: {why}")

    await reader.map_concurrently(sorted({now for _, now in job.renamed}), check)


def _renamed_refusal(job: Job, name: str, now: str) -> str | None:
    known = job.past.last.accounts if job.past.last else {}
    account = job.accounts[name]
    for (other, called), row in job.renamed.items():
        if called != name:
            continue
        settings = known.get(other, {})
        alike = all(settings.get(key) == getattr(account, key) for key in ("role_arn", "profile"))
        before = job.past.signers.get(other)
        if signer.may_be_same(before, now, alike=alike, simulated=job.endpoint == SIMULATOR):
            return signer.renamed_refusal(
                f"{row.engagement}/{row.resource}", other, name, command=job.command
            )
    return None


async def identify_signer(
    job: Job, signers: dict[str, str], limits: AccountLimits, identify: Identify, account: AccountState
) -> None:
    """Find out who signs, put it in `signers` for the intents, and apply that AWS account's quotas."""
    found = await identify(account.name)
    before = signers.get(account.name) or job.past.signers.get(account.name)
    now = signers[account.name] = signer.recorded_form(found)
    if why := signer.refusal(account.name, before, now) or _renamed_refusal(job, account.name, now):
        # The credentials could not be had at the start, and are another account's.
        raise ApiError(
            Failure(ErrorKind.DENIED, "AnotherAccount", why, Verdict.STOP_ACCOUNT, may_have_landed=False)
        )
    if warning := signer.warning(account.name, before, now):
        account.warnings.append(warning)

    async def known(_: str) -> str:
        return found

    await limits.apply(account, known)
