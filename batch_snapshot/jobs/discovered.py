"""What a manifest's `discover:` found: kept beside the ledger, so that a resume sees the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_snapshot import manifest, paths
from batch_snapshot.aws import profiles
from batch_snapshot.config import accounts
from batch_snapshot.discovery import discover, output
from batch_snapshot.discovery.search import Search
from batch_snapshot.errors import LedgerError

if TYPE_CHECKING:
    from batch_snapshot.config.options import Options
    from batch_snapshot.discovery.readers import Environment
    from batch_snapshot.jobs.job import LockedLedger
    from batch_snapshot.ledger.history import Header
    from batch_snapshot.manifest import Manifest


async def discover_pairs(held: LockedLedger, options: Options, around: Environment) -> Manifest:
    """The manifest with what its section `discover:` has found.

    That is looked for when the run begins, and kept beside the ledger from before its first call: a
    resume sees the same rows.

    Raises:
        LedgerError: what the ledger's rows came from is missing, or was changed.
        ServiceError: a list cannot be read.
        StorageError: what was found cannot be written.
    """
    listed = held.listed
    began = held.began
    path = paths.discovered_file(held.path)
    known = began.discovered_sha256 if began else None
    if not listed.discover and known is None:
        return listed
    if known is None:
        called = accounts.resolve_targets(listed.accounts, options, profiles.endpoints)
        chosen = [one for one in listed.discover if one.account in called.accounts]
        with Search(None, chosen, called.endpoint, around.now()) as found:
            await discover.ask(found, called, options, around, jobs=False)
            with output.replaced(path, mode=0o600) as file:
                file.writelines(output.by_line(found.found(), full=True))
    return load_discovered(held)


def load_discovered(held: LockedLedger) -> Manifest:
    """The manifest with what was found for its ledger, as far as that was looked for.

    Raises:
        LedgerError: what the ledger's rows came from is missing, or was changed.
    """
    began = held.began
    known = began.discovered_sha256 if began else None
    path = paths.discovered_file(held.path)
    if not (known or (path.exists() and held.listed.discover)):
        return held.listed
    if not path.exists():
        raise LedgerError(
            f"{path}: is missing: it holds rows of {held.path}; put it back, or name another --ledger"
        )
    if began:
        _check_searched(held, began)
    listed = manifest.load(held.listed.path, path)
    if known not in {None, listed.found_sha256}:
        raise LedgerError(
            f"{path}: was changed: it holds rows of {held.path}; put it back, or name another --ledger"
        )
    return listed


def _check_searched(held: LockedLedger, began: Header) -> None:
    """Refuse to go on for an account that was left out when the rows were looked for."""
    # A selection may be of tags: whom it meant then are those that the first run line has.
    searched = began.accounts if began.settings.get("accounts") else held.targets.accounts
    meant = {one.account for one in held.listed.discover} & set(held.targets.accounts)
    if missed := sorted(meant.difference(searched)):
        raise LedgerError(
            f"{held.path}: was begun without account {missed[0]!r}, whose rows discover: would have found; "
            "give the same --accounts, or name another --ledger"
        )
