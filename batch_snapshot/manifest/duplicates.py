"""Rows that two names of one AWS account both list: both would make the snapshot."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from batch_snapshot.manifest.problems import Place, ProblemLog
from batch_snapshot.models import Account, Row


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


def find(
    rows: Callable[[], Iterable[tuple[Row, Place]]], aws_accounts: Mapping[str, str], log: ProblemLog
) -> list[str]:
    """Add the rows to `log` that two names of one of the `aws_accounts` both list; returns its lines.

    Two keys a row are kept. Only if there are duplicates, the rows are read again for what these repeat.
    """
    listed, seen = set[bytes](), set[bytes]()
    again: list[tuple[bytes, Row, Place]] = []
    for key, row, place in _keyed(rows, aws_accounts):
        if row.key not in listed and key in seen:
            log.total += len(again) >= log.keep
            again += [(key, row, place)] if len(again) < log.keep else []
        listed.add(row.key)
        seen.add(key)
    firsts = {key: (row, place) for key, row, place in again}
    wanted = set(firsts)
    for key, row, place in _keyed(rows, aws_accounts if wanted else {}):
        if key in wanted:
            wanted.remove(key)
            firsts[key] = row, place
    for key, row, place in again:
        first, there = firsts[key]
        log.add(
            place,
            f"{row.engagement} {row.resource} is listed for account {first.account} too ({there}), and "
            f"{first.account} and {row.account} are one AWS account ({aws_accounts[row.account]}): "
            "remove it from one of them",
        )
    return log.lines()


def _keyed(
    rows: Callable[[], Iterable[tuple[Row, Place]]], aws_accounts: Mapping[str, str]
) -> Iterator[tuple[bytes, Row, Place]]:
    for row, place in rows() if aws_accounts else ():
        if account := aws_accounts.get(row.account):
            yield row._replace(account=account).key, row, place
