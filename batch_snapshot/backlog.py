"""The rows that a job has left to send: of a manifest, or out of a ledger alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from batch_snapshot import history, ledger, manifest, plan
from batch_snapshot.errors import ManifestError
from batch_snapshot.manifest.doubles import Doubles, Place
from batch_snapshot.model import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from batch_snapshot.history import History
    from batch_snapshot.manifest import Manifest
    from batch_snapshot.model import Account, Request, Row


class OfManifest(NamedTuple):
    """The rows of a manifest that their ledger does not settle."""

    listed: Manifest
    past: History
    run_id: str
    accounts: Mapping[str, Account]
    #: Those that are not done, where they are known.
    left: Sequence[Row] | None

    def requests(self) -> Iterator[Request | None]:
        """What is to be sent; see `plan.resumed`."""
        rows = _validated(self.listed) if self.left is None else self.left
        return plan.resumed(rows, self.past, self.run_id, self.accounts)

    def candidates(self) -> Iterator[Row]:
        """The rows without any history among them."""
        return (one.row for one in self.requests() if one and one.row.key not in self.past.unfinished)

    def todo(self) -> Mapping[str, int]:
        """How many are to be sent, by account; another pass over the manifest only where it must be."""
        listed, accounts, settled = self.listed, self.accounts, self._settled()
        if not settled:
            return {name: rows for name, rows in listed.rows_by_account.items() if name in accounts}
        if len(listed.accounts) == 1:
            return dict.fromkeys(accounts, listed.rows - settled)
        return by_account(counted(self.requests()))

    def _settled(self) -> int:
        """How many have nothing left to do."""
        if self.left is not None:
            return self.listed.rows - len(self.left)
        past, done = self.past, {Status.SUCCEEDED, Status.FAILED}
        return sum(past.status(key) in done or past.left_out(key) for key in self.listed.keys)


class OfLedger(NamedTuple):
    """The rows of a ledger that are to be tried again."""

    path: Path
    past: History
    chosen: plan.Selection
    run_id: str
    accounts: Mapping[str, Account]

    def requests(self) -> Iterator[Request | None]:
        """What is to be sent; see `plan.retried`."""
        rows = history.rows_of(ledger.read(self.path), self.past)
        since = self.past.unrecorded_since
        return plan.retried(rows, self.chosen, self.run_id, self.accounts, since)

    def doubled(self, same: Mapping[str, str]) -> list[str]:
        """Which of them are to be sent twice, where names stand for the `same` AWS accounts."""
        there = Place(0, str(self.path), 0)
        doubles = Doubles(same)
        for request in self.requests():
            if request:
                doubles.look(request.row, there)
        again = ((request.row, there) for request in self.requests() if request)
        return [f"{place}: {text}" for place, text in doubles.told(again)]


def counted(requests: Iterator[Request | None]) -> Counter[tuple[str, str]]:
    """The rows to send, by account and catalog."""
    return Counter((request.row.account, request.row.catalog) for request in requests if request)


def by_account(rows: Counter[tuple[str, str]]) -> Mapping[str, int]:
    """The same by account alone."""
    numbers: Counter[str] = Counter()
    for (account, _), number in rows.items():
        numbers[account] += number
    return numbers


def _validated(listed: Manifest) -> Iterator[Row]:
    """The manifest's rows, and none that it did not list when it was validated."""
    for row in manifest.rows(listed):
        if row.key not in listed.keys:
            raise ManifestError([f"{listed.path}: changed while the run read it: run the same command again"])
        yield row
