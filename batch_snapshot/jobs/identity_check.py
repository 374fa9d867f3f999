"""Which AWS account signs for each account of a ledger, and whether it is the same as before."""

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

from batch_snapshot.engine import reader
from batch_snapshot.engine.account import AccountState
from batch_snapshot.engine.limits import AccountLimits
from batch_snapshot.errors import InputError, ManifestError
from batch_snapshot.manifest.duplicates import shared
from batch_snapshot.models import AWS, SIMULATOR, ApiError, ErrorKind, Failure, Verdict
from batch_snapshot.text import plural

if TYPE_CHECKING:
    from batch_snapshot.jobs.job import Job  # imports this

#: Names the AWS account whose quotas an account uses; raises `ApiError`.
Identify = Callable[[str], Awaitable[str]]

#: Accounts that the warning before the first call names.
NAMED_ACCOUNTS = 5

#: Before the number of an AWS account.
AWS_PREFIX = "aws:"


def recorded_form(identity: str) -> str:
    """What a ledger records of an identity: the AWS account's number, or a hash of the access key's id."""
    if identity.startswith(AWS_PREFIX):
        return ":".join(identity.split(":")[:2])
    return identity.rpartition(" ")[2]


def refusal(account: str, before: str | None, now: str) -> str | None:
    """Why a ledger cannot be resumed under the signer `now`; None: it can."""
    if not before or before == now or not (before.startswith(AWS_PREFIX) and now.startswith(AWS_PREFIX)):
        return None
    was, is_ = (text.removeprefix(AWS_PREFIX) for text in (before, now))
    return (
        f"account {account!r} was AWS account {was} until now, but these credentials belong to AWS account "
        f"{is_}: use the earlier ones (AWS_PROFILE, --profile), or start another ledger (run --ledger)"
    )


def warning(account: str, before: str | None, now: str) -> str | None:
    """A warning if another key signs than before: keys are renewed, but accounts can be confused."""
    if before is None or before == now or now.startswith(AWS_PREFIX):
        return None
    if before.startswith(AWS_PREFIX):
        return (
            f"account {account}: was AWS account {before.removeprefix(AWS_PREFIX)} until now; AWS did not "
            "say which account these credentials belong to"
        )
    return (
        f"account {account}: another access key signs than before: check that it belongs to the same AWS "
        "account"
    )


def may_be_same(before: str | None, now: str, *, alike: bool, simulated: bool = False) -> bool:
    """Whether the signers of two account names may be one AWS account; without proof against it, they may.

    `before` is None where the ledger does not say. `alike`: profile and role are the same. `simulated`: both
    sign with the simulator's key.
    """
    was, is_ = account_number(before), account_number(now)
    if was and is_:
        return was == is_
    if simulated:
        return alike
    if before and not was and not is_:
        return before == now or alike
    return True


def account_number(recorded: str | None) -> str | None:
    """The AWS account's number in what a ledger records, of AWS or another endpoint; None: it has none."""
    if not recorded or ":" not in recorded or recorded.startswith("key:"):
        return None
    if recorded.startswith(AWS_PREFIX):
        return recorded.removeprefix(AWS_PREFIX)
    return recorded.rsplit(":", 2)[-2]


async def check_accounts(job: "Job", identify: Identify, warn: Callable[[str], None] | None = None) -> None:
    """Refuse, before the first call, to send rows for another signer than before, or twice for one.

    A row is sent twice if two names of one AWS account list it, or if the ledger has it under another name of
    the account. For accounts that are not called now, the signer that the ledger names counts. Roles were
    compared when the manifest was validated; here AWS is asked, but only by runs that call AWS. `warn` gets
    one line on snapshots that cannot be undone.
    """
    signers, found = job.past.signers, dict[str, str]()
    others = {name: one for name, one in signers.items() if name not in job.accounts and _is_aws(one)}
    unknown = others or not all(account.number for account in job.accounts.values())
    compared = bool(job.endpoint == AWS and unknown and len(job.accounts) + len(others) > 1)
    asked = {*(name for name, signer in signers.items() if _is_aws(signer)), *(now for _, now in job.renamed)}

    async def find(name: str) -> None:
        # Credentials that cannot be had stop the account alone, when its first row is to be sent.
        with suppress(ApiError):
            found[name] = recorded_form(await identify(name))

    await reader.map_concurrently([name for name in job.accounts if compared or name in asked], find)
    for name, now in found.items():
        if why := _refusal(job, name, signers.get(name), now):
            raise InputError(f"{job.path}: {why}")
    known = {name: one.removeprefix(AWS_PREFIX) for name, one in (others | found).items() if _is_aws(one)}
    if compared and (same := shared(known)) and (problems := job.doubled(same)):
        raise ManifestError(list(problems))
    if warn and job.is_real:
        rows = {name: number for name, number in job.planned().items() if number}
        named = list(rows)[:NAMED_ACCOUNTS]
        await reader.map_concurrently([name for name in named if name not in found], find)
        numbers = {name: account_number(found.get(name)) for name in named}
        shown = [
            f"AWS account {number} ({name})" if number else f"account {name}"
            for name, number in numbers.items()
        ]
        if len(rows) > len(named):
            shown.append(plural(len(rows) - len(named), "other account"))
        catalogs = " and ".join(sorted(job.catalogs))
        warn(
            f"{plural(sum(rows.values()), 'row')} will be sent to catalog {catalogs} for "
            f"{', '.join(shown)}: snapshots cannot be undone, and they notify partners"
        )


def _is_aws(signer: str) -> bool:
    return signer.startswith(AWS_PREFIX)


def _refusal(job: "Job", name: str, before: str | None, now: str) -> str | None:
    """Why the account may not be called under the signer `now`: it is another one, or has rows twice."""
    if why := refusal(name, before, now):
        return why
    known = job.past.last.accounts if job.past.last else {}
    account = job.accounts[name]
    for (other, called), row in job.renamed.items():
        settings = known.get(other, {})
        alike = all(settings.get(key) == getattr(account, key) for key in ("role_arn", "profile"))
        signer, simulated = job.past.signers.get(other), job.endpoint == SIMULATOR
        if called == name and may_be_same(signer, now, alike=alike, simulated=simulated):
            ours = f"name the account {other!r} in the manifest as the ledger does"
            if job.header.command == "retry":
                ours = f"leave account {name!r} out with --accounts"
            return (
                f"{row.engagement}/{row.resource} is in it under account {other!r} and would be sent again "
                f"under {name!r}, which may sign for the same AWS account; {ours}, or "
                "start another ledger (run --ledger) if all snapshots are to be made again"
            )
    return None


async def identify_signer(
    job: "Job",
    signers: dict[str, str],
    limits: AccountLimits,
    identify: Identify,
    account: AccountState,
    *,
    accounts: Collection[AccountState] = (),
) -> None:
    """Find the AWS account that signs, put it in `signers` for the intents, and apply its quotas.

    Those of `accounts` that are this AWS account too share its pace, so the lowest rate holds for all.
    """
    found = await identify(account.name)
    before = signers.get(account.name) or job.past.signers.get(account.name)
    now = signers[account.name] = recorded_form(found)
    if why := _refusal(job, account.name, before, now):
        # The credentials could not be had at the start, and are another account's.
        raise ApiError(
            Failure(ErrorKind.DENIED, "AnotherAccount", why, Verdict.STOP_ACCOUNT, may_have_landed=False)
        )
    if text := warning(account.name, before, now):
        account.warnings.append(text)

    async def known(_: str) -> str:
        return found

    await limits.apply(account, known)
    same = limits.sharing(account, accounts)
    rates = [one.pacer.pace.declared or inf for one in same]
    for one, rate in zip(same, rates, strict=True):
        one.sharing = len(same)
        if rate > min(rates) * (1 + 1e-9):
            limits.declare_rate(one, min(rates))
    if same and max(rates) > min(rates) * (1 + 1e-9):
        account.warnings.append(
            f"accounts {', '.join(one.name for one in same)} are one AWS account with different rates "
            f"declared: together they keep to the lowest, {min(rates):g}/s"
        )
