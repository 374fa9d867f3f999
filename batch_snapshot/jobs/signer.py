"""Who signs for an account, as its ledger records it: an AWS account, or a hash of an access key. Pure."""

from __future__ import annotations

#: Before the number of an AWS account.
AWS_PREFIX = "aws:"


def recorded_form(identity: str) -> str:
    """What a ledger records of an identity: the AWS account's number, or a hash of the access key's id."""
    if identity.startswith(AWS_PREFIX):
        return ":".join(identity.split(":")[:2])
    return identity.rpartition(" ")[2]


def refusal(account: str, before: str | None, now: str) -> str | None:
    """Why a ledger cannot be resumed under the signer `now`; None: it can."""
    if before is None or before == now or not (before.startswith(AWS_PREFIX) and now.startswith(AWS_PREFIX)):
        return None
    was, is_ = (text.removeprefix(AWS_PREFIX) for text in (before, now))
    return (
        f"account {account!r} was AWS account {was} so far, and these credentials are of {is_}: sign as "
        "before (AWS_PROFILE, --profile), or name another ledger with --ledger"
    )


def warning(account: str, before: str | None, now: str) -> str | None:
    """A warning if another key signs than before: keys are renewed, but accounts can be confused."""
    if before is None or before == now or now.startswith(AWS_PREFIX):
        return None
    if before.startswith(AWS_PREFIX):
        was = before.removeprefix(AWS_PREFIX)
        return f"account {account}: was AWS account {was} so far; AWS did not say whose these credentials are"
    return f"account {account}: signed with another access key than before: see that it is the same account's"


def may_be_same(before: str | None, now: str, *, alike: bool, simulated: bool = False) -> bool:
    """Whether two account names may sign for the same AWS account; without proof that they don't, they may.

    Args:
        before: who signed under the one name; None: the ledger does not say.
        now: who signs under the other.
        alike: whether profile and role are the same.
        simulated: both sign with the simulator's key.
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


def renamed_refusal(row: str, other: str, name: str, *, command: str) -> str:
    ours = (
        f"leave account {name!r} out with --accounts"
        if command == "retry"
        else f"name the account {other!r} in the manifest as the ledger does"
    )
    return (
        f"{row} is in it under account {other!r} and would be sent again under {name!r}, which signs for "
        f"the same AWS account as far as can be told; {ours}, or name another ledger with --ledger if all "
        "snapshots are to be made again"
    )
