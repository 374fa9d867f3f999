"""The rows that a job has left to send: of a manifest, or out of a ledger alone."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from batch_snapshot.errors import ManifestError
from batch_snapshot.jobs import identity_check, plan
from batch_snapshot.ledger import history, reader
from batch_snapshot.ledger.history import History
from batch_snapshot.manifest import Manifest, duplicates, rows
from batch_snapshot.manifest.problems import Place, ProblemLog
from batch_snapshot.models import Account, Request, Row, Status


class ManifestRows(NamedTuple):
    manifest: Manifest
    past: History
    run_id: str
    accounts: Mapping[str, Account]

    def requests(self) -> Iterator[Request | None]:
        return plan.resumed(_validated_rows(self.manifest), self.past, self.run_id, self.accounts)

    def candidates(self) -> Iterator[Row]:
        """The rows without any history among them."""
        return (one.row for one in self.requests() if one and one.row.key not in self.past.unfinished)

    def todo(self) -> Mapping[str, int]:
        """How many are to be sent, by account; another pass over the manifest only where it must be."""
        manifest, accounts, past = self.manifest, self.accounts, self.past
        done = {Status.SUCCEEDED, Status.FAILED}
        settled = sum(past.status(key) in done or past.is_skipped(key) for key in manifest.keys)
        if not settled:
            return {name: count for name, count in manifest.rows_by_account.items() if name in accounts}
        if len(manifest.accounts) == 1:
            return dict.fromkeys(accounts, manifest.rows - settled)
        return Counter(request.row.account for request in self.requests() if request)


class LedgerRows(NamedTuple):
    path: Path
    past: History
    chosen: plan.Selection
    run_id: str
    accounts: Mapping[str, Account]

    def requests(self) -> Iterator[Request | None]:
        pasts = history.unfinished_rows(reader.lines(self.path), self.past)
        since = self.past.unrecorded_since
        return plan.retried(pasts, self.chosen, self.run_id, self.accounts, since)

    def todo(self) -> tuple[Counter[str], frozenset[str]]:
        todo, catalogs = Counter[str](), set[str]()
        for request in self.requests():
            if request:
                todo[request.row.account] += 1
                catalogs.add(request.row.catalog)
        return todo, frozenset(catalogs)

    def doubled(self, same: Mapping[str, str]) -> list[str]:
        """Which of them are to be sent twice, where names stand for the `same` AWS accounts."""
        place = Place(0, str(self.path), 0)
        return duplicates.find(
            lambda: ((request.row, place) for request in self.requests() if request), same, ProblemLog()
        )


def renamed_rows(
    requests: Iterator[Request | None], past: History, accounts: Mapping[str, Account]
) -> dict[tuple[str, str], Row]:
    """By (another name, name): the first row to send under a name that the ledger has under the other.

    Accounts of another endpoint or with another AWS account number don't count. Of a row that the ledger has
    under both names, a failed state under the other name does not count: it made no snapshot.
    """
    settings = past.last.accounts if past.last else {}
    others = {
        name: [other for other in settings if other != name and _may_be_same_account(other, account, past)]
        for name, account in accounts.items()
    }
    found: dict[tuple[str, str], Row] = {}
    if not any(others.values()):
        return found
    for request in requests:
        if request is None:
            continue
        row = request.row
        known = row.key in past.unfinished
        for other in others[row.account]:
            key = row._replace(account=other).key
            status = past.status(key)
            if status and not (known and status is Status.FAILED):
                found.setdefault((other, row.account), row)
    return found


def _may_be_same_account(other: str, account: Account, past: History) -> bool:
    known: Mapping[str, Any] = past.last.accounts[other] if past.last else {}
    now = account.number or identity_check.account_number(past.signers.get(account.name))
    before = identity_check.account_number(past.signers.get(other))
    differ = before is not None and now is not None and before != now
    return known.get("endpoint_url") == account.endpoint_url and not differ


def _validated_rows(manifest: Manifest) -> Iterator[Row]:
    """The manifest's rows, and none that it did not list when it was validated."""
    for row in rows(manifest):
        if row.key not in manifest.keys:
            text = f"{manifest.path}: changed while the run read it: run the same command again"
            raise ManifestError([text])
        yield row
