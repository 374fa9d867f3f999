"""Rows that two names of one AWS account both list: both would make the snapshot."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from batch_snapshot.manifest.problems import KEPT
from batch_snapshot.models import Account, Row


class Place(NamedTuple):
    #: The number of its file, in the order of reading.
    file: int
    name: str
    #: 0: the file as a whole.
    line: int

    def __str__(self) -> str:
        """As messages begin."""
        return f"{self.name}:{self.line}" if self.line else self.name


class _Duplicate(NamedTuple):
    key: bytes
    place: Place
    row: Row


def accounts_by_role(accounts: Mapping[str, Account]) -> dict[str, str]:
    """The AWS accounts that several names mean, by those names, as far as the ARNs of their roles say."""
    numbers = {
        name: f"{account.number}{f' at {account.endpoint_url}' if account.endpoint_url else ''}"
        for name, account in accounts.items()
        if account.number
    }
    return shared(numbers)


def shared(accounts: Mapping[str, str]) -> dict[str, str]:
    """Those of the names whose AWS account has another name too, with that account."""
    names = Counter(accounts.values())
    return {name: one for name, one in accounts.items() if names[one] > 1}


class DuplicateRows:
    """Finds rows that two names of one AWS account both list; keeps 16 bytes for each that might be one."""

    def __init__(self, aws_accounts: Mapping[str, str], keep: int = KEPT) -> None:
        self.total = 0
        self.aws_accounts = aws_accounts
        self._keep = keep
        self._seen: set[bytes] = set()
        self._kept: list[_Duplicate] = []

    def add(self, row: Row, place: Place) -> None:
        key = self._key(row)
        if key is None:
            return
        if key not in self._seen:
            self._seen.add(key)
            return
        self.total += 1
        if len(self._kept) < self._keep:
            self._kept.append(_Duplicate(key, place, row))

    def problems(self, again: Iterable[tuple[Row, Place]]) -> Iterator[tuple[Place, str]]:
        """The first duplicates at their places; all rows are passed `again` to find what they repeat."""
        wanted = {duplicate.key for duplicate in self._kept}
        firsts: dict[bytes, tuple[Row, Place]] = {}
        for row, place in again if wanted else ():
            key = self._key(row)
            if key in wanted:
                firsts.setdefault(key, (row, place))
        for key, place, row in self._kept:
            if key in firsts:
                yield place, self._text(row, *firsts[key])

    def _text(self, row: Row, first: Row, place: Place) -> str:
        return (
            f"{row.engagement} {row.resource} is listed for account {first.account} too ({place}), and "
            f"{first.account} and {row.account} are one AWS account ({self.aws_accounts[row.account]}): "
            "remove it from one of them"
        )

    def _key(self, row: Row) -> bytes | None:
        account = self.aws_accounts.get(row.account)
        return None if account is None else row._replace(account=account).key
