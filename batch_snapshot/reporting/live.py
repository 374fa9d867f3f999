"""What the live page tells of a ledger, read on as the ledger grows."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from batch_snapshot.clock import utc_now
from batch_snapshot.engine.limits import AccountForecast
from batch_snapshot.errors import BatchSnapshotError
from batch_snapshot.ledger.records import Header
from batch_snapshot.redaction import redacted
from batch_snapshot.reporting import html, page, report
from batch_snapshot.reporting.display import Frame
from batch_snapshot.reporting.status import LedgerWatch

#: The title of a page, and its parts as HTML by name.
View = tuple[str, dict[str, str]]


class LedgerView:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._watch = LedgerWatch(path)
        #: Rows of the manifest by account; empty: not known.
        self._rows: Mapping[str, int] = {}
        self._invocations = 0

    def read(self) -> View:
        try:
            found = self._path.stat().st_ino if self._path.exists() else None
            if found != self._file:
                self._watch, self._file, self._invocations = LedgerWatch(self._path), found, 0
            self._watch.refresh()
            if self._invocations != (number := len(self._watch.stats.invocations)):
                self._invocations, self._rows = number, _rows_of_accounts(self._watch.header)
            data = self._data()
            return page.title(data), page.sections(data, utc_now())
        except (BatchSnapshotError, OSError) as error:
            self._file = None
            return message(f"{self._path.name} cannot be read", str(error))

    def _data(self) -> report.ReportData:
        """What the page tells. Its messages are examples, and not counted."""
        watch, stats = self._watch, self._watch.stats
        summary = watch.summary()
        groups = {}
        for group, number in summary.failures.items():
            messages = [redacted(example.message) for example in summary.examples.get(group, ())]
            groups[group] = report.FailureMessages(number, messages=Counter(dict.fromkeys(messages, 0)))
        accounts = {
            name: Counter({status.value: number for status, number in rows.statuses.items()})
            for name, rows in stats.accounts.items()
        }
        for name, number in self._rows.items():
            states = accounts.setdefault(name, Counter())
            states["unattempted"] = max(0, number - states.total())
        left = {name: states["unattempted"] + states["in_doubt"] for name, states in accounts.items()}
        data = report.load_watched(self._path, watch, left)
        data.summary, data.groups, data.accounts = summary, groups, accounts
        if not watch.running:
            return data
        data.frame = _with_end(watch.frame(), data.forecasts if self._rows else {})
        changed = stats.invocations[-1].rates
        declared = page.allowed_rate(self._path, watch.header, changed)
        rate, why = _allowed_now(data.forecasts) or (declared or 0.0, "declared")
        if rate:
            # A pace may probe above the limit that it has learned.
            data.allowed_now = (max(rate, data.frame.rate) if "learned" in why else rate, why)
            if not changed:
                data.allowed = [*page.allowed_rates(data)[:-1], declared or rate]
        return data


def message(title: str, text: str) -> View:
    parts = dict.fromkeys(page.SECTIONS, "")
    return title, parts | {"header": html.template("message.html").render(title=title, text=redacted(text))}


def _rows_of_accounts(header: Header) -> Mapping[str, int]:
    """How many rows of each account the run has, by its manifest; empty: not known."""
    with suppress(BatchSnapshotError):
        rows = Counter(row.account for row in report.manifest_rows(header))
        return rows if rows.total() == header.rows and header.command == "run" else {}
    return {}


def _with_end(frame: Frame, forecasts: Mapping[str, AccountForecast]) -> Frame:
    """The frame with the time that is left, waits for quota windows included, as far as rates are known."""
    frame = replace(frame, last_error=redacted(frame.last_error or ""))
    if _allowed_now(forecasts) is None:
        return frame
    left = max(known.forecast.ends_in for known in forecasts.values())
    spent = any(opens for known in forecasts.values() for opens in known.opens_in)
    # In a pause the last minute's rate says nothing.
    return replace(frame, left=left if spent else max(left, frame.left or 0.0))


def _allowed_now(forecasts: Mapping[str, AccountForecast]) -> tuple[float, str] | None:
    """Calls a second of all accounts together, declared or learned; None: not known."""
    bases = {known.basis for known in forecasts.values()}
    if not bases or not bases <= {"declared", "learned"}:
        return None
    return sum(known.rate for known in forecasts.values()), " and ".join(sorted(bases))
