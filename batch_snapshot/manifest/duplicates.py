"""Rows that two names of one AWS account both list: each would make the snapshot."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from batch_snapshot.manifest.problems import KEPT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from batch_snapshot.models import Account, Row


class Place(NamedTuple):
    """Where a row stands."""

    #: The number of its file, in the order of reading.
    file: int
    name: str
    #: 0: the file as a whole.
    line: int

    def __str__(self) -> str:
        """As messages begin."""
        return f"{self.name}:{self.line}" if self.line else self.name


class _Double(NamedTuple):
    key: bytes
    place: Place
    row: Row


def by_roles(accounts: Mapping[str, Account]) -> dict[str, str]:
    """The AWS accounts that several names stand for, by those names, as far as their roles tell."""
    whose = {
        name: f"{account.number}{f' at {account.endpoint_url}' if account.endpoint_url else ''}"
        for name, account in accounts.items()
        if account.number
    }
    return shared(whose)


def shared(whose: Mapping[str, str]) -> dict[str, str]:
    """Those of the names, with what they stand for, that are not alone with it."""
    names = Counter(whose.values())
    return {name: one for name, one in whose.items() if names[one] > 1}


class DuplicateRows:
    """Looks at every row once; 16 bytes stand for each that might have a double."""

    def __init__(self, same: Mapping[str, str]) -> None:
        """Take the AWS accounts that several names stand for, by those names."""
        self.total = 0
        self.same = same
        self._seen: set[bytes] = set()
        self._kept: list[_Double] = []

    def look(self, row: Row, place: Place) -> None:
        """Look at a row; none may be shown twice."""
        key = self._key(row)
        if key is None:
            return
        if key not in self._seen:
            self._seen.add(key)
            return
        self.total += 1
        if len(self._kept) < KEPT:
            self._kept.append(_Double(key, place, row))

    def told(self, again: Iterable[tuple[Row, Place]]) -> Iterator[tuple[Place, str]]:
        """Tell of the first doubles, at their places; the rows are passed once more to find their firsts."""
        wanted = {double.key for double in self._kept}
        firsts: dict[bytes, tuple[Row, Place]] = {}
        for row, place in again if wanted else ():
            key = self._key(row)
            if key in wanted:
                firsts.setdefault(key, (row, place))
        for key, place, row in self._kept:
            if key in firsts:
                yield place, self._text(row, *firsts[key])

    def _text(self, row: Row, first: Row, there: Place) -> str:
        return (
            f"{row.engagement} {row.resource} is listed for account {first.account} too ({there}), and "
            f"{first.account} and {row.account} are one AWS account ({self.same[row.account]}): remove it "
            "from one of them"
        )

    def _key(self, row: Row) -> bytes | None:
        whose = self.same.get(row.account)
        return None if whose is None else row._replace(account=whose).key
