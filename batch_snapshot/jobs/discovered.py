"""What a manifest's `discover:` found: kept next to the ledger, so that a resume sees the same rows."""

from batch_snapshot import paths
from batch_snapshot.discovery import output
from batch_snapshot.discovery.discover import run_search
from batch_snapshot.discovery.readers import Environment
from batch_snapshot.discovery.search import Search
from batch_snapshot.errors import LedgerError
from batch_snapshot.jobs.locked import LockedLedger
from batch_snapshot.manifest import Manifest, load


async def discover_pairs(locked: LockedLedger, environment: Environment) -> Manifest:
    """The manifest with what its `discover:` has found; the first run searches, before its first call."""
    manifest, targets, began = locked.manifest, locked.targets, locked.began
    warnings: list[str] = []
    if manifest.discover and not (began and began.discovered_sha256):
        filters = [one for one in manifest.discover if one.account in targets.accounts]
        with Search(None, filters, targets.endpoint, environment.now()) as search:
            report = await run_search(search, targets, locked.options, environment, jobs=False)
            warnings = report.warnings
            with output.replaced(paths.discovered_file(locked.path), mode=0o600) as file:
                file.writelines(output.by_line(search.pairs(), full=True))
    found = load_discovered(locked)
    found.warnings.extend(warnings)
    return found


def load_discovered(locked: LockedLedger) -> Manifest:
    """The manifest with what was found for its ledger, which must be as it was."""
    began = locked.began
    known = began.discovered_sha256 if began else None
    path = paths.discovered_file(locked.path)
    if not (known or (path.exists() and locked.manifest.discover)):
        return locked.manifest
    way_out = f"it holds rows of {locked.path}; put it back, or name another --ledger"
    if not path.exists():
        raise LedgerError(f"{path}: is missing: {way_out}")
    # A selection may be of tags: the first run line has the accounts that it meant then.
    searched = began.accounts if began and began.settings.get("accounts") else locked.targets.accounts
    wanted = {one.account for one in locked.manifest.discover} & set(locked.targets.accounts)
    if missed := sorted(wanted.difference(searched)):
        raise LedgerError(
            f"{locked.path}: was begun without account {missed[0]!r}, so the rows that discover: finds "
            "for it are not known; give the same --accounts, or name another --ledger"
        )
    manifest = load(locked.manifest.path, path)
    if known not in {None, manifest.found_sha256}:
        raise LedgerError(f"{path}: was changed: {way_out}")
    return manifest
