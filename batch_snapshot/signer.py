"""Who signs for an account, as a ledger keeps it: no secret, and the same for as long as it matters. Pure."""

from __future__ import annotations

#: Before the number of an AWS account.
NUMBER = "aws:"


def of(identity: str) -> str:
    """What a ledger keeps of an identity: the AWS account's number, or a hash of the access key's id."""
    if identity.startswith(NUMBER):
        return ":".join(identity.split(":")[:2])
    return identity.rpartition(" ")[2]


def refusal(account: str, before: str | None, now: str) -> str | None:
    """Why a ledger cannot go on under who signs `now`; None: it can."""
    if before is None or before == now or not (before.startswith(NUMBER) and now.startswith(NUMBER)):
        return None
    was, is_ = (text.removeprefix(NUMBER) for text in (before, now))
    return (
        f"account {account!r} was AWS account {was} so far, and these credentials are of {is_}: sign as "
        "before (AWS_PROFILE, --profile), or name another ledger with --ledger"
    )


def warning(account: str, before: str | None, now: str) -> str | None:
    """What to tell where another key signs than before: keys are renewed, and accounts mistaken."""
    if before is None or before == now or now.startswith(NUMBER):
        return None
    if before.startswith(NUMBER):
        was = before.removeprefix(NUMBER)
        return (
            f"account {account}: was AWS account {was} so far; AWS did not tell whose these credentials are"
        )
    return f"account {account}: signed with another access key than before: see that it is the same account's"
