"""Which rows are sent, and under which tokens, by run, resume and retry: they differ in selection alone.

Pure: rows and history in, requests out.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from batch_snapshot.errors import InputError
from batch_snapshot.ledger.history import History, RowState
from batch_snapshot.models import CURABLE, ErrorKind, Request, Row, Status, client_token


@dataclass(frozen=True, slots=True)
class Selection:
    kinds: frozenset[ErrorKind] = CURABLE
    codes: frozenset[str] = frozenset()
    in_doubt: bool = True

    def takes(self, past: RowState) -> bool:
        if past.status is Status.IN_DOUBT and self.in_doubt:
            return True
        if past.status is None:
            return False
        return (past.kind or ErrorKind.UNKNOWN) in self.kinds or past.code in self.codes


def all_unfinished() -> Selection:
    return Selection(kinds=frozenset(ErrorKind))


def select(past: History, *, only: str | None, everything: bool) -> Selection:
    """The selection of `retry` by its flags."""
    if only is not None and everything:
        raise InputError("--only and --all cannot be used together: choose one")
    if everything:
        return all_unfinished()
    return Selection() if only is None else parse_only(only, (group.code for group in past.failures()))


def parse_only(words: str, known_codes: Iterable[str]) -> Selection:
    """`retry --only KIND|CODE|in_doubt,…`; a word that is no kind and not among `known_codes` is a typo."""
    kinds: set[ErrorKind] = set()
    codes: set[str] = set()
    in_doubt = False
    known = sorted(set(known_codes) - {""})
    for word in filter(None, (part.strip() for part in words.split(","))):
        if word == Status.IN_DOUBT:
            in_doubt = True
        elif word in set(ErrorKind):
            kinds.add(ErrorKind(word))
        elif word in known:
            codes.add(word)
        else:
            choices = ", ".join([Status.IN_DOUBT, *ErrorKind, *known])
            raise InputError(
                f"--only {word}: no such kind, and no row of this ledger has that code; there are: {choices}"
            )
    if not (kinds or codes or in_doubt):
        raise InputError("--only: name at least one kind or code, such as transient,quota")
    return Selection(frozenset(kinds), frozenset(codes), in_doubt)


def resumed(
    rows: Iterable[Row], history: History, run_id: str, accounts: Container[str] | None = None
) -> Iterator[Request | None]:
    """The requests of `run`: rows without a result or in doubt; None stands for a row that is not sent."""
    for row in rows:
        key, wanted = row.key, accounts is None or row.account in accounts
        past = history.unfinished.get(key)
        if key in history.succeeded or not wanted or history.is_skipped(key):
            yield None
        elif past is None:
            yield _first(row, client_token(run_id, row, 0), 0, history.unrecorded_since)
        elif past.status is None:
            yield _first(row, past.client_token, past.generation, history.unrecorded_since)
        else:
            yield None if past.status is Status.FAILED else _again(row, past)


def retried(
    pasts: Iterable[tuple[Row, RowState]],
    selection: Selection,
    run_id: str,
    accounts: Container[str] | None = None,
    unrecorded_since: datetime | None = None,
) -> Iterator[Request | None]:
    """The requests of `retry`, from the ledger alone; see `History.unrecorded_since`."""
    for row, past in pasts:
        if not selection.takes(past) or not (accounts is None or row.account in accounts):
            yield None
        elif past.ambiguous:
            yield _again(row, past)
        else:
            generation = past.generation + 1
            yield _first(row, client_token(run_id, row, generation), generation, unrecorded_since)


def _first(row: Row, token: str, generation: int, unrecorded_since: datetime | None) -> Request:
    """A row under a token of which no line says that it was sent; a lost line may have said so."""
    return Request(row, token, generation, unrecorded_since is not None, unrecorded_since)


def _again(row: Row, past: RowState) -> Request:
    token, sent = past.client_token, past.first_sent_at
    return Request(row, token, past.generation, past.ambiguous, sent, past.clock_skew, past.sent_again_at)


def limited(requests: Iterable[Request | None], limit: int | None) -> Iterator[Request | None]:
    """The same, up to the last of `limit` requests; None: all."""
    left = -1 if limit is None else limit
    for request in requests:
        yield request
        left -= request is not None
        if left == 0:
            return


def batches(requests: Iterable[Request | None], size: int, stride: int = 1024) -> Iterator[list[Request]]:
    """Lists of up to `size` requests, and at least one list for every `stride` rows looked at.

    Where many rows in a row are done, the lists are empty: other tasks get a turn.
    """
    batch: list[Request] = []
    seen = 0
    for request in requests:
        seen += 1
        if request is not None:
            batch.append(request)
        if len(batch) >= size or seen >= stride:
            yield batch
            batch, seen = [], 0
    if batch:
        yield batch
