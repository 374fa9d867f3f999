"""Ledgers made up for what reads them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from batch_snapshot.ledger import records
from batch_snapshot.ledger.records import End, Header
from batch_snapshot.models import ErrorKind, Outcome, Request, Row, RowError, Status, client_token
from tests.support import rewriting

RUN_ID = "night-1"
BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row(number: int, account: str = "main", **more: str) -> Row:
    """A row, and another one for each number."""
    fields = {
        "account": account,
        "catalog": "Sandbox",
        "engagement": f"eng-{number:014d}",
        "resource_type": "Opportunity",
        "resource": f"O{number}",
        "template": "OpportunitySummaryView",
    }
    return Row(**{**fields, **more})


@dataclass
class LedgerBuilder:
    """A ledger as one run writes it."""

    rows: int = 0
    manifest: str | None = None
    name: str = "nightly"
    began: datetime = BEGAN
    lines: list[bytes] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def begin(self, command: str = "run", at: float = 0.0, **more: Any) -> "LedgerBuilder":
        fields: dict[str, Any] = {
            "run_id": RUN_ID,
            "command": command,
            "name": self.name,
            "manifest": self.manifest,
            "manifest_sha256": None,
            "rows": self.rows,
            "accounts": {},
            "endpoint": "aws",
            "started_at": self.began + timedelta(seconds=at),
            "settings": {},
        }
        self.lines.append(records.encode_run(Header(**{**fields, **more}), "1"))
        return self

    def intend(self, *rows: Row, at: float = 0.0, skew: float | None = None) -> "LedgerBuilder":
        requests = [Request(each, client_token(RUN_ID, each, 0)) for each in rows]
        self.lines.append(records.encode_intent(self.began + timedelta(seconds=at), requests, skew))
        return self

    def result(
        self,
        row: Row,
        status: Status = Status.SUCCEEDED,
        *,
        at: float = 1.0,
        took: float = 0.1,
        kind: ErrorKind = ErrorKind.DENIED,
        code: str = "AccessDeniedException",
        message: str = "not authorized",
        **more: Any,
    ) -> "LedgerBuilder":
        done = status is Status.SUCCEEDED
        finished = self.began + timedelta(seconds=at)
        arn = (
            f"arn:aws:partnercentral:us-east-1::catalog/{row.catalog}/engagement/{row.engagement}/resource/"
            f"{row.resource_type}/{row.resource}/template/{row.template}/snapshot/1"
        )
        fields: dict[str, Any] = {
            "request": Request(row, client_token(RUN_ID, row, 0)),
            "status": status,
            "attempts": 1,
            "throttles": 0,
            "ambiguous": status is Status.IN_DOUBT,
            "first_sent_at": finished - timedelta(seconds=took),
            "started_at": finished - timedelta(seconds=took),
            "finished_at": finished,
            "arn": arn if done else None,
            "revision": 1 if done else None,
            "request_id": f"request-{row.resource}",
            "error": None if done else RowError(kind, code, message, None, 400),
        }
        self.lines.append(records.encode_result(RUN_ID, Outcome(**{**fields, **more})))
        return self

    def end(self, outcome: str = "completed", at: float = 10.0) -> "LedgerBuilder":
        self.lines.append(
            records.encode_end(RUN_ID, End(outcome, self.counts, self.began + timedelta(seconds=at)))
        )
        return self

    def write(self, path: Path) -> Path:
        rewriting.write(path, b"".join(self.lines))
        return path
