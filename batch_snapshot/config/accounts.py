"""The accounts that a command calls for, the quotas that hold for them, and where the calls go."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from batch_snapshot.config.options import Options, with_recorded_quotas
from batch_snapshot.endpoints import IGNORE, check_credential_endpoints, environment_endpoint
from batch_snapshot.errors import InputError, LedgerError
from batch_snapshot.ledger import records
from batch_snapshot.ledger.records import Header
from batch_snapshot.models import AWS, SIMULATOR, Account, Quota
from batch_snapshot.text import plural

#: Takes names of profiles and an environment; returns the endpoint that each of these profiles names.
ProfileEndpoints = Callable[[Iterable[str | None], Mapping[str, str]], Mapping[str | None, str]]

#: Begins a tag in a list of account names.
TAG = "tag:"


class Targets(NamedTuple):
    accounts: Mapping[str, Account]
    #: By account: the quotas of this invocation.
    quotas: Mapping[str, Quota]
    endpoint: str

    @property
    def limited_accounts(self) -> dict[str, Account]:
        return {name: replace(one, quota=self.quotas[name]) for name, one in self.accounts.items()}


def resolve_targets(
    accounts: Mapping[str, Account],
    options: Options,
    profile_endpoints: ProfileEndpoints,
    endpoint: str | None = None,
) -> Targets:
    """The accounts to call for, and where; `endpoint` holds where the options name none.

    The options fill the profile and region that an account leaves open.
    """
    if options.simulator_state and not options.simulate:
        raise InputError("--state is for the simulator: add --simulate")
    if not options.simulate:
        check_credential_endpoints(os.environ)
    chosen = {name: accounts[name] for name in _selected_names(accounts, options.accounts)}
    if options.profile and all(account.profile for account in chosen.values()):
        raise InputError(f"--profile {options.profile}: every account already names a profile: leave it out")
    for name, one in chosen.items():
        chosen[name] = replace(
            one, profile=one.profile or options.profile, region=one.region or options.region
        )
    if endpoint is None or options.simulate or options.endpoint_url:
        endpoint = endpoint_of(options, chosen, profile_endpoints)
    return Targets(chosen, effective_quotas(chosen, options), endpoint)


def endpoint_of(
    options: Options, accounts: Mapping[str, Account], profile_endpoints: ProfileEndpoints
) -> str:
    """Where the calls go by the options, the environment and the profiles of the accounts."""
    if options.simulate and options.endpoint_url:
        raise InputError("--simulate and --endpoint-url cannot be used together: choose one")
    if options.simulate:
        return SIMULATOR
    # What botocore would use is used here, so that the ledger says where the calls went.
    url = options.endpoint_url or environment_endpoint(os.environ)
    known = [] if url else accounts.values()
    by_profile = profile_endpoints((account.profile for account in known), os.environ)
    if by_profile and not all(account.endpoint_url for account in known):
        wanted = {one.name: one.endpoint_url or by_profile.get(one.profile) for one in known}
        if len(set(wanted.values())) > 1:
            urls = ", ".join(f"{name}: {one or 'the one of AWS'}" for name, one in list(wanted.items())[:5])
            raise InputError(
                f"the profiles name different endpoints ({urls}): name one with --endpoint-url, run the "
                f"accounts apart with --accounts, or set {IGNORE}=true and name endpoint_url at the "
                "manifest's accounts"
            )
        url = next(iter(wanted.values()))
    return url.rstrip("/") if url else AWS


def _selected_names(accounts: Mapping[str, Account], words: Sequence[str]) -> Iterable[str]:
    """The names that these words (names and tags) select: each once; without a word all."""
    names: dict[str, None] = {}
    for word in words or accounts:
        found = [word] if word in accounts else []
        if word.startswith(TAG):
            found = [one.name for one in accounts.values() if word.removeprefix(TAG) in one.tags]
        elif not found:
            raise InputError(f"--accounts {word}: no such account; there are: {', '.join(accounts)}")
        if not found:
            tags = sorted({tag for one in accounts.values() for tag in one.tags})
            known = f"this tag; there are: {', '.join(tags)}" if tags else "a tag"
            raise InputError(f"--accounts {word}: no account has {known}")
        names |= dict.fromkeys(found)
    return names


def effective_quotas(accounts: Mapping[str, Account], options: Options) -> dict[str, Quota]:
    given: dict[str, Any] = {}
    if (daily := options.daily_quota) is not None:
        given["per_day"] = daily
        for account in accounts.values():
            if daily <= (reserve := account.quota.reserve):
                raise InputError(
                    f"--daily-quota {daily}: account {account.name!r} reserves {plural(reserve, 'call')} for "
                    "others, which leaves nothing: give a larger number"
                )
    if options.rate is not None:
        given["per_second"] = None if isinstance(options.rate, str) else options.rate
    return {name: replace(account.quota, **given) for name, account in accounts.items()}


def accounts_with_quotas(
    path: Path, header: Header, rates: Mapping[str, float] | None = None
) -> dict[str, Account]:
    """The accounts of an invocation with their quotas; `rates` by account replace those it began with."""
    accounts = recorded_accounts(path, header)
    settings = {"rate": None, "daily_quota": None, **header.settings}
    quotas = effective_quotas(accounts, with_recorded_quotas(path, Options(), settings))
    for name, rate in (rates or {}).items():
        if name in quotas:
            quotas[name] = replace(quotas[name], per_second=rate)
    return Targets(accounts, quotas, header.endpoint).limited_accounts


def recorded_accounts(path: Path, header: Header) -> dict[str, Account]:
    try:
        return {name: records.decode_account(name, fields) for name, fields in header.accounts.items()}
    except (TypeError, ValueError) as error:
        raise LedgerError(
            f"{path}: the run line has invalid accounts ({error}): restore it from a backup"
        ) from None
