"""Manifests and ledgers of any size, written as a stream."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from uuid import UUID

from batch_snapshot.ledger import records
from batch_snapshot.ledger.records import End, Header
from batch_snapshot.models import Account, Outcome, Request, Row, Status, client_token
from tests.support.processes import TEMPLATE, write_manifest

NAME = "bench"

_ACCOUNT = Account("default")
_RUN_ID = str(UUID(int=0))
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

#: Rows of an intent, as a run of one account writes them.
_INTENT = 64


def manifest(path: Path, rows: int, accounts: int = 0) -> Path:
    """Write a manifest of so many pairs, each with an engagement of its own.

    With `accounts`, they are of so many accounts, each account's in one stretch.
    """
    names = [f"account-{n:04d}" for n in range(accounts)]
    write_manifest(path, (), name=NAME, accounts={name: {} for name in names})
    with path.open("a", encoding="utf-8") as file:
        file.writelines(
            f"- {{engagement: eng-{n:014d}, resource: O{n + 1}"
            f"{f', account: {names[n * accounts // rows]}' if names else ''}}}\n"
            for n in range(rows)
        )
    return path


def ledger(path: Path, rows: int, *, left: int = 0, endpoint: str = "aws") -> Path:
    """Write the ledger of a run that was interrupted when so many rows of `manifest` had succeeded."""
    header = Header(
        run_id=_RUN_ID,
        command="run",
        name=NAME,
        manifest=str(path.with_suffix(".yaml")),
        manifest_sha256=None,
        rows=rows + left,
        accounts={_ACCOUNT.name: records.encode_account(_ACCOUNT)},
        endpoint=endpoint,
        started_at=_BEGAN,
        settings={},
    )
    counts = {"succeeded": rows, "failed": 0, "in_doubt": 0, "unattempted": left}
    made = outcomes(rows)
    with path.open("wb") as file:
        file.write(records.encode_run(header, "0"))
        while batch := [*islice(made, _INTENT)]:
            file.write(records.encode_intent(batch[0].started_at, [outcome.request for outcome in batch]))
            file.writelines(records.encode_result(_RUN_ID, outcome) for outcome in batch)
        end = "interrupted" if left else "completed"
        file.write(records.encode_end(_RUN_ID, End(end, counts, _BEGAN)))
    return path


def outcomes(rows: int) -> Iterator[Outcome]:
    """The successes of the first rows of `manifest`, ten milliseconds apart."""
    for number in range(rows):
        engagement, resource = f"eng-{number:014d}", f"O{number + 1}"
        row = Row(_ACCOUNT.name, "Sandbox", engagement, "Opportunity", resource, TEMPLATE)
        sent = _BEGAN + timedelta(milliseconds=10 * number)
        yield Outcome(
            request=Request(row, client_token(_RUN_ID, row, 0)),
            status=Status.SUCCEEDED,
            attempts=1,
            throttles=0,
            ambiguous=False,
            first_sent_at=sent,
            started_at=sent,
            finished_at=sent + timedelta(milliseconds=80),
            arn=f"arn:aws:partnercentral:us-east-1::catalog/Sandbox/engagement/{engagement}"
            f"/resource/Opportunity/{resource}/template/{TEMPLATE}/snapshot/1",
            revision=1,
            request_id=str(UUID(int=number)),
        )
